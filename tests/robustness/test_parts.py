"""Through real parts: nginx in front of two instances, one PostgreSQL behind PgBouncer, one Redis.

The long form alone: it needs Debian's nginx-light and pgbouncer, and fails without them.
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
from tests.robustness.abuse_slow import BEGINNINGS, slow_clients
from tests.robustness.conftest import Figures
from tests.robustness.fleet import Fleet, assert_well
from tests.robustness.parts import (
    Pooler,
    Proxy,
    start_nginx,
    start_pgbouncer,
)
from tests.robustness.scale import Scale, chosen
from tests.support.clinic import PASSWORD, Clinic
from tests.support.servers import (
    AppServer,
    PostgresServer,
    RedisServer,
    start_app,
    start_redis,
)

__test__ = chosen().long

POOL = 8  # connections to PostgreSQL for both instances together: fewer than their threads
ROUNDS = 5  # of each race
SLOW_CLIENTS = 200
RACES = [
    race
    for module in (test_races, test_race_money, test_race_people)
    for name, race in sorted(vars(module).items())
    if name.startswith("test_") and "outside" not in name
]


@dataclasses.dataclass
class House:
    """Two instances of the clinic and everything around them."""

    clinic: Clinic
    instances: list[AppServer]
    store: RedisServer
    pooler: Pooler
    proxy: Proxy
    fleet: Fleet  # through the proxy

    def direct(self, number: int, method: str, path: str, token: str, body: Any = None) -> requests.Response:
        """A request to one of the instances, past the proxy."""
        headers = {"Authorization": f"Bearer {token}"}
        return requests.request(
            method, self.instances[number].url + path, json=body, headers=headers, timeout=30
        )


@pytest.fixture(scope="module")
def house(postgres: PostgresServer, postgres_template: str) -> Iterator[House]:
    url = postgres.clone(postgres_template)
    clinic = Clinic(settings_for(url))
    store, pooler = start_redis(), start_pgbouncer(postgres, POOL)
    environment = {
        "JWT_SECRET_KEY": clinic.settings.jwt_secret_key,
        "AUDIT_KEY": clinic.settings.audit_key,
        "AUDIT_HEADS_FILE": str(clinic.settings.heads_file),
        "TRUSTED_PROXIES": "1",
        "RATE_LIMIT_ENABLED": "true",
        "RATE_LIMIT_DEFAULT": "1000000 per minute",
        "RATE_LIMIT_LOGIN_ACCOUNT": "6 per 15 minutes",
        "RATE_LIMIT_LOGIN_ADDRESS": "1000 per 15 minutes",
    }
    instances = [start_app(pooler.url(url), store.url, workers=2, env=environment) for _ in range(2)]
    proxy = start_nginx(instances)
    yield House(clinic, instances, store, pooler, proxy, Fleet(AppServer(None, proxy.url), clinic))
    for part in (proxy, *instances, pooler, store):
        part.stop()
    clinic.close()


@pytest.fixture
def fleet(house: House, monkeypatch: pytest.MonkeyPatch) -> Fleet:
    """Clients of the proxy, which they trust."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(house.proxy.authority))
    config.use(house.clinic.settings)
    house.fleet.slowest_s = 0.0
    house.fleet.statuses.clear()
    return house.fleet


@pytest.mark.parametrize("race", RACES, ids=lambda race: race.__name__.removeprefix("test_"))
def test_the_races_through_proxy_and_pooler(
    fleet: Fleet, scale: Scale, figures: Figures, race: Callable[[Fleet, Scale], None]
) -> None:
    race(fleet, dataclasses.replace(scale, rounds=ROUNDS))

    figures["requests"] = sum(fleet.statuses.values())
    figures["slowest answer, s"] = round(fleet.slowest_s, 2)
    assert not [status for status in fleet.statuses if status >= 500], fleet.statuses
    assert_well(fleet.clinic)


