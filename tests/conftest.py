"""Shared fixtures: each test gets an empty database with the migrated schema, on PostgreSQL or SQLite."""

from __future__ import annotations

import gc
import itertools
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from coverage import Coverage
from flask import Flask

import gc_freeze
from config import Settings, load
from tests.support.clinic import Clinic, application_key
from tests.support.database import ReusedDatabase, migrate
from tests.support.servers import PostgresServer, RedisServer, start_postgres, start_redis

ENGINES = ("sqlite", "postgresql")
# SQLite syncs every commit to disk: in memory that costs nothing
MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None

NewDatabase = Callable[[str], str]

_clinics = itertools.count(1)
_heads = tempfile.TemporaryDirectory(prefix="clinic-heads-")  # removed when Python exits


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """Start a PostgreSQL server for this test process."""
    server = start_postgres()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def postgres_template(postgres: PostgresServer) -> str:
    """Return the URL of a migrated, empty database to clone."""
    url = postgres.create()
    migrate(url)
    return url


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a migrated, empty database file to copy."""
    path = tmp_path_factory.mktemp("template") / "clinic.db"
    migrate(f"sqlite:///{path}")
    return path


@pytest.fixture(params=ENGINES)
def engine_name(request: pytest.FixtureRequest) -> str:
    """Run the test on both engines."""
    name: str = request.param
    return name


@pytest.fixture(scope="session")
def new_database(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> NewDatabase:
    """Return a function that creates a migrated database: `new_database("sqlite")`."""

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
    """Return the path of the SQLite database of this test process."""
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        yield Path(folder) / "clinic.db"


@pytest.fixture(scope="session")
def postgres_database(postgres: PostgresServer, postgres_template: str) -> Iterator[ReusedDatabase]:
    """Create the PostgreSQL database of this test process."""
    database = ReusedDatabase(postgres, postgres_template)
    yield database
    database.close()


@pytest.fixture
def database_url(engine_name: str, request: pytest.FixtureRequest) -> str:
    """Return the URL of a migrated database without rows, the same for every test of this process."""
    if engine_name == "postgresql":
        database: ReusedDatabase = request.getfixturevalue("postgres_database")
        return database.empty()
    path: Path = request.getfixturevalue("sqlite_file")
    for file in path.parent.glob("clinic.db*"):
        file.unlink()
    shutil.copy(request.getfixturevalue("sqlite_template"), path)
    return f"sqlite:///{path}"


@pytest.fixture
def database_at(engine_name: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[NewDatabase]:
    """Yield a function that creates a database with the schema of a revision: `database_at("0006")`."""
    urls: list[str] = []

    def make(revision: str) -> str:
        if engine_name == "postgresql":
            urls.append(request.getfixturevalue("postgres").create())
        else:
            urls.append(f"sqlite:///{tmp_path / f'{len(urls)}.db'}")
        migrate(urls[-1], revision)
        return urls[-1]

    yield make
    if engine_name == "postgresql":
        for url in urls:
            request.getfixturevalue("postgres").drop(url)


def settings_for(database_url: str, **overrides: object) -> Settings:
    """Return settings with cheap password hashes and no rate limits, and the defaults otherwise."""
    values: dict[str, object] = {
        "database_uri": database_url,
        "jwt_secret_key": "test-only-" + "k7Q2x9Zr" * 5,
        "audit_key": "test-only-" + "m4W8v1Lt" * 5,
        "data_key": "test-only-" + "p9D3s6Yh" * 5,
        "backup_key": "test-only-" + "b5C2j8Uf" * 5,
        "bcrypt_cost": 4,
        "rate_limit_enabled": False,
        # one for each clinic: the chain heads of another clinic would look like deleted entries
        "audit_heads_file": Path(_heads.name, f"{next(_clinics)}.json"),
    }
    return load(None, **(values | overrides))


@pytest.fixture(scope="session")
def applications() -> dict[str, Flask]:
    """Return the applications of this test process: an application keeps the statements that it compiled."""
    return {}


@pytest.fixture
def clinic(database_url: str, applications: dict[str, Flask]) -> Iterator[Clinic]:
    """Return a test clinic on an empty database."""
    clinic = Clinic(settings_for(database_url), applications.get(database_url))
    applications[database_url] = clinic.app
    yield clinic
    clinic.close()


@pytest.fixture
def make_clinic(database_url: str, applications: dict[str, Flask]) -> Iterator[object]:
    """Return a function that creates a clinic with settings: `make_clinic(currency="JPY")`.

    Each clinic of a test has its own application, as two processes of a server have.
    """
    clinics: dict[str, Clinic] = {}

    def make(**overrides: object) -> Clinic:
        settings = settings_for(database_url, **overrides)
        key = application_key(settings)
        while key in clinics:
            key += " another"
        clinics[key] = Clinic(settings, applications.get(key))
        applications[key] = clinics[key].app
        return clinics[key]

    yield make
    for clinic in clinics.values():
        clinic.close()


def pytest_collection_finish() -> None:
    """Keep what was loaded out of later garbage collections, and collect less often."""
    for coverage in _coverage:
        coverage.stop()
    gc_freeze.freeze_loaded_objects()
    gc.set_threshold(50_000, 20, 20)


@pytest.fixture(scope="module")
def redis_server() -> Iterator[RedisServer]:
    """Start one Redis for the module."""
    server = start_redis()
    yield server
    server.stop()


COUNTED = pytest.StashKey[bool]()
_coverage: list[Coverage] = []  # of this test process; empty without `--cov`


@pytest.hookimpl(trylast=True)  # pytest-cov starts in this hook
def pytest_sessionstart() -> None:
    """Count the lines that run at the import in the first test process only.

    In a process of xdist, pytest-cov starts a second instance and forgets the first. Whenever the second one
    stops, the first one would continue, and every test would take twice as long.
    """
    instances = []
    while (coverage := Coverage.current()) is not None:
        coverage.stop()
        instances.append(coverage)
    _coverage.extend(instances[:1])
    if os.environ.get("PYTEST_XDIST_WORKER", "gw0") == "gw0":
        for coverage in _coverage:
            coverage.start()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Choose the tests whose covered lines are counted: counting doubles the time of a test.

    SQLite takes the same lines as PostgreSQL, and the attacks of the robustness tests take those of the other
    tests.
    """
    for item in items:
        callspec = getattr(item, "callspec", None)
        is_sqlite = callspec is not None and callspec.params.get("engine_name") == "sqlite"
        is_left_out = item.get_closest_marker("uncounted") or "robustness" in item.path.parts
        item.stash[COUNTED] = not (is_sqlite or is_left_out)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Count the covered lines of the test and of its fixtures, if it was chosen."""
    for coverage in _coverage if item.stash[COUNTED] else ():
        coverage.start()
    result = yield
    for coverage in _coverage if item.stash[COUNTED] else ():
        coverage.stop()
    return result


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the number of requests that were generated from the OpenAPI document, over all processes."""
    reports = [*terminalreporter.getreports("passed"), *terminalreporter.getreports("failed")]
    counts = [value for report in reports for name, value in report.user_properties if name == "cases"]
    if counts:
        terminalreporter.line(f"{sum(counts)} cases generated from the OpenAPI document")
