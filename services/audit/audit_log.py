"""The audit log: changes, reads and refusals, in keyed chains that make every edit detectable.

The session collects changed rows by itself (`register`). Services only name the meaning of a change
(`set_action`). The entries of a request are appended by the last statements before its commit, in the same
transaction. Entries contain names of fields, never values. An entry about a change is also an event, which is
inserted together with it (`services.audit.event_types`).

There are sixteen chains. The MAC of an entry is HMAC-SHA256 under `AUDIT_KEY` over the previous MAC and the
entry, with the id of the key. Without the key nobody can edit, remove, insert or reorder entries without
detection. The exported heads (`services.audit.audit_chain`) also reveal a truncated chain.

Entries under earlier keys stay valid, also after entries under the current one: during a rotation, workers
with different settings write side by side.
"""

from __future__ import annotations

import copy
import hmac
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from typing import Any

from sqlalchemy import event, inspect
from sqlalchemy.orm import Session, SessionTransaction
from sqlalchemy.orm.exc import StaleDataError

from enums import AuditOutcome
from errors import ClinicError
from extensions import db
from models import Base, Patient
from security.key_rings import Key, ring
from security.permissions import Actor
from services import clock, remembered
from services.audit import audit_storage
from services.audit.audit_storage import Head
from services.audit.event_types import event_type

CHAINS = 16  # number of transactions that can append at once without waiting for each other
# Columns that no entry names: bookkeeping of the row, or a second form of another column.
UNNAMED = frozenset({"id", "version", "created_at", "updated_at", "blocked_until"})
UNNAMED_ENDINGS = ("_fold", "_key", "_e164", "_digits", "_hash")
READS = ("read", "list", "search", "export")
EMERGENCY_MARK = "emergency_access"  # detail of a read by a user with emergency access to the patient

RecordKey = tuple[str, int | None]  # entity and id


@dataclass
class PendingEntry:
    """An audit entry that the current transaction will append.

    `change` is `create`, `update` or `delete` for a changed record. Such an entry is also an event.
    """

    action: str
    entity: str | None
    entity_id: int | None = None
    entity_ids: Sequence[int] = ()
    patient_ids: set[int] = field(default_factory=set)
    fields: set[str] = field(default_factory=set)
    outcome: AuditOutcome = AuditOutcome.SUCCESS
    detail: str | None = None
    change: str | None = None


@dataclass
class PendingEntries:
    """The pending audit entries of a session: one for each changed record.

    It is attached to the session as `session.info[PendingEntries]`. For each open savepoint, `savepoints`
    holds the entries that changed since, as they were when it began. None stands for a new entry.
    """

    entries: dict[RecordKey, PendingEntry] = field(default_factory=dict)
    savepoints: dict[SessionTransaction, dict[RecordKey, PendingEntry | None]] = field(default_factory=dict)

    def entry(self, entity: str, entity_id: int | None, action: str) -> PendingEntry:
        """Return the entry of a changed record to change it, created with `action` if it has none."""
        return self.add((entity, entity_id), PendingEntry(action, entity, entity_id, change="update"))

    def add(self, key: RecordKey, entry: PendingEntry) -> PendingEntry:
        """Return the entry of this key to change it. Without one, add the given entry."""
        for earlier in self.savepoints.values():
            if key not in earlier:
                earlier[key] = copy.deepcopy(self.entries.get(key))
        return self.entries.setdefault(key, entry)

    def roll_back(self, savepoint: SessionTransaction) -> None:
        """Restore the entries of the time when the savepoint began. Later savepoints end too."""
        while savepoint in self.savepoints:
            _latest, earlier = self.savepoints.popitem()
            for key, entry in earlier.items():
                if entry is None:
                    self.entries.pop(key, None)
                else:
                    self.entries[key] = entry


def pending_entries() -> PendingEntries:
    """Return the pending entries of the current session."""
    return _of_session(db.session())


def _of_session(session: Session) -> PendingEntries:
    pending: PendingEntries = session.info.setdefault(PendingEntries, PendingEntries())
    return pending


