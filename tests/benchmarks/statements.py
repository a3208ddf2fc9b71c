"""What one request asks of the database, recorded as it arrives there, to be counted and replayed."""

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

LOGGED = re.compile(r"^\S+ \S+ \S+ \[\d+\] (\w+):  (?:statement: )?(.*)")
PREPARE = re.compile(r"PREPARE (\w+) AS [^;]*;")
TRANSACTION = ("BEGIN", "COMMIT", "ROLLBACK")


def is_query(message: str) -> bool:
    """Whether a message asks for more than the beginning or end of a transaction."""
    return message.rstrip("; \n").upper() not in TRANSACTION


class Listener(ABC):
    """Hears the messages of one database; `prepared` are the statements that connections knew by name."""

    def __init__(self) -> None:
        self.prepared: dict[str, str] = {}

    @abstractmethod
    def listening(self) -> AbstractContextManager[list[str]]:
        """The messages of what happens inside, complete at the end."""


class PostgresListener(Listener):
    """Listens to the server itself, which writes down every message of this database: a round trip each."""

    def __init__(self, url: str, log: Path) -> None:
        super().__init__()
        self.log = log
        target = make_url(url)
        host = target.query["host"]
        with closing(psycopg2.connect(user=target.username, host=host, dbname=target.database)) as connection:
            connection.autocommit = True
            connection.cursor().execute(f"ALTER DATABASE \"{target.database}\" SET log_statement = 'all'")

    @contextmanager
    def listening(self) -> Iterator[list[str]]:
        """The messages of what happens inside, without those parts that prepare statements."""
        found: list[str] = []
        with self.log.open() as file:
            file.seek(0, 2)
            yield found
            for message in _messages(file.read()):
                self.prepared |= {part[1]: part[0] for part in PREPARE.finditer(message)}
                found.append(PREPARE.sub("", message))


def _messages(text: str) -> Iterator[str]:
    message: str | None = None
    for line in text.splitlines():
        if message is not None and line.startswith("\t"):  # the next line of the same message
            message += "\n" + line.removeprefix("\t")
            continue
        if message is not None:
            yield message
        logged = LOGGED.match(line)
        message = logged[2] if logged and "LOG:  statement: " in line else None
    if message is not None:
        yield message


class SqliteListener(Listener):
    """Listens to every connection that the application opens from now on."""

    def __init__(self, app: Flask) -> None:
        super().__init__()
        self.heard: list[str] = []
        with app.app_context():
            db.session.remove()
            db.engine.dispose()
            event.listen(db.engine, "connect", lambda one, _record: one.set_trace_callback(self._hear))

    def _hear(self, statement: str) -> None:
        # not what the thread that exports the audit's heads asks meanwhile
        if threading.current_thread() is threading.main_thread():
            self.heard.append(statement)

    @contextmanager
    def listening(self) -> Iterator[list[str]]:
        """The statements of what happens inside, without what triggers did."""
        found: list[str] = []
        self.heard.clear()
        yield found
        # a statement is told once more for each trigger that it sets off
        found += [one for one, _told in groupby(self.heard) if not one.startswith(("--", "PRAGMA"))]
