"""PostgreSQL through psycopg2: fewer round trips, prepared statements, and a client-side deadline.

- BEGIN, the timeouts of a request and the first statement are one message. psycopg2 alone sends three.
- A statement with the execution option `prepare=True` is prepared on the server after some uses.
- A watchdog closes the connection of a request whose deadline has passed (`database.deadline`).
"""

from __future__ import annotations

import itertools
import math
import os
import re
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from typing import Any

import psycopg2
import psycopg2.extensions
from psycopg2.extensions import ISOLATION_LEVEL_AUTOCOMMIT, ISOLATION_LEVEL_READ_COMMITTED
from sqlalchemy import Engine, event
from sqlalchemy.engine import ExceptionContext

from database import deadline

LOCK_TIMEOUT = 4_000  # milliseconds that a request waits for a row lock
STATEMENT_TIMEOUT = 4_500  # milliseconds that one statement of a request may take
# SET LOCAL, not options of the connection: a pooler in transaction mode shares the connection.
REQUEST_TIMEOUTS = f"SET LOCAL lock_timeout={LOCK_TIMEOUT};SET LOCAL statement_timeout={STATEMENT_TIMEOUT};"
ISOLATION_LEVELS = {
    psycopg2.extensions.ISOLATION_LEVEL_REPEATABLE_READ: " ISOLATION LEVEL REPEATABLE READ",
    psycopg2.extensions.ISOLATION_LEVEL_SERIALIZABLE: " ISOLATION LEVEL SERIALIZABLE",
}
PREPARE_AFTER = 3  # uses on one connection
MAX_PREPARED = 300  # statements on one connection; each takes about 20 kB on the server
WATCH_INTERVAL = 0.1  # seconds between two checks of the deadlines
INVALID_STATEMENT_NAME = "26000"  # the prepared statement does not exist
FEATURE_NOT_SUPPORTED = "0A000"  # also: a prepared statement whose table has changed


def engine_options() -> dict[str, Any]:
    """Return the options of `create_engine`."""
    return {
        "pool_size": 10,
        "pool_use_lifo": True,  # few server processes, whose caches are warm
        "max_overflow": 10,
        "pool_recycle": 1800,
        "connect_args": {
            "connect_timeout": 3,
            "application_name": "clinic",
            "connection_factory": PostgresConnection,
        },
    }


def register(engine: Engine) -> None:
    """Register the handlers of prepared statements on an engine."""
    # an event of the dialect: one listener of engine events makes each connection join the listeners of all
    # its events, which takes 120 of the 2,570 function calls of a read
    event.listen(engine, "do_execute", _pass_prepare_option)
    event.listen(engine, "handle_error", _invalidate_connection)


def _pass_prepare_option(cursor: Any, _statement: str, _parameters: Any, context: Any) -> None:
    cursor.prepare = not context.executemany and context.execution_options.get("prepare", False)


def _invalidate_connection(context: ExceptionContext) -> None:
    """Treat an unusable prepared statement as a lost connection: the request runs again on another one."""
    error: Any = context.original_exception
    code = getattr(error, "pgcode", None)
    if code == INVALID_STATEMENT_NAME or (code == FEATURE_NOT_SUPPORTED and "cached plan" in str(error)):
        context.is_disconnect = True
        context.invalidate_pool_on_disconnect = False


@lru_cache(maxsize=1024)
def _numbered(query: str) -> tuple[str, tuple[str, ...]]:
    """Return a psycopg2 query with $1, $2 ... as placeholders, and the names of the values in this order."""
    names: list[str] = []

    def number(match: re.Match[str]) -> str:
        if match[0] == "%%":
            return "%"
        if match[1] not in names:
            names.append(match[1])
        return f"${names.index(match[1]) + 1}"

    return re.sub(r"%%|%\((\w+)\)s", number, query), tuple(names)


class PostgresCursor(psycopg2.extensions.cursor):
    """A cursor that sends the pending BEGIN together with its first statement."""

    connection: PostgresConnection
    prepare = False  # set by the execution option `prepare` of the statement

    def execute(self, query: Any, vars: Any = None) -> None:
        """Execute a statement, prepared if its execution option asks for it."""
        connection, source, name = self.connection, query, None
        if self.prepare and isinstance(vars, dict):
            query, vars, name = connection.prepared_form(query, vars)
        begin = connection.take_begin()
        if begin:
            statement = (
                query if isinstance(query, str) and vars is None else self.mogrify(query, vars).decode()
            )
            query, vars = begin + statement, None
        _watchdog.run(connection, super().execute, query, vars)
        if name is not None:  # only now: a PREPARE that failed must not be used
            connection.prepared[source] = name

    def executemany(self, query: Any, vars_list: Any) -> None:
        """Execute a statement once for each set of values."""
        self._send_begin()
        _watchdog.run(self.connection, super().executemany, query, vars_list)

    def copy_expert(self, sql: Any, file: Any, size: int = 8192) -> None:
        """Execute COPY with a file."""
        self._send_begin()
        super().copy_expert(sql, file, size)

    def _send_begin(self) -> None:
        begin = self.connection.take_begin()
        if begin:
            _watchdog.run(self.connection, super().execute, begin)


