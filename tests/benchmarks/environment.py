"""The environment of a benchmark: database servers, a filled database, applications under gunicorn."""

from __future__ import annotations

import json
import logging
import secrets
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import structlog
from flask import Flask
from sqlalchemy import func, select

from app import create_app
from commands.demo_data import GIVEN_NAMES
from config import load
from enums import Role
from extensions import db
from models import Appointment, Billing, Doctor, LedgerEntry, User
from security import passwords
from security.permissions import Actor
from security.tokens import Pair
from services import clock
from services.audit import audit_log
from services.patients import patients
from services.users import sessions
from tests.benchmarks.client import Connection, connect_evenly
from tests.benchmarks.statements import PostgresRecorder, SqliteRecorder, StatementRecorder
from tests.support.database import migrate
from tests.support.keys import new_secrets
from tests.support.servers import (
    AppServer,
    PostgresServer,
    Server,
    start_app,
    start_postgres,
    start_redis,
)

WORKERS = 2
CONNECTIONS = 8
OPEN_BILLS = 2_000
PASSWORD = "a quiet harbour at dawn"
EMAIL = "bench@clinic.example"
RARE_PATIENTS = 20  # patients per rare family name
RARE_NAMES = ("Featherstonehaugh", "Quillfeather", "Wolstenholme", "Thistlewood")


class Request(NamedTuple):
    """An HTTP request. `body` is sent as JSON."""

    method: str
    path: str
    body: Any = None
    token: str | None = None

    def encode(self, path: str | None = None) -> bytes:
        """Return the bytes to send. `path` replaces the path of the request."""
        lines = [f"{self.method} {path or self.path} HTTP/1.1", "Host: bench", "Accept: application/json"]
        if self.token is not None:
            lines.append(f"Authorization: Bearer {self.token}")
        content = b"" if self.body is None else json.dumps(self.body).encode()
        if content:
            lines += ["Content-Type: application/json", f"Content-Length: {len(content)}"]
        return "\r\n".join([*lines, "", ""]).encode() + content


@dataclass(frozen=True)
class ClinicData:
    """The tokens and ids that the requests of the operations need."""

    patients: int  # patient ids are 1 to this number
    tokens: list[Pair]  # of one session per connection
    spare_tokens: list[Pair]  # of another session per connection, for operations that replace tokens
    doctors: list[int]
    movable_appointments: list[int]  # future appointments, each of another doctor
    open_bills: list[int]
    workdays: list[date]  # recent days with a full calendar


@dataclass(frozen=True)
class FilledDatabase:
    """A migrated database with generated data, and the settings of an application that uses it."""

    folder: Path
    url: str
    redis_url: str | None
    postgres: PostgresServer | None  # None for SQLite
    settings: dict[str, str]  # environment variables
    data: ClinicData
    fill_s: float  # duration of `flask demo grow`

    def clone(self) -> str:
        """Copy the database, to which nobody may be connected. Return the URL of the copy."""
        if self.postgres is not None:
            return self.postgres.clone(self.url)
        path = self.url.removeprefix("sqlite:///")
        copy = f"{path}.{secrets.token_hex(4)}"
        with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(copy)) as target:
            source.backup(target)
        return f"sqlite:///{copy}"


@dataclass(frozen=True)
class RunningApp:
    """An application under gunicorn, its worker processes, and the connections for the measurement."""

    server: AppServer
    connections: list[Connection]
    workers: list[psutil.Process]

    def cpu_s(self) -> float:
        """Return the CPU time of the workers so far, in seconds."""
        return sum(sum(worker.cpu_times()[:2]) for worker in self.workers)

    def memory_mb(self) -> float:
        """Return the memory that belongs to the workers alone (unique set size), in MB."""
        return sum(worker.memory_full_info().uss for worker in self.workers) / 1e6


