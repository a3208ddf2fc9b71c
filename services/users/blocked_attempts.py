"""Audit entries of blocked attempts: at most one for each action, account and minute in a worker process.

The first blocked attempt is audited at once, the further ones together after a minute. Otherwise an attack
would fill the audit log. Attempts on addresses without an account count together.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import NamedTuple

from enums import AuditOutcome
from services.audit.audit_log import PendingEntry

PERIOD = 60.0  # seconds


class BlockedAction(NamedTuple):
    """A blocked action, such as `login`, and the user of the account. None: there is no account."""

    action: str
    user_id: int | None


@dataclass
class _Period:
    """The time from one audit entry to the next one, and the attempts that no entry contains yet."""

    started: float
    count: int = 0


@dataclass
class BlockedAttempts:
    """The blocked attempts of this process that no audit entry contains yet."""

    _periods: dict[BlockedAction, _Period] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, blocked: BlockedAction) -> PendingEntry | None:
        """Count a blocked attempt. Return the entry to append now, None if a later one will contain it."""
        now = time.time()
        with self._lock:
            period = self._periods.get(blocked)
            if period is not None and now - period.started < PERIOD:
                period.count += 1
                return None
            self._periods[blocked] = _Period(now)
        return _entry(blocked, 1 + (period.count if period else 0))

    def take_due(self) -> list[PendingEntry]:
        """Return the entries of attempts whose minute is over."""
        if not self._periods:
            return []
        now = time.time()
        with self._lock:
            due = {key: found for key, found in self._periods.items() if now - found.started >= PERIOD}
            for blocked, period in due.items():
                del self._periods[blocked]
                if period.count:
                    self._periods[blocked] = _Period(now)
        return [_entry(blocked, period.count) for blocked, period in due.items() if period.count]

    def clear(self) -> None:
        """Forget all counts."""
        self._periods.clear()


def _entry(blocked: BlockedAction, count: int) -> PendingEntry:
    detail = "too_many_requests" if count == 1 else f"too_many_requests: {count} attempts"
    return PendingEntry(blocked.action, "user", blocked.user_id, outcome=AuditOutcome.REFUSED, detail=detail)


blocked_attempts = BlockedAttempts()
