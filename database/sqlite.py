"""SQLite: connection settings, and transactions that wait for the one writer in a queue."""

from __future__ import annotations

import json
import os
import sqlite3
import stat
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, event
from sqlalchemy.exc import OperationalError

from database import deadline

WRITE_WAIT = 4.5  # seconds that a transaction waits for the transactions before it
POLL_INTERVAL = 0.002  # seconds between two attempts to begin

_writer_queue = threading.Lock()
_creation = threading.Lock()


def engine_options() -> dict[str, Any]:
    """Return the options of `create_engine`: one connection for each thread, and kept."""
    return {
        "pool_size": 0,
        "max_overflow": -1,
        "connect_args": {"timeout": 5, "check_same_thread": False},
    }


def register(engine: Engine) -> None:
    """Register the connect and begin handlers on an engine."""
    event.listen(engine, "do_connect", _protect_files)
    event.listen(engine, "connect", _configure)
    event.listen(engine, "begin", _begin_immediate)


def _protect_files(_dialect: Any, _record: Any, arguments: list[Any], _options: Any) -> None:
    """Create a missing database for its owner only, and withdraw the rights of others from an existing one.

    SQLite creates `-wal` and `-shm` with the mode of the database.
    """
    database = Path(arguments[0])
    with _creation, suppress(OSError):  # it exists, or SQLite reports why it cannot
        # Never open an existing database: its close would drop the locks that SQLite holds in this process.
        os.close(os.open(database, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    for file in (database, *(database.with_name(database.name + end) for end in ("-wal", "-shm"))):
        with suppress(OSError):  # there is none, or it belongs to another owner
            mode = stat.S_IMODE(file.stat().st_mode)
            if mode & 0o077:
                file.chmod(mode & 0o700)


def _configure(connection: sqlite3.Connection, _record: Any) -> None:
    connection.isolation_level = None  # the driver must not begin transactions; its BEGIN is deferred
    end = time.monotonic() + WRITE_WAIT
    for pragma in (
        "foreign_keys=ON",
        "journal_mode=WAL",
        f"busy_timeout={WRITE_WAIT * 1000:.0f}",
        "synchronous=FULL",
        "recursive_triggers=ON",  # otherwise INSERT OR REPLACE deletes rows without the append-only triggers
    ):
        # two processes that open a new database at once: SQLite refuses one of them without a wait
        _retry_while_busy(partial(connection.execute, f"PRAGMA {pragma}"), end)
    connection.create_function("lower", 1, _lower, deterministic=True)
    connection.create_function("unescaped_json", 1, _unescaped_json, deterministic=True)


def _unescaped_json(text: Any) -> Any:
    return json.dumps(json.loads(text), ensure_ascii=False) if isinstance(text, str) else text


def _lower(text: Any) -> Any:
    """Return the text in lower case. SQLite's own lower() folds ASCII only."""
    return text.lower() if isinstance(text, str) else text


def _begin_immediate(connection: Connection) -> None:
    """Begin with the write lock: a deferred transaction that starts to write cannot wait for it.

    SQLite waits up to 100 ms between two attempts, so a waiting transaction is overtaken again and again. The
    threads of a process therefore wait in a queue, and only the first of it polls.
    """
    if connection.get_execution_options().get("isolation_level") == "AUTOCOMMIT":
        return
    end = deadline.until(WRITE_WAIT)
    first = _writer_queue.acquire(timeout=max(0.0, end - time.monotonic()))
    driver: Any = connection.connection.driver_connection
    driver.execute("PRAGMA busy_timeout=0")
    try:
        _retry_while_busy(partial(connection.exec_driver_sql, "BEGIN IMMEDIATE"), end)
    finally:
        driver.execute(f"PRAGMA busy_timeout={WRITE_WAIT * 1000:.0f}")
        if first:
            _writer_queue.release()


def _retry_while_busy(action: Callable[[], Any], end: float) -> None:
    """Run the action as soon as SQLite is not busy. Raise its error after the monotonic time `end`."""
    while True:
        try:
            action()
        except (OperationalError, sqlite3.OperationalError) as error:
            busy = "locked" in str(error) or "busy" in str(error)
            if not busy or time.monotonic() > end:
                raise
        else:
            return
        time.sleep(POLL_INTERVAL)
