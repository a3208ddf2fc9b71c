"""The number of stored values under each key, so that a key is not removed while it is needed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from sqlalchemy import and_, func, select
from sqlalchemy.orm import aliased

from column_types import EncryptedType
from config import settings
from extensions import db
from models import AuditLog, Base
from security import encrypted_file, encryption
from security.key_rings import ID_BYTES, Key, RingName
from services.audit import audit_chain
from services.audit.audit_log import is_mac_under

MAX_LINE_SIZE = 1_000  # of the header line of a backup
ROWS = 1_000  # read at once

# number of values by kind and id of the key; None: the id is not stored
Usage = Counter[tuple[str, str | None]]


def count_usage(name: RingName, backups: Iterable[Path] = ()) -> Usage:
    """Return the number of stored values under each key of a ring. `backups` are files of backups.

    Tokens (`JWT_SECRET_KEY`) are not stored.
    """
    if name == "AUDIT_KEY":
        return _audit_entries() + _exported_heads() + _backup_files(backups, encrypted=False)
    if name == "DATA_KEY":
        return _encrypted_values()
    return _backup_files(backups, encrypted=True) if name == "BACKUP_KEY" else Counter()


def count_under(name: RingName, key: Key, backups: Iterable[Path] = ()) -> dict[str, int]:
    """Return the number of stored values that need this key, by kind.

    Audit entries without key id are verified, which reads all of them. A backup without key id may need the
    key, so it counts.
    """
    usage = count_usage(name, backups)
    numbers: Counter[str] = Counter()
    for (kind, key_id), number in usage.items():
        if key_id is None and kind == ENTRIES:
            numbers[kind] += _entries_without_id(key)
        elif key_id in (None, key.id):
            numbers[kind] += number
    return {kind: number for kind, number in numbers.items() if number}


ENTRIES, HEADS, BACKUPS = "audit entries", "files of exported heads", "backups"


def _audit_entries() -> Usage:
    rows = db.session.execute(select(AuditLog.key_id, func.count()).group_by(AuditLog.key_id))
    return Counter({(ENTRIES, key_id): number for key_id, number in rows})


def _entries_without_id(key: Key) -> int:
    before = aliased(AuditLog)
    log = AuditLog.__table__
    statement = (
        select(log, func.coalesce(before.mac, "").label("previous"))
        .outerjoin(before, and_(before.chain == log.c.chain, before.number == log.c.number - 1))
        .where(log.c.key_id.is_(None))
        .order_by(log.c.id)
        .limit(ROWS)
    )
    number = last_id = 0
    while rows := db.session.execute(statement.where(log.c.id > last_id)).mappings().all():
        for row in rows:
            entry = {str(name): value for name, value in row.items() if name != "previous"}
            number += is_mac_under(key, row["previous"], entry)
        last_id = rows[-1]["id"]
    return number


def _exported_heads() -> Usage:
    try:
        key_id = audit_chain.heads_key_id(settings().heads_file)
    except audit_chain.HeadsFileError:
        key_id = None
    return Counter({(HEADS, key_id): 1} if key_id is not None else {})


def _encrypted_values() -> Usage:
    usage: Usage = Counter()
    for table in Base.metadata.sorted_tables:
        for column in table.columns:
            if isinstance(column.type, EncryptedType):
                key_id = func.substr(column, encryption.ID_START + 1, ID_BYTES)
                statement = select(key_id, func.count()).where(column.is_not(None)).group_by(key_id)
                for stored, number in db.session.execute(statement):
                    usage[f"values in {table.name}", bytes(stored).hex()] += number
    return usage


def _backup_files(files: Iterable[Path], *, encrypted: bool) -> Usage:
    usage: Usage = Counter()
    for file in files:
        with file.open("rb") as source:
            key_id = encrypted_file.key_id(source.readline(MAX_LINE_SIZE))
        if (key_id is not None) == encrypted:
            usage[BACKUPS, key_id] += 1
    return usage
