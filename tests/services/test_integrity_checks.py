"""`flask verify`: no output for correct data, otherwise the violated rule and the ids of the rows."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import select, text

from enums import LedgerKind
from models import (
    Allergy,
    Appointment,
    CalendarFeed,
    EmergencyAccess,
    InventoryItem,
    Job,
    LedgerEntry,
    Letter,
    Message,
    Patient,
    Prescription,
    UserSession,
    Visit,
)
from services import clock, integrity_checks
from tests.support.calendars import fetch
from tests.support.clinic import Clinic, soon
from tests.support.prescriptions import dispense, prescribe, tablets


def verify(clinic: Clinic) -> tuple[int, str]:
    """Return the exit code and the output of the command."""
    result = clinic.app.test_cli_runner().invoke(args=["verify"])
    return result.exit_code, result.output


def test_an_empty_database_has_no_violations(clinic: Clinic) -> None:
    assert verify(clinic) == (0, "")


def test_data_created_by_the_api_has_no_violations(clinic: Clinic) -> None:
    clinic.appointment()
    bill = clinic.bill("100.00")
    clinic.admin.post(f"/billings/{bill['id']}/payments", {"amount": "40.00", "method": "cash"})
    clinic.item(12)
    row = prescribe(clinic, tablets("Warfarin", 2.5, duration_days=10), "Lisinopril")
    dispense(clinic.technician, row, ("Warfarin", 1.5), ("Lisinopril", 0.5))
    clinic.doctor.post(f"/prescriptions/{row['id']}/stop", {"reason": "bleeding"})

    assert verify(clinic) == (0, "")


def change_quantity(clinic: Clinic) -> str:
    item = clinic.item(12)
    with clinic.inside() as session:
        session.get(InventoryItem, item["id"]).quantity = 13
    return "quantity is the sum of its movements"


def add_single_credit_entry(clinic: Clinic) -> str:
    bill = clinic.bill("100.00")
    with clinic.inside() as session:
        entry = session.query(LedgerEntry).filter_by(billing_id=bill["id"]).first()
        session.add(
            LedgerEntry(
                patient_id=entry.patient_id,
                kind=LedgerKind.CREDIT,
                amount=-entry.amount,
                occurred_at=entry.occurred_at,
                created_at=entry.created_at,
            )
        )
    return "credit entries of a patient sum to zero"


def add_calendar_feeds(clinic: Clinic) -> str:
    feed = clinic.doctor.make(f"/doctors/{clinic.doctor.doctor_id}/calendar-feeds")
    with clinic.inside() as session:
        columns = session.execute(select(CalendarFeed.__table__)).mappings().one()
        for number in range(5):
            session.add(CalendarFeed(**{**columns, "id": feed["id"] + 1 + number, "token_hash": str(number)}))
    return "has more than 5 calendar feeds"


def forget_calendar_digest(clinic: Clinic) -> str:
    feed = clinic.doctor.make(f"/doctors/{clinic.doctor.doctor_id}/calendar-feeds")
    fetch(clinic, feed)
    with clinic.inside() as session:
        session.get(CalendarFeed, feed["id"]).content_digest = None
    return "was read has a digest of its content"


def add_job(clinic: Clinic, **values: Any) -> None:
    now = clock.now()
    with clinic.inside() as session:
        session.add(Job(**{"kind": "test", "run_at": now, "created_at": now, "state": "queued"} | values))


def start_job_too_often(clinic: Clinic) -> str:
    add_job(clinic, attempts=11)
    return "A job has at most 10 attempts"


def finish_job_without_attempt(clinic: Clinic) -> str:
    add_job(clinic, state="done", finished_at=clock.now(), attempts=0)
    return "at least one after its start"


def rename_event(clinic: Clinic) -> str:
    clinic.patient()
    with clinic.inside() as session:
        session.execute(text("UPDATE events SET entity = 'visit' WHERE type LIKE 'patient.%'"))
    return "type of an event begins with its entity"


def give_message_to_another_patient(clinic: Clinic) -> str:
    bill, other, now = clinic.bill("10.00"), clinic.patient()["id"], clock.now()
    members = {"kind": "invoice", "channel": "email", "state": "cancelled", "reason": "not_needed"}
    with clinic.inside() as session:
        session.add(
            Message(
                **members,
                patient_id=other,
                billing_id=bill["id"],
                dedupe_key="x",
                send_at=now,
                expires_at=now,
            )
        )
    return "about a visit or a bill is to its patient"


def rename_patient(clinic: Clinic) -> str:
    patient = clinic.patient()
    with clinic.inside() as session:
        session.get(Patient, patient["id"]).name_fold = "somebody else"
    return "search column of a patient begins with the name"


def reopen_session(clinic: Clinic) -> str:
    caller = clinic.sign_in("receptionist")
    clinic.admin.delete(f"/users/{caller.user_id}")
    with clinic.inside() as session:
        session.query(UserSession).filter_by(user_id=caller.user_id).update({"ended_at": None})
    return "deactivated user has an open session"


def extend_emergency_access(clinic: Clinic) -> str:
    access = clinic.receptionist.make(
        f"/patients/{clinic.patient()['id']}/emergency-access", reason="Unconscious"
    )
    with clinic.inside() as session:
        session.get(EmergencyAccess, access["id"]).expires_at += timedelta(days=1)
    return "No emergency access ends later than an hour from now"


def review_emergency_access_too_early(clinic: Clinic) -> str:
    access = clinic.receptionist.make(
        f"/patients/{clinic.patient()['id']}/emergency-access", reason="Unconscious"
    )
    clinic.admin.post(f"/emergency-access/{access['id']}/review", {"outcome": "justified"})
    with clinic.inside() as session:
        session.get(EmergencyAccess, access["id"]).reviewed_at -= timedelta(days=1)
    return "An emergency access is reviewed by another user, after it began"


def increment_invoice_counter(clinic: Clinic) -> str:
    clinic.bill("10.00")
    with clinic.inside() as session:
        session.execute(text("UPDATE document_counters SET last_number = last_number + 1"))
    return "Invoice numbers have no gaps"


def _letter(clinic: Clinic) -> dict[str, Any]:
    path = f"/visits/{clinic.visit()['id']}/letters"
    return clinic.doctor.make(path, type="certificate", text="Fit to travel.")


def skip_letter_number(clinic: Clinic) -> str:
    _letter(clinic)
    with clinic.inside() as session:
        session.execute(text("UPDATE document_counters SET last_number = last_number + 1"))
    return "Letter numbers have no gaps"


def lose_letter_counter(clinic: Clinic) -> str:
    _letter(clinic)
    with clinic.inside() as session:
        session.execute(text("DELETE FROM document_counters"))
    return "Letter numbers have no gaps"


def give_letter_to_another_patient(clinic: Clinic) -> str:
    letter, other = _letter(clinic), clinic.patient()["id"]
    with clinic.inside() as session:
        session.get(Letter, letter["id"]).patient_id = other
    return "A letter has the patient of its visit"


def void_visit_of_letter(clinic: Clinic) -> str:
    letter = _letter(clinic)
    with clinic.inside() as session:
        session.get(Visit, letter["visit_id"]).voided_at = clock.now()
    return "A visit with a valid letter is not void"


def _dispensed_warfarin(clinic: Clinic) -> int:
    row = prescribe(clinic, tablets("Warfarin", 2.5, duration_days=10))
    assert dispense(clinic.technician, row, ("Warfarin", 1.5)).status_code == 200
    prescription_id: int = row["id"]
    return prescription_id


def change_dispensed_quantity(clinic: Clinic) -> str:
    prescription_id = _dispensed_warfarin(clinic)
    with clinic.inside() as session:
        session.get(Prescription, prescription_id).medications[0].dispensed = Decimal("1.499")
    return "dispensed quantity of a medication is the sum of its dispensings"


def stop_before_the_dispensing(clinic: Clinic) -> str:
    prescription_id = _dispensed_warfarin(clinic)
    with clinic.inside() as session:
        row = session.get(Prescription, prescription_id)
        row.stopped_at, row.stop_reason = row.issued_at - timedelta(hours=1), "bleeding"
    return "no dispensing after the stop"


def stop_without_reason(clinic: Clinic) -> str:
    prescription_id = _dispensed_warfarin(clinic)
    with clinic.inside() as session:
        row = session.get(Prescription, prescription_id)
        row.stopped_at = row.issued_at + timedelta(days=1)
    return "A stopped therapy has a reason"


def remove_last_day(clinic: Clinic) -> str:
    prescription_id = _dispensed_warfarin(clinic)
    with clinic.inside() as session:
        session.get(Prescription, prescription_id).medications[0].ends_on = None
    return "A therapy has an end if it has a duration"


def cancel_without_status(clinic: Clinic) -> str:
    row = clinic.appointment()
    with clinic.inside() as session:
        appointment = session.get(Appointment, row["id"])
        appointment.cancelled_at = appointment.created_at
    return "Only a cancelled appointment has a time of cancellation"


def count_a_move_without_time(clinic: Clinic) -> str:
    row = clinic.appointment()
    with clinic.inside() as session:
        session.get(Appointment, row["id"]).reschedule_count = 1
    return "A rescheduled appointment has the time of its last move"


def book_for_deceased_patient(clinic: Clinic) -> str:
    appointment = clinic.appointment()
    with clinic.inside() as session:
        session.get(Patient, appointment["patient_id"]).deceased_on = date(2020, 1, 2)
    return "No archived or deceased patient has a future appointment"


def add_allergy_beside_none_known(clinic: Clinic) -> str:
    path = f"/patients/{clinic.patient()['id']}/medical-history"
    history = clinic.doctor.patch(path, {"no_known_allergies": True}).get_json()
    with clinic.inside() as session:
        session.add(Allergy(medical_history_id=history["id"], substance="Latex", substance_fold="latex"))
    return "A patient with no known allergies has no recorded allergy"


DAMAGES = [
    rename_patient,
    add_calendar_feeds,
    forget_calendar_digest,
    start_job_too_often,
    finish_job_without_attempt,
    rename_event,
    give_message_to_another_patient,
    change_quantity,
    add_single_credit_entry,
    reopen_session,
    extend_emergency_access,
    review_emergency_access_too_early,
    increment_invoice_counter,
    skip_letter_number,
    lose_letter_counter,
    give_letter_to_another_patient,
    void_visit_of_letter,
    change_dispensed_quantity,
    stop_before_the_dispensing,
    stop_without_reason,
    remove_last_day,
    cancel_without_status,
    count_a_move_without_time,
    book_for_deceased_patient,
    add_allergy_beside_none_known,
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_violation_is_reported_with_its_rule(clinic: Clinic, damage: Callable[[Clinic], str]) -> None:
    rule = damage(clinic)

    code, output = verify(clinic)

    assert code == 1
    assert rule in output


def test_overlapping_appointments_are_reported(clinic: Clinic, engine_name: str) -> None:
    first = clinic.appointment(date=soon(hours=1))
    second = clinic.appointment(doctor_id=first["doctor_id"], date=soon(hours=5))
    with clinic.inside() as session:
        if engine_name == "postgresql":
            session.execute(text("ALTER TABLE appointments DROP CONSTRAINT ex_appointments_doctor"))
        else:
            for name in session.scalars(
                text("SELECT name FROM sqlite_master WHERE type = 'trigger' AND tbl_name = 'appointments'")
            ).all():
                session.execute(text(f"DROP TRIGGER {name}"))
        moved = "SELECT {} FROM appointments WHERE id = {}"
        session.execute(
            text(
                "UPDATE appointments SET start = (" + moved.format("start", first["id"]) + "), "
                '"end" = (' + moved.format('"end"', first["id"]) + "), "
                "blocked_until = ("
                + moved.format("blocked_until", first["id"])
                + f") WHERE id = {second['id']}"
            )
        )

    code, output = verify(clinic)

    assert code == 1
    assert "No doctor has two appointments at once" in output
    assert str(first["id"]) in output


def test_every_check_runs_on_both_engines(clinic: Clinic) -> None:
    with clinic.inside() as session:
        answers = [session.execute(check.query).all() for check in integrity_checks.all_checks()]

    assert answers == [[]] * len(integrity_checks.all_checks())
