"""Engine options, the read replica, and the handlers of an engine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakSet

from sqlalchemy import Connection, Engine
from sqlalchemy.engine import make_url

from database import postgresql, sqlite

# Weak references: a handler of forks would keep the engine of each application as long as the process lives.
_engines: WeakSet[Engine] = WeakSet()
REPLICA = "replica"  # bind key of the read replica


def engine_options(url: str, *, echo: bool) -> dict[str, Any]:
    """Return the options of `create_engine` for a URL. Values are never logged: they are patient data."""
    options: dict[str, Any] = {"echo": echo, "hide_parameters": True, "pool_timeout": 3}
    driver = _driver(make_url(url).get_backend_name())
    driver_options: dict[str, Any] = driver.engine_options()
    return options | driver_options


def replicas(url: str | None, *, echo: bool) -> dict[str, dict[str, Any]]:
    """Return the binds of Flask-SQLAlchemy: the read-only replica, if there is one."""
    if url is None:
        return {}
    read_only = {"execution_options": {"postgresql_readonly": True}}
    return {REPLICA: {"url": url} | engine_options(url, echo=echo) | read_only}


def register(engine: Engine) -> None:
    """Register the handlers of an engine. A forked process drops the connections of its parent."""
    _driver(engine.dialect.name).register(engine)
    _engines.add(engine)


def _drop_connections_of_the_parent() -> None:
    for engine in list(_engines):
        engine.dispose(close=False)


os.register_at_fork(after_in_child=_drop_connections_of_the_parent)


def _driver(name: str) -> Any:
    return sqlite if name == "sqlite" else postgresql


@contextmanager
def snapshot(engine: Engine) -> Iterator[Connection]:
    """Return a connection that reads one snapshot of the database and blocks no writer."""
    if engine.dialect.name == "sqlite":
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql("BEGIN")  # deferred: blocks no writer
            try:
                yield connection
            finally:
                connection.exec_driver_sql("ROLLBACK")
        return
    options: dict[str, Any] = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
    with engine.connect().execution_options(**options) as connection:
        yield connection
