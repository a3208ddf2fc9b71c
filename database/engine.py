"""How PostgreSQL and SQLite are spoken to: in few messages, one writer after the other, and never for ever.

Either may be away or hang: whoever serves a request then stops waiting in time.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
import socket
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache, partial
from typing import Any

import flask
import psycopg2
import psycopg2.extensions
from sqlalchemy import Connection, Engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import OperationalError

LOCK_TIMEOUT = 4_000  # milliseconds a request waits for a row lock
STATEMENT_TIMEOUT = 4_500  # milliseconds one statement of a request may take
REQUEST_LIMITS = f"SET LOCAL lock_timeout={LOCK_TIMEOUT};SET LOCAL statement_timeout={STATEMENT_TIMEOUT};"
# Statements whose answer nobody waits for, by how they begin: they go with the next one.
WITH_NEXT = "/* with the next */"
# What is asked over and over is parsed and planned once for each connection: what says so, and plain writing.
PREPARED = "/* prepared */"
WRITING = ("INSERT INTO ", "UPDATE ")
PREPARE_FROM = 3  # times that a connection is asked
MOST_PREPARED = 300  # on one connection: each costs the server some 20 kB
WAITING = ("SAVEPOINT ", "RELEASE SAVEPOINT ")
LEVELS = {
    psycopg2.extensions.ISOLATION_LEVEL_REPEATABLE_READ: " ISOLATION LEVEL REPEATABLE READ",
    psycopg2.extensions.ISOLATION_LEVEL_SERIALIZABLE: " ISOLATION LEVEL SERIALIZABLE",
}
ANSWER_WITHIN = 4.6  # seconds after it began; PostgreSQL's own timeouts do not fire where it is frozen
LAST_LOOK = 0.2  # seconds that the database has in any case, however late it is asked
LOOK_EVERY = 0.1  # seconds between two looks for somebody who has waited too long

SQLITE_WAIT = 4.5  # seconds a transaction waits for those before it
SQLITE_POLL = 0.002  # seconds between two tries to begin
REPLICA = "replica"  # the name of its engine

_turn = threading.Lock()


# --- Time ----------------------------------------------------------------------------------------------


def begin_waiting() -> None:
    """From now on this request may wait for the database, in all, as long as a caller is kept waiting."""
    flask.g.answer_by = time.monotonic() + ANSWER_WITHIN


@contextmanager
def waiting_elsewhere() -> Iterator[None]:
    """What a request spends in here is not taken from its time for the database."""
    since = time.monotonic()
    yield
    if flask.has_request_context() and "answer_by" in flask.g:
        flask.g.answer_by += time.monotonic() - since


def _deadline(longest: float) -> float:
    """When to stop waiting for the database. Commands, which nobody waits for, may take the `longest`."""
    now = time.monotonic()
    by: float = flask.g.get("answer_by", math.inf) if flask.has_request_context() else math.inf
    return min(now + longest, max(by, now + LAST_LOOK))


# --- Engines -------------------------------------------------------------------------------------------


def engine_options(url: str, *, echo: bool) -> dict[str, Any]:
    """What `create_engine` is told, by engine. Values are never logged: they are patients' data."""
    options: dict[str, Any] = {"echo": echo, "hide_parameters": True, "pool_timeout": 3}
    if make_url(url).get_backend_name() == "sqlite":
        # one for each thread that asks, and kept: whoever waits for the one writer must be told in time
        return options | {
            "pool_size": 0,
            "max_overflow": -1,
            "connect_args": {"timeout": 5, "check_same_thread": False},
        }
    return options | {
        "pool_size": 10,
        "pool_use_lifo": True,  # few processes of the server, which then have what they need in the cache
        "max_overflow": 10,
        "pool_recycle": 1800,
        "connect_args": {
            "connect_timeout": 3,
            "application_name": "clinic",
            "connection_factory": PostgresConnection,
        },
    }


