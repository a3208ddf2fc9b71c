"""Redis behind a circuit breaker."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

T = TypeVar("T")

REDIS_TIMEOUT = 0.2  # seconds; the longest delay of a request when Redis goes away
PROBE_INTERVAL = 1.0  # seconds between two attempts to reach Redis again


class RedisStore:
    """Redis behind a circuit breaker: one slow call opens it, a thread closes it when Redis answers again.

    `call(action, fallback)` never raises and never takes longer than `REDIS_TIMEOUT`.
    """

    def __init__(self) -> None:
        self.url: str | None = None
        self._client: redis.Redis | None = None
        self._open = threading.Event()  # set: Redis is not used
        self._probing = threading.Lock()

    def init(self, url: str | None) -> None:
        """Use the Redis at `url`, connected with the first call. None: use no Redis."""
        self.url = url
        self._open.clear()
        self._client = redis.Redis.from_url(url, **self.options()) if url else None

    @staticmethod
    def options() -> dict[str, Any]:
        """Return connection options with short timeouts. The retries of the library would take seconds."""
        return {
            "socket_timeout": REDIS_TIMEOUT,
            "socket_connect_timeout": REDIS_TIMEOUT,
            "retry": Retry(NoBackoff(), 0),
        }

    @property
    def status(self) -> str:
        """Return `off` without `REDIS_URL`, otherwise `ok` or `degraded`."""
        return "off" if self._client is None else "degraded" if self._open.is_set() else "ok"

    def call(self, action: Callable[[redis.Redis], T], fallback: T) -> T:
        """Return the result of `action`, or `fallback` while Redis is off or away."""
        if self._client is None or self._open.is_set():
            return fallback
        try:
            return action(self._client)
        except (redis.RedisError, OSError):
            self.trip()
            return fallback

    def exists(self, key: str) -> bool:
        """Return True if the key exists. False is no proof: Redis may be off or away."""
        return bool(self.call(lambda client: client.exists(key), 0))

    def trip(self) -> None:
        """Open the circuit breaker until a probe succeeds."""
        self._open.set()
        if self._probing.acquire(blocking=False):
            threading.Thread(target=self._probe, name="redis-probe", daemon=True).start()

    def _probe(self) -> None:
        try:
            while (client := self._client) is not None:
                time.sleep(PROBE_INTERVAL)
                try:
                    client.ping()
                except (redis.RedisError, OSError):
                    continue
                self._open.clear()
                return
        finally:
            self._probing.release()


redis_store = RedisStore()
