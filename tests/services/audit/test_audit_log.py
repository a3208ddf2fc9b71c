"""The audit log: entries for changes, reads, sign-ins and refusals, and access to them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import IntegrityError

from enums import AuditOutcome, Gender
from extensions import db
from models import AuditLog, AuditSubject, Patient
from services.audit import audit_log
from services.search_key import search_key
from tests.support.clinic import Caller, Clinic


class Since:
    """The audit entries since the creation of this object."""

    def __init__(self, clinic: Clinic) -> None:
        self.clinic = clinic
        with clinic.inside() as session:
            self.last = session.execute(select(AuditLog.id).order_by(AuditLog.id.desc())).scalar() or 0

    def entries(self) -> list[AuditLog]:
        with self.clinic.inside() as session:
            newer = select(AuditLog).where(AuditLog.id > self.last).order_by(AuditLog.id)
            rows = list(session.execute(newer).scalars())
            session.expunge_all()
        return rows

    def summary(self) -> list[tuple[str, str | None, int | None]]:
        return [(entry.action, entry.entity, entry.entity_id) for entry in self.entries()]


# --- Changes and reads ---------------------------------------------------------------------------------


def test_an_entry_has_user_action_time_and_address(clinic: Clinic) -> None:
    patient = clinic.patient()
    since, before = Since(clinic), datetime.now(UTC)

    clinic.receptionist.patch(
        f"/patients/{patient['id']}",
        {"phone": "555-767-7476", "address": "3 Mill Lane"},
        headers={"X-Request-ID": "front-desk-0001"},
    )

    [entry] = since.entries()
    assert before <= entry.at <= datetime.now(UTC)
    assert (entry.user_id, entry.role) == (clinic.receptionist.user_id, "receptionist")
    assert entry.user_name
    assert (entry.action, entry.entity, entry.entity_id) == ("update", "patient", patient["id"])
    assert entry.patient_ids == [patient["id"]]
    assert entry.fields == ["address", "phone"]
    assert entry.outcome is AuditOutcome.SUCCESS
    assert entry.operation == "PATCH /patients/<int:patient_id>"
    assert (entry.address, entry.request_id) == ("127.0.0.1", "front-desk-0001")
    assert len(entry.mac) == 64


def test_entries_name_fields_and_never_values(clinic: Clinic) -> None:
    patient = clinic.patient(name="Rumpelstiltskin", phone="555-767-7476")
    clinic.doctor.patch(f"/patients/{patient['id']}/medical-history", {"notes": "Rumpelstiltskin"})

    with clinic.inside() as session:
        rows = session.execute(text("SELECT * FROM audit_logs")).all()

    assert rows
    assert not any("Rumpel" in str(row) or "555" in str(row.fields) for row in rows)


def test_an_entry_names_the_meaning_of_a_change(clinic: Clinic) -> None:
    patient = clinic.patient()
    since = Since(clinic)

    clinic.admin.delete(f"/patients/{patient['id']}")
    clinic.admin.patch(f"/patients/{patient['id']}", {"is_active": True})

    assert [entry.action for entry in since.entries()] == ["archive", "restore"]


def test_a_request_that_changes_two_records_has_an_entry_for_each(clinic: Clinic) -> None:
    appointment = clinic.due_appointment()
    since = Since(clinic)

    visit = clinic.admin.make(
        "/visits",
        appointment_id=appointment["id"],
        patient_id=appointment["patient_id"],
        doctor_id=appointment["doctor_id"],
    )

    entries = since.entries()
    assert sorted((e.entity or "", e.entity_id or 0) for e in entries) == [
        ("appointment", appointment["id"]),
        ("visit", visit["id"]),
    ]
    assert all(entry.patient_ids == [appointment["patient_id"]] for entry in entries)
    assert len({entry.request_id for entry in entries}) == 1


def test_a_read_has_one_entry(clinic: Clinic) -> None:
    patient = clinic.patient()
    path = f"/patients/{patient['id']}"
    reads = {
        path: "patient",
        f"{path}/medical-history": "medical_history",
        f"{path}/account": "account",
        f"{path}/timeline": "timeline",
    }

    for address, entity in reads.items():
        since = Since(clinic)
        clinic.doctor.get(address)

        [entry] = since.entries()
        assert (entry.action, entry.entity, entry.patient_ids) == ("read", entity, [patient["id"]])
        assert entry.user_id == clinic.doctor.user_id


def test_a_change_that_changes_nothing_is_a_read(clinic: Clinic) -> None:
    patient = clinic.patient()
    since = Since(clinic)

    clinic.receptionist.patch(f"/patients/{patient['id']}", {"name": patient["name"]})

    assert since.summary() == [("read", "patient", patient["id"])]


def test_a_list_and_a_search_have_one_entry_with_the_shown_rows(clinic: Clinic) -> None:
    ids = [clinic.patient(name=name)["id"] for name in ("Ada Lovelace", "Ada Yonath", "Marie Curie")]
    clinic.receptionist.get("/auth/me")
    since = Since(clinic)

    clinic.receptionist.get("/patients?per_page=2&sort_by=id&sort_order=desc")
    clinic.receptionist.get("/patients/search?q=ada")
    clinic.receptionist.get("/patients/search?q=nobody")

    listed, searched, empty = since.entries()
    assert (listed.action, listed.entity, listed.entity_id) == ("list", "patient", None)
    assert listed.entity_ids == [ids[2], ids[1]]
    assert listed.patient_ids == sorted(ids[1:])
    assert (searched.action, searched.patient_ids) == ("search", ids[:2])
    assert empty.patient_ids == []


def test_a_request_without_records_has_no_entry(clinic: Clinic) -> None:
    clinic.receptionist.get("/doctors")
    since = Since(clinic)

    clinic.nobody.get("/patients")
    clinic.receptionist.get("/doctors")
    clinic.receptionist.get("/nowhere")
    clinic.receptionist.get("/patients/987654")
    clinic.receptionist.post("/patients", {"name": " "})

    assert since.entries() == []


def test_a_rolled_back_change_has_no_entry(clinic: Clinic) -> None:
    patient = clinic.patient(file_number="1998/0042")
    since = Since(clinic)

    clinic.admin.post("/patients", {"name": "Mary Roe", "file_number": "1998/0042"})

    [entry] = since.entries()
    assert (entry.action, entry.outcome, entry.detail) == ("refused", AuditOutcome.REFUSED, "already_exists")
    assert patient


def test_a_change_rolled_back_to_a_savepoint_has_no_entry(clinic: Clinic) -> None:
    patient = clinic.patient()
    since = Since(clinic)

    with clinic.inside() as session:
        row = session.get(Patient, patient["id"])
        row.address = "3 Mill Lane"
        session.flush()
        savepoint = session.begin_nested()
        row.gender = Gender.OTHER
        session.add(Patient(file_number="x", name="Ghost", name_fold=search_key("Ghost")))
        session.flush()
        savepoint.rollback()
        with session.begin_nested():
            row.phone = "555"
        audit_log.append_pending(None, "test")

    [entry] = since.entries()
    assert (entry.action, entry.entity_id, entry.fields) == ("update", patient["id"], ["address", "phone"])


def test_nested_savepoints_keep_the_entries_of_what_is_committed(clinic: Clinic) -> None:
    first, second = clinic.patient(), clinic.patient()
    since = Since(clinic)

    with clinic.inside() as session:
        row, other = (session.get(Patient, patient["id"]) for patient in (first, second))
        with session.begin_nested():
            row.address = "3 Mill Lane"
        outer = session.begin_nested()
        row.phone = "555"
        with session.begin_nested():  # released, then undone with the outer one
            other.address = "4 Mill Lane"
        session.begin_nested()  # open, and undone with the outer one
        other.phone = "556"
        session.flush()
        outer.rollback()
        with session.begin_nested():
            row.gender = Gender.OTHER
            with pytest.raises(IntegrityError):
                fail_in_savepoint(row)
        audit_log.append_pending(None, "test")

    assert [(entry.entity_id, entry.fields) for entry in since.entries()] == [
        (first["id"], ["address", "gender"])
    ]


def fail_in_savepoint(row: Patient) -> None:
    """Change the patient in a savepoint, and then violate a constraint."""
    with db.session.begin_nested():
        row.email = "a@example.com"
        db.session.flush()
        db.session.add(Patient(file_number=row.file_number, name="Ghost", name_fold="ghost"))


def test_a_savepoint_remembers_only_the_entries_that_change_in_it(clinic: Clinic) -> None:
    """So many savepoints in one transaction take linear time."""
    ids = [clinic.patient()["id"] for _number in range(5)]

    with clinic.inside() as session:
        for row in session.scalars(select(Patient).where(Patient.id.in_(ids))).all():
            with session.begin_nested():
                row.address = "3 Mill Lane"
                session.flush()
                assert [list(earlier) for earlier in audit_log.pending_entries().savepoints.values()] == [
                    [("patient", row.id)]
                ]
        assert len(audit_log.pending_entries().entries) == 5


# --- Refusals ------------------------------------------------------------------------------------------


def refused(since: Since) -> tuple[str | None, str | None, int | None, list[int]]:
    """Return code, entity, id and patients of the only refusal."""
    [entry] = since.entries()
    assert entry.outcome is AuditOutcome.REFUSED
    assert entry.fields == []
    return entry.detail, entry.entity, entry.entity_id, entry.patient_ids


def test_a_forbidden_request_has_an_entry_with_its_record(clinic: Clinic) -> None:
    patient = clinic.patient()
    caller = clinic.technician
    since = Since(clinic)

    caller.patch(f"/patients/{patient['id']}", {"address": "x"})

    assert refused(since) == ("forbidden", "patient", patient["id"], [patient["id"]])
    assert since.entries()[0].user_id == caller.user_id


def test_a_forbidden_filter_has_an_entry(clinic: Clinic) -> None:
    caller = clinic.technician
    since = Since(clinic)

    caller.get("/patients?balance_gt=0")

    assert refused(since)[0] == "forbidden"


def test_a_hidden_row_has_an_entry(clinic: Clinic) -> None:
    bill = clinic.bill()
    caller = clinic.sign_in("doctor")
    since = Since(clinic)

    answer = caller.get(f"/billings/{bill['id']}")

    assert answer.status_code == 404
    assert refused(since) == ("not_found", "billing", bill["id"], [bill["patient_id"]])


def test_a_conflict_and_an_outdated_version_have_entries(clinic: Clinic) -> None:
    patient = clinic.patient()
    clinic.bill(patient_id=patient["id"])
    caller, path = clinic.admin, f"/patients/{patient['id']}"

    conflict = Since(clinic)
    caller.delete(path)
    assert refused(conflict) == ("in_use", "patient", patient["id"], [patient["id"]])

    stale = Since(clinic)
    caller.patch(path, {"address": "x"}, headers={"If-Match": '"99"'})
    assert refused(stale) == ("stale_version", "patient", patient["id"], [patient["id"]])


def test_a_possible_duplicate_has_an_entry_with_the_shown_patients(clinic: Clinic) -> None:
    known = clinic.patient(name="John Doe", date_of_birth="1990-01-01")
    caller = clinic.receptionist
    since = Since(clinic)

    caller.post("/patients", {"name": "John Doe", "date_of_birth": "1990-01-01"})

    assert refused(since) == ("possible_duplicate", "patient", None, [known["id"]])


def test_a_refusal_that_lists_appointments_has_an_entry_with_their_patients(clinic: Clinic) -> None:
    doctor = clinic.doctor_row()["id"]
    patients = [clinic.appointment(doctor_id=doctor)["patient_id"] for _ in range(2)]
    since = Since(clinic)

    answer = clinic.admin.delete(f"/doctors/{doctor}")

    assert [row["patient_id"] for row in answer.get_json()["appointments"]] == patients
    assert refused(since) == ("booked_appointments", "doctor", doctor, patients)


def test_an_invalid_token_has_an_entry_and_a_missing_token_has_none(clinic: Clinic) -> None:
    patient = clinic.patient()
    since = Since(clinic)

    clinic.nobody.get(f"/patients/{patient['id']}")
    Caller(clinic, "not.a.token").get(f"/patients/{patient['id']}")

    assert refused(since) == ("token_invalid", "patient", patient["id"], [patient["id"]])
    assert since.entries()[0].user_id is None


# --- Reading the audit ---------------------------------------------------------------------------------


def test_only_admins_read_the_audit_log(clinic: Clinic) -> None:
    patient = clinic.patient()

    for path in ("/audit-logs", f"/patients/{patient['id']}/access-log"):
        for caller in (clinic.doctor, clinic.receptionist, clinic.technician):
            assert caller.get(path).status_code == 403
        assert clinic.nobody.get(path).status_code == 401
        assert clinic.admin.get(path).status_code == 200
    assert clinic.admin.get("/patients/987654/access-log").status_code == 404


def test_the_audit_log_is_listed_and_filtered(clinic: Clinic) -> None:
    patient, other = clinic.patient(), clinic.patient()
    doctor, desk = clinic.doctor, clinic.receptionist
    doctor.get(f"/patients/{patient['id']}")
    desk.patch(f"/patients/{other['id']}", {"address": "x"})
    clinic.technician.delete(f"/patients/{patient['id']}")

    def listed(query: str) -> set[tuple[Any, ...]]:
        answer = clinic.admin.get(f"/audit-logs?{query}")
        assert answer.status_code == 200, answer.get_json()
        return {(row["action"], row["role"], row["entity_id"]) for row in answer.get_json()}

    created = {("create", "admin", patient["id"]), ("create", "admin", other["id"])}
    read = ("read", "doctor", patient["id"])
    changed = ("update", "receptionist", other["id"])
    stopped = ("refused", "technician", patient["id"])
    today = datetime.now(UTC).date()
    assert listed("") == {*created, read, changed, stopped}
    assert listed(f"user_id={doctor.user_id}") == {read}
    assert listed("action=update") == {changed}
    assert listed(f"entity=patient&entity_id={other['id']}") == {("create", "admin", other["id"]), changed}
    assert listed(f"patient_id={patient['id']}") == {("create", "admin", patient["id"]), read, stopped}
    assert listed("outcome=refused") == {stopped}
    assert listed("role=technician") == {stopped}
    assert listed(
        f"start_date={today - timedelta(days=1)}&end_date={today + timedelta(days=1)}&role=doctor"
    ) == {read}
    assert listed(f"start_date={today + timedelta(days=2)}") == set()
    assert clinic.admin.get("/audit-logs?mac=x").status_code == 422
    assert clinic.admin.get("/audit-logs?per_page=2").headers["X-Total-Count"] == "5"


def test_a_response_contains_no_mac(clinic: Clinic) -> None:
    clinic.patient()

    [row] = clinic.admin.get("/audit-logs").get_json()

    assert set(row) == {
        *("id", "at", "user_id", "user_name", "role", "action", "entity", "entity_id", "entity_ids"),
        *("patient_ids", "fields", "outcome", "detail", "operation", "address", "request_id"),
        *("chain", "number"),
    }


def test_the_access_log_finds_everybody_who_read_the_patient(clinic: Clinic) -> None:
    patient, other = clinic.patient(name="Ada Lovelace"), clinic.patient(name="Marie Curie")
    path = f"/patients/{patient['id']}"
    clinic.doctor.get(f"{path}/medical-history")
    clinic.receptionist.get("/patients/search?q=ada")
    clinic.receptionist.get("/patients/search?q=marie")
    clinic.technician.get("/patients")
    clinic.technician.get(f"{path}/account")
    clinic.admin.get(f"/patients/{other['id']}")

    answer = clinic.admin.get(f"{path}/access-log")
    refusals = clinic.admin.get(f"{path}/access-log?outcome=refused").get_json()

    actions = [(row["action"], row["role"]) for row in answer.get_json()]
    assert actions == [  # the newest first
        ("refused", "technician"),
        ("list", "technician"),
        ("search", "receptionist"),
        ("read", "doctor"),
        ("create", "admin"),
    ]
    assert answer.headers["X-Total-Count"] == "5"
    assert [(row["role"], row["detail"]) for row in refusals] == [("technician", "forbidden")]
    watched = clinic.admin.get(f"{path}/access-log?entity=access_log").get_json()
    assert {row["action"] for row in watched} == {"list"}  # who looks at the log is in the log


# --- What cannot be done -------------------------------------------------------------------------------


TAMPERING = (
    "UPDATE audit_logs SET action = 'nothing'",
    "DELETE FROM audit_logs",
    "UPDATE audit_subjects SET patient_id = patient_id + 1",
    "DELETE FROM audit_subjects",
    "DELETE FROM audit_heads",
    "UPDATE audit_heads SET number = number - 1 WHERE number > 0",
)


def test_the_application_cannot_change_or_remove_an_entry(clinic: Clinic) -> None:
    clinic.patient()

    for statement in TAMPERING:
        with clinic.inside() as session:
            with pytest.raises(IntegrityError):
                session.execute(text(statement))
            session.rollback()


def test_every_patient_of_an_entry_is_in_the_index(clinic: Clinic) -> None:
    ids = [clinic.patient()["id"] for _number in range(3)]
    clinic.receptionist.get("/patients")

    with clinic.inside() as session:
        entry = session.execute(select(AuditLog).where(AuditLog.action == "list")).scalar_one()
        subjects = session.execute(
            select(AuditSubject.patient_id).where(AuditSubject.audit_id == entry.id)
        ).scalars()
        assert sorted(subjects) == entry.patient_ids == ids
