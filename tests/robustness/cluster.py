"""The application with several worker processes, and concurrent clients."""

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
from tests.support.keys import secrets_of
from tests.support.servers import AppServer, start_app

TIMEOUT_S = 60  # longer than any allowed response time, so that slow responses are measured

PreparedRequest = Callable[[], requests.Response]


class Cluster:
    """The application with several worker processes, and an application in this process on its database.

    `slowest_s` is the longest response time since it was set to 0. `statuses` counts all responses.
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
        """Send a request as the admin, or as `by`. Each thread has its own connection."""
        if not hasattr(self._local, "session"):
            self._local.session = requests.Session()
            # Without cookies: the cookie of one sign-in must not replace the token of another caller.
            self._local.session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=()))
        headers.setdefault("Authorization", f"Bearer {(by or self.clinic.admin).token}")
        response: requests.Response = self._local.session.request(
            method, self.server.url + path, json=body, headers=headers, timeout=TIMEOUT_S
        )
        with self._counting:
            self.slowest_s = max(self.slowest_s, response.elapsed.total_seconds())
            self.statuses[response.status_code] += 1
        return response

    def prepare(
        self, method: str, path: str, body: Any = None, *, by: Caller | None = None, **headers: str
    ) -> PreparedRequest:
        """Return a request for `send_concurrently`. It is not sent yet."""
        return partial(self.send, method, path, body, by=by, **headers)

    def get(self, path: str, *, by: Caller | None = None) -> Any:
        """Return the JSON of a GET request that must succeed."""
        response = self.send("GET", path, by=by)
        assert response.status_code == 200, response.text
        return response.json()

    def send_concurrently(self, calls: Sequence[PreparedRequest]) -> list[requests.Response]:
        """Send all requests at the same time. Return the responses in the order of the requests."""
        _ = self.clinic.admin  # create the account now: not once per thread
        barrier = threading.Barrier(len(calls))

        def run(call: PreparedRequest) -> requests.Response:
            barrier.wait()
            return call()

        with ThreadPoolExecutor(len(calls)) as pool:
            return list(pool.map(run, calls))

    def count_statuses(self, calls: Sequence[PreparedRequest]) -> dict[int, int]:
        """Send all requests at the same time. Return the number of responses by status."""
        return dict(collections.Counter(response.status_code for response in self.send_concurrently(calls)))


def start_cluster(
    database_url: str, redis_url: str | None = None, workers: int = 4, env: Mapping[str, str] | None = None
) -> Cluster:
    """Start an application on a migrated database. `env` adds settings. `stop_cluster` ends it."""
    clinic = Clinic(settings_for(database_url))
    settings = clinic.settings
    shared = {
        **secrets_of(settings),
        "AUDIT_HEADS_FILE": str(settings.heads_file),
    }
    return Cluster(start_app(database_url, redis_url, workers=workers, env=shared | dict(env or {})), clinic)


def stop_cluster(cluster: Cluster) -> None:
    """Stop the workers and close the connections to the database."""
    cluster.server.stop()
    cluster.clinic.close()


def assert_consistent(clinic: Clinic) -> None:
    """Assert that `flask verify` and `flask audit verify` find no violation."""
    for command in (["verify"], ["audit", "verify"]):
        result = clinic.app.test_cli_runner().invoke(args=command)
        assert result.exit_code == 0, result.output


def slot(number: int) -> str:
    """Return the start of the n-th half hour after the next midnight (UTC)."""
    midnight = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
    return (midnight + timedelta(minutes=30 * number)).isoformat()
