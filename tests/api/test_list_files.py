"""Every list as a CSV and an XLSX file: the same rows, order and fields as its JSON, and one audit entry."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Callable, Iterator
from datetime import date, datetime
from typing import Any
from urllib.parse import urlencode

import pytest
from python_calamine import CalamineWorkbook
from sqlalchemy import func, select, update
from werkzeug.test import TestResponse

import config
from api import list_files
from api.docs.registry import RegisteredEndpoint, registered_endpoints
from enums import Role
from models import AuditLog, User
from security.permissions import TABLE, hidden
from tests.support.clinic import Clinic
from tests.support.furnished import Rows, furnish

XLSX = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
Table = list[list[Any]]
PLAIN_OBJECTS = ("payload", "mapping")  # members without a schema: their names are data


def sheet_of(response: TestResponse) -> Table:
    """Return the first sheet of a response."""
    assert response.status_code == 200, response.get_data(as_text=True)
    workbook = CalamineWorkbook.from_filelike(io.BytesIO(response.get_data()))
    return workbook.get_sheet_by_index(0).to_python()


def lines_of(response: TestResponse) -> list[list[str]]:
    """Return the lines of a CSV response."""
    assert response.status_code == 200, response.get_data(as_text=True)
    text = response.get_data().decode()
    assert text.startswith("\ufeff")
    return list(csv.reader(io.StringIO(text[1:], newline="")))


def lists(clinic: Clinic) -> Iterator[RegisteredEndpoint]:
    for endpoint in registered_endpoints(clinic.app):
        if endpoint.spec.list_spec is not None:
            yield endpoint


def path_of(endpoint: RegisteredEndpoint, rows: Rows) -> str:
    names = endpoint.path_ids
    return endpoint.path.format(**dict(zip(names, rows[names][0], strict=True))) if names else endpoint.path


def members_of(endpoint: RegisteredEndpoint, response: TestResponse) -> list[dict[str, Any]]:
    body = response.get_json()
    assert endpoint.spec.list_spec is not None
    rows: list[dict[str, Any]] = body[endpoint.spec.list_spec.name] if endpoint.spec.search else body
    return rows


def flat(members: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the members of a JSON row by heading, as the documentation describes them."""
    cells: dict[str, Any] = {}
    for name, value in members.items():
        if isinstance(value, dict) and prefix + name not in PLAIN_OBJECTS:
            cells |= flat(value, f"{prefix}{name}.")
        elif isinstance(value, (list, dict)):
            cells[prefix + name] = json.dumps(value, ensure_ascii=False) if value else None
        else:
            cells[prefix + name] = value
    return cells


def in_sheet(cell: Any, value: Any) -> bool:
    """Return True if a cell of a sheet means the same as a member of JSON."""
    if value is None:
        return cell == ""
    if isinstance(cell, datetime):
        instant = datetime.fromisoformat(value).astimezone(config.settings().zone)
        return abs((cell - instant.replace(tzinfo=None)).total_seconds()) < 0.001
    if isinstance(cell, date):
        return cell.isoformat() == value
    if isinstance(cell, bool) or isinstance(value, bool):
        return cell is value
    if isinstance(cell, float):
        return cell == float(value)
    return bool(cell == value)


def as_text(value: Any) -> str:
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)


def test_the_files_of_every_list_equal_its_json(clinic: Clinic) -> None:
    rows = furnish(clinic)
    empty = []

    for endpoint in lists(clinic):
        path = path_of(endpoint, rows)
        expected = [flat(row) for row in members_of(endpoint, clinic.admin.get(path))]
        path += "?" + urlencode([("id", row["id"]) for row in expected])  # requests add audit entries
        header, *sheet = sheet_of(clinic.admin.get(f"{path}&format=xlsx"))
        csv_header, *lines = lines_of(clinic.admin.get(path, headers={"Accept": "text/csv"}))

        assert header == csv_header
        assert len(sheet) == len(lines) == len(expected), path
        for cells, line, row in zip(sheet, lines, expected, strict=True):
            left_out = set(row) - set(header)
            twice = {name for name in left_out if name.replace(".", "_") in header}
            assert left_out - twice <= {name for name in row if row[name] is None}, path
            assert all(row[name] == row[name.replace(".", "_")] for name in twice), path
            wrong = {
                name: (cell, row.get(name))
                for name, cell in zip(header, cells, strict=True)
                if not in_sheet(cell, row.get(name))
            }
            assert not wrong, (path, wrong)
            texts = [as_text(row.get(name)) for name in header]
            assert [cell.removeprefix("'") for cell in line] == texts, path
        empty += [path] if not expected else []

    assert not empty, f"furnish these: {empty}"


