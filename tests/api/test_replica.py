"""A read replica: reports come from it, and everything else from the primary."""

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
CAUGHT_UP_S = 10.0


class Replicated(NamedTuple):
    """A clinic on a primary, its standby, and the standby's URL of the same database."""

    clinic: Clinic
    standby: PostgresServer
    url: str


@pytest.fixture(scope="module")
def replicated() -> Iterator[Replicated]:
    with pytest.MonkeyPatch.context() as patch:  # a server of others is not ours to copy
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


def tell(url: str, statement: str) -> object:
    """What the server at `url` answers, asked from outside."""
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        answer = connection.execute(text(statement)).scalar()
    engine.dispose()
    return answer


def catch_up(house: Replicated) -> None:
    """Wait until the standby has all that the primary has written."""
    written = tell(house.clinic.settings.database_url, "SELECT pg_current_wal_insert_lsn()")
    deadline = time.monotonic() + CAUGHT_UP_S
    while not tell(house.url, f"SELECT pg_last_wal_replay_lsn() >= '{written}'"):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def patients_reported(clinic: Clinic) -> int:
    answer = clinic.admin.get("/analytics/patient-stats")
    assert answer.status_code == 200, answer.get_data(as_text=True)
    return int(answer.get_json()["total_patients"])


def test_reports_come_from_the_replica_and_lists_from_the_primary(replicated: Replicated) -> None:
    clinic, _standby, url = replicated
    clinic.patient()
    catch_up(replicated)
    before = patients_reported(clinic)
    tell(url, "SELECT pg_wal_replay_pause()")

    clinic.patient()
    meanwhile = patients_reported(clinic)
    listed = clinic.admin.get("/patients").headers["X-Total-Count"]
    tell(url, "SELECT pg_wal_replay_resume()")
    catch_up(replicated)

    assert (before, meanwhile, patients_reported(clinic)) == (1, 1, 2)
    assert listed == "2"


@pytest.mark.parametrize("name", REPORTS)
def test_every_report_is_one_of_the_replicas(replicated: Replicated, name: str) -> None:
    clinic, standby, _url = replicated
    assert clinic.admin.get(f"/analytics/{name}").status_code == 200

    standby.stop(keep=True)
    answer = clinic.admin.get(f"/analytics/{name}")
    beside = clinic.admin.get("/patients")
    standby.start()

    assert (answer.status_code, answer.get_json()["error"]) == (503, "unavailable")
    assert int(answer.headers["Retry-After"]) > 0
    assert beside.status_code == 200
    assert clinic.admin.get(f"/analytics/{name}").status_code == 200


def test_nothing_can_be_written_where_reports_are_read(replicated: Replicated) -> None:
    with replicated.clinic.app.app_context(), db.engines[REPLICA].connect() as connection:
        assert connection.scalar(text("SHOW transaction_read_only")) == "on"
