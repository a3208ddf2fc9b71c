"""Tests with real components: nginx, two instances, PostgreSQL behind PgBouncer, Redis.

Only on the long level. They need the Debian packages nginx-light and pgbouncer, and fail without them.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import psycopg2
import pytest
import requests
from requests.adapters import HTTPAdapter

import config
from models import AuditLog
from tests.conftest import settings_for
from tests.robustness import test_race_money, test_race_people, test_races
from tests.robustness.abuse_slow import REQUEST_STARTS, slow_clients
from tests.robustness.cluster import Cluster, assert_consistent
from tests.robustness.conftest import Figures
from tests.robustness.load_level import LoadLevel, selected_level
from tests.robustness.proxies import (
    Pooler,
    Proxy,
    start_nginx,
    start_pgbouncer,
)
from tests.support.clinic import PASSWORD, Clinic
from tests.support.keys import secrets_of
from tests.support.servers import (
    AppServer,
    PostgresServer,
    RedisServer,
    start_app,
    start_redis,
)

__test__ = selected_level().long

POOL_SIZE = 8  # connections to PostgreSQL for both instances: fewer than their threads
ROUNDS = 5  # of each race
SLOW_CLIENTS = 200
RACES = [
    race
    for module in (test_races, test_race_money, test_race_people)
    for name, race in sorted(vars(module).items())
    if name.startswith("test_") and "outside" not in name
]


@dataclasses.dataclass
class Deployment:
    """Two instances of the application with proxy, pooler and Redis."""

    clinic: Clinic
    instances: list[AppServer]
    redis: RedisServer
    pooler: Pooler
    proxy: Proxy
    cluster: Cluster  # clients of the proxy

    def direct(self, number: int, method: str, path: str, token: str, body: Any = None) -> requests.Response:
        """Send a request to one instance, without the proxy."""
        headers = {"Authorization": f"Bearer {token}"}
        return requests.request(
            method, self.instances[number].url + path, json=body, headers=headers, timeout=30
        )


@pytest.fixture(scope="module")
def deployment(postgres: PostgresServer, postgres_template: str) -> Iterator[Deployment]:
    url = postgres.clone(postgres_template)
    clinic = Clinic(settings_for(url))
    redis, pooler = start_redis(), start_pgbouncer(postgres, POOL_SIZE)
    environment = {
        **secrets_of(clinic.settings),
        "AUDIT_HEADS_FILE": str(clinic.settings.heads_file),
        "TRUSTED_PROXIES": "1",
        "RATE_LIMIT_ENABLED": "true",
        "RATE_LIMIT_DEFAULT": "1000000 per minute",
        "RATE_LIMIT_LOGIN_ACCOUNT": "6 per 15 minutes",
        "RATE_LIMIT_LOGIN_ADDRESS": "1000 per 15 minutes",
    }
    instances = [start_app(pooler.url(url), redis.url, workers=2, env=environment) for _ in range(2)]
    proxy = start_nginx(instances)
    yield Deployment(clinic, instances, redis, pooler, proxy, Cluster(AppServer(None, proxy.url), clinic))
    for part in (proxy, *instances, pooler, redis):
        part.stop()
    clinic.close()


@pytest.fixture
def cluster(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """Return clients that trust the certificate of the proxy."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(deployment.proxy.authority))
    config.use(deployment.clinic.settings)
    deployment.cluster.slowest_s = 0.0
    deployment.cluster.statuses.clear()
    return deployment.cluster


@pytest.mark.parametrize("race", RACES, ids=lambda race: race.__name__.removeprefix("test_"))
def test_races_through_proxy_and_pooler(
    cluster: Cluster, level: LoadLevel, figures: Figures, race: Callable[[Cluster, LoadLevel], None]
) -> None:
    race(cluster, dataclasses.replace(level, rounds=ROUNDS))

    figures["requests"] = sum(cluster.statuses.values())
    figures["slowest response, s"] = round(cluster.slowest_s, 2)
    assert not [status for status in cluster.statuses if status >= 500], cluster.statuses
    assert_consistent(cluster.clinic)


