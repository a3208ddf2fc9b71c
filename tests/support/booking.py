"""What the tests of the calendar share: a Monday morning, a wish for nine o'clock, what a refusal names."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import time_machine
from sqlalchemy import select

from models import AuditLog
from tests.support.clinic import Clinic

MONDAY = "2027-03-01"
NINE = f"{MONDAY}T09:00:00+00:00"
NOW = datetime(2027, 3, 1, 8, tzinfo=UTC)
URGENT = {"overbook": True, "overbook_reason": "chest pain"}


@pytest.fixture(autouse=True)
def monday_morning() -> Iterator[None]:
    """It is 08:00 on a Monday."""
    with time_machine.travel(NOW):
        yield


def later(**ago: float) -> time_machine.travel:
    """Some time after that Monday morning; callers sign in anew."""
    return time_machine.travel(NOW + timedelta(**ago))


def wish(clinic: Clinic, **members: Any) -> dict[str, Any]:
    """A booking of nine o'clock by a new patient with a new doctor."""
    if "patient_id" not in members:
        members["patient_id"] = clinic.patient()["id"]
    if "doctor_id" not in members:
        members["doctor_id"] = clinic.doctor_row()["id"]
    return {"date": NINE} | members


def codes(answer: Any) -> list[str]:
    """Every clash that a refusal names."""
    problem = answer.get_json()
    assert (answer.status_code, problem["error"]) == (409, "appointment_conflict"), problem
    return [conflict["code"] for conflict in problem["conflicts"]]


def audited(clinic: Clinic, operation: str) -> list[str]:
    """What the audit says was done by operations that begin like this, oldest first."""
    with clinic.inside() as session:
        actions = (
            select(AuditLog.action).where(AuditLog.operation.startswith(operation)).order_by(AuditLog.id)
        )
        return list(session.scalars(actions))
