"""Loading, locking and comparing rows."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from functools import cache
from types import SimpleNamespace
from typing import Any, TypeVar

from sqlalchemy import CursorResult, Executable, Row, Select, bindparam, inspect, select

from errors import ClinicError, not_found
from extensions import db
from models import Base

Model = TypeVar("Model", bound=Base)
Columns = TypeVar("Columns", bound=tuple[Any, ...])
Key = TypeVar("Key")
Value = TypeVar("Value")


class Record(SimpleNamespace):
    """A row that was read as columns: for display only, changes to it are not saved."""


def get_or_404(model: type[Model], row_id: int, *, lock: bool = False, what: str | None = None) -> Model:
    """Return the row, or raise 404. With `lock`, lock it as `for_update` does.

    `what` names the row in the error, if that is not the name of its entity.
    """
    result = db.session.execute(_by_id(model, lock), {"row_id": row_id})
    row: Model | None = result.unique().scalar_one_or_none()
    if row is None:
        raise not_found(what or model.__entity__ or model.__tablename__)
    return row


@cache
def _by_id(model: type[Model], lock: bool) -> Select[tuple[Model]]:
    key = model.__mapper__.primary_key[0]
    statement = select(model).where(key == bindparam("row_id")).execution_options(prepare=True)
    return for_update(statement) if lock else statement


def get_referenced(model: type[Model], row_id: int, field: str, *, lock: bool = False) -> Model:
    """Return the row that a member of the body names, or raise 422 for that member."""
    try:
        return get_or_404(model, row_id, lock=lock)
    except ClinicError:
        raise no_such_row(model, field) from None


def no_such_row(model: type[Base], field: str) -> ClinicError:
    """Return the 422 for a member of the body that names a row which does not exist."""
    problem = f"there is no such {(model.__entity__ or 'row').replace('_', ' ')}"
    return ClinicError("validation_failed", f"{field}: {problem}.", errors={field: problem})


def for_update(statement: Select[Columns]) -> Select[Columns]:
    """Return the statement with a lock on its rows until the end of the transaction. They are read afresh.

    The lock is `FOR NO KEY UPDATE`: it does not block the insertion of rows that refer to them.
    """
    return statement.with_for_update(key_share=True).execution_options(populate_existing=True)


def lock_rows(model: type[Model], ids: Iterable[int]) -> dict[int, Model]:
    """Lock rows in the order of their ids and return them by id. Ids without a row are left out."""
    ordered = sorted(set(ids))
    if not ordered:
        return {}
    rows = db.session.execute(_by_ids(model), {"row_ids": ordered}).unique().scalars()
    return {inspect(row).identity[0]: row for row in rows}


@cache
def _by_ids(model: type[Model]) -> Select[tuple[Model]]:
    key = model.__mapper__.primary_key[0]
    statement = select(model).where(key.in_(bindparam("row_ids", expanding=True))).order_by(key)
    return for_update(statement.execution_options(prepare=True))


def read_outside_transaction(statement: Executable, **values: Any) -> Row[Any] | None:
    """Return the columns of one row without a transaction: nothing stays locked while slow work follows."""
    with db.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        return connection.execute(statement, values).one_or_none()


def execute_core(statement: Executable, **values: Any) -> CursorResult[Any]:
    """Execute a statement on the connection of the session, without the cost of the ORM."""
    session = db.session()
    session.flush()
    return session.connection().execute(statement, values)


def mapping(statement: Select[tuple[Key, Value]]) -> dict[Key, Value]:
    """Return the rows of a statement with two columns as a dictionary."""
    return dict(db.session.execute(statement).tuples().all())


def changed_members(row: Base, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the members that differ from the stored row. An equal member counts as absent."""
    return {name: value for name, value in values.items() if getattr(row, name, None) != value}


def forbid_members(values: Mapping[str, Any], fields: Collection[str], message: str) -> None:
    """Raise 403 that names the members of `values` which the caller may not set."""
    forbidden = sorted(set(values) & set(fields))
    if forbidden:
        problems = dict.fromkeys(forbidden, "your role may not change this")
        raise ClinicError("forbidden", message, errors=problems)


def assign(row: Base, values: Mapping[str, Any]) -> None:
    """Set the members on the row."""
    for name, value in values.items():
        setattr(row, name, value)
