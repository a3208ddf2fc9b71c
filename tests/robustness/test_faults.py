"""Servers that die, hang and fill up under load: what was acknowledged is kept, and the rest waits.

While a store is away there is nothing but 503 with Retry-After, in time; when it is back the application goes
on by itself. `under_load` judges what was written.
"""

from __future__ import annotations

import random
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from typing import Any, NamedTuple

import psutil
import psycopg2
import pytest
import redis
import requests
from sqlalchemy import make_url

from tests.robustness.conftest import Figures
from tests.robustness.fault_load import Load, under_load
from tests.robustness.fleet import (
    Fleet,
    assert_well,
    start_fleet,
    stop_fleet,
)
from tests.robustness.scale import Scale
from tests.support.database import migrate
from tests.support.servers import (
    PostgresServer,
    RedisServer,
    start_postgres,
    start_redis,
)

AWAY_S = 3.0  # that a store is away
BACK_WITHIN_S = 5.0  # of the store's return every writer writes again


class Fragile(NamedTuple):
    """A clinic whose PostgreSQL syncs as it is shipped, and whose servers may be stopped."""

    fleet: Fleet
    postgres: PostgresServer
    redis: RedisServer


@pytest.fixture(scope="session")
def stores(scale: Scale) -> Iterator[Fragile]:
    """Both stores and the application on them, one for all faults."""
    with pytest.MonkeyPatch.context() as patch:  # servers of others are not ours to break
        patch.delenv("TEST_DATABASE_URL", raising=False)
        patch.delenv("TEST_REDIS_URL", raising=False)
        postgres, redis_server = start_postgres(durable=True), start_redis()
    url = postgres.create()
    migrate(url)
    limits = {"RATE_LIMIT_ENABLED": "true", "RATE_LIMIT_DEFAULT": "1000000/minute"}
    fleet = start_fleet(url, redis_server.url, workers=scale.workers, env=limits)
    yield Fragile(fleet, postgres, redis_server)
    stop_fleet(fleet)
    redis_server.stop()
    postgres.stop()


@pytest.fixture
def fragile(stores: Fragile) -> Iterator[Fragile]:
    """The stores to break; afterwards everything that must be true still is."""
    yield stores
    assert_well(stores.fleet.clinic)


@contextmanager
def loaded(fleet: Fleet, scale: Scale, figures: Figures, *, prompt: bool = True) -> Iterator[Load]:
    """A load that is measured; whoever is kept waiting must be told in time.

    Not `prompt`: while workers are missing, a connection may wait for the next one to start.
    """
    with under_load(fleet, scale.writers) as load:
        load.wait(scale.writers)
        yield load
        back = load.wait_for_all()
    figures["acknowledged"] = len(load.acknowledged)
    figures["answers"] = dict(load.statuses)
    figures["slowest answer, s"] = round(load.slowest_s, 2)
    figures["back after, s"] = round(back, 2)
    assert back < BACK_WITHIN_S or not scale.long
    if prompt:
        assert load.slowest_s < scale.slowest_away_s


def processes(fleet: Fleet) -> tuple[psutil.Process, list[psutil.Process]]:
    """The application's master process and its workers."""
    assert fleet.server.process is not None and fleet.server.process.process is not None
    master = psutil.Process(fleet.server.process.process.pid)
    return master, master.children()


# --- The application -----------------------------------------------------------------------------------


