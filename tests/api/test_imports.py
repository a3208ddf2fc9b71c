"""Endpoints of imports: the multipart body, mapping and options, the report, and deletion."""

from __future__ import annotations

import io
from functools import partial
from typing import Any

import pytest
from openpyxl import Workbook
from python_calamine import CalamineWorkbook

from services.imports import content as import_content
from services.imports.imports import clean_file_name
from services.spreadsheets.reading import MAX_BYTES
from tests.support.clinic import Clinic
from tests.support.concurrency import run_concurrently
from tests.support.imports import apply, csv_file, dry_run, run, send_file, show, upload

FILE = csv_file(("Nr", "Full name", "Born", "Shoe size"), [("1", "Amina Yusuf", "03/04/1990", "38")])


def test_an_upload_proposes_a_mapping_and_shows_the_first_rows(clinic: Clinic) -> None:
    response = send_file(clinic.admin, FILE, name="../old/patients 2019.csv", source=" Clinic2019 ")

    row = response.get_json()
    assert (response.status_code, response.headers["Location"]) == (201, f"/imports/{row['id']}")
    assert (row["file_name"], row["source"], row["rows"]) == ("patients 2019.csv", "clinic2019", 1)
    assert row["mapping"] == {"Full name": "name", "Born": "date_of_birth"}
    assert row["header"] == ["Nr", "Full name", "Born", "Shoe size"]
    (sample,) = row["sample"]
    assert sample["cells"] == ["1", "Amina Yusuf", "03/04/1990", "38"]
    assert sample["members"] == {"name": "Amina Yusuf"}
    assert "date_format" in sample["problems"]["date_of_birth"]
    assert {"name": "name", "type": "text", "required": True, "values": []} in row["columns"]


def test_the_mapping_and_the_options_can_be_corrected_until_the_import_is_applied(clinic: Clinic) -> None:
    path = f"/imports/{upload(clinic.admin, FILE)['id']}"
    mapping = {"Nr": "source_id", "Full name": "name", "Born": "date_of_birth"}

    wrong = clinic.admin.patch(path, {"mapping": mapping | {"Shoe size": "shoe"}})
    first = dry_run(clinic.admin, upload(clinic.admin, FILE)["id"])
    changed = clinic.admin.patch(path, {"mapping": mapping, "date_format": "DD/MM/YYYY"}).get_json()
    checked = dry_run(clinic.admin, changed["id"])
    again = clinic.admin.patch(path, {"on_error": "skip"}).get_json()
    unchanged = clinic.admin.post(f"{path}/apply", {"digest": checked["digest"]})
    applied = apply(clinic.admin, dry_run(clinic.admin, changed["id"]))
    late = clinic.admin.patch(path, {"on_error": "none"})

    assert (wrong.status_code, list(wrong.get_json()["errors"])) == (422, ["mapping.Shoe size"])
    assert (first["refused"], first["digest"] is not None) == (1, True)
    assert changed["sample"][0]["members"]["date_of_birth"] == "1990-04-03"
    assert (checked["ready"], again["digest"], again["state"]) == (1, None, "uploaded")
    assert (unchanged.status_code, late.status_code) == (409, 409)
    assert applied["state"] == "applied"


def test_the_answer_names_what_is_not_read(clinic: Clinic) -> None:
    book = Workbook()
    sheet = book.active
    for cells in (["Patients of 2026"], ["Name", "Phone"], ["Amina Yusuf", "+254712345671"]):
        sheet.append(cells)
    book.create_sheet("Old patients").append(["Name", "Phone"])
    content = io.BytesIO()
    book.save(content)

    row = upload(clinic.admin, content.getvalue(), name="a.xlsx")

    assert (row["sheet"], row["other_sheets"]) == ("Sheet", ["Old patients"])
    assert (row["title_rows"], row["rows"], row["sample"][0]["number"]) == (1, 1, 3)


