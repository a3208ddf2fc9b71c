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

    def hit(self, rate: str, *key: str) -> int | None:
        """Count one hit. Return None within the limit, otherwise the seconds until the next allowed hit."""
        if not self.enabled:
            return None
        item = parse_rate(rate)
        return None if self._call(lambda limiter: limiter.hit(item, *key)) else self._wait(item, key)

    def hit_and_check(self, rate: str, key: tuple[str, ...], other: str) -> tuple[int | None, bool]:
        """Count as `hit` does, and return whether Redis has the key `other`, in one round trip."""
        if self.enabled and self._shared is not None:
            item, storage = parse_rate(rate), cast(RedisStorage, self._shared.storage)
            window = (time.time(), item.amount, item.get_expiry(), 1)

            def count(client: redis.Redis) -> list[Any]:
                pipeline = client.pipeline(transaction=False)
                script, place = storage.lua_acquire_moving_window, storage.prefixed_key(item.key_for(*key))
                pipeline.evalsha(script.sha, 1, place, *window)
                pipeline.exists(other)
                return pipeline.execute(raise_on_error=False)

            replies: list[Any] = redis_store.call(count, [])
            if replies and not any(isinstance(reply, redis.RedisError) for reply in replies):
                acquired, found = replies
                return None if acquired else self._wait(item, key), bool(found)
        # without Redis, or if Redis has lost the script, two separate calls
        return self.hit(rate, *key), redis_store.exists(other)

    def _wait(self, item: RateLimitItem, key: tuple[str, ...]) -> int:
        stats = self._call(lambda limiter: limiter.get_window_stats(item, *key))
        return max(1, int(stats.reset_time - time.time()) + 1)


limits = Limits()
