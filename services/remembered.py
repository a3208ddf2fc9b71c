"""Callers and chain heads that a process remembers, and that the database verifies before each commit.

On PostgreSQL the first attempt of a request uses what earlier requests of the process have read: session,
user, role and doctor of the caller, and the head of an audit chain. This saves two round trips. The statement
that appends the audit entries inserts nothing if one of them has changed (`services.audit.audit_storage`).
Then the request is rolled back and runs again with nothing remembered. ADR 0009 has the figures.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

from sqlalchemy import Engine, Row

from database.functions import is_postgresql
from extensions import db
from services.audit.audit_storage import Head

MAX_CALLERS = 10_000

CallerKey = tuple[int | None, int | None]  # session id, user id


@dataclass
class Memory:
    """The callers and chain heads of one database that this process remembers."""

    callers: dict[CallerKey, Row[Any]] = field(default_factory=dict)
    heads: dict[int, Head] = field(default_factory=dict)


@dataclass
class Assumptions:
    """The assumptions of the current transaction, attached to the session as `session.info[Assumptions]`.

    `memory` is None if the process remembers nothing (SQLite). `recalls` is False for a transaction that only
    adds to the memory, so that nothing can prove outdated. `caller` is the remembered row of the caller, None
    if it was read in this transaction. `head` is the new head of the chain that this transaction has appended
    to.
    """

    memory: Memory | None = None
    recalls: bool = False
    caller: Row[Any] | None = None
    head: Head | None = None


_memories: WeakKeyDictionary[Engine, Memory] = WeakKeyDictionary()


def begin(*, recalls: bool) -> None:
    """Start a transaction that uses the memory if `recalls`. Only processes on PostgreSQL have one."""
    memory = _memories.setdefault(db.engine, Memory()) if is_postgresql(db.engine) else None
    db.session().info[Assumptions] = Assumptions(memory, recalls)


def assumptions() -> Assumptions:
    """Return the assumptions of the current transaction."""
    found: Assumptions = db.session().info.setdefault(Assumptions, Assumptions())
    return found


def forget_all() -> None:
    """Forget everything: for a database whose rows were removed."""
    _memories.clear()


def recall_caller(key: CallerKey) -> Row[Any] | None:
    """Return the remembered row of a caller and assume that it is unchanged, or None."""
    current = assumptions()
    if current.memory is not None and current.recalls:
        current.caller = current.memory.callers.get(key)
    return current.caller


def remember_caller(key: CallerKey, caller: Row[Any]) -> None:
    """Remember the row of a caller for later requests."""
    memory = assumptions().memory
    if memory is not None:
        if len(memory.callers) >= MAX_CALLERS:
            memory.callers.clear()
        memory.callers[key] = caller


def forget_caller(key: CallerKey) -> None:
    """Forget a caller whose row is about to change."""
    memory = assumptions().memory
    if memory is not None:
        memory.callers.pop(key, None)


def take_head() -> Head | None:
    """Return a remembered head, or None. No other transaction of this process gets the same one."""
    current = assumptions()
    if current.memory is None or not current.recalls:
        return None
    try:
        return current.memory.heads.popitem()[1]
    except KeyError:
        return None


def commit() -> None:
    """Remember the head of the chain that the committed transaction has appended to."""
    current = assumptions()
    if current.memory is not None and current.head is not None:
        current.memory.heads[current.head.chain] = current.head
    current.head = None
