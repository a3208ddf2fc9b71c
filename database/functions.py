"""SQL that differs between PostgreSQL and SQLite, behind one function each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Engine,
    Select,
    any_,
    bindparam,
    column,
    func,
    select,
    text,
)
from sqlalchemy import table as table_clause
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.dialects.postgresql import ARRAY


def is_postgresql(connection: Connection | Engine) -> bool:
    """Return True for PostgreSQL, False for SQLite."""
    return connection.dialect.name == "postgresql"


def next_id(connection: Connection, table: str) -> int:
    """Return the id for the next row of a table. On SQLite the transaction holds the write lock."""
    if is_postgresql(connection):
        statement = select(func.nextval(f"{table}_id_seq"))
    else:
        statement = select(func.coalesce(func.max(column("id")), 0) + 1).select_from(table_clause(table))
    number: int = connection.execute(statement).scalar_one()
    return number


def lock_keys(connection: Connection, keys: Iterable[int]) -> None:
    """Lock 64-bit keys until the end of the transaction, in one order, so that no deadlock arises.

    SQLite has one writer at a time, and needs no lock.
    """
    ordered = sorted(set(keys))
    if ordered and is_postgresql(connection):
        connection.execute(_LOCK_KEYS, {"keys": ordered})


_KEYS = func.unnest(bindparam("keys", type_=ARRAY(BigInteger))).column_valued("key")
_LOCK_KEYS = select(func.pg_advisory_xact_lock(_KEYS))


def oldest_transaction(connection: Connection) -> datetime | None:
    """Return the start of the oldest open transaction, None if no other one can be open (SQLite).

    PostgreSQL hides the transactions of other roles: then their start is assumed to be 10 minutes ago.
    """
    if not is_postgresql(connection):
        return None
    start: datetime = connection.execute(_OLDEST_TRANSACTION).scalar_one()
    return start


_OLDEST_TRANSACTION = text(
    """
    SELECT min(CASE WHEN state IS NULL THEN now() - interval '10 minutes' ELSE xact_start END)
      FROM pg_stat_activity WHERE backend_type = 'client backend' AND datname = current_database()
    """
)


def in_page(key: Any, page: Select[Any], *, postgresql: bool) -> ColumnElement[bool]:
    """Return the condition that `key` is one of the few keys that the subquery `page` selects.

    PostgreSQL does not know that a page is small. As an array its keys are found first, by their index.
    """
    condition: ColumnElement[bool] = (
        key == any_(func.array(page.scalar_subquery())) if postgresql else key.in_(page)
    )
    return condition


def insert_or_update(
    connection: Connection,
    model: type[Any],
    *,
    key: Mapping[str, Any],
    new: Mapping[str, Any],
    changes: Mapping[str, Any],
) -> Any:
    """Return an INSERT of a row with `key` and `new`, which sets `changes` if a row with the key exists."""
    insert = postgresql.insert if is_postgresql(connection) else sqlite.insert
    statement = insert(model).values({**key, **new})
    return statement.on_conflict_do_update(index_elements=list(key), set_=dict(changes))
