"""What is measured: the servers, a filled clinic, and who asks it."""

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
from commands.demo_data import GIVEN
from config import load
from enums import Role
from extensions import db
from models import Appointment, Billing, Doctor, LedgerEntry, User
from security import passwords
from security.permissions import Actor
from services import clock
from services.audit import audit_log
from services.patients import patients
from services.users import sessions
from services.users.sessions import Pair
from tests.benchmarks.drive import Connection, spread
from tests.benchmarks.statements import Listener, PostgresListener, SqliteListener
from tests.support.database import migrate
from tests.support.servers import (
    AppServer,
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
RARE = 20  # patients who share a name that nobody else has
RARE_NAMES = ("Featherstonehaugh", "Quillfeather", "Wolstenholme", "Thistlewood")


class Ask(NamedTuple):
    """One request; `body` is sent as JSON."""

    method: str
    path: str
    body: Any = None
    token: str | None = None

    def encode(self, path: str | None = None) -> bytes:
        """The request as it is sent, to another path where one is given."""
        lines = [f"{self.method} {path or self.path} HTTP/1.1", "Host: bench", "Accept: application/json"]
        if self.token is not None:
            lines.append(f"Authorization: Bearer {self.token}")
        sent = b"" if self.body is None else json.dumps(self.body).encode()
        if sent:
            lines += ["Content-Type: application/json", f"Content-Length: {len(sent)}"]
        return "\r\n".join([*lines, "", ""]).encode() + sent


@dataclass
class Served:
    """One application under gunicorn, with the connections that it is measured over."""

    server: AppServer
    connections: list[Connection]
    workers: list[psutil.Process]

    def cpu_s(self) -> float:
        """The CPU time that its workers have taken."""
        return sum(sum(worker.cpu_times()[:2]) for worker in self.workers)


@dataclass
class Stage:
    """A filled clinic, served, and two copies of its database: what is rehearsed changes one of them only."""

    clinic: Served
    bare: Served
    rehearsal: Flask  # the application in this process, on the first copy
    listener: Listener  # hears what the rehearsal asks of its database
    replay_url: str  # the last copy
    grown_s: float  # that it took to fill the clinic
    answers: Path
    pairs: list[Pair]  # the tokens of one session for each connection
    spare_pairs: list[Pair]  # and of another, to be used up
    patients: int  # whose ids are 1 to this
    doctors: list[int]
    movable: list[int]  # future appointments, each with another doctor
    open_bills: list[int]
    workdays: list[date]  # recent days with a full calendar
    database: psutil.Process | None

    def database_cpu_s(self) -> float:
        """The CPU time that the database server's processes have taken and still can tell of."""
        if self.database is None:
            return 0.0
        seconds = 0.0
        for one in self.database.children(recursive=True):
            with suppress(psutil.NoSuchProcess):  # a worker that ends just now
                seconds += sum(one.cpu_times()[:2])
        return seconds

    def rehearse(self, asked: Ask) -> bytes:
        """The answer of the rehearsal's clinic; raises AssertionError for a refusal."""
        headers = {} if asked.token is None else {"Authorization": f"Bearer {asked.token}"}
        client = self.rehearsal.test_client(use_cookies=False)
        answer = client.open(asked.path, method=asked.method, json=asked.body, headers=headers)
        assert answer.status_code in (200, 201), answer.get_data(as_text=True)
        return answer.get_data()


@contextmanager
def staged(engine: str, count: int, seed: int, *, replayed: bool = True) -> Iterator[Stage]:
    """Everything started and filled; stopped and removed at the end. `replayed` makes the second copy."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="clinic-bench-")))
        database, redis_url = None, None
        if engine == "postgresql":
            postgres = start_postgres(durable=True)
            stack.callback(postgres.stop)
            assert postgres.process is not None, "a server of its own is measured: unset TEST_DATABASE_URL"
            redis = start_redis(folder / "redis.sock")  # as near as PostgreSQL
            stack.callback(redis.stop)
            redis_url, url = redis.url, postgres.create()
            database = _process(postgres)
        else:
            url = f"sqlite:///{folder / 'clinic.db'}"
        migrate(url)
        env = _environment(folder, url, redis_url)
        app = create_app(load(None, **_settings(env)))
        began = time.monotonic()
        grown = app.test_cli_runner().invoke(args=["demo", "grow", f"--patients={count}", f"--seed={seed}"])
        assert grown.exit_code == 0, grown.output
        grown_s = time.monotonic() - began
        pairs = _sign_in(app, 2 * CONNECTIONS)
        _register_the_rare(app)
        known = _look_around(app)
        _dispose(app)
        clone = postgres.clone if engine == "postgresql" else _copy
        copies = [clone(url) for _ in range(1 + replayed)]
        rehearsal = create_app(
            load(
                None,
                **_settings(
                    env | {"DATABASE_URI": copies[0], "AUDIT_HEADS_FILE": str(folder / "rehearsal.json")}
                ),
            )
        )
        structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
        stack.callback(_dispose, rehearsal)
        if engine == "postgresql":
            listener: Listener = PostgresListener(copies[0], postgres.process.log)
        else:
            listener = SqliteListener(rehearsal)
        answers = folder / "answers"
        answers.mkdir()
        if engine == "postgresql":
            postgres.checkpoint()
        clinic = start_app(url, redis_url, WORKERS, env)
        stack.callback(clinic.stop)
        bare_env = env | {"BENCH_ANSWERS": str(answers)}
        bare = start_app(url, redis_url, WORKERS, bare_env, "tests.benchmarks.yardstick:create_app")
        stack.callback(bare.stop)
        yield Stage(
            clinic=_serve(clinic),
            bare=_serve(bare),
            rehearsal=rehearsal,
            listener=listener,
            replay_url=copies[-1],
            grown_s=grown_s,
            answers=answers,
            pairs=pairs[:CONNECTIONS],
            spare_pairs=pairs[CONNECTIONS:],
            patients=count,
            **known,
            database=database,
        )


def _copy(url: str) -> str:
    path = url.removeprefix("sqlite:///")
    copy = f"{path}.{secrets.token_hex(4)}"
    with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)
    return f"sqlite:///{copy}"


def _settings(env: dict[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in env.items() if value}


def _environment(folder: Path, url: str, redis_url: str | None) -> dict[str, str]:
    """Production's settings: every promise on, the limits too high to be met."""
    return {
        "ENVIRONMENT": "production",
        "DATABASE_URI": url,
        "REDIS_URL": redis_url or "",
        "JWT_SECRET_KEY": secrets.token_urlsafe(48),
        "AUDIT_KEY": secrets.token_urlsafe(48),
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


def _register_the_rare(app: Flask) -> None:
    """Patients who are found by their names, as many at every size."""
    with app.app_context():
        clerk = Actor(None, "bench", Role.ADMIN)
        for number in range(RARE * len(RARE_NAMES)):
            name = f"{GIVEN[number % len(GIVEN)]} {RARE_NAMES[number % len(RARE_NAMES)]}"
            patients.register(clerk, name=name, phone=f"+44 20 7946 {number:04d}", allow_duplicate=True)
        audit_log.append_pending(clerk, "make bench")
        db.session.commit()
        if db.engine.dialect.name == "postgresql":
            with db.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                connection.exec_driver_sql("VACUUM (ANALYZE) patients")


def _look_around(app: Flask) -> dict[str, Any]:
    """What the scripts have to know of the clinic."""
    with app.app_context():
        doctors = list(db.session.scalars(select(Doctor.id).order_by(Doctor.id)))
        future = Appointment.start > clock.now()
        first = select(func.min(Appointment.id)).where(future).group_by(Appointment.doctor_id)
        owed = select(Billing.id).join(LedgerEntry).group_by(Billing.id).order_by(Billing.id.desc())
        today = clock.today()
        recent = (today - timedelta(days=n) for n in range(1, 20))
        return {
            "doctors": doctors,
            "movable": list(db.session.scalars(first.limit(CONNECTIONS))),
            "open_bills": list(
                db.session.scalars(owed.having(func.sum(LedgerEntry.amount) > 0).limit(OPEN_BILLS))
            ),
            "workdays": [day for day in recent if day.weekday() < 5],
        }


def _serve(server: AppServer) -> Served:
    workers = _process(server).children()
    return Served(server, spread(server.url, workers, CONNECTIONS), workers)


def _dispose(app: Flask) -> None:
    with app.app_context():
        db.session.remove()
        db.engine.dispose()


def _sign_in(app: Flask, count: int) -> list[Pair]:
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
        return [pair for _row, pair in opened]
