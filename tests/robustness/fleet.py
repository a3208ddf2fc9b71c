"""The application on several worker processes, and as many clients at once as an attack needs."""

from __future__ import annotations

import collections
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial
from http.cookiejar import DefaultCookiePolicy
from typing import Any

import requests

from tests.conftest import settings_for
from tests.support.clinic import Caller, Clinic
from tests.support.servers import AppServer, start_app

TIMEOUT_S = 60  # that a client waits: longer than any answer may take, so that slowness is measured

Call = Callable[[], requests.Response]


class Fleet:
    """The application under gunicorn with several processes, and the same clinic in this process.

    `slowest_s` is the longest answer since it was last set to 0, `statuses` counts all answers.
    """

    def __init__(self, server: AppServer, clinic: Clinic) -> None:
        self.server, self.clinic = server, clinic
        self.engine_name = (
            "sqlite" if (clinic.settings.database_uri or "").startswith("sqlite") else "postgresql"
        )
        self.slowest_s = 0.0
        self.statuses: collections.Counter[int] = collections.Counter()
        self._local = threading.local()
        self._counting = threading.Lock()

    def send(
        self, method: str, path: str, body: Any = None, *, by: Caller | None = None, **headers: str
    ) -> requests.Response:
        """One request of the admin, or of `by`, on this thread's own connection."""
        if not hasattr(self._local, "session"):
            self._local.session = requests.Session()
            # who signs in for others must not sign them out by a cookie that was kept
            self._local.session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=()))
        headers.setdefault("Authorization", f"Bearer {(by or self.clinic.admin).token}")
        found: requests.Response = self._local.session.request(
            method, self.server.url + path, json=body, headers=headers, timeout=TIMEOUT_S
        )
        with self._counting:
            self.slowest_s = max(self.slowest_s, found.elapsed.total_seconds())
            self.statuses[found.status_code] += 1
        return found

    def later(
        self, method: str, path: str, body: Any = None, *, by: Caller | None = None, **headers: str
    ) -> Call:
        """The same, not sent yet: for `at_once`."""
        return partial(self.send, method, path, body, by=by, **headers)

    def get(self, path: str, *, by: Caller | None = None) -> Any:
        """The answer to a GET, which must succeed."""
        found = self.send("GET", path, by=by)
        assert found.status_code == 200, found.text
        return found.json()

    def at_once(self, calls: Sequence[Call]) -> list[requests.Response]:
        """All calls started together; their answers, in the order of the calls."""
        _ = self.clinic.admin  # made by the first who asks: not by all of them
        barrier = threading.Barrier(len(calls))

        def run(call: Call) -> requests.Response:
            barrier.wait()
            return call()

        with ThreadPoolExecutor(len(calls)) as pool:
            return list(pool.map(run, calls))

    def count(self, calls: Sequence[Call]) -> dict[int, int]:
        """How often each status was answered."""
        return dict(collections.Counter(answer.status_code for answer in self.at_once(calls)))


def start_fleet(
    database_url: str, redis_url: str | None = None, workers: int = 4, env: Mapping[str, str] | None = None
) -> Fleet:
    """A fleet on a migrated database; `env` adds to its settings. To be ended by `stop_fleet`."""
    clinic = Clinic(settings_for(database_url))
    settings = clinic.settings
    shared = {
        "JWT_SECRET_KEY": settings.jwt_secret_key,
        "AUDIT_KEY": settings.audit_key,
        "AUDIT_HEADS_FILE": str(settings.heads_file),
    }
    return Fleet(start_app(database_url, redis_url, workers=workers, env=shared | dict(env or {})), clinic)


def stop_fleet(fleet: Fleet) -> None:
    """End the workers and let go of the database."""
    fleet.server.stop()
    fleet.clinic.close()


def assert_well(clinic: Clinic) -> None:
    """Every invariant holds, and the audit's chains are whole."""
    for command in (["verify"], ["audit", "verify"]):
        result = clinic.app.test_cli_runner().invoke(args=command)
        assert result.exit_code == 0, result.output


def slot(number: int) -> str:
    """The start of the n-th half hour from tomorrow midnight on."""
    midnight = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
    return (midnight + timedelta(minutes=30 * number)).isoformat()