def replicas(url: str | None, *, echo: bool) -> dict[str, dict[str, Any]]:
    """What Flask-SQLAlchemy is told of the read replica; nothing is ever written there."""
    if url is None:
        return {}
    reading = {"execution_options": {"postgresql_readonly": True}}
    return {REPLICA: {"url": url} | engine_options(url, echo=echo) | reading}


def prepare_engine(engine: Engine) -> None:
    """Teach one engine its manners; called once for every engine, forks dispose of what they inherit."""
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _sqlite_connect)
        event.listen(engine, "begin", _sqlite_begin)
    os.register_at_fork(after_in_child=lambda: engine.dispose(close=False))


def is_silent(connection: Connection) -> bool:
    """Whether PostgreSQL was told nothing yet of what this transaction, which is still open, has to say."""
    if connection.closed:
        return False
    driver: Any = connection.connection.driver_connection
    return isinstance(driver, PostgresConnection) and bool(driver.unsent) and driver.is_idle


def tell(connection: Connection, statement: str, values: dict[str, Any]) -> None:
    """Say, prepared, what answers nothing with the next statement, in a tenth of SQLAlchemy's time."""
    driver: Any = connection.connection.driver_connection
    with driver.cursor() as cursor:
        cursor.execute(WITH_NEXT + PREPARED + statement, values)


def commit_with_next(connection: Connection) -> None:
    """Have PostgreSQL commit with the next statement: what was told and that one are all of the transaction.

    Without BEGIN, one message is a transaction by itself.
    """
    driver: Any = connection.connection.driver_connection
    driver.whole = driver.is_idle


# --- SQLite --------------------------------------------------------------------------------------------


def _sqlite_connect(connection: sqlite3.Connection, _record: Any) -> None:
    connection.isolation_level = None  # the driver must not begin by itself, and never DEFERRED
    deadline = time.monotonic() + SQLITE_WAIT
    for pragma in (
        "foreign_keys=ON",
        "journal_mode=WAL",
        f"busy_timeout={SQLITE_WAIT * 1000:.0f}",
        "synchronous=FULL",
        "recursive_triggers=ON",  # else INSERT OR REPLACE removes rows past the append-only triggers
    ):
        # of two who open a new database at once, one is refused the log without being made to wait
        _when_free(partial(connection.execute, f"PRAGMA {pragma}"), deadline)
    connection.create_function("lower", 1, _lower, deterministic=True)


def _lower(text: Any) -> Any:
    """SQLite's own lower() knows ASCII only: a search would miss what PostgreSQL finds."""
    return text.lower() if isinstance(text, str) else text


def _sqlite_begin(connection: Connection) -> None:
    """IMMEDIATE takes the write lock at once: a deferred transaction that turns writer cannot wait for it.

    SQLite itself waits longer from try to try, up to 100 ms: whoever has waited long is overtaken by those
    who come, again and again. So the threads of a process wait in a queue, and the first of it asks every
    few milliseconds, as do the first of the other processes.
    """
    if connection.get_execution_options().get("isolation_level") == "AUTOCOMMIT":
        return
    deadline = _deadline(SQLITE_WAIT)
    first = _turn.acquire(timeout=deadline - time.monotonic())
    driver: Any = connection.connection.driver_connection
    driver.execute("PRAGMA busy_timeout=0")
    try:
        _when_free(partial(connection.exec_driver_sql, "BEGIN IMMEDIATE"), deadline)
    finally:
        driver.execute(f"PRAGMA busy_timeout={SQLITE_WAIT * 1000:.0f}")
        if first:
            _turn.release()


def _when_free(action: Callable[[], Any], deadline: float) -> None:
    """Do it as soon as nobody else keeps SQLite busy; raises what it raises at the deadline."""
    while True:
        try:
            action()
            return
        except (OperationalError, sqlite3.OperationalError) as failure:
            busy = "locked" in str(failure) or "busy" in str(failure)
            if not busy or time.monotonic() > deadline:
                raise
        time.sleep(SQLITE_POLL)


