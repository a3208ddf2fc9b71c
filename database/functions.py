"""SQL that differs between PostgreSQL and SQLite, behind one function each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from functools import cache
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    ColumnElement,
    Connection,
    Engine,
    Integer,
    Select,
    Text,
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
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement


def is_postgresql(connection: Connection | Engine) -> bool:
    """Return True for PostgreSQL, False for SQLite."""
    return connection.dialect.name == "postgresql"


def next_id(connection: Connection, table: str) -> int:
    """Return the id for the next row of a table. On SQLite the transaction holds the write lock."""
    number: int = connection.execute(_next_id(table, is_postgresql(connection))).scalar_one()
    return number


@cache  # SQLAlchemy compares a new statement part by part with those that it has compiled
def _next_id(table: str, is_sequence: bool) -> Select[tuple[int]]:
    if is_sequence:
        return select(func.nextval(f"{table}_id_seq", type_=BigInteger)).execution_options(prepare=True)
    return select(func.coalesce(func.max(column("id", BigInteger)), 0) + 1).select_from(table_clause(table))


def lock_keys(connection: Connection, keys: Iterable[int]) -> None:
    """Lock 64-bit keys until the end of the transaction, in one order, so that no deadlock arises.

    SQLite has one writer at a time, and needs no lock.
    """
    ordered = sorted(set(keys))
    if ordered and is_postgresql(connection):
        connection.execute(_LOCK_KEYS, {"keys": ordered})


_KEYS = func.unnest(bindparam("keys", type_=ARRAY(BigInteger))).column_valued("key")
_LOCK_KEYS = select(func.pg_advisory_xact_lock(_KEYS)).execution_options(prepare=True)


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


def has_key(key: Any, parameter: str, *, postgresql: bool) -> ColumnElement[bool]:
    """Return the condition that `key` is in the list that the parameter holds.

    On PostgreSQL the list is one array: the same prepared statement serves lists of any length.
    """
    condition: ColumnElement[bool] = (
        key == any_(bindparam(parameter, type_=ARRAY(BigInteger)))
        if postgresql
        else key.in_(bindparam(parameter, expanding=True))
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


def insert_unless_exists(connection: Connection, model: type[Any], *, key: str) -> Any:
    """Return an INSERT of a row, which does nothing if a row with the same value of `key` exists.

    It waits for a transaction that has inserted the value and has not ended.
    """
    insert = postgresql.insert if is_postgresql(connection) else sqlite.insert
    return insert(model).on_conflict_do_nothing(index_elements=[key])


def contains_text(column: Any, text: str) -> ColumnElement[bool]:
    """Return the condition that a column contains a text, in capital or small letters of any script.

    PostgreSQL folds letters by the locale of the database, and with the locale C only those of ASCII. So a
    text with other letters becomes a regular expression with both cases of each letter.
    """
    condition: ColumnElement[bool] = column.icontains(text, autoescape=True)
    if text.isascii():
        return condition
    return _matches_both_cases(column, "".join(map(_both_cases, text)), condition)


def _both_cases(character: str) -> str:
    """Return the regular expression of a character, for PostgreSQL."""
    cases = {character, *(case for case in (character.lower(), character.upper()) if len(case) == 1)}
    if len(cases) > 1:
        return f"[{''.join(sorted(cases))}]"
    return character if character.isalnum() or not character.isascii() else f"\\{character}"


class _matches_both_cases(FunctionElement[bool]):  # noqa: N801 - the name of an SQL function
    """A column, a regular expression for PostgreSQL, and the condition for SQLite."""

    type = Boolean()
    inherit_cache = True


@compiles(_matches_both_cases, "postgresql")
def _match_on_postgresql(element: Any, compiler: Any, **options: Any) -> str:
    column, pattern, _condition = (compiler.process(clause, **options) for clause in element.clauses)
    return f"({column} ~ {pattern})"


@compiles(_matches_both_cases, "sqlite")
def _match_on_sqlite(element: Any, compiler: Any, **options: Any) -> str:
    *_postgresql, condition = element.clauses
    return f"({compiler.process(condition, **options)})"


class json_text(FunctionElement[str]):  # noqa: N801 - the name of an SQL function
    """The text of a JSON value, with all letters as they are."""

    type = Text()
    inherit_cache = True


@compiles(json_text, "postgresql")
def _json_text_on_postgresql(element: Any, compiler: Any, **options: Any) -> str:
    return f"CAST({compiler.process(element.clauses, **options)} AS TEXT)"


@compiles(json_text, "sqlite")
def _json_text_on_sqlite(element: Any, compiler: Any, **options: Any) -> str:
    # stored as text in which letters outside of ASCII are escapes
    return f"unescaped_json({compiler.process(element.clauses, **options)})"


class minutes_between(FunctionElement[int]):  # noqa: N801 - the name of an SQL function
    """The whole minutes from one instant to a later one."""

    type = Integer()
    inherit_cache = True


@compiles(minutes_between, "postgresql")
def _minutes_on_postgresql(element: Any, compiler: Any, **options: Any) -> str:
    start, end = (compiler.process(clause, **options) for clause in element.clauses)
    return f"CAST(floor(extract(epoch FROM {end} - {start}) / 60) AS INTEGER)"


@compiles(minutes_between, "sqlite")
def _minutes_on_sqlite(element: Any, compiler: Any, **options: Any) -> str:
    start, end = (compiler.process(clause, **options) for clause in element.clauses)
    return f"((CAST(strftime('%s', {end}) AS INTEGER) - CAST(strftime('%s', {start}) AS INTEGER)) / 60)"


class unix_seconds(FunctionElement[int]):  # noqa: N801 - the name of an SQL function
    """The whole seconds from 1970 to an instant, without its fraction."""

    type = BigInteger()
    inherit_cache = True


@compiles(unix_seconds, "postgresql")
def _seconds_on_postgresql(element: Any, compiler: Any, **options: Any) -> str:
    return f"CAST(floor(extract(epoch FROM {compiler.process(element.clauses, **options)})) AS BIGINT)"


@compiles(unix_seconds, "sqlite")
def _seconds_on_sqlite(element: Any, compiler: Any, **options: Any) -> str:
    # SQLite rounds to milliseconds: 23:59:59.9996 would be midnight of the next day
    instant = compiler.process(element.clauses, **options)
    return f"CAST(strftime('%s', substr({instant}, 1, 19)) AS INTEGER)"


class larger_of(FunctionElement[Any]):  # noqa: N801 - the name of an SQL function
    """The larger one of two values of the same type."""

    inherit_cache = True

    def __init__(self, first: ColumnElement[Any], second: ColumnElement[Any]) -> None:
        super().__init__(first, second)
        self.type = first.type


@compiles(larger_of, "postgresql")
def _larger_on_postgresql(element: Any, compiler: Any, **options: Any) -> str:
    return f"greatest({compiler.process(element.clauses, **options)})"


@compiles(larger_of, "sqlite")
def _larger_on_sqlite(element: Any, compiler: Any, **options: Any) -> str:
    return f"max({compiler.process(element.clauses, **options)})"


class priced(FunctionElement[Any]):  # noqa: N801 - the name of an SQL function
    """A quantity times a unit cost, rounded half up to multiples of the smallest amount of the currency."""

    inherit_cache = True

    def __init__(self, quantity: Any, unit_cost: Any, smallest: ColumnElement[Any]) -> None:
        super().__init__(quantity, unit_cost, smallest)
        self.type = smallest.type


@compiles(priced, "postgresql")
def _priced_on_postgresql(element: Any, compiler: Any, **options: Any) -> str:
    quantity, cost, step = (compiler.process(clause, **options) for clause in element.clauses)
    return f"(round({quantity} * {cost} / {step}) * {step})"


@compiles(priced, "sqlite")
def _priced_on_sqlite(element: Any, compiler: Any, **options: Any) -> str:
    # scaled integers: an amount has two places, a unit cost four
    quantity, cost, step = (compiler.process(clause, **options) for clause in element.clauses)
    return f"(({quantity} * {cost} + {step} * 50) / ({step} * 100) * {step})"
