"""The read replica: reports are read from it, everything else from the primary."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import NamedTuple

import pytest
from sqlalchemy import create_engine, make_url, text

from database.engine import REPLICA
from extensions import db
from tests.conftest import settings_for
from tests.support.clinic import Clinic
from tests.support.database import migrate
from tests.support.servers import PostgresServer, start_postgres, start_standby

REPORTS = ("revenue", "doctor-performance", "patient-stats", "dashboard")
CATCH_UP_S = 120.0


class Replicated(NamedTuple):
    """A clinic on a primary, its standby, and the standby's URL of the same database."""

    clinic: Clinic
    standby: PostgresServer
    url: str


@pytest.fixture(scope="module")
def replicated() -> Iterator[Replicated]:
    with pytest.MonkeyPatch.context() as patch:  # a server outside of this test cannot get a standby
        patch.delenv("TEST_DATABASE_URL", raising=False)
        primary = start_postgres()
    url = primary.create()
    migrate(url)
    standby = start_standby(primary)
    replica = standby.url(make_url(url).database or "")
    clinic = Clinic(settings_for(url, analytics_database_uri=replica))
    yield Replicated(clinic, standby, replica)
    clinic.close()
    standby.stop()
    primary.stop()


def query_server(url: str, statement: str) -> object:
    """Return the result of a statement on the server at `url`, by a connection of its own."""
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        value = connection.execute(text(statement)).scalar()
    engine.dispose()
    return value


def catch_up(replicated: Replicated) -> None:
    """Wait until the standby has replayed everything that the primary has written."""
    written = query_server(replicated.clinic.settings.database_url, "SELECT pg_current_wal_insert_lsn()")
    deadline = time.monotonic() + CATCH_UP_S
    while not query_server(replicated.url, f"SELECT pg_last_wal_replay_lsn() >= '{written}'"):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def reported_patients(clinic: Clinic) -> int:
    response = clinic.admin.get("/analytics/patient-stats")
    assert response.status_code == 200, response.get_data(as_text=True)
    return int(response.get_json()["total_patients"])


def test_reports_are_read_from_the_replica_and_lists_from_the_primary(replicated: Replicated) -> None:
    clinic, _standby, url = replicated
    clinic.patient()
    catch_up(replicated)
    before = reported_patients(clinic)
    query_server(url, "SELECT pg_wal_replay_pause()")

    clinic.patient()
    meanwhile = reported_patients(clinic)
    listed = clinic.admin.get("/patients").headers["X-Total-Count"]
    query_server(url, "SELECT pg_wal_replay_resume()")
    catch_up(replicated)

    assert (before, meanwhile, reported_patients(clinic)) == (1, 1, 2)
    assert listed == "2"


@pytest.mark.parametrize("name", REPORTS)
def test_every_report_is_read_from_the_replica(replicated: Replicated, name: str) -> None:
    clinic, standby, _url = replicated
    assert clinic.admin.get(f"/analytics/{name}").status_code == 200

    standby.stop(keep=True)
    response = clinic.admin.get(f"/analytics/{name}")
    list_response = clinic.admin.get("/patients")
    standby.start()

    assert (response.status_code, response.get_json()["error"]) == (503, "unavailable")
    assert int(response.headers["Retry-After"]) > 0
    assert list_response.status_code == 200
    assert clinic.admin.get(f"/analytics/{name}").status_code == 200


def test_a_connection_to_the_replica_is_read_only(replicated: Replicated) -> None:
    with replicated.clinic.app.app_context(), db.engines[REPLICA].connect() as connection:
        assert connection.scalar(text("SHOW transaction_read_only")) == "on"
