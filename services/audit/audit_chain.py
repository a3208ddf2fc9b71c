"""Proving the audit: chains recomputed, heads exported out of the database's reach and held against it.

The chains show every edit but one: who cuts off the latest entries and sets the head back leaves whole
chains. Against that the heads are exported every minute to `AUDIT_HEADS_FILE`, sealed under `AUDIT_KEY`. An
export never goes back: where the database no longer holds what was exported, the file keeps its word until
`restored` records why. The file belongs where whoever can write the database cannot write.
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
from pathlib import Path
from typing import Any

import structlog
from sqlalchemy import Connection, Engine, RowMapping, and_, exists, or_, select

from config import Settings, settings
from errors import ClinicError, invalid
from extensions import db
from models import AuditHead, AuditLog, AuditSubject
from security.permissions import Actor
from services import clock
from services.audit import audit_log
from services.audit.audit_log import (
    CHAINS,
    PendingEntry,
    canonical_json,
    compute_mac,
)

log = structlog.get_logger()

INTERVAL = 60.0  # seconds between two exports
BATCH = 1_000  # entries read at once
MAX_REASON = 100  # characters

LOG = AuditLog.__table__
HEAD = AuditHead.__table__
SUBJECT = AuditSubject.__table__


@dataclass(frozen=True)
class Break:
    """The first place of one chain that is not as it was written; entries count from 1."""

    chain: int
    number: int
    what: str

    def __str__(self) -> str:
        return f"chain {self.chain}, entry {self.number}: {self.what}"


@dataclass(frozen=True)
class Head:
    """The end of one chain."""

    number: int = 0
    mac: str = ""


Heads = Mapping[int, Head]


class HeadsFileError(Exception):
    """The exported heads cannot be read, or were not written by this clinic."""


@contextmanager
def _snapshot(engine: Engine) -> Iterator[Connection]:
    """One state of the database to read from, while others go on writing."""
    if engine.dialect.name == "sqlite":
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql("BEGIN")  # deferred: keeps no writer out
            try:
                yield connection
            finally:
                connection.exec_driver_sql("ROLLBACK")
        return
    options: dict[str, Any] = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
    with engine.connect().execution_options(**options) as connection:
        yield connection


# --- Verifying -----------------------------------------------------------------------------------------


def breaks(engine: Engine, exported: Heads | None = None) -> Generator[Break, None, None]:
    """The first broken place of every chain that has one, and of the index of patients.

    Reads all entries in batches, from one state of the database. `exported` are heads that were read
    before: what they name must be there still.
    """
    with _snapshot(engine) as connection:
        ends = {
            row.chain: Head(row.number, row.mac)
            for row in connection.execute(select(HEAD.c.chain, HEAD.c.number, HEAD.c.mac))
        }
        for chain in range(CHAINS):
            found = _Walk(connection, chain, ends.get(chain), (exported or {}).get(chain)).first_break()
            if found is not None:
                yield found
        stray = connection.execute(
            select(LOG.c.chain, LOG.c.number).where(LOG.c.chain.not_in(range(CHAINS))).limit(1)
        ).one_or_none()
        if stray is not None:
            yield Break(stray.chain, stray.number, "there is no such chain; the entry was put in")
        orphan = connection.execute(
            select(SUBJECT.c.audit_id).where(~exists().where(LOG.c.id == SUBJECT.c.audit_id)).limit(1)
        ).scalar_one_or_none()
        if orphan is not None:
            yield Break(0, 0, f"the index of patients names the entry with id {orphan}, which is not there")


def verify(engine: Engine, exported: Heads | None = None) -> Break | None:
    """The first broken place, None where all is as it was written."""
    with closing(breaks(engine, exported)) as found:
        return next(found, None)


@dataclass
class _Walk:
    """One chain, entry by entry."""

    connection: Connection
    chain: int
    end: Head | None
    exported: Head | None
    last: Head = field(default_factory=Head)

    def first_break(self) -> Break | None:
        """The first place where the chain is not as it was written."""
        after: int | None = None
        while rows := self._rows(after):
            if isinstance(rows, Break):
                return rows
            subjects = self._subjects([row["id"] for row in rows])
            for row in rows:
                problem = self._judge(row, subjects.get(row["id"], set()))
                if problem is not None:
                    return problem
                self.last = Head(row["number"], row["mac"])
            after = self.last.number
        return self._judge_end()

    def _rows(self, after: int | None) -> Sequence[RowMapping] | Break:
        statement = select(LOG).where(LOG.c.chain == self.chain).order_by(LOG.c.number)
        if after is not None:
            statement = statement.where(LOG.c.number > after)
        try:
            return self.connection.execute(statement.limit(BATCH)).mappings().all()
        except (ValueError, LookupError, TypeError):
            pass  # a column holds what no entry of ours holds: find which
        number = after or 0
        while True:
            number += 1
            try:
                self.connection.execute(statement.where(LOG.c.number == number)).all()
            except (ValueError, LookupError, TypeError):
                return Break(self.chain, number, "was changed: it cannot even be read")
            if number > (after or 0) + BATCH:
                return Break(self.chain, (after or 0) + 1, "or one soon after it, cannot be read")

    def _subjects(self, ids: Sequence[int]) -> dict[int, set[int]]:
        found: dict[int, set[int]] = {}
        statement = select(SUBJECT.c.audit_id, SUBJECT.c.patient_id).where(SUBJECT.c.audit_id.in_(ids))
        for row in self.connection.execute(statement):
            found.setdefault(row.audit_id, set()).add(row.patient_id)
        return found

    def _judge(self, row: RowMapping, subjects: set[int]) -> Break | None:
        expected = self.last.number + 1
        if row["number"] < expected:
            return Break(self.chain, row["number"], "was put in: entries count from 1")
        if row["number"] > expected:
            return Break(self.chain, expected, "is missing")
        if not hmac.compare_digest(
            compute_mac(
                self.last.mac, canonical_json({str(name): value for name, value in row.items()})
            ).encode(),
            str(row["mac"]).encode(),
        ):
            return Break(self.chain, expected, "was changed, put in, or is not the one that followed")
        if subjects != set(row["patient_ids"]):
            return Break(self.chain, expected, "concerns other patients than the index of patients says")
        if self.exported is not None and self.exported.number == expected and self.exported.mac != row["mac"]:
            return Break(self.chain, expected, "is not the one that was exported: the chain was rewritten")
        return None

    def _judge_end(self) -> Break | None:
        """Whether the chain ends where its head, and the head that was exported, say."""
        last, following = self.last.number, self.last.number + 1
        if self.end is None:
            return Break(self.chain, following, "the head of the chain is missing")
        if self.end.number > last:
            return Break(self.chain, following, f"is missing: the head counts {self.end.number} entries")
        if self.end.number < last:
            return Break(self.chain, self.end.number + 1, "was put in: the head does not count it")
        if self.end.mac != self.last.mac:
            return Break(self.chain, last, "is not the one that the head names")
        if self.exported is not None and self.exported.number > last:
            return Break(self.chain, following, f"is missing: {self.exported.number} entries were exported")
        return None


# --- The file of heads ---------------------------------------------------------------------------------


def _seal_file(key: str, told: Mapping[str, Any]) -> str:
    text = json.dumps(told, sort_keys=True, separators=(",", ":"))
    return hmac.new(key.encode(), f"heads\n{text}".encode(), hashlib.sha256).hexdigest()


def read_heads(path: Path, key: str) -> Heads | None:
    """The exported heads, None where there is no file. Raises `HeadsFileError`."""
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        given = told.pop("seal")
        heads = {int(chain): Head(int(number), str(mac)) for chain, (number, mac) in told["heads"].items()}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as problem:
        raise HeadsFileError(f"{path}: not a file of exported heads ({type(problem).__name__})") from None
    if not hmac.compare_digest(_seal_file(key, told), str(given)):
        raise HeadsFileError(f"{path}: was changed, or written under another AUDIT_KEY")
    return heads


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One writer of the file at a time, in whatever process."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(path.name + ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _write(path: Path, key: str, heads: Heads) -> None:
    told: dict[str, Any] = {
        "exported_at": clock.now().isoformat(),
        "heads": {str(chain): [head.number, head.mac] for chain, head in sorted(heads.items())},
    }
    told["seal"] = _seal_file(key, told)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(told, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)  # readers see the old file or the new one, never a part
    except BaseException:
        os.unlink(name)
        raise


def _ends(connection: Connection) -> dict[int, Head]:
    ends = {chain: Head() for chain in range(CHAINS)}
    for row in connection.execute(select(HEAD.c.chain, HEAD.c.number, HEAD.c.mac)):
        ends[row.chain] = Head(row.number, row.mac)
    return ends


def _stored(connection: Connection, heads: Heads) -> dict[int, str]:
    """The MACs of the entries that the heads name, by chain."""
    places = [and_(LOG.c.chain == chain, LOG.c.number == head.number) for chain, head in heads.items()]
    if not places:
        return {}
    found = connection.execute(select(LOG.c.chain, LOG.c.mac).where(or_(*places)))
    return {row.chain: row.mac for row in found}


def compare(connection: Connection, exported: Heads) -> list[Break]:
    """Where the database does not hold what was exported; a quick look at the ends alone."""
    stored, ends = _stored(connection, exported), _ends(connection)
    found = []
    for chain, head in sorted(exported.items()):
        end = ends.get(chain, Head())
        if end.number < head.number:
            problem = f"is missing: {head.number} entries were exported"
            found.append(Break(chain, end.number + 1, problem))
        elif head.number and stored.get(chain) != head.mac:
            found.append(Break(chain, head.number, "is not the one that was exported"))
    return found


def export(engine: Engine, chosen: Settings, path: Path | None = None, *, anew: bool = False) -> list[Break]:
    """Write the heads to the file; returns where the database does not hold what the file says already.

    There the file keeps its word: it is the evidence. `anew` writes the database's word whatever the file
    says. Safe from several processes at once. Raises `HeadsFileError` where the file is not ours.
    """
    path = path or chosen.heads_file
    with _locked(path):
        exported = {} if anew else (read_heads(path, chosen.audit_key) or {})
        with _snapshot(engine) as connection:
            ends, broken = _ends(connection), compare(connection, exported)
        kept = {place.chain: exported[place.chain] for place in broken}
        _write(path, chosen.audit_key, ends | kept)
    return broken


class _Exporter(threading.Thread):
    """Exports the heads of one database once a minute, as long as the process lives."""

    def __init__(self, engine: Engine, chosen: Settings) -> None:
        super().__init__(name="audit-heads", daemon=True)
        self.engine, self.chosen = engine, chosen
        self.replaced = threading.Event()

    def run(self) -> None:
        while not self.replaced.wait(INTERVAL):
            try:
                for place in export(self.engine, self.chosen):
                    log.error("audit_broken", chain=place.chain, number=place.number, what=place.what)
            except Exception as failure:  # the next minute tries again
                log.error("audit_heads_not_exported", failure=type(failure).__name__)


_exporter: _Exporter | None = None
_starting = threading.Lock()


def keep_exporting() -> None:
    """Have a thread of this process export the heads every minute.

    Called with every request, so that each worker starts its own after the fork: threads do not survive one.
    """
    global _exporter
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


def record_restore(actor: Actor, reason: str, exported: Heads | None) -> list[Break]:
    """Append that the database was restored from a backup, why, and which entries are lost by it.

    The caller commits, then exports `anew`. Raises 409 where the chains themselves are broken: no restore
    explains that. `reason` has at most `MAX_REASON` characters, since it is kept in the entry.
    """
    if not reason.strip() or len(reason) > MAX_REASON:
        raise invalid("reason", f"say why in 1 to {MAX_REASON} characters")
    broken = verify(db.engine)
    if broken is not None:
        raise ClinicError("conflict", f"The audit is broken, and not by a restore: {broken}")
    with _snapshot(db.engine) as connection:
        lost = compare(connection, exported or {})
    told = {f"chain {place.chain} from entry {place.number}" for place in lost}
    deed = PendingEntry("restore", "audit_log", fields=told, detail=reason.strip())
    audit_log.append(actor, "flask audit restored", [deed])
    return lost
