"""Failed attempts, such as wrong passwords, counted in Redis, or in this process while Redis is off or away.

An attempt counts as failed before its outcome is known. A success reverses that. So parallel attempts cannot
exceed a limit. The attempts of a counter are the members of a sorted set, with their times as scores: the
moving windows of the library `limits` cannot take a hit back.
"""

from __future__ import annotations

import math
import threading
import time
import uuid
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import redis

from cache import quotas
from cache.quotas import Quota
from cache.rate_limits import parse_rate
from cache.redis import redis_store

MAX_DELAY = 60  # seconds
ABANDONED_AFTER = 30.0  # seconds; the process of an attempt without outcome has probably ended
POLL_INTERVAL = 0.02  # seconds
LONGEST_WAIT = 2.0  # seconds for the outcome of other attempts
SWEEP_ABOVE = 10_000  # counters in the memory of a process
OPEN, FAILED = "open:", "failed:"  # prefixes of the members

Members = dict[str, float]  # member -> time of the attempt


@dataclass(frozen=True)
class Counter:
    """A counter of failed attempts. It allows as many failures as `rate` states.

    After these, attempts are refused until the window has moved. With `slows_down` they are refused for a
    delay instead, which doubles with each failure: 1 s, 2 s, 4 s, up to `MAX_DELAY`. `policy` is the name in
    the headers of a response.
    """

    rate: str
    key: tuple[str, ...]
    policy: str = "failures"
    slows_down: bool = False

    @property
    def name(self) -> str:
        """Return the key of the sorted set."""
        return ":".join(("clinic:attempts", *self.key))

    @property
    def window(self) -> int:
        """Return the length of the window in seconds."""
        return parse_rate(self.rate).get_expiry()

    def blocked_until(self, failures: Iterable[float]) -> float:
        """Return the time of the next allowed attempt after failures at these times. 0: at once."""
        times = sorted(failures)
        excess = len(times) - parse_rate(self.rate).amount
        if excess < 0:
            return 0
        if self.slows_down:
            return times[-1] + min(MAX_DELAY, 1 << min(excess, 10))
        return times[excess] + self.window

    def record(self, failures: Collection[float]) -> None:
        """Record the state after failures at these times. A delay is a limit only while it refuses."""
        now, amount = time.time(), parse_rate(self.rate).amount
        refused_for = self.blocked_until(failures) - now
        if refused_for > 0:
            quotas.record(Quota(self.policy, amount, self.window, 0, refused_for))
        elif not self.slows_down:
            remaining, oldest = max(0, amount - len(failures)), min(failures, default=now)
            quotas.record(Quota(self.policy, amount, self.window, remaining, oldest + self.window - now))


class BlockedError(Exception):
    """An attempt is not allowed.

    `seconds` is the time until the next allowed attempt. None: other attempts still have no outcome.
    """

    def __init__(self, seconds: int | None) -> None:
        super().__init__(seconds)
        self.seconds = seconds


@dataclass
class Attempt:
    """An attempt that counts as failed unless `succeeded` or `withdrawn` is set.

    A withdrawn attempt changes no counter. It is one step of several, or has no outcome.
    """

    succeeded: bool = False
    withdrawn: bool = False


class Attempts:
    """Counters of failed attempts."""

    def __init__(self) -> None:
        self.enabled = True
        self._memory = _MemoryStore()

    def init(self, *, enabled: bool) -> None:
        """Reset the counters of this process."""
        self.enabled = enabled
        self._memory = _MemoryStore()

    def check(self, counters: Sequence[Counter], *, since: float = 0) -> None:
        """Raise `BlockedError` if failures forbid an attempt. Attempts in progress do not forbid it.

        Failures up to the time `since` are ignored.
        """
        if self.enabled:
            _raise_if_blocked(counters, self._load(counters), since)

    @contextmanager
    def count(self, counters: Sequence[Counter], *, since: float = 0) -> Iterator[Attempt]:
        """Count an attempt as failed with all counters, unless the block sets `succeeded` or `withdrawn`.

        A success also reverses, in all counters, the failures that the first counter contains. While a
        counter is full only because of attempts in progress, wait for their outcome. Raises `BlockedError`.
        """
        attempt = Attempt()
        if not self.enabled:
            yield attempt
            return
        number = uuid.uuid4().hex
        members = self._reserve(counters, OPEN + number, since)
        started = members[0][OPEN + number]
        try:
            yield attempt
        finally:
            is_success = attempt.succeeded and not attempt.withdrawn
            old: Collection[str] = members[0] if is_success else [OPEN + number]
            new = {} if attempt.succeeded or attempt.withdrawn else {FAILED + number: started}
            self._replace(counters, old, new)
            for counter, found in zip(counters, members, strict=True):
                left = {name: at for name, at in found.items() if name not in old} | new
                counter.record(_failures(left, since))

    def _reserve(self, counters: Sequence[Counter], own: str, since: float) -> list[Members]:
        """Add the attempt `own` to all counters as soon as they allow it. Return the members of each one."""
        give_up_at = time.monotonic() + LONGEST_WAIT
        while True:
            members = self._load(counters, own)
            others = [{name: at for name, at in found.items() if name != own} for found in members]
            times = [[at for at in found.values() if at > since] for found in others]
            if _seconds_blocked(counters, times) <= 0:
                return members
            self._replace(counters, [own], {})
            _raise_if_blocked(counters, others, since)
            if time.monotonic() > give_up_at:
                raise BlockedError(None)
            time.sleep(POLL_INTERVAL)

    def _load(self, counters: Sequence[Counter], own: str | None = None) -> list[Members]:
        """Return the members of each counter, after the addition of `own`."""
        now = time.time()
        shared = redis_store.call(lambda client: _load_from_redis(client, counters, now, own), None)
        return self._memory.load(counters, now, own) if shared is None else shared

    def _replace(self, counters: Sequence[Counter], old: Collection[str], new: Members) -> None:
        """Remove the members `old` of all counters, and add `new`."""
        if not redis_store.call(lambda client: _replace_in_redis(client, counters, old, new), False):
            self._memory.replace(counters, old, new)