def test_a_tab_has_a_name(clinic: Clinic) -> None:
    content = b"Name\tPhone\nAmina, Yusuf\t+254712345671\n"

    row = upload(clinic.admin, content, delimiter="tab")
    same = clinic.admin.patch(f"/imports/{row['id']}", {"delimiter": "tab", "date_format": "YYYY-MM-DD"})
    other = clinic.admin.patch(f"/imports/{row['id']}", {"delimiter": "x"})

    assert (row["delimiter"], row["header"]) == ("\t", ["Name", "Phone"])
    assert (same.status_code, same.get_json()["delimiter"]) == (200, "\t")
    assert (other.status_code, other.get_json()["error"]) == (422, "unknown_delimiter")


@pytest.mark.parametrize(
    ("fields", "status", "named"),
    [
        ({"kind": "pets"}, 422, "kind"),
        ({"source": " "}, 422, "source"),
        ({"mapping": "[1]"}, 422, "mapping"),
        ({"mapping": "{"}, 422, "mapping"),
        ({"mapping": '{"Full name": "name", "Born": "name"}'}, 422, "mapping.Full name"),
        ({"colour": "blue"}, 422, "colour"),
        ({"on_error": "maybe"}, 422, "on_error"),
        ({"decimal": ";"}, 422, "decimal"),
        ({"second": FILE}, 400, None),
    ],
)
def test_a_wrong_form_is_refused(
    clinic: Clinic, fields: dict[str, Any], status: int, named: str | None
) -> None:
    files = {"file": (io.BytesIO(FILE), "a.csv")}
    form = {"kind": "patients", "source": "old", **files, **fields}
    if isinstance(form.get("second"), bytes):
        form["second"] = (io.BytesIO(FILE), "b.csv")

    response = clinic.admin.post("/imports", data=form)

    assert response.status_code == status, response.get_data(as_text=True)
    assert list(response.get_json().get("errors", {}))[:1] == ([named] if named else [])
    assert clinic.admin.get("/imports").get_json() == []


def test_only_a_multipart_form_with_one_file_of_at_most_10_mib_is_read(clinic: Clinic) -> None:
    form = {"kind": "patients", "source": "old"}
    large = {**form, "file": (io.BytesIO(b"x" * (MAX_BYTES + 2 * 1024**2)), "a.csv")}
    headers = {"Content-Type": "multipart/form-data"}

    statuses = {
        "json": clinic.admin.post("/imports", form).status_code,
        "no file": clinic.admin.post("/imports", data=form, content_type="multipart/form-data").status_code,
        "no boundary": clinic.admin.post("/imports", data=b"--a\r\n", headers=headers).status_code,
        "empty body": clinic.admin.post("/imports").status_code,
        "empty file": send_file(clinic.admin, b"").status_code,
        "large": clinic.admin.post("/imports", data=large).status_code,
        "large file": send_file(clinic.admin, b"Name\n" + b"x" * MAX_BYTES).status_code,
    }

    assert statuses == {
        "json": 415,
        "no file": 400,
        "no boundary": 400,
        "empty body": 400,
        "empty file": 422,
        "large": 413,
        "large file": 413,
    }


def test_a_repeated_upload_with_another_boundary_is_recognised(clinic: Clinic) -> None:
    def send(boundary: str, name: str) -> Any:
        part = '--{0}\r\nContent-Disposition: form-data; name="{1}"{2}\r\n\r\n{3}\r\n'
        parts = [("kind", "", "patients"), ("source", "", "old"), ("file", '; filename="a.csv"', name)]
        body = "".join(part.format(boundary, *each) for each in parts) + f"--{boundary}--\r\n"
        return clinic.admin.post(
            "/imports",
            data=body.encode(),
            headers={
                "Content-Type": f"multipart/form-data; boundary={boundary}",
                "Idempotency-Key": "upload-1",
            },
        )

    first, second = send("aaaa1111", "Name\nAmina\n"), send("bbbb22222", "Name\nAmina\n")
    other = send("cccc3333", "Name\nJohn\n")

    assert (first.status_code, second.status_code, other.status_code) == (201, 201, 422)
    assert second.headers["Idempotency-Replayed"] == "true"
    assert len(clinic.admin.get("/imports").get_json()) == 1


@pytest.mark.parametrize(
    ("name", "stored"),
    [
        ("../../etc/passwd", "passwd"),
        ("C:\\temp\\a.xlsx", "a.xlsx"),
        ("a\r\nX: 1\x1b[2J.csv", "aX: 1[2J.csv"),
        ("", "file"),
        ("..", "file"),
        ("x" * 300, "x" * 200),
    ],
)
def test_a_file_name_is_only_a_name(name: str, stored: str) -> None:
    assert clean_file_name(name) == stored