def discard_pending() -> None:
    """Discard the pending entries: their transaction was rolled back."""
    db.session().info.pop(PendingEntries, None)


# --- Changes -------------------------------------------------------------------------------------------


def register(session_class: type[Session] | Any) -> None:
    """Register the handlers that set time stamps and collect changed rows."""
    event.listen(session_class, "before_flush", _set_time_stamps)
    event.listen(session_class, "after_flush", _collect_changes)
    event.listen(session_class, "after_transaction_create", _begin_savepoint)
    event.listen(session_class, "after_commit", _end_savepoint)
    event.listen(session_class, "after_soft_rollback", _roll_back_savepoint)


def _set_time_stamps(session: Session, _context: Any, _instances: Any) -> None:
    now = clock.now()
    for row in session.new:
        for name in ("created_at", "updated_at"):
            if hasattr(row, name) and getattr(row, name) is None:
                setattr(row, name, now)
    for row in session.dirty:
        if hasattr(row, "updated_at") and session.is_modified(row):
            row.updated_at = now


def _begin_savepoint(session: Session, transaction: SessionTransaction) -> None:
    pending = _of_session(session)
    if transaction.nested:
        pending.savepoints[transaction] = {}
    elif transaction.parent is None:
        pending.savepoints.clear()


def _end_savepoint(session: Session) -> None:
    savepoint = session.get_nested_transaction()  # None if the whole transaction is committed
    if savepoint is not None:
        _of_session(session).savepoints.pop(savepoint, None)


def _roll_back_savepoint(session: Session, transaction: SessionTransaction) -> None:
    _of_session(session).roll_back(transaction)


def _collect_changes(session: Session, _context: Any) -> None:
    pending = _of_session(session)
    for rows, action in ((session.new, "create"), (session.dirty, "update"), (session.deleted, "delete")):
        # records before their parts: the action of the record names the entry
        for row in sorted(rows, key=lambda row: row.__entity__ is None):
            _add_change(pending, row, action)


def _add_change(pending: PendingEntries, row: Base, action: str) -> None:
    if row.__entity__ is not None:
        fields = _changed_fields(row, action)
        if action == "update" and not fields:
            return
        entry = pending.entry(row.__entity__, row.id, action)  # type: ignore[attr-defined]
        if entry.action == "update":  # until now only a part of the record was changed
            entry.action = action
        if action != "update":
            entry.change = action
        entry.fields |= fields
    elif row.__part_of__ is not None:
        entry = pending.entry(*record_of(row), "update")
        entry.fields.add(row.__tablename__)
    else:
        return
    patient_id = patient_of(row)
    if patient_id is not None:
        entry.patient_ids.add(patient_id)


def _changed_fields(row: Base, action: str) -> set[str]:
    if action == "delete":
        return set()
    state = inspect(row)
    names = _field_names(type(row))
    return {
        names[column]
        for column in state.committed_state.keys() & names.keys()
        if (action == "update" or getattr(row, column) is not None)
        and state.attrs[column].history.has_changes()
    }


@cache
def _field_names(model: type[Base]) -> dict[str, str]:
    """Return the names of the columns in entries, without the columns that no entry names."""
    columns = [column.key for column in model.__mapper__.column_attrs]
    names = {name: name for name in columns if name not in UNNAMED and not name.endswith(UNNAMED_ENDINGS)}
    return names | {name: "password" for name in columns if name == "password_hash"}


def record_of(row: Base) -> tuple[str, int | None]:
    """Return the entity and the id of the record that a row is or belongs to."""
    if row.__entity__ is not None or row.__part_of__ is None:
        return row.__entity__ or "record", row.id  # type: ignore[attr-defined]
    entity, attribute = row.__part_of__
    entity_id = getattr(row, attribute)
    if entity_id is None:  # a payment on the account belongs to no bill: it belongs to the patient
        return Patient.__entity__ or "", patient_of(row)
    return entity, entity_id


def patient_of(row: Any) -> int | None:
    """Return the id of the patient of a row, or None for a row without a patient."""
    return row.id if isinstance(row, Patient) else getattr(row, "patient_id", None)


