"""A test clinic: users that send requests, and factories that create rows with defaults through the API."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from flask import Flask
from sqlalchemy import update
from werkzeug.test import TestResponse

import config
from api import logging
from app import create_app, flask_settings
from cache.attempts import attempts
from cache.rate_limits import limits
from cache.redis import redis_store
from config import Settings
from enums import Role
from extensions import db
from models import Appointment, Doctor, User
from services import remembered
from services.audit import audit_chain
from services.listing.totals import forget_totals
from services.search_key import search_key
from services.users import sessions
from services.users.blocked_attempts import blocked_attempts

PASSWORD = "a quiet harbour at dawn"


class Caller:
    """A signed-in user, or an anonymous client without a token, that sends requests."""

    def __init__(self, clinic: Clinic, token: str | None, refresh_token: str | None = None) -> None:
        self.clinic, self.token, self.refresh_token = clinic, token, refresh_token
        self.user_id: int = 0
        self.doctor_id: int = 0

    def send(self, method: str, path: str, json: Any = None, **options: Any) -> TestResponse:
        """Send one request. `headers` replace the token of the caller."""
        headers = dict(options.pop("headers", {}))
        if self.token is not None:
            headers.setdefault("Authorization", f"Bearer {self.token}")
        client = self.clinic.app.test_client(use_cookies=False)
        if json is not None:
            options["json"] = json
        return client.open(path, method=method, headers=headers, **options)

    def get(self, path: str, **options: Any) -> TestResponse:
        return self.send("GET", path, **options)

    def post(self, path: str, json: Any = None, **options: Any) -> TestResponse:
        return self.send("POST", path, json, **options)

    def patch(self, path: str, json: Any = None, **options: Any) -> TestResponse:
        return self.send("PATCH", path, json, **options)

    def put(self, path: str, json: Any = None, **options: Any) -> TestResponse:
        return self.send("PUT", path, json, **options)

    def delete(self, path: str, json: Any = None, **options: Any) -> TestResponse:
        return self.send("DELETE", path, json, **options)

    def make(self, path: str, **body: Any) -> dict[str, Any]:
        """Create a row through the API and return it. The test fails if the request is refused."""
        response = self.post(path, body)
        assert response.status_code == 201, response.get_data(as_text=True)
        row: dict[str, Any] = response.get_json()
        return row


class Clinic:
    """An application with one caller per role. An existing `app` gets the settings of requests only."""

    def __init__(self, settings: Settings, app: Flask | None = None) -> None:
        self.settings = settings
        if app is None:
            app = create_app(settings)
        else:
            config.use(settings)
            logging.configure(production=settings.production)
            redis_store.init(settings.redis_url)
            limits.init(enabled=settings.rate_limit_enabled, redis_url=settings.redis_url)
            attempts.init(enabled=settings.rate_limit_enabled)
            blocked_attempts.clear()
            with app.app_context():
                forget_totals()
                remembered.forget_all()  # its database was emptied
        self.app = app
        self.numbers = itertools.count(1)
        self.nobody = Caller(self, None)
        self._callers: dict[str, Caller] = {}

    def close(self) -> None:
        # The thread must not open a connection to the database of this test during the next one.
        if audit_chain._exporter is not None:
            audit_chain._exporter.replaced.set()
            audit_chain._exporter.join(timeout=10)
        with self.app.app_context():
            db.session.remove()
            db.engine.dispose()
        self.settings.heads_file.unlink(missing_ok=True)

    @contextmanager
    def inside(self) -> Iterator[Any]:
        """Enter the application context and return the session. Commits at the end."""
        with self.app.app_context():
            yield db.session
            db.session.commit()
            db.session.remove()

    # --- Callers ---

    def sign_in(self, role: Role | str, *, active: bool = True) -> Caller:
        """Create a user of the role with a session. A doctor also gets a `Doctor` row."""
        role = Role(role)
        number = next(self.numbers)
        name = f"{role.value.title()} {number}"
        with self.inside() as session:
            user = User(
                name=name,
                name_fold=search_key(name),
                email=f"{role.value}{number}@clinic.example",
                password_hash="!",
                role=role,
                is_active=active,
            )
            session.add(user)
            session.flush()
            doctor_id = 0
            if role is Role.DOCTOR:
                doctor = Doctor(
                    name=name,
                    name_fold=search_key(name),
                    specialty="general practice",
                    license_number=f"LIC-{number}",
                    user_id=user.id,
                )
                session.add(doctor)
                session.flush()
                doctor_id = doctor.id
            _row, pair = sessions.open_session(user, device="test", address="127.0.0.1")
            caller = Caller(self, pair.access_token, pair.refresh_token)
            caller.user_id, caller.doctor_id = user.id, doctor_id
        return caller

    def caller(self, role: str) -> Caller:
        """Return the caller of a role, created at the first use."""
        if role not in self._callers:
            self._callers[role] = self.sign_in(role)
        return self._callers[role]

    @property
    def admin(self) -> Caller:
        return self.caller("admin")

    @property
    def doctor(self) -> Caller:
        return self.caller("doctor")

    @property
    def receptionist(self) -> Caller:
        return self.caller("receptionist")

    @property
    def technician(self) -> Caller:
        return self.caller("technician")

    # --- Rows, created through the API ---

    def patient(self, **members: Any) -> dict[str, Any]:
        members.setdefault("name", f"Patient Number{next(self.numbers)}")
        return self.admin.make("/patients", **members)

    def doctor_row(self, **members: Any) -> dict[str, Any]:
        number = next(self.numbers)
        members = {
            "name": f"Doctor Number{number}",
            "specialty": "general practice",
            "license_number": f"L-{number}",
        } | members
        return self.admin.make("/doctors", **members)

    def appointment(self, **members: Any) -> dict[str, Any]:
        """Create a future appointment. Each default start is an hour after the previous one."""
        if "patient_id" not in members:
            members["patient_id"] = self.patient()["id"]
        if "doctor_id" not in members:
            members["doctor_id"] = self.doctor.doctor_id
        members.setdefault("date", soon(hours=next(self.numbers)))
        return self.admin.make("/appointments", **members)

    def due_appointment(self, **members: Any) -> dict[str, Any]:
        """Create an appointment that started an hour ago. A booking cannot be in the past."""
        row = self.appointment(**members)
        start = datetime.now(UTC) - timedelta(hours=1)
        end = start + timedelta(minutes=row["duration"])
        with self.inside() as session:
            session.execute(
                update(Appointment)
                .where(Appointment.id == row["id"])
                .values(start=start, end=end, blocked_until=end)
            )
        shown: dict[str, Any] = self.admin.get(f"/appointments/{row['id']}").get_json()
        return shown

    def visit(self, **members: Any) -> dict[str, Any]:
        if "patient_id" not in members:
            members["patient_id"] = self.patient()["id"]
        if "doctor_id" not in members:
            members["doctor_id"] = self.doctor.doctor_id
        return self.admin.make("/visits", **members)

    def treatment(self, **members: Any) -> dict[str, Any]:
        if "visit_id" not in members:
            members["visit_id"] = self.visit()["id"]
        members = {"name": "Wound dressing", "cost": "100.00"} | members
        return self.admin.make("/treatments", **members)

    def bill(self, amount: str = "100.00", **members: Any) -> dict[str, Any]:
        """Create a bill with one item of this amount."""
        if "patient_id" not in members:
            members["patient_id"] = self.patient()["id"]
        members.setdefault("items", [{"description": "Consultation", "quantity": 1, "unit_price": amount}])
        return self.admin.make("/billings", **members)

    def item(self, quantity: int = 0, **members: Any) -> dict[str, Any]:
        """Create an inventory item with one lot that does not expire."""
        members.setdefault("name", f"Item {next(self.numbers)}")
        return self.admin.make("/inventory", quantity=quantity, **members)


def application_key(settings: Settings) -> str:
    """Return the settings that `create_app` builds into an application. Requests read all others."""
    return repr((flask_settings(settings), settings.trusted_proxies, settings.allowed_origins))


def soon(*, days: int = 1, hours: int = 0) -> str:
    """Return a whole hour in the future, as RFC 3339."""
    start = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    return (start + timedelta(days=days, hours=hours)).isoformat()
