"""The queue of password hashes: at most `HASHING_THREADS` run in a process, and the others wait fairly.

The hashes belong to groups, such as the network of the client:

- A group never takes the last free place if it has a place already.
- Known groups are served first: those of a known device or a signed-in user. Then the smallest group.
- If the queue is full, a hash of an unknown group, the largest one, is refused in favour of another group.

So one network that sends many sign-ins hardly delays the sign-ins of others, and many networks that do so do
not lock out the users of known devices.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import NamedTuple

from prometheus_client import Gauge

from config import settings
from database import deadline
from errors import ClinicError

# bcrypt uses only the CPU and releases the GIL. More than two threads would only slow each other down.
HASHING_THREADS = 2

Ticket = Future[None]
WAITING = Gauge(
    "clinic_password_checks_waiting",
    "Password checks that wait for a turn, in all workers.",
    multiprocess_mode="livesum",
)


class Group(NamedTuple):
    """Hashes that count together. A known group is that of a known device or a signed-in user."""

    name: str
    is_known: bool = False


def _queue_full() -> ClinicError:
    return ClinicError("unavailable", "Too many sign-ins at this moment. Try again.", retry_after=2)


class PasswordQueue:
    """The places for hashes of this process, and the tickets that wait for one, by group."""

    def __init__(self, places: int) -> None:
        self._lock = threading.Lock()
        self._free = places
        self._running: Counter[Group] = Counter()  # places by group
        self._waiting: dict[Group, deque[Ticket]] = {}  # in the order of their arrival

    @property
    def waiting(self) -> int:
        """Return the number of waiting hashes."""
        return sum(map(len, self._waiting.values()))

    @contextmanager
    def turn(self, group: Group) -> Iterator[None]:
        """Wait for a place, and hold it during the block.

        Raises 503 `unavailable` while `PASSWORD_CHECK_QUEUE` others wait. Each of them holds a thread of the
        server.
        """
        ticket = self._enter(group)
        if ticket is not None:
            with deadline.paused():
                ticket.result()
        try:
            yield
        finally:
            self._leave(group)

    def _enter(self, group: Group) -> Ticket | None:
        """Take a free place and return None, or return a ticket that waits for one."""
        with self._lock:
            if self._may_run(group):
                self._run(group)
                return None
            if self.waiting >= settings().password_check_queue:
                self._displace(group)
            ticket: Ticket = Future()
            self._waiting.setdefault(group, deque()).append(ticket)
            WAITING.set(self.waiting)
            return ticket

    def _displace(self, group: Group) -> None:
        """Refuse the newest ticket of the last group. Raise 503 if `group` would not come before it."""
        last = max(self._waiting, key=self._rank)
        is_unknown, size = self._rank(group)
        if (is_unknown, size + 1) >= self._rank(last):
            raise _queue_full()
        tickets = self._waiting[last]
        tickets.pop().set_exception(_queue_full())
        if not tickets:
            del self._waiting[last]

    def _rank(self, group: Group) -> tuple[bool, int]:
        """Return the sort key of a group: known groups first, then small ones."""
        return not group.is_known, len(self._waiting.get(group, ()))

    def _may_run(self, group: Group) -> bool:
        return self._free > 1 or (self._free == 1 and not self._running[group])

    def _run(self, group: Group) -> None:
        self._free -= 1
        self._running[group] += 1

    def _leave(self, group: Group) -> None:
        """Give the place back, and serve the groups that may run now."""
        with self._lock:
            self._free += 1
            self._running[group] -= 1
            self._running += Counter()  # without the groups that have no place
            while ready := [group for group in self._waiting if self._may_run(group)]:
                first = min(ready, key=self._rank)
                tickets = self._waiting[first]
                tickets.popleft().set_result(None)
                self._run(first)
                if not tickets:
                    del self._waiting[first]
            WAITING.set(self.waiting)


password_queue = PasswordQueue(HASHING_THREADS)
