"""The deadline of the current request for all its waits on the database.

PostgreSQL's own timeouts do not end a wait if the server is frozen. The client therefore has a deadline of
its own. Commands have none.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

REQUEST_BUDGET = 4.6  # seconds from the start of a request; more than the timeouts of PostgreSQL
MINIMUM_WAIT = 0.2  # seconds that a statement may always take, however late it is sent

_deadline: ContextVar[float | None] = ContextVar("database_deadline", default=None)


def start() -> None:
    """Start the time budget of a request."""
    _deadline.set(time.monotonic() + REQUEST_BUDGET)


def clear() -> None:
    """Remove the deadline at the end of a request."""
    _deadline.set(None)


def is_active() -> bool:
    """Return True inside a request."""
    return _deadline.get() is not None


def has_passed() -> bool:
    """Return True if the time budget of the request is used up."""
    deadline = _deadline.get()
    return deadline is not None and time.monotonic() >= deadline


@contextmanager
def paused() -> Iterator[None]:
    """Exclude the time of the block, for example for hashing a password, from the budget."""
    started = time.monotonic()
    try:
        yield
    finally:
        deadline = _deadline.get()
        if deadline is not None:
            _deadline.set(deadline + time.monotonic() - started)


def until(longest: float) -> float:
    """Return the monotonic time at which a wait must end: after `longest` seconds or at the deadline."""
    now = time.monotonic()
    deadline = _deadline.get()
    if deadline is None:
        return now + longest
    return min(now + longest, max(deadline, now + MINIMUM_WAIT))
