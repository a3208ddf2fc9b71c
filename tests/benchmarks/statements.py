"""Recording of the SQL messages of a request, as the database receives them, for counting and replay."""

from __future__ import annotations

import re
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from itertools import groupby
from pathlib import Path

import psycopg2
from flask import Flask
from sqlalchemy import event, make_url

from extensions import db

LOG_LINE = re.compile(r"^\S+ \S+ \S+ \[\d+\] (\w+):  (?:statement: )?(.*)")
PREPARE = re.compile(r"PREPARE (\w+) AS [^;]*;")
TRANSACTION = ("BEGIN", "COMMIT", "ROLLBACK")


def is_query(message: str) -> bool:
    """Return False for a message that only begins or ends a transaction."""
    return message.rstrip("; \n").upper() not in TRANSACTION


class StatementRecorder(ABC):
    """A recorder of the messages to one database. `prepared` holds the PREPARE statements by name."""

    def __init__(self) -> None:
        self.prepared: dict[str, str] = {}

    @abstractmethod
    def recording(self) -> AbstractContextManager[list[str]]:
        """Record the messages of the block. The list is complete after the block."""


class PostgresRecorder(StatementRecorder):
    """A recorder that reads the log of the server. Each message is one round trip."""

    def __init__(self, url: str, log: Path) -> None:
        super().__init__()
        self.log = log
        target = make_url(url)
        host = target.query["host"]
        with closing(psycopg2.connect(user=target.username, host=host, dbname=target.database)) as connection:
            connection.autocommit = True
            connection.cursor().execute(f"ALTER DATABASE \"{target.database}\" SET log_statement = 'all'")

    @contextmanager
    def recording(self) -> Iterator[list[str]]:
        """Record the messages of the block, without their PREPARE statements."""
        messages: list[str] = []
        with self.log.open() as file:
            file.seek(0, 2)
            yield messages
            for message in _parse_log(file.read()):
                self.prepared |= {part[1]: part[0] for part in PREPARE.finditer(message)}
                messages.append(PREPARE.sub("", message))


def _parse_log(text: str) -> Iterator[str]:
    message: str | None = None
    for line in text.splitlines():
        if message is not None and line.startswith("\t"):  # a continuation line
            message += "\n" + line.removeprefix("\t")
            continue
        if message is not None:
            yield message
        match = LOG_LINE.match(line)
        message = match[2] if match and "LOG:  statement: " in line else None
    if message is not None:
        yield message


class SqliteRecorder(StatementRecorder):
    """A recorder with a trace callback on every connection that the application opens from now on."""

    def __init__(self, app: Flask) -> None:
        super().__init__()
        self.traced: list[str] = []
        with app.app_context():
            db.session.remove()
            db.engine.dispose()
            event.listen(
                db.engine, "connect", lambda connection, _record: connection.set_trace_callback(self._trace)
            )

    def _trace(self, statement: str) -> None:
        # The thread that exports the audit heads has statements of its own.
        if threading.current_thread() is threading.main_thread():
            self.traced.append(statement)

    @contextmanager
    def recording(self) -> Iterator[list[str]]:
        """Record the statements of the block, without those of triggers."""
        statements: list[str] = []
        self.traced.clear()
        yield statements
        # SQLite reports a statement again for each trigger that it fires.
        unique = (statement for statement, _repeats in groupby(self.traced))
        statements += [statement for statement in unique if not statement.startswith(("--", "PRAGMA"))]
