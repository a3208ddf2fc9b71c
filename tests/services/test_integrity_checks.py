"""`flask verify`: silent when all is well, and naming what was broken behind the rules' back."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sqlalchemy import text

from enums import LedgerKind
from models import InventoryItem, LedgerEntry, UserSession
from services import integrity_checks
from tests.support.clinic import Clinic, soon


def verify(clinic: Clinic) -> tuple[int, str]:
    """The command's exit code and what it says."""
    result = clinic.app.test_cli_runner().invoke(args=["verify"])
    return result.exit_code, result.output


def test_an_empty_clinic_is_well(clinic: Clinic) -> None:
    assert verify(clinic) == (0, "")


def test_a_clinic_after_a_day_is_well(clinic: Clinic) -> None:
    clinic.appointment()
    bill = clinic.bill("100.00")
    clinic.admin.post(f"/billings/{bill['id']}/payments", {"amount": "40.00", "method": "cash"})
    clinic.item(12)

    assert verify(clinic) == (0, "")


def forged_stock(clinic: Clinic) -> str:
    item = clinic.item(12)
    with clinic.inside() as session:
        session.get(InventoryItem, item["id"]).quantity = 13
    return "quantity is the sum of its movements"


def forged_credit(clinic: Clinic) -> str:
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
    return "neither made nor lost"


def revived_session(clinic: Clinic) -> str:
    caller = clinic.sign_in("receptionist")
    clinic.admin.delete(f"/users/{caller.user_id}")
    with clinic.inside() as session:
        session.query(UserSession).filter_by(user_id=caller.user_id).update({"ended_at": None})
    return "deactivated user is alive"


def lost_invoice(clinic: Clinic) -> str:
    clinic.bill("10.00")
    with clinic.inside() as session:
        session.execute(text("UPDATE invoice_counters SET last_number = last_number + 1"))
    return "Invoice numbers have no gap"


@pytest.mark.parametrize("damage", [forged_stock, forged_credit, revived_session, lost_invoice])
def test_damage_behind_the_rules_is_named(clinic: Clinic, damage: Callable[[Clinic], str]) -> None:
    sentence = damage(clinic)

    code, said = verify(clinic)

    assert code == 1
    assert sentence in said


def test_an_overlap_that_the_constraint_would_refuse_is_named(clinic: Clinic, engine_name: str) -> None:
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

    code, said = verify(clinic)

    assert code == 1
    assert "No doctor has two appointments at once" in said
    assert str(first["id"]) in said


def test_every_invariant_runs_on_both_engines(clinic: Clinic) -> None:
    with clinic.inside() as session:
        answers = [session.execute(one.breaches).all() for one in integrity_checks.invariants()]

    assert answers == [[]] * len(integrity_checks.invariants())