def test_the_report_has_the_original_columns_and_no_formula(clinic: Clinic) -> None:
    header = ("Full name", "DOB", "Note")
    lines = [("Amina Yusuf", "1990-05-04", "fine"), ("", "1990-13-45", "=1+1")]
    row = dry_run(clinic.admin, upload(clinic.admin, csv_file(header, lines))["id"])

    response = clinic.admin.get(f"/imports/{row['id']}/report.xlsx")

    sheet = CalamineWorkbook.from_filelike(io.BytesIO(response.data)).get_sheet_by_index(0)
    titles, *lines_of_report = sheet.to_python()
    assert titles == ["Row", "State", "Field", "Problem", *header]
    assert {(line[0], line[1], line[2]) for line in lines_of_report} == {(3, "refused", "date_of_birth")}
    assert all(line[6] == "=1+1" for line in lines_of_report)
    assert response.headers["Content-Disposition"] == f'attachment; filename="import-{row["id"]}.xlsx"'


def test_rows_are_listed_by_state_and_name_no_values(clinic: Clinic) -> None:
    lines = [("Amina Yusuf", "1990-05-04"), ("Wanjiku Otieno", "not a secret date")]
    row = dry_run(clinic.admin, upload(clinic.admin, csv_file(("Name", "DOB"), lines))["id"])
    path = f"/imports/{row['id']}/rows"

    refused = clinic.admin.get(f"{path}?state=refused").get_json()
    ready = clinic.admin.get(f"{path}?state=ready").get_json()
    audit = clinic.admin.get("/audit-logs").get_data(as_text=True)

    assert [each["number"] for each in refused] == [3]
    assert [(each["number"], each["action"]) for each in ready] == [(2, "create")]
    assert "secret" not in str(refused) + audit
    assert "Wanjiku" not in str(refused) + audit


def test_an_import_that_was_not_applied_can_be_deleted(clinic: Clinic) -> None:
    unused = dry_run(clinic.admin, upload(clinic.admin, csv_file(("Name",), [("Ada",)]))["id"])
    applied = run(clinic.admin, csv_file(("Name",), [("Bo",)]))

    deleted = clinic.admin.delete(f"/imports/{unused['id']}")
    refused = clinic.admin.delete(f"/imports/{applied['id']}")

    assert (deleted.status_code, refused.status_code) == (200, 409)
    assert clinic.admin.get(f"/imports/{unused['id']}").status_code == 404
    assert show(clinic.admin, applied["id"])["state"] == "applied"


def test_a_run_is_not_disturbed(clinic: Clinic) -> None:
    path = f"/imports/{upload(clinic.admin, FILE)['id']}"
    clinic.admin.post(f"{path}/dry-run")

    responses = [
        clinic.admin.post(f"{path}/dry-run"),
        clinic.admin.post(f"{path}/apply", {"digest": "x"}),
        clinic.admin.post(f"{path}/undo"),
        clinic.admin.patch(path, {"on_error": "skip"}),
        clinic.admin.delete(path),
    ]

    assert {response.status_code for response in responses} == {409}
    assert all("Wait until it ends" in response.get_json()["message"] for response in responses)


def test_a_file_is_read_without_a_transaction_and_only_for_administrators(
    clinic: Clinic, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, statuses = import_content.read_table, []

    def read_while_others_write(content: bytes, **options: Any) -> Any:
        register = partial(clinic.receptionist.post, "/patients", {"name": f"Walk In{len(statuses)}"})
        statuses.extend(response.status_code for response in run_concurrently([register]))
        return original(content, **options)

    receptionist = clinic.receptionist
    monkeypatch.setattr(import_content, "read_table", read_while_others_write)
    refused = send_file(receptionist, FILE)
    row = upload(clinic.admin, FILE)
    clinic.admin.patch(f"/imports/{row['id']}", {"date_format": "DD/MM/YYYY"})
    clinic.admin.get(f"/imports/{row['id']}/report.xlsx")

    assert (refused.status_code, statuses) == (403, [201] * 3)
