"""Detection of workers that have ended, without trust in any clock.

The clocks of two hosts differ, and a clock can leap. A worker therefore watches the leases of the others on
its monotonic clock. A lease is over if nobody renewed it for the time of a lease. If it has also ended by the
clock of this host, the time of some renewals is enough.
"""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Row

from services import clock
from services.jobs import storage

RENEWAL_INTERVAL = 10.0  # seconds between two renewals
CONFIRMATION = 15.0  # seconds without a renewal after the end of the lease


@dataclass
class LeaseWatch:
    """The leases of other workers, and since when they are unchanged."""

    seen: dict[int, tuple[Any, float]] = field(default_factory=dict)

    def unrenewed(self, own_ids: Collection[int]) -> tuple[list[Row[Any]], bool]:
        """Return the jobs whose lease is over, and True if another lease has ended but must be confirmed."""
        now, monotonic_now = clock.now(), time.monotonic()
        jobs = storage.running(own_ids)
        self.seen = {job.id: self._since(job, monotonic_now) for job in jobs}
        over, has_ended = [], False
        for job in jobs:
            unchanged = monotonic_now - self.seen[job.id][1]
            ended = job.locked_until < now
            if unchanged >= storage.LEASE.total_seconds() or (ended and unchanged >= CONFIRMATION):
                over.append(job)
            else:
                has_ended = has_ended or ended
        return over, has_ended

    def _since(self, job: Row[Any], now: float) -> tuple[Any, float]:
        lease = (job.locked_by, job.attempts, job.locked_until)
        seen = self.seen.get(job.id)
        return seen if seen is not None and seen[0] == lease else (lease, now)