@pytest.mark.parametrize("role", ["doctor", "receptionist", "technician"])
def test_files_hide_the_fields_that_json_hides(clinic: Clinic, role: Role) -> None:
    rows = furnish(clinic)
    # the receptionist of the furnished clinic has emergency access
    caller = clinic.doctor if role == "doctor" else clinic.sign_in(role)
    clinic.treatment(visit_id=clinic.visit(doctor_id=clinic.doctor_row()["id"])["id"])
    seen = 0

    for endpoint in lists(clinic):
        path = path_of(endpoint, rows)
        in_json, in_file = caller.get(path), caller.get(f"{path}?format=csv")
        assert in_file.status_code == in_json.status_code
        assert (in_file.status_code == 403) is (role not in TABLE[endpoint.spec.permission])
        if in_file.status_code != 200:
            continue
        expected = [flat(row) for row in members_of(endpoint, in_json)]
        header, *lines = lines_of(in_file)

        assert not {name.split(".")[0] for name in header} & hidden(area_of(endpoint), Role(role))
        texts = [[as_text(row.get(name)) for name in header] for row in expected]
        assert [[cell.removeprefix("'") for cell in line] for line in lines] == texts, path
        seen += len(lines)

    assert seen > 10


def test_a_file_shows_what_emergency_access_shows(clinic: Clinic) -> None:
    patient, receptionist = clinic.patient()["id"], clinic.receptionist
    for patient_id in (patient, clinic.patient()["id"]):
        clinic.visit(patient_id=patient_id, chief_complaint="Sore throat")
    receptionist.make(f"/patients/{patient}/emergency-access", reason="Unconscious")
    before = last_audit_id(clinic)

    header, *lines = lines_of(receptionist.get("/visits?format=csv&sort_by=id"))

    assert [line[header.index("chief_complaint")] for line in lines] == ["Sore throat", ""]
    (entry,) = entries_after(clinic, before)
    assert entry["detail"].endswith("; emergency_access")


def area_of(endpoint: RegisteredEndpoint) -> str:
    assert endpoint.spec.list_spec is not None
    return endpoint.spec.list_spec.area


def test_a_file_has_the_rows_of_the_query_string_and_no_pages(clinic: Clinic) -> None:
    names = ["=1+1", "Ünal", "محمد", "王芳", "@SUM(A1)"]
    ids = {name: clinic.patient(name=name, phone="0044123")["id"] for name in names}
    clinic.admin.delete(f"/patients/{ids['Ünal']}")

    sorted_sheet = sheet_of(clinic.admin.get("/patients?is_active=true&sort_by=name&_order=desc&format=xlsx"))
    found = sheet_of(clinic.admin.get("/patients/search?q=unal&format=xlsx"))
    fuzzy = sheet_of(clinic.admin.get("/patients/search?q=ünall&format=xlsx"))
    in_json = clinic.admin.get("/patients?is_active=true&sort_by=name&_order=desc").get_json()

    name, phone = sorted_sheet[0].index("name"), sorted_sheet[0].index("phone")
    assert [row[name] for row in sorted_sheet[1:]] == [row["name"] for row in in_json]
    assert {row[phone] for row in sorted_sheet[1:]} == {"0044123"}
    assert [row[name] for row in found[1:]] == [row[name] for row in fuzzy[1:]] == ["Ünal"]
    refused = ("page=2", "per_page=5", "after=1", "_start=0&_end=9", "range=[0,9]", "nothing=1", "sort_by=x")
    for query in (*refused, "format=pdf", "format=csv"):  # the last one: given twice
        assert clinic.admin.get(f"/patients?{query}&format=csv").status_code == 422, query
    assert clinic.admin.get("/patients?format=pdf").get_json()["errors"] == {
        "format": "must be one of json, csv, xlsx"
    }


@pytest.mark.parametrize(
    ("accept", "mimetype"),
    [
        ("text/csv; charset=utf-8", "text/csv"),  # as the response names it itself
        ("text/csv;header=present, application/json;q=0.5", "text/csv"),
        (f"{XLSX}, text/csv;q=0.1", XLSX),
        ("application/json, text/plain, */*", "application/json"),  # axios
        ("text/html, application/xml;q=0.9, */*;q=0.8", "application/json"),  # a browser
        ("text/csv;q=0", "application/json"),
    ],
)
def test_accept_selects_the_format(clinic: Clinic, accept: str, mimetype: str) -> None:
    assert clinic.admin.get("/doctors", headers={"Accept": accept}).mimetype == mimetype


