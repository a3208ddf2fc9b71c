"""A full disk, a clock that jumps, a database that somebody else holds, a schema of another version."""

from __future__ import annotations

import resource
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from sqlalchemy import text

from tests.robustness.abuse_targets import few, targets
from tests.robustness.conftest import Figures
from tests.robustness.fleet import Fleet, assert_well
from tests.robustness.scale import Scale
from tests.robustness.test_faults import loaded, processes
from tests.support.clinic import Clinic
from tests.support.database import connected, migrate, objects_at
from tests.support.furnished import furnish
from tests.support.servers import ROOT, PostgresServer

only_sqlite = pytest.mark.parametrize("workers", ["sqlite"], indirect=True)


# --- SQLite --------------------------------------------------------------------------------------------


def file_of(fleet: Fleet) -> Path:
    return Path(fleet.clinic.settings.database_url.removeprefix("sqlite:///"))


@only_sqlite
def test_a_disk_that_is_full_refuses_and_forgets_nothing(
    workers: Fleet, scale: Scale, figures: Figures
) -> None:
    with loaded(workers, scale, figures) as load:
        for _ in range(scale.outages):
            with no_file_may_grow(workers):
                load.wait_for_answers(503, scale.writers)
            assert load.wait_for_all() < 5

    assert set(load.statuses) <= {201, 503}
    assert_well(workers.clinic)


@contextmanager
def no_file_may_grow(fleet: Fleet) -> Iterator[None]:
    """The workers can write to no file, be it database or log, as on a full disk."""
    _, workers = processes(fleet)
    before = {worker: worker.rlimit(resource.RLIMIT_FSIZE) for worker in workers}
    for worker in workers:
        worker.rlimit(resource.RLIMIT_FSIZE, (0, before[worker][1]))
    try:
        yield
    finally:
        for worker in workers:
            worker.rlimit(resource.RLIMIT_FSIZE, before[worker])


@only_sqlite
def test_a_database_that_somebody_else_writes_to_is_waited_for_and_not_too_long(
    workers: Fleet, scale: Scale, figures: Figures
) -> None:
    with (
        loaded(workers, scale, figures) as load,
        closing(sqlite3.connect(file_of(workers), isolation_level=None)) as other,
    ):
        other.execute("BEGIN IMMEDIATE")
        time.sleep(scale.held_s)
        other.execute("ROLLBACK")

    assert load.statuses[503] > 0
    assert set(load.statuses) <= {201, 503}
    assert_well(workers.clinic)


# --- The schema ----------------------------------------------------------------------------------------

CHANGED = ("patients", "appointments", "billings", "inventory_items")
# What a newer version would want to be told, and what an older one does not have.
NEWER = "ALTER TABLE {table} ADD COLUMN ward INTEGER NOT NULL DEFAULT 0"
WANTED = "ALTER TABLE {table} ALTER COLUMN ward DROP DEFAULT"
SAMPLE = 24  # routes in the short form, and these two
READY, REGISTER = "GET /health/ready", "POST /patients"
OLDER = "ALTER TABLE {table} DROP COLUMN updated_at"


@pytest.mark.parametrize("schema", ["newer", "older"])
def test_under_another_versions_schema_there_is_no_bug_to_see(
    clinic: Clinic, engine_name: str, schema: str, scale: Scale, figures: Figures
) -> None:
    every = targets(clinic, furnish(clinic))
    asked = [*few(scale, every, SAMPLE), *(one for one in every if str(one) in (READY, REGISTER))]
    # SQLite knows no column without default that is added later: there a newer schema hinders nothing
    changes = [OLDER] if schema == "older" else [NEWER] if engine_name == "sqlite" else [NEWER, WANTED]
    with clinic.inside() as session:
        for table in CHANGED:
            for change in changes:
                session.execute(text(change.format(table=table)))
        session.execute(text("UPDATE alembic_version SET version_num = 'another'"))

    statuses = {
        str(target): clinic.sign_in("admin").send(target.entry.method, target.path, target.body).status_code
        for target in asked
    }

    hindered = len(changes) == 2 or schema == "older"
    assert statuses[READY] == 503
    assert {name: status for name, status in statuses.items() if status >= 500 and status != 503} == {}
    assert statuses[REGISTER] == (503 if hindered else 201)
    figures["unavailable"] = sum(status == 503 for status in statuses.values())


def test_a_migration_killed_half_way_runs_again(
    engine_name: str, request: pytest.FixtureRequest, tmp_path: Path, scale: Scale, figures: Figures
) -> None:
    script = "import sys; from tests.support.database import migrate; migrate(sys.argv[1])"
    postgres: PostgresServer | None = None
    if engine_name == "postgresql":
        postgres, whole = request.getfixturevalue("postgres"), request.getfixturevalue("postgres_template")
    else:
        whole = f"sqlite:///{request.getfixturevalue('sqlite_template')}"
    halves = 0

    for number in range(scale.outages):
        url = postgres.create() if postgres else f"sqlite:///{tmp_path / f'{number}.db'}"
        process = subprocess.Popen([sys.executable, "-c", script, url], cwd=ROOT, start_new_session=True)
        wait_for_half(url, process)
        halves += process.poll() is None
        process.kill()
        process.wait()
        migrate(url)

        assert objects_at(url) == objects_at(whole)
    figures["killed half-way"] = halves
    assert halves


def wait_for_half(url: str, process: subprocess.Popen[bytes]) -> None:
    """Until the migration has begun to write."""
    if url.startswith("sqlite"):
        path = Path(url.removeprefix("sqlite:///"))
        while process.poll() is None and not (path.exists() and journal(path) > 50_000):
            time.sleep(0.001)
        return
    with connected(url) as engine, engine.connect() as connection:
        begun = text(
            "SELECT count(*) FROM pg_locks WHERE pid <> pg_backend_pid() AND mode = 'AccessExclusiveLock'"
            " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        )
        while process.poll() is None and connection.execute(begun).scalar_one() < 20:
            connection.rollback()


def journal(path: Path) -> int:
    """Bytes that a writer of the database has written and may not have committed."""
    try:
        return sum(other.stat().st_size for other in path.parent.glob(f"{path.name}-*"))
    except FileNotFoundError:  # committed between the two looks
        return 0
