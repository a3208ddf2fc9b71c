"""Redis behind a circuit breaker."""

from __future__ import annotations

import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

T = TypeVar("T")

REDIS_TIMEOUT = 0.2  # seconds; what a request loses at most when Redis goes away
PROBE_INTERVAL = 1.0  # seconds between two looks whether Redis is back


class RedisStore:
    """Redis behind a circuit breaker: one slow call opens it, a thread closes it when Redis is back.

    `call(action, fallback)` never raises and never takes longer than `REDIS_TIMEOUT`.
    """

    def __init__(self) -> None:
        self.url: str | None = None
        self._client: redis.Redis | None = None
        self._open = threading.Event()  # set: Redis is away
        self._probing = threading.Lock()
        self._lines = threading.local()

    def init(self, url: str | None) -> None:
        """Connect lazily to `url`; None does without Redis."""
        self.url = url
        self._open.clear()
        self._client = redis.Redis.from_url(url, **self.options()) if url else None

    @staticmethod
    def options() -> dict[str, Any]:
        """Short timeouts and no retries: the library's own would take seconds."""
        return {
            "socket_timeout": REDIS_TIMEOUT,
            "socket_connect_timeout": REDIS_TIMEOUT,
            "retry": Retry(NoBackoff(), 0),
        }

    @property
    def status(self) -> str:
        """`off` without `REDIS_URL`, else `ok` or `degraded`."""
        return "off" if self._client is None else "degraded" if self._open.is_set() else "ok"

    def call(self, action: Callable[[redis.Redis], T], fallback: T) -> T:
        """What `action` answers, or `fallback` while Redis is off or away."""
        if self._client is None or self._open.is_set():
            return fallback
        try:
            return action(self._client)
        except (redis.RedisError, OSError):
            self.trip()
            return fallback

    def holds(self, key: str) -> bool:
        """Whether the key is there; no is no answer while Redis is off or away."""
        return bool(self.call(lambda client: client.exists(key), 0))

    def exchange(self, *commands: tuple[Any, ...]) -> list[Any]:
        """The reply to each command, an error as its exception, in one round trip; [] while Redis is away.

        Over a connection of the thread's own: the client's pipeline does the same in four times the CPU, on
        every request (docs/performance.md).
        """

        def ask(client: redis.Redis) -> list[Any]:
            if self._lines.__dict__.get("client") is not client:
                self._lines.client, self._lines.line = client, client.connection_pool.make_connection()
            line: Any = self._lines.line
            kept = line.is_connected
            try:
                return _exchanged(line, commands)
            except redis.ConnectionError as failure:
                if not kept or isinstance(failure.__context__, BlockingIOError):  # which is: out of time
                    raise
                return _exchanged(line, commands)  # Redis has hung up while it lay idle

        nothing: list[Any] = []
        return self.call(ask, nothing)

    def trip(self) -> None:
        """Do without Redis until a probe succeeds."""
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


def _exchanged(line: Any, commands: tuple[tuple[Any, ...], ...]) -> list[Any]:
    try:
        if not line.is_connected:
            line.connect()
            _wait_in_kernel(line._sock)
        line.send_packed_command([_packed(commands)], check_health=False)
        return [_reply(line) for _ in commands]
    except BaseException:
        line.disconnect()  # a reply left unread would answer somebody else's question
        raise


def _wait_in_kernel(line: socket.socket) -> None:
    """Keep `REDIS_TIMEOUT`, without the poll that Python does before it sends or receives with a timeout.

    Each is a system call for which the other threads get their turn, and this one has to wait for its own.
    """
    if not isinstance(line, ssl.SSLSocket):  # TLS would ask again, for ever
        line.settimeout(None)
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            line.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", 0, int(REDIS_TIMEOUT * 1e6)))


def _packed(commands: tuple[tuple[Any, ...], ...]) -> bytes:
    lines = []
    for command in commands:
        lines.append(b"*%d\r\n" % len(command))
        for word in command:
            told = str(word).encode()
            lines.append(b"$%d\r\n%b\r\n" % (len(told), told))
    return b"".join(lines)


def _reply(connection: redis.Connection) -> Any:
    try:
        return connection.read_response()
    except redis.ResponseError as error:
        return error


redis_store = RedisStore()
