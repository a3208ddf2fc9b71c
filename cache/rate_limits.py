"""Rate limits with a moving window, counted in Redis, or in this process while Redis is away."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Network, ip_address
from typing import Any, TypeVar, cast

import redis
from limits import RateLimitItem, parse
from limits.storage import MemoryStorage, RedisStorage
from limits.strategies import MovingWindowRateLimiter
from limits.util import WindowStats

from cache import quotas
from cache.quotas import Quota
from cache.redis import RedisStore, redis_store

T = TypeVar("T")

parse_rate = lru_cache(parse)

MAX_WINDOWS = 10_000  # in the memory of a process
IPV6_NETWORK_BITS = 64  # a provider gives each customer at least a /64, so one host has any address of it


def network_of(address: str | None) -> str:
    """Return the network for which an address counts: an IPv4 address, or the /64 of an IPv6 address."""
    try:
        ip = ip_address(address or "")
    except ValueError:
        return "unknown"
    if isinstance(ip, IPv4Address):
        return str(ip)
    if ip.ipv4_mapped is not None:
        return str(ip.ipv4_mapped)
    return str(IPv6Network((int(ip), IPV6_NETWORK_BITS), strict=False))


class Limits:
    """Moving-window limits, counted in Redis, or in this process while Redis is off or away."""

    def __init__(self) -> None:
        self.enabled = True
        self._memory = MovingWindowRateLimiter(MemoryStorage())
        self._shared: MovingWindowRateLimiter | None = None

    def init(self, *, enabled: bool, redis_url: str | None) -> None:
        """Use the Redis at `redis_url`, if there is one, and reset the counters of this process."""
        self.enabled = enabled
        self._memory = MovingWindowRateLimiter(MemoryStorage())
        self._shared = None
        if redis_url:
            # the prefix names the strategy: another strategy cannot read these keys
            storage = RedisStorage(redis_url, key_prefix="clinic:moving", **RedisStore.options())
            self._shared = MovingWindowRateLimiter(storage)

    def _call(self, action: Callable[[MovingWindowRateLimiter], T]) -> T:
        shared = self._shared
        if shared is not None and redis_store.status == "ok":
            try:
                return action(shared)
            except (redis.RedisError, OSError):
                redis_store.trip()
        self._limit_memory()
        return action(self._memory)

    def _limit_memory(self) -> None:
        """Drop the windows without hits, and all windows if too many are left.

        `MemoryStorage` keeps every window, and a thread of it visits all of them again and again. So callers
        of many networks would use up the memory and the CPU of this process.
        """
        windows = cast(MemoryStorage, self._memory.storage).events
        if len(windows) <= MAX_WINDOWS:
            return
        now, storage = time.time(), MemoryStorage()
        live = {key: hits for key, hits in list(windows.items()) if hits and hits[0].expiry > now}
        if len(live) <= MAX_WINDOWS // 2:
            storage.events.update(live)
        self._memory = MovingWindowRateLimiter(storage)

    def hit(self, rate: str, *key: str, policy: str = "default") -> int | None:
        """Count one hit. Return None within the limit, otherwise the seconds until the next allowed hit.

        The state of the limit is recorded as `policy` for the headers of the response. A request that the
        database makes run again counts once.
        """
        if not self.enabled or quotas.is_recorded(policy):
            return None
        return self._hit(parse_rate(rate), key, policy, other=None)[0]

    def hit_and_check(self, rate: str, key: tuple[str, ...], other: str) -> tuple[int | None, bool]:
        """Count as `hit` does, and return whether Redis has the key `other`, in one round trip."""
        if not self.enabled:
            return None, redis_store.exists(other)
        return self._hit(parse_rate(rate), key, "default", other)

    def _hit(
        self, item: RateLimitItem, key: tuple[str, ...], policy: str, other: str | None
    ) -> tuple[int | None, bool]:
        reply = self._hit_in_redis(item, key, other)
        if reply is None:  # without Redis, or if Redis has lost the scripts, in separate calls
            acquired = self._call(lambda limiter: limiter.hit(item, *key))
            stats = self._call(lambda limiter: limiter.get_window_stats(item, *key))
            found = other is not None and redis_store.exists(other)
        else:
            acquired, stats, found = reply
        remaining = max(0, stats.remaining) if acquired else 0
        quota = Quota(policy, item.amount, item.get_expiry(), remaining, stats.reset_time - time.time())
        quotas.record(quota)
        return None if acquired else quota.whole_seconds, found

    def _hit_in_redis(
        self, item: RateLimitItem, key: tuple[str, ...], other: str | None
    ) -> tuple[bool, WindowStats, bool] | None:
        """Count a hit, read the window and look up `other` in one round trip. None: not possible."""
        if self._shared is None:
            return None
        storage = cast(RedisStorage, self._shared.storage)
        place, amount, window = storage.prefixed_key(item.key_for(*key)), item.amount, item.get_expiry()
        now = time.time()

        def count(client: redis.Redis) -> list[Any]:
            pipeline = client.pipeline(transaction=False)
            pipeline.evalsha(storage.lua_acquire_moving_window.sha, 1, place, now, amount, window, 1)
            pipeline.evalsha(storage.lua_moving_window.sha, 1, place, now - window, amount)
            if other is not None:
                pipeline.exists(other)
            return pipeline.execute(raise_on_error=False)

        replies: list[Any] = redis_store.call(count, [])
        if not replies or any(isinstance(reply, redis.RedisError) for reply in replies):
            return None
        acquired, state, *found = replies
        oldest, used = state or (now, 0)  # nothing: the oldest hit left the window in the meantime
        return bool(acquired), WindowStats(float(oldest) + window, amount - used), any(found)


limits = Limits()
