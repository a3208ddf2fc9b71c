"""Users with a second factor in tests, on a clock that the test moves."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pyotp
import pytest
from werkzeug.test import TestResponse

from services import clock
from tests.support.clinic import PASSWORD, Caller, Clinic

STEP = timedelta(seconds=30)


class Clock:
    """A clock that stands still until the test moves it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.time = datetime.now(UTC).replace(microsecond=0)
        monkeypatch.setattr(clock, "now", lambda: self.time)

    def move(self, **interval: float) -> None:
        self.time += timedelta(**interval)


class Member:
    """A user with a password, and later with an authenticator app, who sends requests."""

    def __init__(self, clinic: Clinic, clock: Clock, role: str = "admin") -> None:
        self.clinic, self.clock = clinic, clock
        self.email = f"member{next(clinic.numbers)}@clinic.example"
        user = clinic.admin.make("/users", name="Mary Member", email=self.email, password=PASSWORD, role=role)
        self.id: int = user["id"]
        self.secret = ""
        self.recovery_codes: list[str] = []

    def log_in(self, **options: Any) -> TestResponse:
        """Send the first step of a sign-in."""
        body = {"email": self.email, "password": options.pop("password", PASSWORD)}
        return self.clinic.nobody.post("/auth/login", body, **options)

    def caller(self) -> Caller:
        """Sign in without a second factor."""
        return self._as_caller(self.log_in())

    def _as_caller(self, response: TestResponse) -> Caller:
        assert response.status_code == 200, response.get_data(as_text=True)
        body = response.get_json()
        caller = Caller(self.clinic, body["access_token"], body["refresh_token"])
        caller.user_id = self.id
        return caller

    def enrol(self, caller: Caller) -> Caller:
        """Set up an authenticator app in the session of the caller."""
        self.read_secret(caller.post("/auth/mfa/totp"))
        confirmed = caller.post("/auth/mfa/totp/confirm", {"code": self.code()})
        assert confirmed.status_code == 200, confirmed.get_data(as_text=True)
        self.recovery_codes = confirmed.get_json()["recovery_codes"]
        return caller

    def read_secret(self, enrolment: TestResponse) -> None:
        """Store the secret of an authenticator app."""
        self.secret = parse_qs(urlsplit(enrolment.get_json()["otpauth_uri"]).query)["secret"][0]

    def code(self, steps: int = 0) -> str:
        """Return the code of the present time step, or of another one."""
        return pyotp.TOTP(self.secret).at(self.clock.time + steps * STEP)

    def next_code(self) -> str:
        """Return a code of a time step after all earlier ones."""
        self.clock.time += 2 * STEP
        return self.code()

    def mfa_token(self, **options: Any) -> str:
        """Return the token of a new sign-in that waits for the second factor."""
        body = self.log_in(**options).get_json()
        assert body["mfa_required"] is True, body
        token: str = body["mfa_token"]
        return token

    def prove(self, token: str | None = None, **proof: Any) -> TestResponse:
        """Send the second step of a sign-in, by default with the next code."""
        options = proof.pop("options", {})
        body = {"mfa_token": token or self.mfa_token(), **(proof or {"code": self.next_code()})}
        return self.clinic.nobody.post("/auth/login/mfa", body, **options)

    def signed_in(self) -> Caller:
        """Sign in with the second factor."""
        return self._as_caller(self.prove())
