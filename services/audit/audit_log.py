"""The audit: what was changed, read or refused, by whom, in a chain that shows any edit.

The session tells of changes by itself (`watch`), services only name what a change *means* (`mark`). The
entries of a request are appended as the last statements before its commit, so that the row which says
"it was done" exists exactly when it was done. Entries hold names of fields, never values.

The chain: sixteen of them, each entry's MAC is HMAC-SHA256 under `AUDIT_KEY` over the MAC before it and the
entry itself. Who has the database but not the key cannot edit, remove, insert or swap an entry unseen; the
exported heads (`services.audit.audit_chain`) show a cut tail.
"""

from __future__ import annotations

import copy
import hmac
import json
from collections.abc import Iterable, Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from typing import Any, NamedTuple

from sqlalchemy import Connection, bindparam, event, func, insert, inspect, select, update
from sqlalchemy.dialects import postgresql
from sqlalchemy.orm import Session, SessionTransaction

from config import settings
from database.engine import PREPARED, tell
from enums import AuditOutcome
from errors import ClinicError
from extensions import db, remembered
from models import AuditHead, AuditLog, AuditSubject, Base, Patient
from security.permissions import Actor
from services import clock

CHAINS = 16  # as many writers as append at once without waiting for each other
# Bookkeeping of the row itself, or a second form of a field beside it.
SILENT = frozenset({"id", "version", "created_at", "updated_at", "blocked_until"})
SILENT_ENDINGS = ("_fold", "_e164", "_digits", "_hash")

Key = tuple[str, int | None]


@dataclass
class PendingEntry:
    """One thing a request did, on its way to becoming an entry."""

    action: str
    entity: str | None
    entity_id: int | None = None
    entity_ids: Sequence[int] = ()
    patient_ids: set[int] = field(default_factory=set)
    fields: set[str] = field(default_factory=set)
    outcome: AuditOutcome = AuditOutcome.SUCCESS
    detail: str | None = None


@dataclass
class PendingEntries:
    """What the current transaction has done so far: one deed per changed record."""

    deeds: dict[Key, PendingEntry] = field(default_factory=dict)

    def deed(self, entity: str, entity_id: int | None, action: str) -> PendingEntry:
        """The record's deed, made with `action` where there is none yet."""
        return self.deeds.setdefault((entity, entity_id), PendingEntry(action, entity, entity_id))


def pending_entries() -> PendingEntries:
    """The trail of the current transaction."""
    found: PendingEntries = db.session.info.setdefault("trail", PendingEntries())
    return found


def forget() -> None:
    """Drop the trail: the transaction is over."""
    db.session.info.pop("trail", None)


# --- Changes -------------------------------------------------------------------------------------------


def watch(session_class: type[Session] | Any) -> None:
    """Make sessions stamp the rows they write and tell the trail of them."""
    event.listen(session_class, "before_flush", _stamp)
    event.listen(session_class, "after_flush", _collect)
    event.listen(session_class, "after_transaction_create", _savepoint)
    event.listen(session_class, "after_soft_rollback", _undo)
    event.listen(session_class, "after_commit", _keep_end)


def _stamp(session: Session, _context: Any, _instances: Any) -> None:
    now = clock.now()
    for row in session.new:
        for name in ("created_at", "updated_at"):
            if hasattr(row, name) and getattr(row, name) is None:
                setattr(row, name, now)
    for row in session.dirty:
        if hasattr(row, "updated_at") and session.is_modified(row):
            row.updated_at = now


def _savepoint(session: Session, transaction: SessionTransaction) -> None:
    """Remember what was done before a savepoint, by the transaction that it is."""
    if transaction.nested:
        kept = session.info.setdefault("savepoints", {})
        kept[transaction] = copy.deepcopy(session.info.get("trail"))
    elif transaction.parent is None:
        session.info.pop("savepoints", None)


def _undo(session: Session, transaction: SessionTransaction) -> None:
    """What was rolled back to a savepoint was not done."""
    session.info.pop("end", None)
    if transaction in session.info.get("savepoints", {}):
        session.info["trail"] = session.info["savepoints"].pop(transaction) or PendingEntries()


