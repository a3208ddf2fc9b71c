"""Floods of wrong sign-ins: they reach no limit twice, and other users sign in meanwhile."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import requests
from sqlalchemy import select

from models import AuditLog
from tests.conftest import NewDatabase, settings_for
from tests.robustness.conftest import Figures
from tests.robustness.load_level import LoadLevel, selected_level
from tests.support.clinic import PASSWORD, Clinic
from tests.support.concurrency import run_concurrently
from tests.support.keys import secrets_of
from tests.support.servers import AppServer, start_app, start_redis

ATTACKERS = 100
WORKERS = 2
BY_ACCOUNT, BY_NETWORK = 10, 30  # the defaults
ANOTHER_NETWORK = "203.0.113.99"
LONGEST_SIGN_IN_S = 2.0


class Attacked:
    """A clinic whose server is behind one proxy, and whose users know a device."""

    def __init__(self, clinic: Clinic, server: AppServer, *, has_redis: bool) -> None:
        self.clinic, self.server = clinic, server
        self.counting_processes = 1 if has_redis else WORKERS
        self.devices: dict[str, str] = {}
        for name in ("owner", "colleague", "neighbour"):
            clinic.admin.make("/users", name=name, email=email(name), password=PASSWORD, role="receptionist")
            self.devices[name] = self.sign_in(name, PASSWORD, "192.0.2.1").json()["device_token"]

    def sign_in(self, name: str, password: str, address: str, device: str | None = None) -> requests.Response:
        headers = {"X-Forwarded-For": address} | ({"X-Device-Token": device} if device else {})
        body = {"email": email(name), "password": password}
        return requests.post(f"{self.server.url}/auth/login", json=body, headers=headers, timeout=60)

    def timed_sign_in(self, name: str, address: str, device: str | None = None) -> tuple[int, float]:
        """Sign in during the flood. Return the status and the seconds."""
        time.sleep(0.2)  # the flood has filled the queue
        started = time.monotonic()
        return self.sign_in(name, PASSWORD, address, device).status_code, time.monotonic() - started

    def hashed(self) -> int:
        """Return the number of wrong passwords that were hashed."""
        statement = select(AuditLog.id).where(AuditLog.detail == "invalid_credentials")
        with self.clinic.inside() as session:
            return len(session.scalars(statement).all())


def email(name: str) -> str:
    return f"{name}@clinic.example"


@pytest.fixture(scope="module", params=["redis", "memory"] if selected_level().long else ["redis"])
def attacked(
    request: pytest.FixtureRequest, new_database: NewDatabase, level: LoadLevel
) -> Iterator[Attacked]:
    """Start the application with two workers: with Redis, and in the long form also without."""
    has_redis = request.param == "redis"
    clinic = Clinic(settings_for(new_database("postgresql")))
    redis = start_redis() if has_redis else None
    environment = {
        **secrets_of(clinic.settings),
        "AUDIT_HEADS_FILE": str(clinic.settings.heads_file),
        "TRUSTED_PROXIES": "1",
        "RATE_LIMIT_ENABLED": "true",
        "BCRYPT_COST": "12" if level.long else "8",
    }
    server = start_app(
        clinic.settings.database_url, redis.url if redis else None, workers=WORKERS, env=environment
    )
    yield Attacked(clinic, server, has_redis=has_redis)
    server.stop()
    if redis is not None:
        redis.stop()
    clinic.close()


@pytest.mark.parametrize(
    ("network", "accounts", "limit"),
    [
        ("203.0.113.1", ["owner"] * ATTACKERS, BY_ACCOUNT),
        ("203.0.113.2", [f"unknown{number}" for number in range(ATTACKERS)], BY_NETWORK),
    ],
    ids=["one account", "many accounts"],
)
def test_a_flood_of_wrong_sign_ins(
    attacked: Attacked, level: LoadLevel, figures: Figures, network: str, accounts: list[str], limit: int
) -> None:
    hashed_before = attacked.hashed()
    flood: list[Callable[[], Any]] = [
        partial(attacked.sign_in, name, "not the password", network) for name in accounts
    ]
    users: list[Callable[[], Any]] = [
        partial(attacked.timed_sign_in, "owner", ANOTHER_NETWORK, attacked.devices["owner"]),
        partial(attacked.timed_sign_in, "colleague", network, attacked.devices["colleague"]),
        partial(attacked.timed_sign_in, "neighbour", ANOTHER_NETWORK),
    ]

    results = run_concurrently(flood + users)

    refused = Counter(response.status_code for response in results[:ATTACKERS])
    slowest = max(seconds for _status, seconds in results[ATTACKERS:])
    figures["responses to the attackers"] = dict(refused)
    figures["slowest sign-in of a user, s"] = round(slowest, 2)
    assert set(refused) <= {401, 429, 503}
    assert refused[401] == attacked.hashed() - hashed_before <= limit * attacked.counting_processes
    assert [status for status, _seconds in results[ATTACKERS:]] == [200] * 3
    assert slowest < LONGEST_SIGN_IN_S or not level.long
