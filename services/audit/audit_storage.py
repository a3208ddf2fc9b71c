"""Storage of audit entries: entries, index of patients, and head of the chain."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Row,
    Select,
    bindparam,
    cast,
    column,
    exists,
    func,
    insert,
    select,
    true,
    update,
)
from sqlalchemy.dialects.postgresql import JSONB

from column_types import InstantType
from database.functions import is_postgresql
from models import AuditHead, AuditLog, AuditSubject, Doctor, User, UserSession
from security import tokens


class Head(NamedTuple):
    """The last entry of a chain."""

    chain: int
    number: int
    mac: str


def lock_head(connection: Connection) -> Head:
    """Lock and return the head of a chain: a free one, or any if all are locked."""
    row = connection.execute(_FREE_HEAD).one_or_none() or connection.execute(_ANY_HEAD).one()
    return Head(row.chain, row.number, row.mac)


_HEADS = (
    select(AuditHead.chain, AuditHead.number, AuditHead.mac)
    .order_by(func.random())
    .limit(1)
    .execution_options(prepare=True)
)
_FREE_HEAD, _ANY_HEAD = _HEADS.with_for_update(skip_locked=True), _HEADS.with_for_update()


def insert_entries(
    connection: Connection, entries: Sequence[dict[str, Any]], before: Head, caller: Row[Any] | None = None
) -> bool:
    """Insert the entries behind the head `before` and move the head to the last one.

    Return False, and insert nothing, if the chain does not end at `before`, or if `caller` is not the present
    state of a valid session, its user and doctor (PostgreSQL). Each entry has all columns of `AuditLog`
    except `id`, and the same `chain` and `at`.
    """
    last = entries[-1]
    head = {"head": before.chain, "before": before.number, "previous": before.mac}
    head |= {"last": last["number"], "last_mac": last["mac"]}
    if is_postgresql(connection):
        documents = [{name: value for name, value in entry.items() if name != "at"} for entry in entries]
        values = head | {"at": last["at"], "entries": documents}
        if caller is None:
            return bool(connection.execute(_MOVE_AND_INSERT, values).scalar_one())
        values |= {
            name: getattr(caller, name)
            for name in ("session_id", "user_id", "name", "role", "mfa_enabled_at", "doctor_id")
        }
        opened_since = last["at"] - tokens.maximum_lifetime()
        idle = tokens.idle_lifetime()
        values |= {
            "opened_since": opened_since,
            "used_since": opened_since if idle is None else last["at"] - idle,
        }
        return bool(connection.execute(_MOVE_AND_INSERT_FOR_CALLER, values).scalar_one())
    if connection.execute(_MOVE_HEAD, head).rowcount != 1:
        return False
    ids = connection.execute(_INSERT_ENTRIES, list(entries)).scalars()
    subjects = [
        {"patient_id": patient_id, "audit_id": audit_id}
        for audit_id, entry in zip(ids, entries, strict=True)
        for patient_id in entry["patient_ids"]
    ]
    if subjects:
        connection.execute(insert(AuditSubject), subjects)
    return True


_MOVE_HEAD = (
    update(AuditHead)
    .where(
        AuditHead.chain == bindparam("head"),
        AuditHead.number == bindparam("before"),
        AuditHead.mac == bindparam("previous"),
    )
    .values(number=bindparam("last"), mac=bindparam("last_mac"))
)
_INSERT_ENTRIES = insert(AuditLog).returning(AuditLog.id, sort_by_parameter_order=True)


def _move_and_insert(*conditions: ColumnElement[bool]) -> Select[Any]:
    """Return all of it as one statement for PostgreSQL: every request pays for each round trip."""
    moved = _MOVE_HEAD.where(*conditions).returning(AuditHead.chain).cte("moved")
    stored = [column for column in AuditLog.__table__.columns if column.name not in ("id", "at")]
    entry = (
        func.jsonb_to_recordset(bindparam("entries", type_=JSONB))
        .table_valued(*(column(item.name, item.type) for item in stored), name="entry")
        .render_derived(with_types=True)
    )
    logged = (
        insert(AuditLog)
        .from_select(
            ["at", *(item.name for item in stored)],
            select(bindparam("at", type_=InstantType()), *(entry.c[item.name] for item in stored))
            .join_from(moved, entry, moved.c.chain == entry.c.chain)
            .order_by(entry.c.number),
        )
        .returning(AuditLog.id, AuditLog.patient_ids)
        .cte("logged")
    )
    patient = func.jsonb_array_elements_text(logged.c.patient_ids).table_valued("value", name="patient")
    indexed = (
        insert(AuditSubject)
        .from_select(
            ["patient_id", "audit_id"],
            select(cast(patient.c.value, BigInteger), logged.c.id).join_from(logged, patient, true()),
        )
        .cte("indexed")
    )
    return select(func.count()).select_from(moved).add_cte(logged, indexed).execution_options(prepare=True)


_CALLER_IS_UNCHANGED = exists(
    select(UserSession.id)
    .join(User, User.id == UserSession.user_id)
    .outerjoin(Doctor, Doctor.user_id == User.id)
    .where(
        UserSession.id == bindparam("session_id"),
        UserSession.ended_at.is_(None),
        UserSession.expires_at > bindparam("at", type_=InstantType()),
        UserSession.created_at > bindparam("opened_since", type_=InstantType()),
        UserSession.last_used_at > bindparam("used_since", type_=InstantType()),
        User.id == bindparam("user_id"),
        User.is_active,
        User.name == bindparam("name"),
        User.role == bindparam("role"),
        User.mfa_enabled_at.is_not_distinct_from(bindparam("mfa_enabled_at", type_=InstantType())),
        Doctor.id.is_not_distinct_from(bindparam("doctor_id", type_=BigInteger)),
    )
)
_MOVE_AND_INSERT = _move_and_insert()
_MOVE_AND_INSERT_FOR_CALLER = _move_and_insert(_CALLER_IS_UNCHANGED)