def set_action(row: Base, action: str) -> None:
    """Name the meaning of a change, such as `cancel`, `sign` or `override`, instead of `update`."""
    db.session.flush()  # a new row has no id before
    entry = pending_entries().entry(row.__entity__ or "record", row.id, action)  # type: ignore[attr-defined]
    entry.action = action
    patient_id = patient_of(row)
    if patient_id is not None:
        entry.patient_ids.add(patient_id)


def record_creation(row: Base) -> None:
    """Add the entry of a row that was inserted without the unit of work."""
    entry = pending_entries().entry(row.__entity__ or "record", row.id, "create")  # type: ignore[attr-defined]
    entry.change = "create"
    columns = _field_names(type(row))
    entry.fields |= {name for column, name in columns.items() if getattr(row, column) is not None}
    patient_id = patient_of(row)
    if patient_id is not None:
        entry.patient_ids.add(patient_id)


def record_read(action: str, entity: str | None, ids: Sequence[int], patient_ids: Iterable[int]) -> None:
    """Add an entry for a read of patient records.

    `action` is `read` for one record; `list`, `search` or `export` for several.
    """
    single = ids[0] if action == "read" and len(ids) == 1 else None
    entry = PendingEntry(action, entity, single, entity_ids=list(ids), patient_ids=set(patient_ids))
    pending_entries().add((f"{action} {entity}", single), entry)


def take_reads() -> set[int]:
    """Remove the pending entries of reads, and return their patients: for one entry about all of them."""
    entries = pending_entries().entries
    reads = [entries.pop(key) for key, entry in list(entries.items()) if entry.action in READS]
    return {patient_id for entry in reads for patient_id in entry.patient_ids}


def record_export(
    entity: str | None, ids: Sequence[int], patient_ids: Iterable[int], facts: Iterable[str], detail: str
) -> None:
    """Add the entry of a written file or a part of it, with facts such as `rows=57` and the filters."""
    pending_entries().entries["export", None] = PendingEntry(
        "export",
        entity,
        entity_ids=ids,
        patient_ids=set(patient_ids),
        fields=set(facts),
        detail=detail,
    )


# --- Entries -------------------------------------------------------------------------------------------


def append_pending(actor: Actor | None, operation: str) -> bool:
    """Append the pending entries of the transaction, as its last statement before the commit.

    Return False if there are none.
    """
    db.session.flush()
    pending = pending_entries()
    entries, pending.entries = list(pending.entries.values()), {}
    for entry in entries:
        _add_patient(entry)
        if actor is not None and entry.action in READS and entry.patient_ids & actor.emergency_patients:
            entry.detail = f"{entry.detail}; {EMERGENCY_MARK}" if entry.detail else EMERGENCY_MARK
    append(actor, operation, entries)
    return bool(entries)


def append_refusal(
    actor: Actor | None,
    operation: str,
    refusal: ClinicError,
    action: str = "refused",
    path: Mapping[str, Any] | None = None,
) -> None:
    """Append a refusal. The caller commits it in a transaction of its own.

    If the refusal names no record, the entry names the record of the route's `path`, if it exists.
    """
    if refusal.entity is None and path:
        _find_record(refusal, path)
    entry = PendingEntry(
        action, refusal.entity, refusal.entity_id, outcome=AuditOutcome.REFUSED, detail=refusal.code
    )
    entry.patient_ids |= set(refusal.shown_patient_ids)
    if refusal.patient_id is not None:
        entry.patient_ids.add(refusal.patient_id)
    append(actor, operation, [entry])


def _find_record(refusal: ClinicError, path: Mapping[str, Any]) -> None:
    name, row_id = next(iter(path.items()))
    stem = name.removesuffix("_id")
    for mapper in Base.registry.mappers:
        entity = mapper.class_.__entity__
        if entity is not None and (entity == stem or entity.endswith(f"_{stem}")):
            row = db.session.get(mapper.class_, row_id)
            if row is not None:
                refusal.about(entity, row_id, patient_of(row))
            return


