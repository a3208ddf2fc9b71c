"""The clinic under test: the migrated schema on PostgreSQL and on SQLite, an empty database each test."""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from flask import Flask

from app import create_app
from config import Settings, load
from services import remembered
from services.listing.totals import forget_totals
from tests.support.clinic import Clinic
from tests.support.database import ReusedDatabase, migrate
from tests.support.servers import PostgresServer, start_postgres

ENGINES = ("sqlite", "postgresql")
# SQLite syncs every commit, as it should; most tests are not about the disk
MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None

NewDatabase = Callable[[str], str]

_clinics = itertools.count(1)
_heads = tempfile.TemporaryDirectory(prefix="clinic-heads-")  # removed when Python exits


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL server for this test process."""
    server = start_postgres()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def postgres_template(postgres: PostgresServer) -> str:
    """The URL of a migrated, empty database to clone."""
    url = postgres.create()
    migrate(url)
    return url


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated, empty database file to copy."""
    path = tmp_path_factory.mktemp("template") / "clinic.db"
    migrate(f"sqlite:///{path}")
    return path


@pytest.fixture(params=ENGINES)
def engine_name(request: pytest.FixtureRequest) -> str:
    """Both engines, every time."""
    name: str = request.param
    return name


@pytest.fixture(scope="session")
def new_database(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> NewDatabase:
    """Makes a migrated database of an engine that is nobody else's: `new_database("sqlite")`."""

    def make(engine_name: str) -> str:
        if engine_name == "postgresql":
            server: PostgresServer = request.getfixturevalue("postgres")
            return server.clone(request.getfixturevalue("postgres_template"))
        path = tmp_path_factory.mktemp("database") / "clinic.db"
        shutil.copy(request.getfixturevalue("sqlite_template"), path)
        return f"sqlite:///{path}"

    return make


@pytest.fixture(scope="session")
def sqlite_file() -> Iterator[Path]:
    """The path of the SQLite file of this test process."""
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        yield Path(folder) / "clinic.db"


@pytest.fixture(scope="session")
def postgres_database(postgres: PostgresServer, postgres_template: str) -> Iterator[ReusedDatabase]:
    """The PostgreSQL database of this test process."""
    reused = ReusedDatabase(postgres, postgres_template)
    yield reused
    reused.close()


@pytest.fixture
def database_url(engine_name: str, request: pytest.FixtureRequest) -> str:
    """A migrated database without rows; the same address for every test of this process."""
    if engine_name == "postgresql":
        reused: ReusedDatabase = request.getfixturevalue("postgres_database")
        return reused.emptied()
    path: Path = request.getfixturevalue("sqlite_file")
    for old in path.parent.glob("clinic.db*"):
        old.unlink()
    shutil.copy(request.getfixturevalue("sqlite_template"), path)
    return f"sqlite:///{path}"


def settings_for(database_url: str, **overrides: object) -> Settings:
    """Settings of a test clinic: cheap hashing, no limits, everything else as shipped."""
    values: dict[str, object] = {
        "database_uri": database_url,
        "jwt_secret_key": "test-only-" + "k7Q2x9Zr" * 5,
        "audit_key": "test-only-" + "m4W8v1Lt" * 5,
        "bcrypt_cost": 4,
        "rate_limit_enabled": False,
        # of this clinic alone: the heads of another would look like entries cut off
        "audit_heads_file": Path(_heads.name, f"{next(_clinics)}.json"),
    }
    return load(None, **(values | overrides))


@pytest.fixture(scope="session")
def applications() -> dict[str, Flask]:
    """The applications of this test process, by the database they are on: each is made once."""
    return {}


@pytest.fixture
def clinic(database_url: str, applications: dict[str, Flask]) -> Iterator[Clinic]:
    """The application on an empty database, with callers for every role and factories for every row."""
    settings = settings_for(database_url)
    if database_url not in applications:
        applications[database_url] = create_app(settings)
    with applications[database_url].app_context():
        forget_totals()
        remembered.forget_all()  # its database was emptied
    made = Clinic(settings, applications[database_url])
    yield made
    made.close()


@pytest.fixture
def make_clinic(database_url: str) -> Iterator[object]:
    """Like `clinic`, with settings of the test's own: `make_clinic(clinic_timezone="Europe/Berlin")`."""
    made: list[Clinic] = []

    def make(**overrides: object) -> Clinic:
        made.append(Clinic(settings_for(database_url, **overrides)))
        return made[-1]

    yield make
    for one in made:
        one.close()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """How many requests were generated from the OpenAPI document, whichever processes ran them."""
    reports = [*terminalreporter.getreports("passed"), *terminalreporter.getreports("failed")]
    counts = [value for report in reports for name, value in report.user_properties if name == "cases"]
    if counts:
        terminalreporter.line(f"{sum(counts)} cases generated from the OpenAPI document")
