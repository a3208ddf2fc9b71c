"""Every database error keeps its cause: the right status, and a log entry with the statement or traceback."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import psycopg2
import pytest
import structlog
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from api import request_cycle
from database import deadline
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


def test_a_request_without_time_left_is_not_run_again(
    clinic: Clinic, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each attempt would open a connection to the frozen server, and wait for it again."""
    caller, attempts = clinic.technician, 0
    cause = psycopg2.OperationalError("server closed the connection")

    def hang(*_arguments: object) -> None:
        nonlocal attempts
        attempts += 1
        monkeypatch.setattr(deadline, "has_passed", lambda: True)
        raise OperationalError("SELECT 1", {}, cause, connection_invalidated=True)

    monkeypatch.setattr(request_cycle, "identify", hang)
    answer = caller.get("/patients")

    assert (answer.status_code, answer.get_json()["error"], attempts) == (503, "unavailable", 1)