def test_a_long_list_is_refused_and_names_the_job(clinic: Clinic, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(list_files, "MAX_ROWS", 2)
    monkeypatch.setattr(list_files, "BATCH", 1)
    for _ in range(3):
        clinic.patient(gender="female")

    refused = clinic.admin.get("/patients?format=csv")
    few = lines_of(clinic.admin.get("/patients?id=3&id=1&format=csv"))

    assert (refused.status_code, refused.get_json()["error"]) == (422, "too_many_rows")
    assert "POST /exports" in refused.get_json()["message"]
    assert [line[few[0].index("id")] for line in few[1:]] == ["1", "3"]


def test_a_file_has_one_audit_entry_with_filter_count_and_digest(clinic: Clinic) -> None:
    first, _other = clinic.patient(name="Amina Otieno"), clinic.patient(name="Bo Lund")
    before = last_audit_id(clinic)

    response = clinic.admin.get("/patients?q=otieno&is_active=true&name_like=mina&format=csv")

    (entry,) = entries_after(clinic, before)
    assert (entry["action"], entry["entity"]) == ("export", "patient")
    assert (entry["user_id"], entry["operation"]) == (clinic.admin.user_id, "GET /patients")
    assert (entry["entity_ids"], entry["patient_ids"]) == ([first["id"]], [first["id"]])
    assert entry["fields"] == ["format=csv", "is_active=true", "name_like=(text)", "q=(text)", "rows=1"]
    assert entry["detail"] == f"sha256:{hashlib.sha256(response.get_data()).hexdigest()}"
    log = clinic.admin.get(f"/patients/{first['id']}/access-log?action=export").get_json()
    assert [row["id"] for row in log] == [entry["id"]]


def test_the_file_of_an_access_log_has_one_entry_about_its_patient(clinic: Clinic) -> None:
    patient = clinic.patient()["id"]
    before = last_audit_id(clinic)

    assert clinic.admin.get(f"/patients/{patient}/access-log?format=csv").status_code == 200

    (entry,) = entries_after(clinic, before)
    assert (entry["action"], entry["patient_ids"]) == ("export", [patient])


def last_audit_id(clinic: Clinic) -> int:
    with clinic.inside() as session:
        last: int = session.scalar(select(func.max(AuditLog.id)))
    return last


def entries_after(clinic: Clinic, audit_id: int) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = clinic.admin.get(f"/audit-logs?id_gte={audit_id + 1}").get_json()
    return entries


def test_nothing_is_sent_to_a_user_who_was_deactivated_meanwhile(
    clinic: Clinic, monkeypatch: pytest.MonkeyPatch
) -> None:
    clinic.patient(name="Secret Person")
    write: Callable[..., Any] = list_files.write_csv

    def deactivate_and_write(*arguments: Any) -> None:
        write(*arguments)
        with clinic.inside() as session:
            session.execute(update(User).where(User.id == receptionist.user_id).values(is_active=False))

    receptionist = clinic.receptionist
    monkeypatch.setattr(list_files, "write_csv", deactivate_and_write)

    response = receptionist.get("/patients?format=csv")

    assert response.status_code == 401
    assert "Secret" not in response.get_data(as_text=True)
    with clinic.inside() as session:
        assert session.scalar(select(func.count()).where(AuditLog.action == "export")) == 0


def between_batches(monkeypatch: pytest.MonkeyPatch, perform: Callable[[], Any]) -> None:
    """Read files row by row, and call a function after each row."""
    add: Callable[..., None] = list_files.ListFile.add

    def add_and_perform(*arguments: Any) -> None:
        add(*arguments)
        perform()

    monkeypatch.setattr(list_files, "BATCH", 1)
    monkeypatch.setattr(list_files.ListFile, "add", add_and_perform)


def test_others_write_while_a_file_is_read(clinic: Clinic, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = [clinic.patient(address="old")["id"] for _ in range(3)]
    statuses: list[int] = []

    def write() -> None:
        response = clinic.receptionist.patch(f"/patients/{ids[-1]}", {"address": "new"})
        statuses.append(response.status_code)

    between_batches(monkeypatch, write)

    header, *lines = lines_of(clinic.admin.get("/patients?format=csv"))

    assert statuses == [200, 200, 200]
    assert [line[header.index("address")] for line in lines] == ["old", "old", "new"]


def test_nothing_is_sent_to_a_user_whose_role_changed_meanwhile(
    clinic: Clinic, monkeypatch: pytest.MonkeyPatch
) -> None:
    clinic.patient(name="Secret Person")
    receptionist = clinic.receptionist

    def demote() -> None:
        with clinic.inside() as session:
            session.execute(update(User).where(User.id == receptionist.user_id).values(role=Role.TECHNICIAN))

    between_batches(monkeypatch, demote)

    response = receptionist.get("/patients?format=csv")

    assert response.status_code == 403
    assert "Secret" not in response.get_data(as_text=True)


def test_files_have_a_name_a_limit_and_no_cache(make_clinic: Callable[..., Clinic]) -> None:
    clinic = make_clinic(rate_limit_enabled=True, rate_limit_files="1 per minute")

    first, second = (clinic.admin.get("/billings?format=xlsx") for _ in range(2))

    assert first.mimetype == XLSX
    assert first.headers["Content-Disposition"].startswith('attachment; filename="billings-20')
    assert first.headers["Cache-Control"] == "no-store"
    assert second.status_code == 429
    assert '"files";r=0' in second.headers["RateLimit"]
    assert clinic.admin.get("/billings").status_code == 200