@pytest.mark.parametrize("redis_loses_data", [False, True])
def test_a_sign_out_is_effective_on_both_instances(deployment: Deployment, redis_loses_data: bool) -> None:
    for first, second in ((0, 1), (1, 0)):
        caller = deployment.clinic.sign_in("receptionist")
        token = caller.token or ""
        assert deployment.direct(second, "GET", "/auth/me", token).status_code == 200

        assert deployment.direct(first, "POST", "/auth/logout", token).status_code == 200
        if redis_loses_data:
            deployment.redis.flush()

        response = deployment.direct(second, "GET", "/auth/me", token)
        assert (response.status_code, response.json()["error"]) == (401, "token_revoked")


def test_failed_sign_ins_are_counted_across_instances(deployment: Deployment) -> None:
    deployment.clinic.admin.make(
        "/users", name="Rita", email="rita@clinic.example", password=PASSWORD, role="doctor"
    )
    wrong = {"email": "rita@clinic.example", "password": "not the password"}

    statuses = [deployment.direct(n % 2, "POST", "/auth/login", "", wrong).status_code for n in range(8)]

    assert statuses == [401] * 6 + [429] * 2


class SourceAddress(HTTPAdapter):
    """An adapter that connects from a given source address."""

    def __init__(self, address: str) -> None:
        self.address = address
        super().__init__()

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        super().init_poolmanager(*arguments, source_address=(self.address, 0), **options)


def test_the_real_address_of_the_client_reaches_the_audit_log(
    deployment: Deployment, cluster: Cluster
) -> None:
    with requests.Session() as session:
        session.mount("https://", SourceAddress("127.0.0.9"))
        response = session.post(
            deployment.proxy.url + "/patients",
            json={"name": "Ada Quill"},
            headers={
                "Authorization": f"Bearer {deployment.clinic.admin.token}",
                "X-Forwarded-For": "203.0.113.7, 203.0.113.8",
                "X-Real-IP": "203.0.113.9",
            },
            timeout=30,
        )

    assert response.status_code == 201
    with deployment.clinic.inside() as session:
        newest = session.query(AuditLog.address).order_by(AuditLog.id.desc()).first()
    assert newest.address == "127.0.0.9"


def test_pooled_connections_keep_no_settings_and_no_prepared_statements(
    deployment: Deployment, cluster: Cluster
) -> None:
    cluster.send_concurrently([cluster.prepare("GET", "/patients") for _ in range(32)])

    timeouts = Counter()
    database = deployment.clinic.settings.database_url
    for _ in range(40):
        with (
            closing(psycopg2.connect(deployment.pooler.url(database))) as connection,
            connection.cursor() as cursor,
        ):
            cursor.execute("SELECT current_setting('statement_timeout'), current_setting('lock_timeout')")
            timeouts[cursor.fetchone()] += 1
            cursor.execute("SELECT count(*) FROM pg_prepared_statements")
            assert cursor.fetchone() == (0,)

    assert set(timeouts) == {("0", "0")}


@pytest.mark.parametrize("start", REQUEST_STARTS)
def test_the_proxy_buffers_slow_clients(
    deployment: Deployment, cluster: Cluster, start: str, figures: Figures
) -> None:
    with slow_clients(deployment.proxy.url, SLOW_CLIENTS, start, deployment.proxy.authority):
        statuses = Counter(cluster.send("GET", "/patients").status_code for _ in range(50))

    figures["slow clients"] = SLOW_CLIENTS
    figures["slowest response, s"] = round(cluster.slowest_s, 2)
    assert statuses == {200: 50}
    assert cluster.slowest_s < 2


def test_the_proxy_continues_with_one_instance(
    deployment: Deployment, cluster: Cluster, figures: Figures
) -> None:
    stopped = deployment.instances[0]
    stopped.stop(keep=True)

    responses = [cluster.send("GET", "/patients") for _ in range(60)]
    stopped.start()

    failed = [response for response in responses if response.status_code != 200]
    figures["responses 503"] = len(failed)
    assert {response.status_code for response in failed} <= {503}
    for response in failed:
        assert (response.json()["error"], "Retry-After" in response.headers) == ("unavailable", True)
    assert len(failed) <= 6  # nginx tries a failed instance again every ten seconds
    assert [response.status_code for response in itertools.islice(reversed(responses), 10)] == [200] * 10
