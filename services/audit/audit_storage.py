"""Storage of audit entries: entries, index of patients, head of the chain, and the events of the changes."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from functools import cache
from typing import Any, NamedTuple

from sqlalchemy import (
    BigInteger,
    Connection,
    Row,
    Select,
    TableValuedAlias,
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
from sqlalchemy.sql.elements import KeyedColumnElement

from column_types import InstantType
from database.functions import is_postgresql
from models import AuditHead, AuditLog, AuditSubject, Doctor, EmergencyAccess, Event, User, UserSession
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
    connection: Connection,
    entries: Sequence[dict[str, Any]],
    events: Sequence[dict[str, Any]],
    before: Head,
    caller: Row[Any] | None = None,
) -> bool:
    """Insert the entries behind the head `before`, move the head to the last one, and insert the events.

    Return False, and insert nothing, if the chain does not end at `before`, or if `caller` is not the present
    state of a valid session, its user and doctor (PostgreSQL). Each entry has all columns of `AuditLog`
    except `id`, and the same `chain` and `at`. Each event has the columns in `EVENT_COLUMNS`.
    """
    last = entries[-1]
    head = {"head": before.chain, "before": before.number, "previous": before.mac}
    head |= {"last": last["number"], "last_mac": last["mac"]}
    if is_postgresql(connection):
        documents = [{name: value for name, value in entry.items() if name != "at"} for entry in entries]
        values = head | {"at": last["at"], "entries": documents}
        if events:
            values["events"] = list(events)
        if caller is not None:
            values |= _caller_values(caller, last["at"])
        statement = _move_and_insert(for_caller=caller is not None, with_events=bool(events))
        return bool(connection.execute(statement, values).scalar_one())
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
    if events:
        connection.execute(insert(Event), [event | {"at": last["at"]} for event in events])
    return True


def _caller_values(caller: Row[Any], at: datetime) -> dict[str, Any]:
    names = ("session_id", "user_id", "name", "role", "mfa_enabled_at", "doctor_id", "emergency_until")
    opened_since, idle = at - tokens.maximum_lifetime(), tokens.idle_lifetime()
    return {name: getattr(caller, name) for name in names} | {
        "opened_since": opened_since,
        "used_since": opened_since if idle is None else at - idle,
    }


_MOVE_HEAD = (
    update(AuditHead)
    .where(
        AuditHead.chain == bindparam("head"),
        AuditHead.number == bindparam("before"),
        AuditHead.mac == bindparam("previous"),
    )
    .values(number=bindparam("last"), mac=bindparam("last_mac"))
)
EVENT_COLUMNS = ("type", "entity", "entity_id", "patient_id", "fields")
_INSERT_ENTRIES = insert(AuditLog).returning(AuditLog.id, sort_by_parameter_order=True)

# The end of the last emergency access of a user, in a query of users.
EMERGENCY_UNTIL = (
    select(func.max(EmergencyAccess.expires_at)).where(EmergencyAccess.user_id == User.id).scalar_subquery()
)
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
        EMERGENCY_UNTIL.is_not_distinct_from(bindparam("emergency_until", type_=InstantType())),
    )
)


@cache
def _move_and_insert(*, for_caller: bool, with_events: bool) -> Select[Any]:
    """Return all of it as one statement for PostgreSQL: every request pays for each round trip."""
    conditions = [_CALLER_IS_UNCHANGED] if for_caller else []
    moved = _MOVE_HEAD.where(*conditions).returning(AuditHead.chain).cte("moved")
    stored = [column for column in AuditLog.__table__.columns if column.name not in ("id", "at")]
    entry = _records("entries", stored)
    at = bindparam("at", type_=InstantType())
    logged = (
        insert(AuditLog)
        .from_select(
            ["at", *(item.name for item in stored)],
            select(at, *(entry.c[item.name] for item in stored))
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
    ctes = [logged, indexed]
    if with_events:
        event = _records("events", [Event.__table__.c[name] for name in EVENT_COLUMNS])
        source = select(at, *(event.c[name] for name in EVENT_COLUMNS)).join_from(moved, event, true())
        ctes.append(insert(Event).from_select(["at", *EVENT_COLUMNS], source).cte("announced"))
    return select(func.count()).select_from(moved).add_cte(*ctes).execution_options(prepare=True)


def _records(parameter: str, columns: Sequence[KeyedColumnElement[Any]]) -> TableValuedAlias:
    """Return the JSON documents in a parameter as rows with these columns."""
    return (
        func.jsonb_to_recordset(bindparam(parameter, type_=JSONB))
        .table_valued(*(column(item.name, item.type) for item in columns), name=f"{parameter}_to_insert")
        .render_derived(with_types=True)
    )