def _collect(session: Session, _context: Any) -> None:
    found: PendingEntries = session.info.setdefault("trail", PendingEntries())
    for rows, action in ((session.new, "create"), (session.dirty, "update"), (session.deleted, "delete")):
        # parts last: what happened to the whole names the deed
        for row in sorted(rows, key=lambda row: row.__entity__ is None):
            _note_change(found, row, action)


def note_new(row: Base, given: Set[str]) -> None:
    """A row that was inserted without a flush, with values for the columns `given`."""
    _note_change(
        pending_entries(), row, "create", {_told(type(row))[name] for name in given & _told(type(row)).keys()}
    )


def _note_change(found: PendingEntries, row: Base, action: str, fields: set[str] | None = None) -> None:
    if row.__entity__ is not None:
        fields = _written_fields(row, action) if fields is None else fields
        if action == "update" and not fields:
            return
        deed = found.deed(row.__entity__, row.id, action)  # type: ignore[attr-defined]
        if deed.action == "update":  # only a part of it was noted so far
            deed.action = action
        deed.fields |= fields
    elif row.__part_of__ is not None:
        entity, attribute = row.__part_of__
        entity_id = getattr(row, attribute)
        if entity_id is None:  # a payment on the account lies on no bill: it is the patient's
            entity, entity_id = Patient.__entity__ or "", patient_of(row)
        deed = found.deed(entity, entity_id, "update")
        deed.fields.add(row.__tablename__)
    else:
        return
    patient_id = patient_of(row)
    if patient_id is not None:
        deed.patient_ids.add(patient_id)


def _written_fields(row: Base, action: str) -> set[str]:
    if action == "delete":
        return set()
    state = inspect(row)
    fields = set()
    for name in state.committed_state.keys() & _told(type(row)).keys():  # what was set, whatever it was
        if (action == "update" or getattr(row, name) is not None) and state.attrs[name].history.has_changes():
            fields.add(_told(type(row))[name])
    return fields


@cache
def _told(kind: type[Base]) -> dict[str, str]:
    """What entries call the columns of a kind of row; without those that they do not name."""
    names = [column.key for column in kind.__mapper__.column_attrs]
    told = {name: name for name in names if name not in SILENT and not name.endswith(SILENT_ENDINGS)}
    return told | {name: "password" for name in names if name == "password_hash"}


def patient_of(row: Any) -> int | None:
    """The patient whom a row concerns, if it says so itself."""
    return row.id if isinstance(row, Patient) else getattr(row, "patient_id", None)


def set_action(row: Base, action: str) -> None:
    """Say what a change means: `cancel`, `sign`, `override`, instead of `update`."""
    db.session.flush()  # a new row has no id before
    entity = row.__entity__ or "record"
    deed = pending_entries().deed(entity, row.id, action)  # type: ignore[attr-defined]
    deed.action = action
    patient_id = patient_of(row)
    if patient_id is not None:
        deed.patient_ids.add(patient_id)


def record_read(action: str, entity: str, ids: Sequence[int], patient_ids: Iterable[int]) -> None:
    """A read of patients' records: `read` of one, `list`, `search` or `export` of those shown."""
    single = ids[0] if action == "read" and len(ids) == 1 else None
    deed = PendingEntry(action, entity, single, entity_ids=list(ids), patient_ids=set(patient_ids))
    pending_entries().deeds.setdefault((f"{action} {entity}", single), deed)


# --- Entries -------------------------------------------------------------------------------------------


def append_pending(actor: Actor | None, operation: str) -> None:
    """Append the transaction's deeds; the last statements before its commit."""
    session = db.session()
    session.flush()
    done: PendingEntries = session.info.pop("trail", None) or PendingEntries()
    deeds = list(done.deeds.values())
    for deed in deeds:
        _complete(deed)
    append(actor, operation, deeds)


