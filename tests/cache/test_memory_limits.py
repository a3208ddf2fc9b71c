"""Rate limits in the memory of a process."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import time_machine
from limits.storage import MemoryStorage

from cache import rate_limits
from cache.rate_limits import Limits

RATE = "2 per minute"


@pytest.fixture
def limits(monkeypatch: pytest.MonkeyPatch) -> Limits:
    """Return limits without Redis, which keep at most 100 windows."""
    monkeypatch.setattr(rate_limits, "MAX_WINDOWS", 100)
    limits = Limits()
    limits.init(enabled=True, redis_url=None)
    return limits


@pytest.fixture
def clock() -> Iterator[time_machine.Coordinates]:
    with time_machine.travel(1_800_000_000, tick=False) as coordinates:
        yield coordinates


def windows(limits: Limits) -> int:
    storage = limits._memory.storage
    assert isinstance(storage, MemoryStorage)
    return len(storage.events)


def test_callers_of_many_networks_do_not_fill_the_memory(
    limits: Limits, clock: time_machine.Coordinates
) -> None:
    for number in range(1_000):
        assert limits.hit(RATE, "address", f"network {number}") is None

        assert windows(limits) <= 101


def test_a_window_with_hits_survives_the_cleaning(limits: Limits, clock: time_machine.Coordinates) -> None:
    for number in range(90):
        limits.hit(RATE, "address", f"old {number}")
    clock.shift(61)
    assert [limits.hit(RATE, "address", "busy") for _ in range(2)] == [None, None]

    for number in range(30):
        limits.hit(RATE, "address", f"new {number}")

    assert windows(limits) < 90
    assert limits.hit(RATE, "address", "busy") is not None