def test_workers_killed_at_random_lose_nothing(workers: Fleet, scale: Scale, figures: Figures) -> None:
    dice = random.Random(9)

    with loaded(workers, scale, figures, prompt=False) as load:
        for _ in range(scale.kills):
            # granian stops if the same worker ends twice within 5.5 s: never kill the newest
            by_age = sorted(processes(workers)[1], key=psutil.Process.create_time)
            dice.choice(by_age[:-1]).kill()
            load.wait(scale.writes // scale.kills)

    figures["kills"] = scale.kills
    assert_well(workers.clinic)


def test_an_ordered_stop_answers_what_it_has_begun(fragile: Fragile, scale: Scale, figures: Figures) -> None:
    server = fragile.fleet.server

    with loaded(fragile.fleet, scale, figures, prompt=False) as load:
        for _ in range(scale.outages):
            server.stop(signal.SIGTERM, keep=True)
            server.start()
            load.wait(scale.writers)

    assert set(load.statuses) <= {201, "ConnectionError"}


def test_clients_that_hang_up_hold_nobody_else_up(fragile: Fragile, scale: Scale, figures: Figures) -> None:
    fleet = fragile.fleet
    patient = fleet.clinic.patient()["id"]
    headers = {"Authorization": f"Bearer {fleet.clinic.admin.token}"}

    with loaded(fleet, scale, figures) as load:
        for number in range(scale.hang_ups):
            with suppress(requests.RequestException):
                path, body = f"{fleet.server.url}/patients/{patient}", {"address": f"Lane {number}"}
                requests.patch(path, json=body, headers=headers, timeout=0.0005 * (number % 20 + 1))
            time.sleep(0.02)
        load.wait(scale.writers)

    assert set(load.statuses) == {201}


# --- PostgreSQL ----------------------------------------------------------------------------------------


def test_postgresql_stopped_at_once_and_started_again(
    fragile: Fragile, scale: Scale, figures: Figures
) -> None:
    master = processes(fragile.fleet)

    with loaded(fragile.fleet, scale, figures) as load:
        for _ in range(scale.outages):
            fragile.postgres.stop(signal.SIGQUIT, keep=True)
            time.sleep(AWAY_S)
            fragile.postgres.start()
            assert load.wait_for_all() < BACK_WITHIN_S

    assert processes(fragile.fleet) == master  # nobody restarted it
    assert set(load.statuses) <= {201, 503, 409}


def test_postgresql_frozen_and_thawed(fragile: Fragile, scale: Scale, figures: Figures) -> None:
    with loaded(fragile.fleet, scale, figures) as load:
        for _ in range(scale.outages):
            fragile.postgres.freeze()
            time.sleep(AWAY_S + 4)  # longer than any of the application's own deadlines
            fragile.postgres.thaw()
            assert load.wait_for_all() < BACK_WITHIN_S

    assert set(load.statuses) <= {201, 503, 409}


def test_connections_used_up(fragile: Fragile, scale: Scale, figures: Figures) -> None:
    with loaded(fragile.fleet, scale, figures) as load:
        for _ in range(scale.outages):
            with every_connection_taken(fragile.fleet.clinic.settings.database_url):
                time.sleep(AWAY_S)
            assert load.wait_for_all() < BACK_WITHIN_S

    assert load.statuses[503] > 0
    assert set(load.statuses) <= {201, 503, 409}


@contextmanager
def every_connection_taken(database_url: str) -> Iterator[None]:
    """Others hold every connection that the server allows; the application's own are ended."""
    taken = [connect(database_url)]
    for _ in range(3):  # the application is after them too
        taken[0].cursor().execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'clinic'"
        )
        with suppress(psycopg2.OperationalError):
            while True:
                taken.append(connect(database_url))
    try:
        yield
    finally:
        for connection in taken:
            connection.close()


def connect(database_url: str) -> Any:
    """A connection of somebody else's to the clinic's database."""
    url = make_url(database_url)
    connection = psycopg2.connect(
        host=url.query["host"], user=url.username, dbname=url.database, connect_timeout=5
    )
    connection.autocommit = True
    return connection


def test_a_row_locked_for_long_holds_up_those_alone_who_need_it(
    fragile: Fragile, scale: Scale, figures: Figures
) -> None:
    with (
        loaded(fragile.fleet, scale, figures) as load,
        closing(connect(fragile.fleet.clinic.settings.database_url)) as other,
    ):
        others = range(1, scale.writers)
        other.autocommit = False
        other.cursor().execute("SELECT 1 FROM patients WHERE id = %s FOR UPDATE", (load.writers[0].patient,))
        since = time.monotonic()
        time.sleep(scale.held_s)
        written = {number for number in others if load.last.get(number, 0.0) > since}
        other.rollback()

    assert written == set(others)
    assert load.statuses[503] + load.statuses[409] > 0


# --- Redis ---------------------------------------------------------------------------------------------


def test_redis_may_stop_hang_forget_and_dawdle(fragile: Fragile, scale: Scale, figures: Figures) -> None:
    server = fragile.redis

    with loaded(fragile.fleet, scale, figures) as load:
        for _ in range(scale.outages):
            server.flush()
            server.freeze()
            load.wait(scale.writers * 2)
            server.thaw()
            server.stop(signal.SIGKILL, keep=True)
            load.wait(scale.writers * 2)
            server.start()
            load.wait(scale.writers * 2)
            with dawdling(server):
                load.wait(scale.writers * 2)

    assert set(load.statuses) == {201}
    assert load.slowest_s < scale.slowest_s


@contextmanager
def dawdling(server: RedisServer) -> Iterator[None]:
    """Redis answers everything, each time 150 ms late."""
    over = threading.Event()

    def pause() -> None:
        with closing(redis.Redis.from_url(server.url)) as client:
            while not over.wait(0.01):
                client.client_pause(150)

    thread = threading.Thread(target=pause, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