# --- PostgreSQL ----------------------------------------------------------------------------------------


@lru_cache(maxsize=1024)
def _preparation(query: str) -> tuple[str, str, str, tuple[str, ...]]:
    """Name, PREPARE, EXECUTE and the order of its values for a statement written for psycopg2."""
    order: list[str] = []

    def number(found: re.Match[str]) -> str:
        if found[1] not in order:
            order.append(found[1])
        return f"${order.index(found[1]) + 1}"

    name = "clinic_" + hashlib.blake2b(query.encode(), digest_size=8).hexdigest()
    text = re.sub(r"%\((\w+)\)s", number, query).replace("%%", "%")
    places = f"({', '.join(['%s'] * len(order))})" if order else ""
    return name, f"PREPARE {name} AS {text};", f"EXECUTE {name}{places}", tuple(order)


class PostgresCursor(psycopg2.extensions.cursor):
    """Sends what opens a transaction, and what answers nothing, together with the next statement."""

    connection: PostgresConnection

    def execute(self, query: Any, vars: Any = None) -> None:
        if isinstance(query, str) and (query.startswith(WAITING) or WITH_NEXT in query[:60]):
            told = self._told(query, vars)
            self.connection.unsent += f"{told};"
            return
        if isinstance(query, str) and isinstance(vars, dict):
            query, vars = self._told(query, vars), None
        unsent = self.connection.take_unsent()
        if unsent:
            told = query if isinstance(query, str) and vars is None else self.mogrify(query, vars).decode()
            query, vars = unsent + told, None
        _watch.bound(self.connection, super().execute, query, vars)

    def executemany(self, query: Any, vars_list: Any) -> None:
        self._send()
        _watch.bound(self.connection, super().executemany, query, vars_list)

    def copy_expert(self, sql: Any, file: Any, size: int = 8192) -> None:
        self._send()
        super().copy_expert(sql, file, size)

    def _told(self, query: str, vars: Any) -> str:
        """The statement with its values; where the connection knows it, as the execution of what it knows."""
        connection = self.connection
        if connection.direct and (query.startswith(WRITING) or PREPARED in query[:60]):
            name, text, execution, order = _preparation(query)
            if connection.prepares(name):
                connection.preparations += text
            if name in connection.prepared:
                query, vars = execution, [vars[name] for name in order]
        return self.mogrify(query, vars).decode()

    def _send(self) -> None:
        unsent = self.connection.take_unsent()
        if unsent:
            _watch.bound(self.connection, super().execute, unsent)


