"""Faults of the environment: full disk, locked database, another schema version, killed migration."""

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

from tests.robustness.abuse_targets import sample, targets
from tests.robustness.cluster import Cluster, assert_consistent
from tests.robustness.conftest import Figures
from tests.robustness.load_level import LoadLevel
from tests.robustness.test_faults import loaded, processes
from tests.support.clinic import Clinic
from tests.support.database import connected, migrate, objects_at
from tests.support.furnished import furnish
from tests.support.servers import ROOT, PostgresServer

only_sqlite = pytest.mark.parametrize("shared_cluster", ["sqlite"], indirect=True)


# --- SQLite --------------------------------------------------------------------------------------------


def database_file(cluster: Cluster) -> Path:
    return Path(cluster.clinic.settings.database_url.removeprefix("sqlite:///"))


@only_sqlite
def test_a_full_disk_refuses_writes_and_loses_nothing(
    shared_cluster: Cluster, level: LoadLevel, figures: Figures
) -> None:
    with loaded(shared_cluster, level, figures) as load:
        for _ in range(level.outages):
            with full_disk(shared_cluster):
                load.wait_for_responses(503, level.writers)
            assert load.wait_for_all() < 5

    assert set(load.statuses) <= {201, 503}
    assert_consistent(shared_cluster.clinic)


@contextmanager
def full_disk(cluster: Cluster) -> Iterator[None]:
    """Let every file write of the workers fail during the block, as on a full disk."""
    _, workers = processes(cluster)
    before = {worker: worker.rlimit(resource.RLIMIT_FSIZE) for worker in workers}
    for worker in workers:
        worker.rlimit(resource.RLIMIT_FSIZE, (0, before[worker][1]))
    try:
        yield
    finally:
        for worker in workers:
            worker.rlimit(resource.RLIMIT_FSIZE, before[worker])


@only_sqlite
def test_a_database_locked_by_somebody_else_gives_503_after_a_limited_wait(
    shared_cluster: Cluster, level: LoadLevel, figures: Figures
) -> None:
    with (
        loaded(shared_cluster, level, figures) as load,
        closing(sqlite3.connect(database_file(shared_cluster), isolation_level=None)) as other,
    ):
        other.execute("BEGIN IMMEDIATE")
        time.sleep(level.held_s)
        other.execute("ROLLBACK")

    assert load.statuses[503] > 0
    assert set(load.statuses) <= {201, 503}
    assert_consistent(shared_cluster.clinic)


# --- The schema ----------------------------------------------------------------------------------------

CHANGED_TABLES = ("patients", "appointments", "billings", "inventory_items")
# A column that a newer version requires, and a column that an older version lacks.
NEWER = "ALTER TABLE {table} ADD COLUMN ward INTEGER NOT NULL DEFAULT 0"
NO_DEFAULT = "ALTER TABLE {table} ALTER COLUMN ward DROP DEFAULT"
SAMPLE = 24  # endpoints on the short level, and these two
READY, REGISTER = "GET /health/ready", "POST /patients"
OLDER = "ALTER TABLE {table} DROP COLUMN updated_at"


@pytest.mark.parametrize("schema", ["newer", "older"])
def test_another_schema_version_gives_503_and_no_500(
    clinic: Clinic, engine_name: str, schema: str, level: LoadLevel, figures: Figures
) -> None:
    endpoints = targets(clinic, furnish(clinic))
    tested = [
        *sample(level, endpoints, SAMPLE),
        *(target for target in endpoints if str(target) in (READY, REGISTER)),
    ]
    # SQLite cannot add a column without a default: there a newer schema causes no error.
    changes = [OLDER] if schema == "older" else [NEWER] if engine_name == "sqlite" else [NEWER, NO_DEFAULT]
    with clinic.inside() as session:
        for table in CHANGED_TABLES:
            for change in changes:
                session.execute(text(change.format(table=table)))
        session.execute(text("UPDATE alembic_version SET version_num = 'another'"))

    statuses = {
        str(target): clinic.sign_in("admin").send(target.entry.method, target.path, target.body).status_code
        for target in tested
    }

    breaks_inserts = len(changes) == 2 or schema == "older"
    assert statuses[READY] == 503
    assert {name: status for name, status in statuses.items() if status >= 500 and status != 503} == {}
    assert statuses[REGISTER] == (503 if breaks_inserts else 201)
    figures["unavailable"] = sum(status == 503 for status in statuses.values())


def test_a_migration_killed_half_way_can_run_again(
    engine_name: str, request: pytest.FixtureRequest, tmp_path: Path, level: LoadLevel, figures: Figures
) -> None:
    script = "import sys; from tests.support.database import migrate; migrate(sys.argv[1])"
    postgres: PostgresServer | None = None
    if engine_name == "postgresql":
        postgres, template = request.getfixturevalue("postgres"), request.getfixturevalue("postgres_template")
    else:
        template = f"sqlite:///{request.getfixturevalue('sqlite_template')}"
    killed = 0

    for number in range(level.outages):
        url = postgres.create() if postgres else f"sqlite:///{tmp_path / f'{number}.db'}"
        process = subprocess.Popen([sys.executable, "-c", script, url], cwd=ROOT, start_new_session=True)
        wait_for_first_changes(url, process)
        killed += process.poll() is None
        process.kill()
        process.wait()
        migrate(url)

        assert objects_at(url) == objects_at(template)
    figures["killed half-way"] = killed
    assert killed


def wait_for_first_changes(url: str, process: subprocess.Popen[bytes]) -> None:
    """Wait until the migration has changed the database."""
    if url.startswith("sqlite"):
        path = Path(url.removeprefix("sqlite:///"))
        while process.poll() is None and not (path.exists() and journal_size(path) > 50_000):
            time.sleep(0.001)
        return
    with connected(url) as engine, engine.connect() as connection:
        lock_count = text(
            "SELECT count(*) FROM pg_locks WHERE pid <> pg_backend_pid() AND mode = 'AccessExclusiveLock'"
            " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        )
        while process.poll() is None and connection.execute(lock_count).scalar_one() < 20:
            connection.rollback()


def journal_size(path: Path) -> int:
    """Return the size of the journal files: data that may not be committed yet."""
    try:
        return sum(other.stat().st_size for other in path.parent.glob(f"{path.name}-*"))
    except FileNotFoundError:  # deleted by a commit meanwhile
        return 0