def foretell_read(actor: Actor, operation: str, patient_id: int) -> None:
    """Append the read of a patient's record that the next statement reads.

    In a transaction that is `trusting`: the database refuses all of it (error 22012) without such a patient.
    """
    tell(db.session.connection(), _IS_PATIENT, {"patient_id": patient_id})
    record_read("read", "patient", [patient_id], {patient_id})
    append_pending(actor, operation)


_IS_PATIENT = "SELECT 1 / count(*) FROM patients WHERE id = %(patient_id)s"


def append_refusal(
    actor: Actor | None,
    operation: str,
    refusal: ClinicError,
    action: str = "refused",
    path: Mapping[str, Any] | None = None,
) -> None:
    """Append a refusal; the caller commits it in a transaction of its own.

    Where the refusal names no record, the one that the route's `path` names is meant, if there is one.
    """
    if refusal.entity is None and path:
        _locate(refusal, path)
    deed = PendingEntry(
        action, refusal.entity, refusal.entity_id, outcome=AuditOutcome.REFUSED, detail=refusal.code
    )
    deed.patient_ids |= set(refusal.shown_patient_ids)
    if refusal.patient_id is not None:
        deed.patient_ids.add(refusal.patient_id)
    append(actor, operation, [deed])


def _locate(refusal: ClinicError, path: Mapping[str, Any]) -> None:
    name, row_id = next(iter(path.items()))
    stem = name.removesuffix("_id")
    for mapper in Base.registry.mappers:
        entity = mapper.class_.__entity__
        if entity is not None and (entity == stem or entity.endswith(f"_{stem}")):
            row = db.session.get(mapper.class_, row_id)
            if row is not None:
                refusal.about(entity, row_id, patient_of(row))
            return


def _complete(deed: PendingEntry) -> None:
    """Find the patient of a record whose own row was not touched, only a part of it."""
    if deed.patient_ids or deed.entity_id is None:
        return
    for mapper in Base.registry.mappers:
        if mapper.class_.__entity__ == deed.entity and "patient_id" in mapper.columns:
            row = db.session.get(mapper.class_, deed.entity_id)
            if row is not None:
                deed.patient_ids.add(row.patient_id)


def append(actor: Actor | None, operation: str, deeds: Sequence[PendingEntry]) -> None:
    """Write the deeds to one chain, whose head is locked until the commit."""
    if not deeds:
        return
    session = db.session()
    connection = session.connection()
    chain, before, previous = _take_end(session, connection)
    number, mac, at = before, previous, clock.now()
    who = _who(actor)
    entries: list[dict[str, Any]] = []
    spelled: list[str] = []
    for deed in deeds:
        number += 1
        entry = {"chain": chain, "number": number, "at": at} | who | _what(deed, operation)
        spelling = canonical_json(entry)
        mac = entry["mac"] = compute_mac(mac, spelling)
        entries.append(entry)
        spelled.append(f'{spelling[:-1]},"mac":"{mac}"}}')
    end = {"head": chain, "before": before, "previous": previous, "number": number, "mac": mac}
    if connection.dialect.name == "postgresql":
        tell(connection, _LOG_SUBJECT_AND_END, end | {"at": at, "entries": f"[{','.join(spelled)}]"})
        session.info["end"] = End(chain, number, mac)
    else:
        _write(connection, entries, end)


class End(NamedTuple):
    """The last entry of a chain."""

    chain: int
    number: int
    mac: str


def _take_end(session: Session, connection: Connection) -> End:
    """The end of a chain to append to.

    In a transaction that is `trusting`, one that this process has left behind: nobody else takes it while it
    is used, and the entry is refused by the database (error 22012) if another process has gone on from there.
    Else one that is locked, which nobody is appending to, or any where all are busy.
    """
    if session.info.get("trusting"):
        with suppress(KeyError):
            left: End = remembered("chains").popitem()[1]
            return left
    head = connection.execute(_FREE_HEAD).one_or_none() or connection.execute(_ANY_HEAD).one()
    return End(head.chain, head.number, head.mac)


