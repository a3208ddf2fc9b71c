"""The locks of a booking on PostgreSQL: the doctor, then the patient, in one statement."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Engine, event, select, text
from sqlalchemy.exc import OperationalError

from extensions import db
from models import Base, Doctor, Patient, Visit
from tests.support.clinic import Clinic, soon

pytestmark = pytest.mark.parametrize("engine_name", ["postgresql"])  # SQLite locks the whole database
WAITING = text(
    "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
)


def lock(model: type[Base], row_id: int) -> Any:
    return select(model.id).where(model.id == row_id).with_for_update(key_share=True, nowait=True)  # type: ignore[attr-defined]


def is_locked(engine: Engine, model: type[Base], row_id: int) -> bool:
    with engine.connect() as connection:
        try:
            connection.execute(lock(model, row_id))
        except OperationalError:
            return True
    return False


def locked_while_waiting(
    clinic: Clinic, held: tuple[type[Base], int], others: dict[type[Base], int], send: Callable[[], int]
) -> list[bool]:
    """Send a request while a row is locked. Return which of the other rows are locked while it waits."""
    with clinic.inside():
        engine = db.engine
    statuses: list[int] = []
    request = threading.Thread(target=lambda: statuses.append(send()))
    with engine.connect() as holder, engine.connect() as watcher:
        holder.execute(lock(*held))
        request.start()
        while request.is_alive() and not watcher.execute(WAITING).scalar_one():
            watcher.rollback()
        locked = [is_locked(engine, model, row_id) for model, row_id in others.items()]
        holder.rollback()
    request.join()
    assert statuses in ([200], [201])
    return locked


def book_while_locked(clinic: Clinic, model: type[Base], patient: int, doctor: int) -> list[bool]:
    """Book while a row is locked. Return if the doctor and the patient are locked while the booking waits."""
    body = {"patient_id": patient, "doctor_id": doctor, "date": soon()}
    rows: dict[type[Base], int] = {Doctor: doctor, Patient: patient}
    caller = clinic.receptionist
    return locked_while_waiting(
        clinic, (model, rows[model]), rows, lambda: caller.post("/appointments", body).status_code
    )


def test_linking_an_appointment_locks_its_doctor_before_the_visit(clinic: Clinic) -> None:
    appointment = clinic.due_appointment(doctor_id=clinic.doctor_row()["id"])
    doctor, patient = appointment["doctor_id"], appointment["patient_id"]
    visit = clinic.visit(patient_id=patient, doctor_id=doctor)["id"]
    body = {"appointment_id": appointment["id"]}

    locked = locked_while_waiting(
        clinic,
        (Doctor, doctor),
        {Patient: patient, Visit: visit},
        lambda: clinic.admin.patch(f"/visits/{visit}", body).status_code,
    )

    assert locked == [False, False]


def test_a_booking_locks_the_doctor_before_the_patient(clinic: Clinic) -> None:
    patient, doctor = clinic.patient()["id"], clinic.doctor_row()["id"]
    other_patient = clinic.patient()["id"]

    assert book_while_locked(clinic, Doctor, patient, doctor) == [True, False]
    assert book_while_locked(clinic, Patient, other_patient, clinic.doctor_row()["id"]) == [True, True]


def test_a_booking_locks_and_reads_doctor_and_patient_with_one_statement(clinic: Clinic) -> None:
    patient, doctor = clinic.patient()["id"], clinic.doctor_row()["id"]
    row = clinic.admin.make("/appointments", patient_id=patient, doctor_id=doctor, date=soon())
    statements: list[str] = []

    def record(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        statements.append(statement)

    with clinic.inside():
        event.listen(db.engine, "before_cursor_execute", record)
    try:
        clinic.admin.make("/appointments", patient_id=patient, doctor_id=doctor, date=soon(days=2))
        booked = list(statements)
        statements.clear()
        assert clinic.admin.patch(f"/appointments/{row['id']}", {"date": soon(days=3)}).status_code == 200
    finally:
        with clinic.inside():
            event.remove(db.engine, "before_cursor_execute", record)

    # locks, calendar, insert, audit entry
    assert len(booked) == 4, booked
    # row, locks of doctor and patient, lock of the row, calendar, update, audit entry
    assert len(statements) == 6, statements


@pytest.mark.parametrize(("missing", "field"), [("doctor_id", "doctor_id"), ("patient_id", "patient_id")])
def test_a_missing_row_of_a_booking_is_422(clinic: Clinic, missing: str, field: str) -> None:
    body = {"patient_id": clinic.patient()["id"], "doctor_id": clinic.doctor_row()["id"], "date": soon()}

    answer = clinic.admin.post("/appointments", body | {missing: 987})

    assert (answer.status_code, list(answer.get_json()["errors"])) == (422, [field])