def _add_patient(entry: PendingEntry) -> None:
    """Add the patient of a record of which only a part was changed."""
    if entry.patient_ids or entry.entity_id is None:
        return
    for mapper in Base.registry.mappers:
        if mapper.class_.__entity__ == entry.entity and "patient_id" in mapper.columns:
            row = db.session.get(mapper.class_, entry.entity_id)
            if row is not None:
                entry.patient_ids.add(row.patient_id)


def append(actor: Actor | None, operation: str, pending: Sequence[PendingEntry]) -> None:
    """Write the entries to one chain. The head of the chain stays locked until the commit."""
    if not pending:
        return
    connection = db.session().connection()
    assumed = remembered.assumptions()
    head = remembered.take_head() or audit_storage.lock_head(connection)
    key = ring("AUDIT_KEY").current
    common = {"chain": head.chain, "at": clock.now(), "operation": operation, "key_id": key.id}
    common |= _actor_columns(actor)
    entries: list[dict[str, Any]] = []
    mac = head.mac
    for number, entry in enumerate(pending, head.number + 1):
        columns = common | {"number": number} | _entry_columns(entry)
        mac = columns["mac"] = compute_mac(key, mac, canonical_json(columns))
        entries.append(columns)
    events = [
        _event_columns(entry)
        for entry in pending
        if entry.change is not None and entry.outcome is AuditOutcome.SUCCESS
    ]
    if not audit_storage.insert_entries(connection, entries, events, head, assumed.caller):
        if assumed.caller is not None:
            remembered.forget_caller((assumed.caller.session_id, assumed.caller.user_id))
        raise StaleDataError(
            "the caller or the head of the audit chain has changed"
        )  # the request runs again
    assumed.head = Head(head.chain, entries[-1]["number"], mac)


def _actor_columns(actor: Actor | None) -> dict[str, Any]:
    return {
        "user_id": actor.user_id if actor else None,
        "user_name": actor.name or None if actor else None,
        "role": actor.role.value if actor and actor.role else None,
        "address": actor.address if actor else None,
        "request_id": actor.request_id if actor else None,
    }


def _entry_columns(entry: PendingEntry) -> dict[str, Any]:
    return {
        "action": entry.action,
        "entity": entry.entity,
        "entity_id": entry.entity_id,
        "entity_ids": list(entry.entity_ids),
        "patient_ids": sorted(entry.patient_ids),
        "fields": sorted(entry.fields),
        "outcome": entry.outcome,
        "detail": entry.detail,
    }


def _event_columns(entry: PendingEntry) -> dict[str, Any]:
    return {
        "type": event_type(entry.entity or "record", entry.change or "", entry.action, entry.fields),
        "entity": entry.entity,
        "entity_id": entry.entity_id,
        "patient_id": next(iter(entry.patient_ids)) if len(entry.patient_ids) == 1 else None,
        "fields": sorted(entry.fields),
    }


def canonical_json(entry: Mapping[str, Any]) -> str:
    """Return the JSON form of an entry that its MAC covers. Instants have microseconds on both engines.

    Entries from before the key rings have no key id. Their form has no member for it.
    """
    uncovered = ("id", "mac") if entry["key_id"] is not None else ("id", "mac", "key_id")
    return _CANONICAL.encode({name: value for name, value in entry.items() if name not in uncovered})


_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), default=datetime.timestamp)


def compute_mac(key: Key, previous: str, entry: str) -> str:
    """Return the MAC of an entry in canonical JSON: 64 hexadecimal digits.

    `previous` is the MAC of the entry before it, empty for the first one.
    """
    return hmac.digest(key.secret, f"{previous}\n{entry}".encode(), "sha256").hex()


def is_mac_under(key: Key, previous: str, entry: Mapping[str, Any]) -> bool:
    """Return True if a stored entry has its MAC under this key."""
    mac = compute_mac(key, previous, canonical_json(entry))
    return hmac.compare_digest(mac.encode(), str(entry["mac"]).encode())
