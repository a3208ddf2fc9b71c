"""`flask verify`: no output for correct data, otherwise the violated rule and the ids of the rows."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date

import pytest
from sqlalchemy import text

from enums import LedgerKind
from models import Allergy, InventoryItem, LedgerEntry, Patient, UserSession
from services import integrity_checks
from tests.support.clinic import Clinic, soon


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


def reopen_session(clinic: Clinic) -> str:
    caller = clinic.sign_in("receptionist")
    clinic.admin.delete(f"/users/{caller.user_id}")
    with clinic.inside() as session:
        session.query(UserSession).filter_by(user_id=caller.user_id).update({"ended_at": None})
    return "deactivated user has an open session"


def increment_invoice_counter(clinic: Clinic) -> str:
    clinic.bill("10.00")
    with clinic.inside() as session:
        session.execute(text("UPDATE invoice_counters SET last_number = last_number + 1"))
    return "Invoice numbers have no gaps"


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


@pytest.mark.parametrize(
    "damage",
    [
        add_allergy_beside_none_known,
        add_single_credit_entry,
        book_for_deceased_patient,
        change_quantity,
        increment_invoice_counter,
        reopen_session,
    ],
)
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
