"""Shared parts of the scheduling tests: a fixed clock, a booking request, conflict codes, audit actions."""

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
    """Set the clock to Monday, 08:00."""
    with time_machine.travel(NOW):
        yield


def later(**duration: float) -> time_machine.travel:
    """Set the clock to a time after that Monday, 08:00. Tokens may be expired then: sign in again."""
    return time_machine.travel(NOW + timedelta(**duration))


def booking_body(clinic: Clinic, **members: Any) -> dict[str, Any]:
    """Return the body of a booking for nine o'clock, by default with a new patient and a new doctor."""
    if "patient_id" not in members:
        members["patient_id"] = clinic.patient()["id"]
    if "doctor_id" not in members:
        members["doctor_id"] = clinic.doctor_row()["id"]
    return {"date": NINE} | members


def conflict_codes(response: Any) -> list[str]:
    """Return the codes of all conflicts in a 409 `appointment_conflict` response."""
    problem = response.get_json()
    assert (response.status_code, problem["error"]) == (409, "appointment_conflict"), problem
    return [conflict["code"] for conflict in problem["conflicts"]]


def audit_actions(clinic: Clinic, operation: str) -> list[str]:
    """Return the audit actions of operations with this prefix, oldest first."""
    with clinic.inside() as session:
        statement = (
            select(AuditLog.action).where(AuditLog.operation.startswith(operation)).order_by(AuditLog.id)
        )
        return list(session.scalars(statement))
