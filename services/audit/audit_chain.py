"""Verification of the audit chains, and the export of their heads.

The chains reveal every edit except one: a removal of the latest entries together with a reset of the head.
Therefore the heads are exported every minute to `AUDIT_HEADS_FILE`, with a MAC under `AUDIT_KEY`. An export
never goes back: if the database lacks an exported entry, the file keeps it until `record_restore` records the
reason. The file must be in a place that the writers of the database cannot change.
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import json
import os
import tempfile
import threading
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import structlog
from sqlalchemy import Connection, Engine, RowMapping, and_, exists, or_, select
from sqlalchemy.exc import DBAPIError

from column_types import is_blank_text
from config import Settings, settings
from database.engine import snapshot
from errors import ClinicError, invalid
from extensions import db
from models import AuditHead, AuditLog, AuditSubject
from security.key_rings import Key, KeyRing, ring
from security.permissions import Actor
from services import clock
from services.audit import audit_log
from services.audit.audit_log import CHAINS, PendingEntry, is_mac_under

log = structlog.get_logger()

INTERVAL = 60.0  # seconds between two exports
BATCH = 1_000  # entries read at once
MAX_REASON = 100  # characters

LOG = AuditLog.__table__
HEAD = AuditHead.__table__
SUBJECT = AuditSubject.__table__


@dataclass(frozen=True)
class Fault:
    """A fault of a chain at an entry. Entries are numbered from 1 in each chain."""

    chain: int
    number: int
    problem: str

    def __str__(self) -> str:
        return f"chain {self.chain}, entry {self.number}: {self.problem}"


@dataclass(frozen=True)
class Head:
    """The last entry of a chain: its number and its MAC."""

    number: int = 0
    mac: str = ""


Heads = Mapping[int, Head]


class HeadsFileError(Exception):
    """The file of exported heads cannot be read, or has a wrong MAC."""


# --- Verification -----------------------------------------------------------------------------------------


def find_faults(engine: Engine, exported: Heads | None = None) -> Generator[Fault, None, None]:
    """Yield the first fault of every chain that has one, and faults of the index of patients.

    Reads all entries in batches from one snapshot. The entries that `exported` names must still exist.
    """
    with snapshot(engine) as connection:
        ends = {
            row.chain: Head(row.number, row.mac)
            for row in connection.execute(select(HEAD.c.chain, HEAD.c.number, HEAD.c.mac))
        }
        for chain in range(CHAINS):
            fault = _ChainCheck(connection, chain, ends.get(chain), (exported or {}).get(chain)).first_fault()
            if fault is not None:
                yield fault
        stray = connection.execute(
            select(LOG.c.chain, LOG.c.number).where(LOG.c.chain.not_in(range(CHAINS))).limit(1)
        ).one_or_none()
        if stray is not None:
            yield Fault(stray.chain, stray.number, "the chain does not exist; the entry was inserted")
        orphan = connection.execute(
            select(SUBJECT.c.audit_id).where(~exists().where(LOG.c.id == SUBJECT.c.audit_id)).limit(1)
        ).scalar_one_or_none()
        if orphan is not None:
            yield Fault(0, 0, f"the index of patients names entry id {orphan}, which does not exist")


def verify(engine: Engine, exported: Heads | None = None) -> Fault | None:
    """Return the first fault, None if there is none."""
    with closing(find_faults(engine, exported)) as faults:
        return next(faults, None)


@dataclass
class _ChainCheck:
    """The check of one chain, entry by entry."""

    connection: Connection
    chain: int
    end: Head | None
    exported: Head | None
    last: Head = field(default_factory=Head)

    def first_fault(self) -> Fault | None:
        """Return the first fault of the chain, None if there is none."""
        after: int | None = None
        while rows := self._rows(after):
            if isinstance(rows, Fault):
                return rows
            subjects = self._subjects([row["id"] for row in rows])
            for row in rows:
                problem = self._check_entry(row, subjects.get(row["id"], set()))
                if problem is not None:
                    return problem
                self.last = Head(row["number"], row["mac"])
            after = self.last.number
        return self._check_end()

    def _rows(self, after: int | None) -> Sequence[RowMapping] | Fault:
        statement = select(LOG).where(LOG.c.chain == self.chain).order_by(LOG.c.number)
        if after is not None:
            statement = statement.where(LOG.c.number > after)
        try:
            return self.connection.execute(statement.limit(BATCH)).mappings().all()
        except (ValueError, LookupError, TypeError):
            pass  # a column has a value that this application never writes: find the entry
        number = after or 0
        while True:
            number += 1
            try:
                self.connection.execute(statement.where(LOG.c.number == number)).all()
            except (ValueError, LookupError, TypeError):
                return Fault(self.chain, number, "was changed: it cannot be read")
            if number > (after or 0) + BATCH:
                return Fault(self.chain, (after or 0) + 1, "or one of the next entries, cannot be read")

    def _subjects(self, ids: Sequence[int]) -> dict[int, set[int]]:
        patients: dict[int, set[int]] = {}
        statement = select(SUBJECT.c.audit_id, SUBJECT.c.patient_id).where(SUBJECT.c.audit_id.in_(ids))
        for row in self.connection.execute(statement):
            patients.setdefault(row.audit_id, set()).add(row.patient_id)
        return patients

    def _check_entry(self, row: RowMapping, subjects: set[int]) -> Fault | None:
        expected = self.last.number + 1
        if row["number"] < expected:
            return Fault(self.chain, row["number"], "was inserted: numbers begin with 1")
        if row["number"] > expected:
            return Fault(self.chain, expected, "is missing")
        candidates = ring("AUDIT_KEY").candidates(row["key_id"])
        if not candidates:
            problem = f"was changed, or its key {row['key_id']} is not in AUDIT_KEY or AUDIT_KEYS_PREVIOUS"
            return Fault(self.chain, expected, problem)
        entry = {str(name): value for name, value in row.items()}
        if not any(is_mac_under(key, self.last.mac, entry) for key in candidates):
            return Fault(
                self.chain, expected, "was changed or inserted, or does not follow the entry before it"
            )
        if subjects != set(row["patient_ids"]):
            return Fault(self.chain, expected, "is about other patients than the index of patients says")
        if self.exported is not None and self.exported.number == expected and self.exported.mac != row["mac"]:
            return Fault(self.chain, expected, "is not the exported one: the chain was rewritten")
        return None

    def _check_end(self) -> Fault | None:
        """Return the fault if the chain does not end at its head or before its exported head."""
        last, following = self.last.number, self.last.number + 1
        if self.end is None:
            return Fault(self.chain, following, "the head of the chain is missing")
        if self.end.number > last:
            return Fault(self.chain, following, f"is missing: the head counts {self.end.number} entries")
        if self.end.number < last:
            return Fault(self.chain, self.end.number + 1, "was inserted: the head does not count it")
        if self.end.mac != self.last.mac:
            return Fault(self.chain, last, "is not the entry of the head")
        if self.exported is not None and self.exported.number > last:
            return Fault(self.chain, following, f"is missing: {self.exported.number} entries were exported")
        return None


# --- File of heads ---------------------------------------------------------------------------------


def _file_mac(key: Key, content: Mapping[str, Any]) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hmac.new(key.secret, f"heads\n{text}".encode(), hashlib.sha256).hexdigest()


def read_heads(path: Path, keys: KeyRing) -> Heads | None:
    """Return the exported heads, None without a file. Raise `HeadsFileError` if the file is not valid."""
    content = _read_file(path)
    if content is None:
        return None
    try:
        mac = content.pop("seal")
        heads = {
            int(chain): Head(int(number), str(head)) for chain, (number, head) in content["heads"].items()
        }
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise _not_heads(path, error) from None
    candidates = keys.candidates(content.get("key_id"))
    if not any(
        hmac.compare_digest(_file_mac(key, content).encode(), str(mac).encode()) for key in candidates
    ):
        raise HeadsFileError(f"{path}: was changed, or written under another AUDIT_KEY")
    return heads


def heads_key_id(path: Path) -> str | None:
    """Return the id of the key of the exported heads, None without a file or an id."""
    content = _read_file(path)
    return content.get("key_id") if content is not None else None


def _read_file(path: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise _not_heads(path, error) from None
    if not isinstance(content, dict):
        raise _not_heads(path, TypeError())
    return content


def _not_heads(path: Path, error: Exception) -> HeadsFileError:
    return HeadsFileError(f"{path}: not a file of exported heads ({type(error).__name__})")


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Lock the file against writers in other processes and threads."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock_file = path.with_name(path.name + ".lock")
    # for the owner only: another user who may open it could hold the lock
    with open(lock_file, "w", opener=partial(os.open, mode=0o600)) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _write(path: Path, key: Key, heads: Heads) -> None:
    content: dict[str, Any] = {
        "exported_at": clock.now().isoformat(),
        "key_id": key.id,
        "heads": {str(chain): [head.number, head.mac] for chain, head in sorted(heads.items())},
    }
    content["seal"] = _file_mac(key, content)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(content, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)  # readers see the old or the new file, never a part of it
    except BaseException:
        os.unlink(name)
        raise


def _ends(connection: Connection) -> dict[int, Head]:
    ends = {chain: Head() for chain in range(CHAINS)}
    for row in connection.execute(select(HEAD.c.chain, HEAD.c.number, HEAD.c.mac)):
        ends[row.chain] = Head(row.number, row.mac)
    return ends


def _stored(connection: Connection, heads: Heads) -> dict[int, str]:
    """Return the stored MACs of the entries that the heads name, by chain."""
    places = [and_(LOG.c.chain == chain, LOG.c.number == head.number) for chain, head in heads.items()]
    if not places:
        return {}
    rows = connection.execute(select(LOG.c.chain, LOG.c.mac).where(or_(*places)))
    return {row.chain: row.mac for row in rows}


def compare(connection: Connection, exported: Heads) -> list[Fault]:
    """Return the chains that lack their exported head. This checks the heads only, and is fast."""
    stored, ends = _stored(connection, exported), _ends(connection)
    faults = []
    for chain, head in sorted(exported.items()):
        end = ends.get(chain, Head())
        if end.number < head.number:
            problem = f"is missing: {head.number} entries were exported"
            faults.append(Fault(chain, end.number + 1, problem))
        elif head.number and stored.get(chain) != head.mac:
            faults.append(Fault(chain, head.number, "is not the exported one"))
    return faults


def export(
    engine: Engine, chosen: Settings, path: Path | None = None, *, overwrite: bool = False
) -> list[Fault]:
    """Write the heads to the file. Return the chains that lack the head in the file.

    For these the file keeps its head: it is the evidence. `overwrite` ignores the present file. Several
    processes may export at once. Raises `HeadsFileError` if the file is not valid.
    """
    path, keys = path or chosen.heads_file, ring("AUDIT_KEY", chosen)
    with _locked(path):
        exported = {} if overwrite else (read_heads(path, keys) or {})
        with snapshot(engine) as connection:
            ends, broken = _ends(connection), compare(connection, exported)
        kept = {place.chain: exported[place.chain] for place in broken}
        _write(path, keys.current, ends | kept)
    return broken


class _Exporter(threading.Thread):
    """A thread that exports the heads of one database once a minute."""

    def __init__(self, engine: Engine, chosen: Settings) -> None:
        super().__init__(name="audit-heads", daemon=True)
        self.engine, self.chosen = engine, chosen
        self.replaced = threading.Event()

    def run(self) -> None:
        while not self.replaced.wait(INTERVAL):
            try:
                for fault in export(self.engine, self.chosen):
                    log.error("audit_broken", chain=fault.chain, number=fault.number, problem=fault.problem)
            except (DBAPIError, OSError) as error:  # the thread tries again after a minute
                # no traceback each minute while the database is away
                log.error("audit_heads_not_exported", failure=type(error).__name__)  # noqa: TRY400
            except Exception:
                log.exception("audit_heads_not_exported")


_exporter: _Exporter | None = None
_starting = threading.Lock()


def ensure_export_thread() -> None:
    """Start the thread that exports the heads, unless it runs.

    Each request calls this, so that every worker process has a thread: threads do not survive a fork.
    """
    global _exporter  # noqa: PLW0603 - one thread in a process
    chosen = settings()
    if _exporter is not None and _exporter.chosen is chosen and _exporter.is_alive():
        return
    with _starting:
        if _exporter is not None and _exporter.chosen is chosen and _exporter.is_alive():
            return
        if _exporter is not None:
            _exporter.replaced.set()
        _exporter = _Exporter(db.engine, chosen)
        _exporter.start()


# --- After a restore -----------------------------------------------------------------------------------


def record_restore(actor: Actor, reason: str, exported: Heads | None) -> list[Fault]:
    """Append an entry for a restore from a backup, with its reason and the chains that lost entries.

    The caller commits, then exports with `overwrite`. Raises 409 if a chain has a fault: a restore does not
    explain it. `reason` has 1 to `MAX_REASON` characters.
    """
    if is_blank_text(reason) or len(reason) > MAX_REASON:
        raise invalid("reason", f"must have 1 to {MAX_REASON} characters")
    fault = verify(db.engine)
    if fault is not None:
        raise ClinicError("conflict", f"The audit log has a fault that no restore explains: {fault}")
    with snapshot(db.engine) as connection:
        lost = compare(connection, exported or {})
    chains = {f"chain {fault.chain} from entry {fault.number}" for fault in lost}
    entry = PendingEntry("restore", "audit_log", fields=chains, detail=reason.strip())
    audit_log.append(actor, "flask audit restored", [entry])
    return lost
