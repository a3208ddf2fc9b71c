"""Faults of the servers under load: no acknowledged write is lost.

While PostgreSQL or Redis is unavailable, the application answers 503 with Retry-After, within a time limit.
Afterwards it continues without a restart. `under_load` checks the stored writes.
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

from tests.robustness.cluster import (
    Cluster,
    assert_consistent,
    start_cluster,
    stop_cluster,
)
from tests.robustness.conftest import Figures
from tests.robustness.fault_load import Load, under_load
from tests.robustness.load_level import LoadLevel
from tests.support.database import migrate
from tests.support.servers import (
    PostgresServer,
    RedisServer,
    start_postgres,
    start_redis,
)

OUTAGE_S = 3.0
RECOVERY_LIMIT_S = 5.0  # then every writer has a successful write again


class Servers(NamedTuple):
    """An application with its own PostgreSQL (durable settings) and Redis, which the tests may stop."""

    cluster: Cluster
    postgres: PostgresServer
    redis: RedisServer


@pytest.fixture(scope="session")
def shared_servers(level: LoadLevel) -> Iterator[Servers]:
    """Start PostgreSQL, Redis and the application once for all tests."""
    with pytest.MonkeyPatch.context() as patch:  # never stop servers that the tests did not start
        patch.delenv("TEST_DATABASE_URL", raising=False)
        patch.delenv("TEST_REDIS_URL", raising=False)
        postgres, redis_server = start_postgres(durable=True), start_redis()
    url = postgres.create()
    migrate(url)
    limits = {"RATE_LIMIT_ENABLED": "true", "RATE_LIMIT_DEFAULT": "1000000/minute"}
    cluster = start_cluster(url, redis_server.url, workers=level.workers, env=limits)
    yield Servers(cluster, postgres, redis_server)
    stop_cluster(cluster)
    redis_server.stop()
    postgres.stop()


@pytest.fixture
def servers(shared_servers: Servers) -> Iterator[Servers]:
    """Yield the servers. Check the consistency of the data after the test."""
    yield shared_servers
    assert_consistent(shared_servers.cluster.clinic)


@contextmanager
def loaded(cluster: Cluster, level: LoadLevel, figures: Figures, *, prompt: bool = True) -> Iterator[Load]:
    """Run a load during the block. Check the recovery time and the slowest response.

    Without `prompt` the slowest response is not checked: a connection may wait for the start of a new worker.
    """
    with under_load(cluster, level.writers) as load:
        load.wait(level.writers)
        yield load
        recovery_s = load.wait_for_all()
    figures["acknowledged"] = len(load.acknowledged)
    figures["responses"] = dict(load.statuses)
    figures["slowest response, s"] = round(load.slowest_s, 2)
    figures["recovery, s"] = round(recovery_s, 2)
    assert recovery_s < RECOVERY_LIMIT_S or not level.long
    if prompt:
        assert load.slowest_s < level.slowest_away_s


def processes(cluster: Cluster) -> tuple[psutil.Process, list[psutil.Process]]:
    """Return the main process of the application and its workers."""
    assert cluster.server.process is not None
    assert cluster.server.process.process is not None
    master = psutil.Process(cluster.server.process.process.pid)
    return master, master.children()


# --- The application -----------------------------------------------------------------------------------


def test_workers_killed_at_random_lose_no_write(
    shared_cluster: Cluster, level: LoadLevel, figures: Figures
) -> None:
    rng = random.Random(9)

    with loaded(shared_cluster, level, figures, prompt=False) as load:
        for _ in range(level.kills):
            # granian stops if the same worker ends twice within 5.5 s: never kill the newest
            by_age = sorted(processes(shared_cluster)[1], key=psutil.Process.create_time)
            rng.choice(by_age[:-1]).kill()
            load.wait(level.writes // level.kills)

    figures["kills"] = level.kills
    assert_consistent(shared_cluster.clinic)


def test_an_ordered_stop_completes_open_requests(
    servers: Servers, level: LoadLevel, figures: Figures
) -> None:
    server = servers.cluster.server

    with loaded(servers.cluster, level, figures, prompt=False) as load:
        for _ in range(level.outages):
            server.stop(signal.SIGTERM, keep=True)
            server.start()
            load.wait(level.writers)

    assert set(load.statuses) <= {201, "ConnectionError"}


def test_clients_that_hang_up_do_not_delay_others(
    servers: Servers, level: LoadLevel, figures: Figures
) -> None:
    cluster = servers.cluster
    patient = cluster.clinic.patient()["id"]
    headers = {"Authorization": f"Bearer {cluster.clinic.admin.token}"}

    with loaded(cluster, level, figures) as load:
        for number in range(level.hang_ups):
            with suppress(requests.RequestException):
                path, body = f"{cluster.server.url}/patients/{patient}", {"address": f"Lane {number}"}
                requests.patch(path, json=body, headers=headers, timeout=0.0005 * (number % 20 + 1))
            time.sleep(0.02)
        load.wait(level.writers)

    assert set(load.statuses) == {201}


# --- PostgreSQL ----------------------------------------------------------------------------------------


def test_postgresql_stopped_and_restarted(servers: Servers, level: LoadLevel, figures: Figures) -> None:
    before = processes(servers.cluster)

    with loaded(servers.cluster, level, figures) as load:
        for _ in range(level.outages):
            servers.postgres.stop(signal.SIGQUIT, keep=True)
            time.sleep(OUTAGE_S)
            servers.postgres.start()
            assert load.wait_for_all() < RECOVERY_LIMIT_S

    assert processes(servers.cluster) == before  # no process was restarted
    assert set(load.statuses) <= {201, 503, 409}


def test_postgresql_frozen_and_resumed(servers: Servers, level: LoadLevel, figures: Figures) -> None:
    with loaded(servers.cluster, level, figures) as load:
        for _ in range(level.outages):
            servers.postgres.freeze()
            time.sleep(OUTAGE_S + 4)  # longer than every deadline of the application
            servers.postgres.thaw()
            assert load.wait_for_all() < RECOVERY_LIMIT_S

    assert set(load.statuses) <= {201, 503, 409}


def test_connections_exhausted(servers: Servers, level: LoadLevel, figures: Figures) -> None:
    with loaded(servers.cluster, level, figures) as load:
        for _ in range(level.outages):
            with all_connections_in_use(servers.cluster.clinic.settings.database_url):
                time.sleep(OUTAGE_S)
            assert load.wait_for_all() < RECOVERY_LIMIT_S

    assert load.statuses[503] > 0
    assert set(load.statuses) <= {201, 503, 409}


@contextmanager
def all_connections_in_use(database_url: str) -> Iterator[None]:
    """Use every connection that the server allows. End those of the application."""
    connections = [connect(database_url)]
    for _ in range(3):  # the application competes for the free connections
        connections[0].cursor().execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'clinic'"
        )
        with suppress(psycopg2.OperationalError):
            while True:
                connections.append(connect(database_url))
    try:
        yield
    finally:
        for connection in connections:
            connection.close()


def connect(database_url: str) -> Any:
    """Connect to the database, outside of the application."""
    url = make_url(database_url)
    connection = psycopg2.connect(
        host=url.query["host"], user=url.username, dbname=url.database, connect_timeout=5
    )
    connection.autocommit = True
    return connection


def test_a_row_locked_for_long_delays_only_requests_for_it(
    servers: Servers, level: LoadLevel, figures: Figures
) -> None:
    with (
        loaded(servers.cluster, level, figures) as load,
        closing(connect(servers.cluster.clinic.settings.database_url)) as other,
    ):
        other_writers = range(1, level.writers)
        other.autocommit = False
        other.cursor().execute("SELECT 1 FROM patients WHERE id = %s FOR UPDATE", (load.writers[0].patient,))
        since = time.monotonic()
        time.sleep(level.held_s)
        successful = {number for number in other_writers if load.last.get(number, 0.0) > since}
        other.rollback()

    assert successful == set(other_writers)
    assert load.statuses[503] + load.statuses[409] > 0


# --- Redis ---------------------------------------------------------------------------------------------


def test_redis_may_stop_hang_lose_data_and_be_slow(
    servers: Servers, level: LoadLevel, figures: Figures
) -> None:
    server = servers.redis

    with loaded(servers.cluster, level, figures) as load:
        for _ in range(level.outages):
            server.flush()
            server.freeze()
            load.wait(level.writers * 2)
            server.thaw()
            server.stop(signal.SIGKILL, keep=True)
            load.wait(level.writers * 2)
            server.start()
            load.wait(level.writers * 2)
            with slow_redis(server):
                load.wait(level.writers * 2)

    assert set(load.statuses) == {201}
    assert load.slowest_s < level.slowest_s


@contextmanager
def slow_redis(server: RedisServer) -> Iterator[None]:
    """Redis responses everything, each time 150 ms late."""
    stopped = threading.Event()

    def pause() -> None:
        with closing(redis.Redis.from_url(server.url)) as client:
            while not stopped.wait(0.01):
                client.client_pause(150)

    thread = threading.Thread(target=pause, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()
