"""Every database error keeps its cause: the right status, and a log entry with the statement or traceback."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import structlog
from sqlalchemy import text

from extensions import db
from services.scheduling import appointments
from tests.support.clinic import Clinic


@pytest.mark.parametrize("engine_name", ["postgresql"])
def test_a_division_by_zero_in_a_query_is_a_500_with_a_logged_traceback(
    clinic: Clinic, monkeypatch: pytest.MonkeyPatch
) -> None:
    def divide(*_arguments: Any, **_options: Any) -> Any:
        return db.session.execute(text("SELECT 1/0"))

    monkeypatch.setattr("resources.analytics.dashboard.show", divide)

    with structlog.testing.capture_logs() as entries:
        answer = clinic.admin.get("/analytics/dashboard")

    assert (answer.status_code, answer.get_json()["error"]) == (500, "internal_error")
    errors = [entry for entry in entries if entry["log_level"] == "error"]
    assert len(errors) == 1
    assert "division by zero" in str(errors[0]["exc_info"])


def test_a_double_booking_that_reaches_the_constraint_names_its_statement(
    clinic: Clinic, monkeypatch: pytest.MonkeyPatch
) -> None:
    doctor, patients = clinic.doctor_row(), [clinic.patient(), clinic.patient()]
    booking = {"doctor_id": doctor["id"], "date": "2027-03-01T09:00:00Z"}
    clinic.admin.make("/appointments", patient_id=patients[0]["id"], **booking)
    check = appointments.check_booking
    monkeypatch.setattr(
        appointments, "check_booking", lambda request: replace(check(request), conflict_codes=())
    )

    with structlog.testing.capture_logs() as entries:
        answer = clinic.admin.post("/appointments", {"patient_id": patients[1]["id"], **booking})

    assert (answer.status_code, answer.get_json()["error"]) == (409, "appointment_conflict")
    violations = [entry for entry in entries if entry["event"] == "constraint_violation"]
    assert [entry["constraint"] for entry in violations] == ["ex_appointments_doctor"]
    assert violations[0]["statement"].startswith("INSERT INTO appointments")