def _keep_end(session: Session) -> None:
    end: End | None = session.info.pop("end", None)
    if end is not None:
        remembered("chains")[end.chain] = end


def _write(connection: Connection, entries: list[dict[str, Any]], end: dict[str, Any]) -> None:
    ids = connection.execute(_LOG, entries).scalars()
    subjects = [
        {"patient_id": patient_id, "audit_id": audit_id}
        for audit_id, entry in zip(ids, entries, strict=True)
        for patient_id in entry["patient_ids"]
    ]
    if subjects:
        connection.execute(_SUBJECT, subjects)
    connection.execute(_END, end)


_HEADS = (
    select(AuditHead.chain, AuditHead.number, AuditHead.mac)
    .prefix_with(PREPARED)
    .order_by(func.random())
    .limit(1)
)
_FREE_HEAD, _ANY_HEAD = _HEADS.with_for_update(skip_locked=True), _HEADS.with_for_update()
_LOG = insert(AuditLog).returning(AuditLog.id, sort_by_parameter_order=True)
_SUBJECT = insert(AuditSubject)
_END = (
    update(AuditHead)
    .where(AuditHead.chain == bindparam("head"))
    .values(number=bindparam("number"), mac=bindparam("mac"))
)
_COLUMNS = {
    column.name: column.type.compile(dialect=postgresql.dialect())  # type: ignore[no-untyped-call]
    for column in AuditLog.__table__.columns
    if column.name not in ("id", "at")
}
# All in one statement, which is sent with the commit: every request pays for it. It divides by nothing where
# the chain does not end where it is to go on.
_LOG_SUBJECT_AND_END = f"""
    WITH moved AS (
        UPDATE audit_heads SET number = %(number)s, mac = %(mac)s
         WHERE chain = %(head)s AND number = %(before)s AND mac = %(previous)s
        RETURNING chain
    ), logged AS (
        INSERT INTO audit_logs (at, {", ".join(_COLUMNS)})
        SELECT %(at)s, {", ".join(f"entry.{name}" for name in _COLUMNS)}
          FROM moved CROSS JOIN jsonb_to_recordset(CAST(%(entries)s AS jsonb))
            AS entry ({", ".join(f"{name} {kind}" for name, kind in _COLUMNS.items())})
         ORDER BY entry.number
        RETURNING id, patient_ids
    ), listed AS (
        INSERT INTO audit_subjects (patient_id, audit_id)
        SELECT CAST(patient.id AS bigint), logged.id
          FROM logged CROSS JOIN jsonb_array_elements_text(logged.patient_ids) AS patient (id)
    )
    SELECT 1 / count(*) FROM moved
"""  # noqa: S608 - made of our own columns


def _who(actor: Actor | None) -> dict[str, Any]:
    return {
        "user_id": actor.user_id if actor else None,
        "user_name": actor.name or None if actor else None,
        "role": actor.role.value if actor and actor.role else None,
        "address": actor.address if actor else None,
        "request_id": actor.request_id if actor else None,
    }


def _what(deed: PendingEntry, operation: str) -> dict[str, Any]:
    return {
        "action": deed.action,
        "entity": deed.entity,
        "entity_id": deed.entity_id,
        "entity_ids": list(deed.entity_ids),
        "patient_ids": sorted(deed.patient_ids),
        "fields": sorted(deed.fields),
        "outcome": deed.outcome,
        "detail": deed.detail,
        "operation": operation,
    }


def canonical_json(row: Mapping[str, Any]) -> str:
    """The one spelling of an entry that is sealed. Of an instant both engines keep the microseconds."""
    return _SPELLING.encode({name: value for name, value in row.items() if name not in ("id", "mac")})


_SPELLING = json.JSONEncoder(sort_keys=True, separators=(",", ":"), default=datetime.timestamp)


def compute_mac(previous: str, spelling: str) -> str:
    """The MAC of an entry that follows the entry with MAC `previous`; 64 hexadecimal digits."""
    key = settings().audit_key.encode()
    return hmac.digest(key, f"{previous}\n{spelling}".encode(), "sha256").hex()
