"""Rows as the services get them: fetched, locked where they are about to change, compared by field."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cache, lru_cache
from types import SimpleNamespace
from typing import Any, TypeVar

from sqlalchemy import (
    ColumnElement,
    CursorResult,
    Dialect,
    Executable,
    Select,
    bindparam,
    event,
    func,
    inspect,
    null,
    select,
)
from sqlalchemy import Row as Result
from sqlalchemy import insert as into
from sqlalchemy.orm import Session, SessionTransaction, make_transient_to_detached
from sqlalchemy.orm.attributes import set_committed_value

from database.engine import PREPARED, WITH_NEXT
from errors import ClinicError, not_found
from extensions import db
from models import Base
from services import clock
from services.audit import audit_log

Row = TypeVar("Row", bound=Base)
Columns = TypeVar("Columns", bound=tuple[Any, ...])
Key = TypeVar("Key")
Value = TypeVar("Value")


class Record(SimpleNamespace):
    """A row that was read as columns, to be shown and not to be changed."""


def watch(session_class: type[Session] | Any) -> None:
    """Make sessions forget what they held when a transaction or savepoint ends, and its locks may with it."""
    event.listen(session_class, "after_transaction_end", _let_go)


def _let_go(session: Session, transaction: SessionTransaction) -> None:
    if transaction.nested or transaction.parent is None:
        session.info.pop("held", None)


def _held(kind: type[Row]) -> dict[int, Row]:
    """Rows that this transaction has locked, by id: nobody else changes them, so they are not read again."""
    found: dict[int, Row] = db.session.info.setdefault("held", {}).setdefault(kind, {})
    return found


def get_or_404(kind: type[Row], row_id: int, *, lock: bool = False, what: str | None = None) -> Row:
    """The row, or 404; with `lock` as `locked` has it."""
    held = _held(kind)
    row = held.get(row_id)
    if row is None or row not in db.session:
        found = db.session.execute(_by_id(kind, lock), {"row_id": row_id})
        row = found.unique().scalar_one_or_none()
    if row is None:
        raise not_found(what or kind.__entity__ or kind.__tablename__)
    if lock:
        held[row_id] = row
    return row


@cache
def _by_id(kind: type[Row], lock: bool) -> Select[tuple[Row]]:
    statement = (
        select(kind).prefix_with(PREPARED).where(kind.__mapper__.primary_key[0] == bindparam("row_id"))
    )
    return for_update(statement) if lock else statement


def for_update(statement: Select[Columns]) -> Select[Columns]:
    """The statement's rows, held until the end of the transaction and read afresh.

    The lock is `FOR NO KEY UPDATE`: rows that merely refer to them are not held up.
    """
    return statement.with_for_update(key_share=True).execution_options(populate_existing=True)


def lock_rows(kind: type[Row], ids: Iterable[int]) -> None:
    """Lock rows in the order of their ids, read afresh; those that do not exist are left out."""
    held = _held(kind)
    wanted = sorted(set(ids) - set(held))
    if wanted:
        rows = db.session.execute(_by_ids(kind), {"row_ids": wanted}).unique().scalars()
        held.update({inspect(row).identity[0]: row for row in rows})


def lock_selected(statement: Select[Any], **values: Any) -> Sequence[Result[Any]]:
    """What a statement that is `locked` selects; its rows are held like those of `fetch`."""
    found = db.session.execute(statement, values).unique().all()
    for selected in found:
        for row in selected:
            if isinstance(row, Base):
                _held(type(row))[row.id] = row  # type: ignore[attr-defined]
    return found


@cache
def _by_ids(kind: type[Row]) -> Select[tuple[Row]]:
    key = kind.__mapper__.primary_key[0]
    statement = select(kind).prefix_with(PREPARED).where(key.in_(bindparam("row_ids", expanding=True)))
    return for_update(statement.order_by(key))


def get_referenced(kind: type[Row], row_id: int, field: str, *, lock: bool = False) -> Row:
    """Like `fetch`, for a row that a body names: 422 on that field instead of 404."""
    try:
        return get_or_404(kind, row_id, lock=lock)
    except ClinicError:
        raise ClinicError(
            "validation_failed",
            f"{field}: there is no such {kind.__entity__}.",
            errors={field: f"there is no such {(kind.__entity__ or 'row').replace('_', ' ')}"},
        ) from None


def read_outside_transaction(statement: Executable, **values: Any) -> Result[Any] | None:
    """One row's columns, read outside any transaction: no lock is held while something slow follows."""
    with db.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        return connection.execute(statement, values).one_or_none()


