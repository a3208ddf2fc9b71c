"""The Alembic environment: `flask db ...` on the database of the application, or a given `sqlalchemy.url`.

With `MIGRATION_DATABASE_URI`, a command also grants the privileges of the server (`database.roles`).

Each command is one transaction, also on SQLite. An interrupted migration leaves no changes and can run again.
Concurrent migrations wait for each other.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import flask
from alembic import context
from sqlalchemy import Engine, create_engine

from database import roles
from database.engine import engine_options, register
from extensions import db
from models import Base

LOCK = 7_205_411_338  # an arbitrary number, for the advisory lock of migrations only


@contextmanager
def _engine() -> Iterator[Engine]:
    if flask.has_app_context():
        with roles.owner_engine(db.engine) as engine:
            yield engine
        return
    url = context.config.get_main_option("sqlalchemy.url")
    if not url:
        raise RuntimeError("run `flask --app app db upgrade`, or give sqlalchemy.url")
    engine = create_engine(url, **engine_options(url, echo=False))
    register(engine)
    try:
        yield engine
    finally:
        engine.dispose()


def _include_object(_object: Any, name: str | None, kind: str, reflected: bool, _other: Any) -> bool:
    """Return False for the indexes that only the migrations define: autogenerate would drop them."""
    hand_written = kind == "index" and name is not None and (name.startswith("ex_") or name.endswith("_trgm"))
    return not (reflected and hand_written)


def _number(_context: Any, _revision: Any, directives: list[Any]) -> None:
    """Name a new revision by the next number: `flask db revision` and `flask db migrate`."""
    for directive in directives:
        revisions = context.script.walk_revisions()
        directive.rev_id = f"{max(int(script.revision) for script in revisions) + 1:04}"


def _run(*, role: str | None = None, **target: Any) -> None:
    context.configure(
        target_metadata=Base.metadata,
        transactional_ddl=True,
        compare_type=True,
        include_object=_include_object,
        process_revision_directives=_number,
        **target,
    )
    with context.begin_transaction():
        if context.get_context().dialect.name == "postgresql":  # SQLite has one writer at a time anyway
            context.execute(f"SELECT pg_advisory_xact_lock({LOCK})")
        context.run_migrations()
        if role is not None:
            roles.grant_privileges(context.get_context().connection, role)


with _engine() as engine:
    if context.is_offline_mode():
        _run(url=engine.url, literal_binds=True, dialect_opts={"paramstyle": "named"})
    else:
        with engine.connect() as connection:
            role = roles.server_role(db.engine) if flask.has_app_context() else None
            _run(connection=connection, role=role)
