"""Runs of imports: dry run, apply, duplicates, failures, and the undo."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import func, select, update

from models import AuditLog, Import, ImportedRow, ImportFile, ImportSource, Patient
from services import clock, integrity_checks
from services.imports import runs as import_runs
from services.imports import undo as import_undo
from services.jobs import housekeeping, transactions
from services.patients import duplicates
from tests.support.clinic import Caller, Clinic
from tests.support.imports import apply, csv_file, dry_run, problems, run, show, undo, upload, work

HEADER = ("ID", "File No", "Full Name", "Sex", "DOB", "Phone")
AMINA = ("1", "A-1", "Amina Yusuf", "F", "1990-05-04", "+254712345671")
JOHN = ("2", "A-2", "John Kamau", "M", "1980-01-02", "+254712345672")
WANJIKU = ("3", "A-3", "Wanjiku Otieno", "F", "1975-11-30", "+254712345673")
THREE = csv_file(HEADER, [AMINA, JOHN, WANJIKU])
COUNTS = ("ready", "applied", "skipped", "refused", "undone")


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (import_runs, import_undo):
        monkeypatch.setattr(module, "BATCH", 2)
    monkeypatch.setattr(transactions, "LONGEST_WAIT", 0.01)


@pytest.fixture(autouse=True)
def _consistent(clinic: Clinic) -> Iterator[None]:
    """After each test the stored data violates no rule."""
    yield
    with clinic.inside():
        assert list(integrity_checks.violations()) == []


def counts(row: dict[str, Any]) -> dict[str, int]:
    return {name: row[name] for name in COUNTS if row[name]}


def names(caller: Caller) -> list[str]:
    return [row["name"] for row in caller.get("/patients?is_active=true").get_json()]


def count(clinic: Clinic, model: Any) -> int:
    with clinic.inside() as session:
        number: int = session.scalar(select(func.count()).select_from(model))
        return number


def test_a_dry_run_says_what_would_happen_and_changes_nothing(clinic: Clinic) -> None:
    wrong = [
        ("4", "", "", "M", "1980-01-02", ""),
        ("5", "", "Zoe Mutua", "Q", "30/30/1990", "12"),
        ("1", "A-9", "Someone Else", "F", "1970-01-01", ""),
        ("6", " a-2 ", "Someone New", "F", "1971-01-01", ""),
        ("7", "", "Amina Yussuf", "F", "1990-05-04", ""),
    ]
    row = upload(clinic.admin, csv_file(HEADER, [AMINA, JOHN, *wrong]), on_error="skip")
    before = count(clinic, AuditLog)

    row = dry_run(clinic.admin, row["id"])

    assert (row["state"], row["progress"], counts(row)) == ("checked", 100, {"ready": 2, "refused": 5})
    assert problems(clinic.admin, row["id"]) == {
        4: [("name", "validation_failed")],
        5: [("gender", "unknown_value"), ("date_of_birth", "not_a_date")],
        6: [("source_id", "duplicate_in_file")],
        7: [("file_number", "duplicate_in_file")],
        8: [("row", "possible_duplicate")],
    }
    assert (count(clinic, Patient), count(clinic, ImportSource)) == (0, 0)
    assert count(clinic, AuditLog) == before + 2  # the request, and the end of the run


def test_applying_creates_what_the_dry_run_said_once(clinic: Clinic) -> None:
    first = run(clinic.admin, THREE)
    entries = count(clinic, AuditLog)
    second = run(clinic.admin, THREE)

    assert (first["state"], counts(first)) == ("applied", {"applied": 3})
    assert (second["state"], counts(second)) == ("applied", {"skipped": 3})
    assert problems(clinic.admin, second["id"]) == {
        number: [("row", "already_imported")] for number in (2, 3, 4)
    }
    assert sorted(names(clinic.admin)) == ["Amina Yusuf", "John Kamau", "Wanjiku Otieno"]
    with clinic.inside() as session:
        later = session.scalars(select(AuditLog).where(AuditLog.id > entries)).all()
        assert {entry.entity for entry in later} <= {"import", None, "patient"}
        assert [e for e in later if e.entity == "patient" and e.action not in ("list", "read")] == []
        created = session.scalars(select(AuditLog).where(AuditLog.action == "create")).all()
        operations = {entry.operation for entry in created if entry.entity == "patient"}
    assert operations == {f"import {first['id']}"}


def test_a_file_without_ids_is_imported_once_too(clinic: Clinic) -> None:
    file = csv_file(("Name",), [("Amina Yusuf",), ("John Kamau",), ("Amina Yusuf",)])

    first = run(clinic.admin, file, on_error="skip")
    second = run(clinic.admin, file, on_error="skip")

    assert (counts(first), counts(second)) == ({"applied": 2, "refused": 1}, {"skipped": 3})


def test_gaps_and_restored_values_are_marked_for_review(clinic: Clinic) -> None:
    file = csv_file(("Name", "Phone"), [("Amina Yusuf", "712345678.0")])

    run(clinic.admin, file)

    (patient,) = clinic.admin.get("/patients").get_json()
    assert patient["needs_review"] is True
    assert patient["review_notes"] == "Import: phone: restored phone; no date of birth; no gender"
    assert patient["date_of_birth"] is None


def test_the_medical_history_is_imported_with_the_patient(clinic: Clinic) -> None:
    file = csv_file(("Name", "Allergies", "Conditions"), [("Amina Yusuf", "Penicillin; Latex", "Asthma")])

    run(clinic.admin, file)

    (patient,) = clinic.admin.get("/patients").get_json()
    history = clinic.admin.get(f"/patients/{patient['id']}/medical-history").get_json()
    assert [entry["substance"] for entry in history["allergies"]] == ["Penicillin", "Latex"]
    assert [entry["name"] for entry in history["conditions"]] == ["Asthma"]


# --- Duplicates ----------------------------------------------------------------------------------------

SAME_NUMBER = ("9", "p-77", "Amina Y. Yusuf", "F", "1990-05-04", "+254712345999")
ALIKE = ("9", "", "Amina Yusuff", "F", "1990-05-04", "")
SAME_NAME = ("9", "", "Amina Yusuf", "F", "1961-02-03", "+254799999999")


@pytest.mark.parametrize(
    ("on_duplicate", "line", "expected", "patients"),
    [
        ("report", SAME_NUMBER, {"refused": 1}, ["Amina Yusuf"]),
        ("skip", SAME_NUMBER, {"skipped": 1}, ["Amina Yusuf"]),
        ("update", SAME_NUMBER, {"applied": 1}, ["Amina Y. Yusuf"]),
        ("create_flagged", SAME_NUMBER, {"refused": 1}, ["Amina Yusuf"]),
        ("report", ALIKE, {"refused": 1}, ["Amina Yusuf"]),
        ("skip", ALIKE, {"skipped": 1}, ["Amina Yusuf"]),
        ("update", ALIKE, {"refused": 1}, ["Amina Yusuf"]),
        ("create_flagged", ALIKE, {"applied": 1}, ["Amina Yusuf", "Amina Yusuff"]),
        ("update", SAME_NAME, {"applied": 1}, ["Amina Yusuf", "Amina Yusuf"]),
    ],
)
def test_duplicates_follow_the_option_and_a_name_alone_never_matches(
    clinic: Clinic, on_duplicate: str, line: tuple[str, ...], expected: dict[str, int], patients: list[str]
) -> None:
    known = clinic.patient(
        name="Amina Yusuf", file_number="P-77", date_of_birth="1990-05-04", phone="+254700000001"
    )

    row = run(clinic.admin, csv_file(HEADER, [line]), on_duplicate=on_duplicate, on_error="skip")

    assert counts(row) == expected
    assert names(clinic.admin) == patients
    newest = clinic.admin.get("/patients").get_json()[-1]
    if (on_duplicate, line) == ("create_flagged", ALIKE):
        assert newest["needs_review"]
        assert f"patient {known['id']}" in newest["review_notes"]
    if (on_duplicate, line) == ("update", SAME_NUMBER):
        assert (newest["phone"], newest["id"]) == ("+254712345999", known["id"])


def test_an_update_changes_the_given_values_only_and_is_undone(clinic: Clinic) -> None:
    run(clinic.admin, THREE)
    before = clinic.admin.get("/patients").get_json()
    changed = csv_file(("ID", "Name", "Phone", "DOB"), [("1", "Amina Ali", "", ""), ("2", JOHN[2], "", "")])

    row = run(clinic.admin, changed, on_duplicate="update", on_error="skip")

    after = clinic.admin.get("/patients").get_json()
    assert counts(row) == {"applied": 1, "skipped": 1}
    assert [patient["name"] for patient in after] == ["Amina Ali", "John Kamau", "Wanjiku Otieno"]
    assert after[0]["phone"] == AMINA[5]
    assert counts(undo(clinic.admin, row["id"])) == {"undone": 1, "skipped": 1}
    restored = clinic.admin.get("/patients").get_json()
    volatile = ("updated_at",)
    assert [{k: v for k, v in p.items() if k not in volatile} for p in restored] == [
        {k: v for k, v in p.items() if k not in volatile} for p in before
    ]


# --- Changes since the dry run, failures, retries ------------------------------------------------------


def test_applying_is_refused_after_a_change_of_a_row_that_it_would_touch(clinic: Clinic) -> None:
    run(clinic.admin, THREE)
    changed = csv_file(("ID", "Name"), [("1", "Amina Ali"), ("2", "John Otieno")])
    row = dry_run(clinic.admin, upload(clinic.admin, changed, on_duplicate="update", on_error="skip")["id"])
    patients = clinic.admin.get("/patients").get_json()
    clinic.admin.patch(f"/patients/{patients[0]['id']}", {"address": "12 Harbour Road"})

    early = clinic.admin.post(f"/imports/{row['id']}/apply", {"digest": row["digest"]})
    row = dry_run(clinic.admin, row["id"])
    clinic.admin.post(f"/imports/{row['id']}/apply", {"digest": row["digest"]})
    clinic.admin.patch(f"/patients/{patients[1]['id']}", {"address": "14 Harbour Road"})
    work(clinic.admin)

    assert (early.status_code, early.get_json()["rows"]) == (409, [2])
    row = show(clinic.admin, row["id"])
    assert counts(row) == {"applied": 1, "refused": 1}
    assert problems(clinic.admin, row["id"]) == {3: [("row", "changed_since_dry_run")]}
    assert names(clinic.admin)[:2] == ["Amina Ali", "John Kamau"]


def test_one_of_many_requests_to_apply_wins(clinic: Clinic) -> None:
    row = dry_run(clinic.admin, upload(clinic.admin, THREE)["id"])
    path, body = f"/imports/{row['id']}/apply", {"digest": row["digest"]}

    wrong = clinic.admin.post(path, {"digest": "other"}).status_code
    results = [clinic.admin.post(path, body).status_code for _ in range(3)]
    work(clinic.admin)

    assert (wrong, results) == (409, [202, 409, 409])
    assert len(names(clinic.admin)) == 3


def test_all_or_nothing_takes_back_what_was_applied(clinic: Clinic) -> None:
    row = dry_run(clinic.admin, upload(clinic.admin, THREE)["id"])
    clinic.patient(name="Peter Njoroge", file_number="A-3")

    row = apply(clinic.admin, row)

    assert (row["state"], counts(row)) == ("failed", {"skipped": 2, "refused": 1})
    assert "Row 4" in row["failure"]
    assert names(clinic.admin) == ["Peter Njoroge"]
    refused = dry_run(clinic.admin, upload(clinic.admin, THREE)["id"])
    again = clinic.admin.post(f"/imports/{refused['id']}/apply", {"digest": refused["digest"]})
    assert (counts(refused), again.status_code) == ({"ready": 2, "refused": 1}, 409)


@pytest.mark.parametrize("step", ["dry_run", "apply", "undo"])
def test_a_run_that_is_interrupted_continues_exactly_once(
    clinic: Clinic, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    row = upload(clinic.admin, THREE)
    functions = {"dry_run": import_runs.dry_run, "apply": import_runs.apply, "undo": import_undo.undo}
    modules = {"dry_run": (import_runs, "_store"), "apply": (import_runs, "_save_results")}
    module, name = modules.get(step, (import_undo, "_forget_sources"))
    original, calls = getattr(module, name), []

    def interrupted(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return original(*arguments)

    for current in ("dry_run", "apply", "undo"):
        body = {"digest": show(clinic.admin, row["id"])["digest"]} if current == "apply" else None
        response = clinic.admin.post(f"/imports/{row['id']}/{current.replace('_', '-')}", body)
        assert response.status_code == 202, response.get_data(as_text=True)
        if current == step:
            monkeypatch.setattr(module, name, interrupted)
            with clinic.app.app_context(), pytest.raises(KeyboardInterrupt):
                functions[step](row["id"])
            assert len(calls) == 2
        work(clinic.admin)
        if current == "apply":
            assert len(names(clinic.admin)) == 3

    assert counts(show(clinic.admin, row["id"])) == {"undone": 3}
    assert names(clinic.admin) == []


# --- Undo ----------------------------------------------------------------------------------------------


def test_an_undo_leaves_the_lists_as_before_and_the_file_can_be_imported_again(clinic: Clinic) -> None:
    clinic.patient(name="Peter Njoroge")
    before = clinic.admin.get("/patients?is_active=true").get_json()
    row = run(clinic.admin, THREE)

    row = undo(clinic.admin, row["id"])

    assert (row["state"], counts(row)) == ("undone", {"undone": 3})
    assert clinic.admin.get("/patients?is_active=true").get_json() == before
    assert count(clinic, ImportSource) == 0
    again = run(clinic.admin, THREE)
    assert counts(again) == {"applied": 3}
    assert {p["file_number"] for p in clinic.admin.get("/patients?is_active=true").get_json()} >= {
        *("A-1", "A-2", "A-3")
    }


def test_slow_rows_end_a_transaction_early(clinic: Clinic, monkeypatch: pytest.MonkeyPatch) -> None:
    batches_of: dict[str, list[int]] = {"_store": [], "_save_results": [], "_forget_sources": []}
    for module, name in (
        (import_runs, "_store"),
        (import_runs, "_save_results"),
        (import_undo, "_forget_sources"),
    ):
        monkeypatch.setattr(module, "BATCH", 200)
        monkeypatch.setattr(module, "BATCH_SECONDS", -1.0)
        original = getattr(module, name)

        def counted(plan: Any, rows: Any, name: str = name, original: Any = original) -> None:
            batches_of[name].append(len(rows))
            original(plan, rows)

        monkeypatch.setattr(module, name, counted)

    row = undo(clinic.admin, run(clinic.admin, THREE)["id"])

    assert counts(row) == {"undone": 3}
    assert batches_of["_store"] == batches_of["_save_results"] == [1, 1, 1]
    assert batches_of["_forget_sources"] == [1, 1, 1, 0]


def test_a_restored_patient_of_an_undone_import_is_a_likely_duplicate_again(clinic: Clinic) -> None:
    undo(clinic.admin, run(clinic.admin, THREE)["id"])
    (amina, *_) = clinic.admin.get("/patients").get_json()
    clinic.admin.patch(f"/patients/{amina['id']}", {"is_active": True})

    row = dry_run(clinic.admin, upload(clinic.admin, THREE)["id"])

    assert counts(row) == {"ready": 2, "refused": 1}
    assert problems(clinic.admin, row["id"])[2] == [("row", "possible_duplicate")]


def test_many_undone_imports_hide_no_duplicate(clinic: Clinic, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duplicates, "MAX_CANDIDATES", 1)
    one = csv_file(HEADER, [AMINA])
    undo(clinic.admin, run(clinic.admin, one)["id"])
    run(clinic.admin, one)

    row = dry_run(clinic.admin, upload(clinic.admin, csv_file(HEADER[2:], [AMINA[2:]]), source="b")["id"])

    assert problems(clinic.admin, row["id"]) == {2: [("row", "possible_duplicate")]}


def test_an_undo_names_the_rows_that_were_changed_or_used(clinic: Clinic) -> None:
    row = run(clinic.admin, THREE)
    first, second, _ = (patient["id"] for patient in clinic.admin.get("/patients").get_json())
    clinic.admin.patch(f"/patients/{first}/medical-history", {"allergies": ["Latex"]})
    clinic.appointment(patient_id=second)

    response = clinic.admin.post(f"/imports/{row['id']}/undo")

    assert response.status_code == 409
    assert response.get_json()["rows"] == [
        {"number": 2, "entity": "patient", "id": first},
        {"number": 3, "entity": "patient", "id": second},
    ]
    assert show(clinic.admin, row["id"])["state"] == "applied"


@pytest.mark.parametrize("changed_between", [False, True])
def test_an_undone_later_import_does_not_stop_the_undo_of_an_earlier_one(
    clinic: Clinic, changed_between: bool
) -> None:
    first = run(clinic.admin, THREE)
    patient = clinic.admin.get("/patients").get_json()[0]["id"]
    if changed_between:
        clinic.admin.patch(f"/patients/{patient}", {"address": "Moi Avenue 7"})
    later = [
        run(clinic.admin, csv_file(("ID", "Name"), [("1", name)]), on_duplicate="update")["id"]
        for name in ("Amina Ali", "Amina Hassan")
    ]
    for import_id in reversed(later):
        assert counts(undo(clinic.admin, import_id)) == {"undone": 1}

    response = clinic.admin.post(f"/imports/{first['id']}/undo")
    work(clinic.admin)

    assert response.status_code == (409 if changed_between else 202)
    assert counts(show(clinic.admin, first["id"])) == {"applied" if changed_between else "undone": 3}


def test_an_undo_is_possible_for_seven_days_and_files_are_then_removed(clinic: Clinic) -> None:
    row = run(clinic.admin, THREE)
    unused = upload(clinic.admin, THREE)
    old = clock.now() - timedelta(days=8)
    with clinic.inside() as session:
        session.execute(update(Import).values(applied_at=old, updated_at=old))

    response = clinic.admin.post(f"/imports/{row['id']}/undo")
    with clinic.app.app_context():
        removed = housekeeping.remove_old()

    assert response.status_code == 409
    assert removed >= 2
    assert (count(clinic, ImportFile), count(clinic, ImportedRow)) == (0, 3)
    assert show(clinic.admin, unused["id"])["has_file"] is False
    assert clinic.admin.get(f"/imports/{row['id']}/report.xlsx").status_code == 409


def test_doctors_with_a_bill_time_off_or_hours_are_in_use(clinic: Clinic) -> None:
    lines = [(f"Doctor {name}", f"L-{name}", "Surgery") for name in ("One", "Two", "Three", "Four")]
    row = run(clinic.admin, csv_file(("Name", "Licence", "Specialty"), lines), kind="doctors")
    ids = [row["entity_id"] for row in clinic.admin.get(f"/imports/{row['id']}/rows").get_json()]
    item = {"description": "Dressing", "quantity": 1, "unit_price": "5.00"}
    bill = {"patient_id": clinic.patient()["id"], "doctor_id": ids[0], "items": [item]}
    time_off = {"start": "2027-01-04T08:00:00Z", "end": "2027-01-05T08:00:00Z"}
    window = {"weekday": 0, "start": "08:00", "end": "12:00"}
    statuses = [
        clinic.admin.post("/billings", bill).status_code,
        clinic.admin.post(f"/doctors/{ids[1]}/time-off", time_off).status_code,
        clinic.admin.put(f"/doctors/{ids[2]}/schedule", {"windows": [window]}).status_code,
    ]

    response = clinic.admin.post(f"/imports/{row['id']}/undo")

    assert (statuses, response.status_code) == ([201, 201, 200], 409)
    assert [each["id"] for each in response.get_json()["rows"]] == ids[:3]


def test_doctors_are_imported_and_taken_back(clinic: Clinic) -> None:
    header = ("Name", "Licence", "Specialty", "Fee", "Certificates")
    file = csv_file(header, [("Grace Wanjiru", "L-1", "cardiology", "1250.50", "MD; PhD")])
    row = run(clinic.admin, file, kind="doctors")
    (doctor,) = clinic.admin.get("/doctors").get_json()

    assert (doctor["consultation_fee"], doctor["certifications"]) == ("1250.50", ["MD", "PhD"])
    assert counts(undo(clinic.admin, row["id"])) == {"undone": 1}
    assert clinic.admin.get("/doctors?is_active=true").get_json() == []
    assert counts(run(clinic.admin, file, kind="doctors")) == {"applied": 1}