@dataclass(frozen=True)
class Environment:
    """The measured application, the bare application, and an in-process application on a database copy.

    The in-process application executes the requests that are recorded. They change only the copy.
    """

    data: ClinicData
    app: RunningApp
    bare_app: RunningApp
    local_app: Flask
    recorder: StatementRecorder  # of the database of `local_app`
    replay_url: str  # database copy for the baseline "driver"
    response_folder: Path  # the bare application sends the files in this folder
    database: psutil.Process | None

    def database_cpu_s(self) -> float:
        """Return the CPU time of the processes of the database server so far, in seconds."""
        if self.database is None:
            return 0.0
        seconds = 0.0
        for process in self.database.children(recursive=True):
            with suppress(psutil.NoSuchProcess):  # it ended after it was listed
                seconds += sum(process.cpu_times()[:2])
        return seconds

    def send_locally(self, request: Request) -> bytes:
        """Return the response body of the in-process application. Raise AssertionError for a refusal."""
        headers = {} if request.token is None else {"Authorization": f"Bearer {request.token}"}
        client = self.local_app.test_client(use_cookies=False)
        response = client.open(request.path, method=request.method, json=request.body, headers=headers)
        assert response.status_code in (200, 201), response.get_data(as_text=True)
        return response.get_data()


@contextmanager
def filled_database(engine: str, count: int, seed: int) -> Iterator[FilledDatabase]:
    """Start the database servers, migrate a database and fill it with `count` patients."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="clinic-bench-")))
        postgres, redis_url = None, None
        if engine == "postgresql":
            postgres = start_postgres(durable=True)
            stack.callback(postgres.stop)
            assert postgres.process is not None, "the benchmark needs its own server: unset TEST_DATABASE_URL"
            redis = start_redis(folder / "redis.sock")  # a unix socket, as for PostgreSQL
            stack.callback(redis.stop)
            redis_url, url = redis.url, postgres.create()
        else:
            url = f"sqlite:///{folder / 'clinic.db'}"
        migrate(url)
        settings = _production_settings(folder, url, redis_url)
        app = _create_app(settings)
        started = time.monotonic()
        result = app.test_cli_runner().invoke(args=["demo", "grow", f"--patients={count}", f"--seed={seed}"])
        assert result.exit_code == 0, result.output
        fill_s = time.monotonic() - started
        tokens = _create_sessions(app, 2 * CONNECTIONS)
        _register_rare_patients(app)
        data = _read_clinic_data(app, count, tokens)
        _dispose(app)
        yield FilledDatabase(folder, url, redis_url, postgres, settings, data, fill_s)


@contextmanager
def started_environment(database: FilledDatabase, *, replay: bool = True) -> Iterator[Environment]:
    """Start the applications. `replay` makes the database copy for the baseline "driver"."""
    with ExitStack() as stack:
        copies = [database.clone() for _ in range(1 + replay)]
        local_settings = {
            "DATABASE_URI": copies[0],
            "AUDIT_HEADS_FILE": str(database.folder / "local-heads.json"),
        }
        local_app = _create_app(database.settings | local_settings)
        structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
        stack.callback(_dispose, local_app)
        if database.postgres is not None and database.postgres.process is not None:
            recorder: StatementRecorder = PostgresRecorder(copies[0], database.postgres.process.log)
            database.postgres.checkpoint()
        else:
            recorder = SqliteRecorder(local_app)
        response_folder = database.folder / "responses"
        response_folder.mkdir()
        app = start_app(database.url, database.redis_url, WORKERS, database.settings)
        stack.callback(app.stop)
        bare_settings = database.settings | {"BENCH_RESPONSES": str(response_folder)}
        bare_app = start_app(
            database.url, database.redis_url, WORKERS, bare_settings, "tests.benchmarks.bare_app:create_app"
        )
        stack.callback(bare_app.stop)
        yield Environment(
            data=database.data,
            app=connect(app),
            bare_app=connect(bare_app),
            local_app=local_app,
            recorder=recorder,
            replay_url=copies[-1],
            response_folder=response_folder,
            database=_process(database.postgres) if database.postgres is not None else None,
        )


def connect(server: AppServer) -> RunningApp:
    """Open the connections to a started application."""
    workers = _process(server).children()
    return RunningApp(server, connect_evenly(server.url, workers, CONNECTIONS), workers)


def _create_app(settings: dict[str, str]) -> Flask:
    return create_app(load(None, **{name.lower(): value for name, value in settings.items() if value}))


def _production_settings(folder: Path, url: str, redis_url: str | None) -> dict[str, str]:
    """Return the settings of production, but with rate limits that the benchmark does not reach."""
    return {
        "ENVIRONMENT": "production",
        "DATABASE_URI": url,
        "REDIS_URL": redis_url or "",
        **new_secrets(),
        "AUDIT_HEADS_FILE": str(folder / "heads.json"),
        "BCRYPT_COST": "12",
        "RATE_LIMIT_ENABLED": "true",
        "RATE_LIMIT_DEFAULT": "1000000 per minute",
        "RATE_LIMIT_LOGIN_ACCOUNT": "1000000 per minute",
        "RATE_LIMIT_LOGIN_ADDRESS": "1000000 per minute",
        "JWT_ACCESS_TOKEN_EXPIRES_MINUTES": "1440",
    }


def _process(server: Server) -> psutil.Process:
    assert server.process is not None
    assert server.process.process is not None
    return psutil.Process(server.process.process.pid)


def _register_rare_patients(app: Flask) -> None:
    """Register the patients that the searches find: the same number for every size of the database."""
    with app.app_context():
        actor = Actor(None, "bench", Role.ADMIN)
        for number in range(RARE_PATIENTS * len(RARE_NAMES)):
            name = f"{GIVEN_NAMES[number % len(GIVEN_NAMES)]} {RARE_NAMES[number % len(RARE_NAMES)]}"
            patients.register(actor, name=name, phone=f"+44 20 7946 {number:04d}", allow_duplicate=True)
        audit_log.append_pending(actor, "make bench")
        db.session.commit()
        if db.engine.dialect.name == "postgresql":
            with db.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                connection.exec_driver_sql("VACUUM (ANALYZE) patients")


def _read_clinic_data(app: Flask, count: int, tokens: list[Pair]) -> ClinicData:
    with app.app_context():
        future = Appointment.start > clock.now()
        first = select(func.min(Appointment.id)).where(future).group_by(Appointment.doctor_id)
        newest_bills = (
            select(Billing.id)
            .join(LedgerEntry, LedgerEntry.billing_id == Billing.id)
            .group_by(Billing.id)
            .order_by(Billing.id.desc())
        )
        open_bills = newest_bills.having(func.sum(LedgerEntry.amount) > 0)
        recent = (clock.today() - timedelta(days=n) for n in range(1, 20))
        return ClinicData(
            patients=count,
            tokens=tokens[:CONNECTIONS],
            spare_tokens=tokens[CONNECTIONS:],
            doctors=list(db.session.scalars(select(Doctor.id).order_by(Doctor.id))),
            movable_appointments=list(db.session.scalars(first.limit(CONNECTIONS))),
            open_bills=list(db.session.scalars(open_bills.limit(OPEN_BILLS))),
            workdays=[day for day in recent if day.weekday() < 5],
        )


def _dispose(app: Flask) -> None:
    with app.app_context():
        db.session.remove()
        db.engine.dispose()


def _create_sessions(app: Flask, count: int) -> list[Pair]:
    with app.app_context():
        user = User(
            name="Bench",
            name_fold="bench",
            email=EMAIL,
            password_hash=passwords.hash_password(PASSWORD),
            role=Role.ADMIN,
            is_active=True,
        )
        db.session.add(user)
        db.session.flush()
        opened = [sessions.open_session(user, device="bench", address="127.0.0.1") for _ in range(count)]
        db.session.commit()
        return [pair for _session, pair in opened]
