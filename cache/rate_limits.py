"""Rate limits with a moving window, counted in Redis, or in this process while Redis is away."""

from __future__ import annotations

import time
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Network, ip_address
from typing import Any, cast

from limits import RateLimitItem, parse
from limits.storage import MemoryStorage, RedisStorage
from limits.strategies import MovingWindowRateLimiter
from limits.util import WindowStats
from redis.commands.core import Script

from cache import quotas
from cache.quotas import Quota
from cache.redis import RedisStore, redis_store

parse_rate = lru_cache(parse)

# Both scripts of `limits` and a look-up as one command: redis-py takes 30 microseconds for each one.
COUNT_HIT = f"""
local function acquire(KEYS, ARGV) {RedisStorage.SCRIPT_ACQUIRE_MOVING_WINDOW.decode()}
end
local function read_window(KEYS, ARGV) {RedisStorage.SCRIPT_MOVING_WINDOW.decode()}
end
local now, amount, seconds = ARGV[1], ARGV[2], ARGV[3]
local acquired = acquire({{KEYS[1]}}, {{now, amount, seconds, 1}})
local window = read_window({{KEYS[1]}}, {{now - seconds, amount}}) or {{now, 0}}
local found = KEYS[2] and redis.call('exists', KEYS[2]) or 0
return {{acquired and 1 or 0, window[1], window[2], found}}
"""

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
        self._shared: RedisStorage | None = None
        self._count_hit: Script | None = None

    def init(self, *, enabled: bool, redis_url: str | None) -> None:
        """Use the Redis at `redis_url`, if there is one, and reset the counters of this process."""
        self.enabled = enabled
        self._memory = MovingWindowRateLimiter(MemoryStorage())
        self._shared, self._count_hit = None, None
        if redis_url:
            # the prefix names the strategy: another strategy cannot read these keys
            self._shared = RedisStorage(redis_url, key_prefix="clinic:moving", **RedisStore.options())
            self._count_hit = self._shared.storage.register_script(COUNT_HIT)

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
        if reply is None:  # without Redis, or while it is away
            self._limit_memory()
            acquired = self._memory.hit(item, *key)
            stats = self._memory.get_window_stats(item, *key)
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
        if self._shared is None or self._count_hit is None:
            return None
        script, window = self._count_hit, item.get_expiry()
        keys = [self._shared.prefixed_key(item.key_for(*key))] + ([] if other is None else [other])
        arguments = [time.time(), item.amount, window]
        reply: list[Any] | None = redis_store.call(lambda client: script(keys, arguments, client), None)
        if reply is None:
            return None
        acquired, oldest, used, found = reply
        return bool(acquired), WindowStats(float(oldest) + window, item.amount - used), bool(found)


limits = Limits()