def execute_core(statement: Executable, **values: Any) -> CursorResult[Any]:
    """The rows of a statement that was made once, without what the ORM costs: for what is asked often.

    It is compiled once, too. One that is made for a request is executed on the session's connection: here it
    would be compiled every time, and push out those that stay.
    """
    session = db.session()
    session.flush()
    connection = session.connection()
    return connection.execute(_compiled(statement, connection.dialect), values)


@lru_cache(maxsize=1024)
def _compiled(statement: Any, dialect: Dialect) -> Any:
    """What SQLAlchemy looks up by the whole structure of a statement, found by the statement itself."""
    return statement.compile(dialect=dialect)


def new_values(row: Base) -> dict[str, Any]:
    """The columns of a row that is about to be inserted, but for its id: as given, by default, or stamped."""
    given = {name: value for name, value in row.__dict__.items() if name in row.__mapper__.columns}
    now = clock.now()
    stamps = {"created_at": now, "updated_at": now}
    defaults = _defaults(type(row))
    return defaults | {name: stamps[name] for name in stamps.keys() & defaults.keys()} | given


@cache
def _defaults(kind: type[Base]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, column in kind.__mapper__.columns.items():
        if name != "id":
            value = None if column.default is None else column.default.arg  # type: ignore[attr-defined]
            found[name] = value({}) if callable(value) else value
    return found


def insert(row: Row, *, new_id: int | None = None, **neighbours: Base) -> Row:
    """Insert a row as a flush would, in a statement instead of a unit of work, at a fifth of the cost.

    For rows that are inserted by themselves. `neighbours` are those that it refers to, by relationship. With
    a `new_id` from `next_id` the statement goes with the next one, and what it raises with it.
    """
    values = new_values(row)
    if new_id is None:
        new_id = execute_core(_insertion(type(row)), **values).scalar_one()
    else:
        execute_core(_insertion_with_next(type(row)), id=new_id, **values)
    keep(row, values | {"id": new_id})
    for name, neighbour in neighbours.items():
        set_committed_value(row, name, neighbour)
    return row


@cache
def _insertion(kind: type[Base]) -> Executable:
    key = kind.__mapper__.primary_key[0]
    return into(kind).values({name: bindparam(name) for name in _defaults(kind)}).returning(key)


@cache
def _insertion_with_next(kind: type[Base]) -> Executable:
    values: dict[str, Any] = {name: bindparam(name) for name in (*_defaults(kind), "id")}
    return into(kind).prefix_with(WITH_NEXT).prefix_with(PREPARED).values(values).inline()


def next_id(kind: type[Base], dialect: str) -> ColumnElement[Any]:
    """The id of the next row of a kind, to be selected beside something else; NULL where SQLite counts."""
    return func.nextval(f"{kind.__tablename__}_id_seq") if dialect == "postgresql" else null()


def keep(row: Row, values: Mapping[str, Any]) -> Row:
    """Have the session hold a new row whose columns were inserted with these values, and the audit know."""
    given = {name for name in row.__dict__ if values.get(name) is not None}
    row.__dict__.update(values)
    audit_log.note_new(row, given)
    make_transient_to_detached(row)
    db.session.add(row)
    return row


def mapping(statement: Select[tuple[Key, Value]]) -> dict[Key, Value]:
    """The rows of a statement of two columns, first -> second."""
    return dict(db.session.execute(statement).tuples().all())


def changed_members(row: Base, values: Mapping[str, Any]) -> dict[str, Any]:
    """The members that differ from what is stored: an equal one counts as absent, for every rule."""
    return {name: value for name, value in values.items() if getattr(row, name, None) != value}


def forbid_members(values: Mapping[str, Any], fields: Collection[str], message: str) -> None:
    """403 naming the fields of `values` that the caller may not set."""
    found = sorted(set(values) & set(fields))
    if found:
        raise ClinicError("forbidden", message, errors=dict.fromkeys(found, "your role may not change this"))


def assign(row: Base, values: Mapping[str, Any]) -> None:
    """Set the members on the row."""
    for name, value in values.items():
        setattr(row, name, value)