def _seconds_blocked(counters: Sequence[Counter], failures: Sequence[Iterable[float]]) -> float:
    until = max(counter.blocked_until(times) for counter, times in zip(counters, failures, strict=True))
    return until - time.time()


def _raise_if_blocked(counters: Sequence[Counter], members: Sequence[Members], since: float) -> None:
    """Raise `BlockedError` if the attempts with an outcome forbid another one."""
    failures = [_failures(found, since) for found in members]
    for counter, times in zip(counters, failures, strict=True):
        counter.record(times)
    seconds = _seconds_blocked(counters, failures)
    if seconds > 0:
        raise BlockedError(math.ceil(seconds))


def _failures(members: Members, since: float) -> list[float]:
    """Return the times of the attempts with an outcome. An abandoned one has failed."""
    abandoned = time.time() - ABANDONED_AFTER
    return [at for name, at in members.items() if at > since and (name.startswith(FAILED) or at < abandoned)]


# --- Stores --------------------------------------------------------------------------------------------


def _load_from_redis(
    client: redis.Redis, counters: Sequence[Counter], now: float, own: str | None
) -> list[Members]:
    pipeline = client.pipeline()  # one transaction
    for counter in counters:
        pipeline.zremrangebyscore(counter.name, "-inf", now - counter.window)
        if own is not None:
            pipeline.zadd(counter.name, {own: now})
            pipeline.expire(counter.name, counter.window + 1)
        pipeline.zrange(counter.name, 0, -1, withscores=True)
    replies: list[Any] = pipeline.execute()
    return [{name.decode(): at for name, at in reply} for reply in replies if isinstance(reply, list)]


def _replace_in_redis(
    client: redis.Redis, counters: Sequence[Counter], old: Collection[str], new: Members
) -> bool:
    pipeline = client.pipeline()
    for counter in counters:
        pipeline.zrem(counter.name, *old)
        if new:
            pipeline.zadd(counter.name, dict(new))
            pipeline.expire(counter.name, counter.window + 1)
    pipeline.execute()
    return True


class _MemoryStore:
    """The sorted sets of this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sets: dict[str, Members] = {}
        self._ends: dict[str, float] = {}  # when all members of a set have expired

    def load(self, counters: Sequence[Counter], now: float, own: str | None) -> list[Members]:
        with self._lock:
            members = [
                {
                    name: at
                    for name, at in self._sets.get(counter.name, {}).items()
                    if at > now - counter.window
                }
                | ({} if own is None else {own: now})
                for counter in counters
            ]
            for counter, found in zip(counters, members, strict=True):
                self._store(counter, dict(found))
            return members

    def replace(self, counters: Sequence[Counter], old: Collection[str], new: Members) -> None:
        with self._lock:
            for counter in counters:
                found = self._sets.get(counter.name, {})
                self._store(counter, {name: at for name, at in found.items() if name not in old} | new)

    def _store(self, counter: Counter, members: Members) -> None:
        if not members:
            self._sets.pop(counter.name, None)
            self._ends.pop(counter.name, None)
            return
        self._sets[counter.name] = members
        self._ends[counter.name] = max(members.values()) + counter.window
        if len(self._sets) > SWEEP_ABOVE:
            now = time.time()
            self._ends = {name: end for name, end in self._ends.items() if end > now}
            self._sets = {name: self._sets[name] for name in self._ends}


attempts = Attempts()
