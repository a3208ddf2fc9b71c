"""Requests for prescriptions, and the errors of their responses."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

from werkzeug.test import TestResponse

from tests.support.clinic import Caller, Clinic


def today() -> date:
    return datetime.now(UTC).date()


def prescribe(clinic: Clinic, *medications: Any, **members: Any) -> dict[str, Any]:
    """Create a prescription of the doctor, at a new visit unless `visit_id` is there."""
    if "visit_id" not in members:
        members["visit_id"] = clinic.visit()["id"]
    return clinic.doctor.make("/prescriptions", medications=list(medications), **members)


def tablets(name: str = "Lisinopril", quantity: float = 10, **members: Any) -> dict[str, Any]:
    return {"name": name, "quantity": quantity} | members


def dispense(caller: Caller, row: dict[str, Any], *items: tuple[int | str, float]) -> TestResponse:
    """Dispense items (medication, quantity) of the prescription."""
    body = {"items": [{"medication": medication, "quantity": quantity} for medication, quantity in items]}
    return caller.post(f"/prescriptions/{row['id']}/dispense", body)


def error(answer: TestResponse) -> tuple[int, str]:
    return answer.status_code, answer.get_json()["error"]


def invalid_fields(answer: TestResponse) -> list[str]:
    """Return the fields that a 422 response reports."""
    assert answer.status_code == 422, answer.get_data(as_text=True)
    return list(answer.get_json()["errors"])