class PostgresConnection(psycopg2.extensions.connection):
    """A connection that begins a transaction with its first statement, and knows its prepared statements.

    The driver stays in autocommit mode. SQLAlchemy sets isolation level and read-only mode as usual.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.cursor_factory = PostgresCursor
        self.autocommit = True  # of the driver
        self.level: int = ISOLATION_LEVEL_AUTOCOMMIT
        self.access_mode = ""
        self.prepared: dict[str, str] = {}  # query -> name
        self.uses: Counter[str] = Counter()
        self._numbers = itertools.count(1)  # a name is never used twice: a failed attempt may have left one
        with self.cursor() as cursor:
            cursor.execute("SELECT pg_backend_pid()")
            # a pooler answers with another process; it may use another server connection for each transaction
            self.can_prepare = cursor.fetchone() == (self.info.backend_pid,)
            if self.can_prepare:
                # plan a prepared statement once, and never compile it
                cursor.execute("SET plan_cache_mode = force_generic_plan; SET jit = off")
        self.level = ISOLATION_LEVEL_READ_COMMITTED

    def prepared_form(self, query: str, values: dict[str, Any]) -> tuple[str, Any, str | None]:
        """Return the query as EXECUTE with its values, and the new name if the query prepares a statement.

        The query is returned unchanged before `PREPARE_AFTER` uses and behind a pooler.
        """
        name = self.prepared.get(query)
        if name is None and not self._should_prepare(query):
            return query, values, None
        numbered, order = _numbered(query)
        arguments = [values[parameter] for parameter in order] or None
        placeholders = f"({', '.join(['%s'] * len(order))})" if order else ""
        if name is not None:
            return f"EXECUTE {name}{placeholders}", arguments, None
        new = f"clinic_{next(self._numbers)}"
        escaped = numbered.replace("%", "%%") if arguments else numbered  # psycopg2 formats the whole text
        return f"PREPARE {new} AS {escaped};EXECUTE {new}{placeholders}", arguments, new

    def _should_prepare(self, query: str) -> bool:
        if not self.can_prepare or len(self.prepared) >= MAX_PREPARED:
            return False
        if len(self.uses) > 10 * MAX_PREPARED:
            self.uses.clear()
        self.uses[query] += 1
        return self.uses[query] >= PREPARE_AFTER

    def take_begin(self) -> str:
        """Return BEGIN and the timeouts of a request if the next statement opens a transaction."""
        if self.level == ISOLATION_LEVEL_AUTOCOMMIT or not self.is_idle:
            return ""
        timeouts = REQUEST_TIMEOUTS if deadline.is_active() else ""
        return f"BEGIN{ISOLATION_LEVELS.get(self.level, '')}{self.access_mode};{timeouts}"

    @property
    def is_idle(self) -> bool:
        """Return True if no transaction is open. The state of a lost connection is unknown: False."""
        return self.get_transaction_status() == psycopg2.extensions.TRANSACTION_STATUS_IDLE

    def set_isolation_level(self, level: int | None) -> None:
        """Set the isolation level of the next transactions. None is READ COMMITTED."""
        self.level = ISOLATION_LEVEL_READ_COMMITTED if level is None else level

    @property
    def readonly(self) -> bool:
        """Return True if the next transactions are read-only."""
        return bool(self.access_mode)

    @readonly.setter
    def readonly(self, value: Any) -> None:
        self.access_mode = " READ ONLY" if value else ""

    def commit(self) -> None:
        """Commit the open transaction, if there is one."""
        self._end("COMMIT")

    def rollback(self) -> None:
        """Roll back the open transaction, if there is one."""
        self._end("ROLLBACK")

    def _end(self, statement: str) -> None:
        if not self.is_idle:  # on a lost connection the statement raises the right error
            with self.cursor() as cursor:
                cursor.execute(statement)


class _Watchdog:
    """Closes the socket of a request that waits for PostgreSQL beyond its deadline.

    psycopg2's wait callback could do the same, in Python, for 12 microseconds of CPU a message.
    """

    def __init__(self) -> None:
        self.deadlines: dict[PostgresConnection, float] = {}
        self.lock = threading.Lock()  # the connection must not be closed and reused meanwhile
        self.thread: threading.Thread | None = None

    def run(self, connection: PostgresConnection, call: Callable[..., None], *arguments: Any) -> None:
        """Make a call that waits for the server, no longer than the deadline of the request."""
        end = deadline.until(math.inf)
        if math.isinf(end):
            call(*arguments)
            return
        if self.thread is None:
            self._start()
        self.deadlines[connection] = end
        try:
            call(*arguments)
        finally:
            with self.lock:
                del self.deadlines[connection]

    def _start(self) -> None:
        with self.lock:
            if self.thread is None:
                self.thread = threading.Thread(target=self._watch, name="database-watchdog", daemon=True)
                self.thread.start()

    def _watch(self) -> None:
        while True:
            time.sleep(WATCH_INTERVAL)
            now = time.monotonic()
            for connection, end in self.deadlines.copy().items():
                if end < now:
                    self._shut_down(connection, end)

    def _shut_down(self, connection: PostgresConnection, end: float) -> None:
        with self.lock:
            if self.deadlines.get(connection) != end:
                return  # the server has answered meanwhile
            # an error with one connection must not end the watch over the others
            with (
                suppress(OSError, psycopg2.Error),
                socket.socket(fileno=os.dup(connection.fileno())) as line,
            ):
                line.shutdown(socket.SHUT_RDWR)


_watchdog = _Watchdog()


def _renew_watchdog() -> None:
    global _watchdog  # noqa: PLW0603 - one thread in a process
    _watchdog = _Watchdog()


os.register_at_fork(after_in_child=_renew_watchdog)  # the thread stays in the parent
