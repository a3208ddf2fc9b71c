"""How migrations are run: by `flask db ...` on the application's database, or on a given `sqlalchemy.url`.

Everything a command does is one transaction, on SQLite too: a migration that was killed half-way left
nothing, and is run again. Two that start at once wait for each other.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import flask
from alembic import context
from sqlalchemy import Engine, create_engine

from database.engine import engine_options, register
from extensions import db
from models import Base

LOCK = 7_205_411_338  # any number, as long as nobody else of this database takes it


@contextmanager
def _engine() -> Iterator[Engine]:
    if flask.has_app_context():
        yield db.engine
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


def _is_the_models(_object: Any, name: str | None, kind: str, reflected: bool, _other: Any) -> bool:
    """Whether autogenerate compares it: it must not remove the guards, which no model can spell."""
    guard = kind == "index" and name is not None and (name.startswith("ex_") or name.endswith("_trgm"))
    return not (reflected and guard)


def _run(**target: Any) -> None:
    context.configure(
        target_metadata=Base.metadata,
        transactional_ddl=True,
        compare_type=True,
        include_object=_is_the_models,
        **target,
    )
    with context.begin_transaction():
        if context.get_context().dialect.name == "postgresql":  # SQLite lets one writer in anyway
            context.execute(f"SELECT pg_advisory_xact_lock({LOCK})")
        context.run_migrations()


with _engine() as engine:
    if context.is_offline_mode():
        _run(url=engine.url, literal_binds=True, dialect_opts={"paramstyle": "named"})
    else:
        with engine.connect() as connection:
            _run(connection=connection)