class PostgresConnection(psycopg2.extensions.connection):
    """psycopg2's connection, with one round trip where it takes three.

    psycopg2 sends BEGIN by itself before the first statement, and the timeouts of a request would follow it.
    Here the driver stays in autocommit, and BEGIN, the timeouts and the first statement are one message.
    They are SET LOCAL, not options of the connection, which a pooler in transaction mode shares.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.cursor_factory = PostgresCursor
        self.autocommit = True  # of the driver
        self.level: int = psycopg2.extensions.ISOLATION_LEVEL_AUTOCOMMIT
        self.access = ""
        self.unsent = ""
        self.whole = False  # the next message is a transaction
        self.preparations = ""  # first of all, and in any case: what fails before them would undo them
        self.seen: Counter[str] = Counter()
        self.prepared: set[str] = set()
        self.direct = False
        with self.cursor() as cursor:
            cursor.execute("SELECT pg_backend_pid()")
            # a pooler names a backend of its own making; it may give every transaction another one
            self.direct = cursor.fetchone() == (self.info.backend_pid,)
            if self.direct:
                # what is prepared is planned once, too, and never compiled, whatever it might cost
                cursor.execute("SET plan_cache_mode = force_generic_plan; SET jit = off")
        self.level = psycopg2.extensions.ISOLATION_LEVEL_READ_COMMITTED

    def prepares(self, name: str) -> bool:
        """Whether a statement is to be prepared now: when it comes again and again, and is not yet."""
        if name in self.prepared or len(self.prepared) >= MOST_PREPARED:
            return False
        if len(self.seen) > 10 * MOST_PREPARED:
            self.seen.clear()
        self.seen[name] += 1
        if self.seen[name] < PREPARE_FROM:
            return False
        self.prepared.add(name)
        return True

    def take_unsent(self) -> str:
        """What goes before the next statement; with BEGIN where it opens a transaction."""
        unsent, self.unsent = self.preparations + self.unsent, ""
        whole, self.whole = self.whole, False
        self.preparations = ""
        if self.level == psycopg2.extensions.ISOLATION_LEVEL_AUTOCOMMIT or not self.is_idle:
            return unsent
        limits = REQUEST_LIMITS if flask.has_request_context() else ""
        begin = "" if whole else f"BEGIN{LEVELS.get(self.level, '')}{self.access};"
        return f"{begin}{limits}{unsent}"

    @property
    def is_idle(self) -> bool:
        """Whether no transaction is open; on a connection that is lost that is unknown, and False."""
        return self.get_transaction_status() == psycopg2.extensions.TRANSACTION_STATUS_IDLE

    def set_isolation_level(self, level: int | None) -> None:
        self.level = psycopg2.extensions.ISOLATION_LEVEL_READ_COMMITTED if level is None else level

    @property
    def readonly(self) -> bool:
        return bool(self.access)

    @readonly.setter
    def readonly(self, value: Any) -> None:
        self.access = " READ ONLY" if value else ""

    def commit(self) -> None:
        # on a connection that is lost the statement raises what it should
        if self.unsent or not self.is_idle:
            with self.cursor() as cursor:
                cursor.execute("COMMIT")

    def rollback(self) -> None:
        self.unsent, self.whole = "", False
        if not self.is_idle:
            with self.cursor() as cursor:
                cursor.execute("ROLLBACK")


class _Watch:
    """Ends the wait of a request for a database that does not answer, by hanging up on it.

    psycopg2 can be given a function that waits in its place, in Python, for 12 microseconds of CPU a message.
    """

    def __init__(self) -> None:
        self.waiting: dict[PostgresConnection, float] = {}  # until when
        self.lock = threading.Lock()  # a connection that is hung up on is not closed meanwhile
        self.watcher: threading.Thread | None = None

    def bound(self, connection: PostgresConnection, ask: Callable[..., None], *asked: Any) -> None:
        """Ask something over the connection, and wait for the answer as long as the request may."""
        deadline = _deadline(math.inf)
        if math.isinf(deadline):
            ask(*asked)
            return
        if self.watcher is None:
            self._start()
        self.waiting[connection] = deadline
        try:
            ask(*asked)
        finally:
            with self.lock:
                del self.waiting[connection]

    def _start(self) -> None:
        with self.lock:
            if self.watcher is None:
                self.watcher = threading.Thread(target=self._look, name="database-watch", daemon=True)
                self.watcher.start()

    def _look(self) -> None:
        while True:
            time.sleep(LOOK_EVERY)
            now = time.monotonic()
            for connection, deadline in self.waiting.copy().items():
                if deadline < now:
                    self._hang_up(connection, deadline)

    def _hang_up(self, connection: PostgresConnection, deadline: float) -> None:
        with self.lock:
            if self.waiting.get(connection) != deadline:
                return  # it was answered after all
            # whatever is wrong with this one, the others are to be watched
            with (
                suppress(OSError, psycopg2.Error),
                socket.socket(fileno=os.dup(connection.fileno())) as line,
            ):
                line.shutdown(socket.SHUT_RDWR)


_watch = _Watch()


def _watch_anew() -> None:
    global _watch
    _watch = _Watch()


os.register_at_fork(after_in_child=_watch_anew)  # the thread that watches stays in the parent