@pytest.mark.parametrize("redis_forgets", [False, True])
def test_signed_out_of_one_instance_is_signed_out_of_the_other(house: House, redis_forgets: bool) -> None:
    for first, second in ((0, 1), (1, 0)):
        caller = house.clinic.sign_in("receptionist")
        token = caller.token or ""
        assert house.direct(second, "GET", "/auth/me", token).status_code == 200

        assert house.direct(first, "POST", "/auth/logout", token).status_code == 200
        if redis_forgets:
            house.store.flush()

        answer = house.direct(second, "GET", "/auth/me", token)
        assert (answer.status_code, answer.json()["error"]) == (401, "token_revoked")


def test_failures_are_counted_for_both_instances_together(house: House) -> None:
    house.clinic.admin.make(
        "/users", name="Rita", email="rita@clinic.example", password=PASSWORD, role="doctor"
    )
    wrong = {"email": "rita@clinic.example", "password": "not the password"}

    statuses = [house.direct(n % 2, "POST", "/auth/login", "", wrong).status_code for n in range(8)]

    assert statuses == [401] * 6 + [429] * 2


class From(HTTPAdapter):
    """Sends from an address of our own."""

    def __init__(self, address: str) -> None:
        self.address = address
        super().__init__()

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        super().init_poolmanager(*arguments, source_address=(self.address, 0), **options)


def test_the_callers_address_comes_through_and_no_forged_one(house: House, fleet: Fleet) -> None:
    with requests.Session() as session:
        session.mount("https://", From("127.0.0.9"))
        answer = session.post(
            house.proxy.url + "/patients",
            json={"name": "Ada Quill"},
            headers={
                "Authorization": f"Bearer {house.clinic.admin.token}",
                "X-Forwarded-For": "203.0.113.7, 203.0.113.8",
                "X-Real-IP": "203.0.113.9",
            },
            timeout=30,
        )

    assert answer.status_code == 201
    with house.clinic.inside() as session:
        newest = session.query(AuditLog.address).order_by(AuditLog.id.desc()).first()
    assert newest.address == "127.0.0.9"


def test_nothing_is_left_on_the_poolers_connections(house: House, fleet: Fleet) -> None:
    fleet.at_once([fleet.later("GET", "/patients") for _ in range(32)])

    left = Counter()
    database = house.clinic.settings.database_url
    for _ in range(40):
        with (
            closing(psycopg2.connect(house.pooler.url(database))) as connection,
            connection.cursor() as cursor,
        ):
            cursor.execute("SELECT current_setting('statement_timeout'), current_setting('lock_timeout')")
            left[cursor.fetchone()] += 1
            cursor.execute("SELECT count(*) FROM pg_prepared_statements")
            assert cursor.fetchone() == (0,)

    assert set(left) == {("0", "0")}


@pytest.mark.parametrize("beginning", BEGINNINGS)
def test_slow_clients_wait_at_the_proxy(house: House, fleet: Fleet, beginning: str, figures: Figures) -> None:
    with slow_clients(house.proxy.url, SLOW_CLIENTS, beginning, house.proxy.authority):
        statuses = Counter(fleet.send("GET", "/patients").status_code for _ in range(50))

    figures["slow clients"] = SLOW_CLIENTS
    figures["slowest answer, s"] = round(fleet.slowest_s, 2)
    assert statuses == {200: 50}
    assert fleet.slowest_s < 2


def test_an_instance_that_goes_is_done_without(house: House, fleet: Fleet, figures: Figures) -> None:
    gone = house.instances[0]
    gone.stop(keep=True)

    answers = [fleet.send("GET", "/patients") for _ in range(60)]
    gone.start()

    away = [answer for answer in answers if answer.status_code != 200]
    figures["answers 503"] = len(away)
    assert {answer.status_code for answer in away} <= {503}
    for answer in away:
        assert (answer.json()["error"], "Retry-After" in answer.headers) == ("unavailable", True)
    assert len(away) <= 6  # nginx tries a dead instance again every ten seconds
    assert [answer.status_code for answer in itertools.islice(reversed(answers), 10)] == [200] * 10
