"""The extensions of Flask, Redis and limits: what the application holds one of.

Both stores may be away: the database is then waited for some seconds (`database`), Redis is done without.
"""

from __future__ import annotations

import os
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, TypeVar, cast

import redis
from flask import Flask, current_app
from flask_bcrypt import Bcrypt
from flask_cors import CORS
from flask_jwt_extended import JWTManager
from flask_migrate import Migrate
from flask_sqlalchemy import SQLAlchemy
from flask_sqlalchemy.session import Session
from limits import RateLimitItem
from limits import parse as parse_rate
from limits.storage import MemoryStorage, RedisStorage
from limits.strategies import MovingWindowRateLimiter
from redis.backoff import NoBackoff
from redis.retry import Retry
from sqlalchemy import Connection, Engine

from database import REPLICA, prepare_engine
from models import Base

T = TypeVar("T")

REDIS_TIMEOUT = 0.2  # seconds; what a request loses at most when Redis goes away
PROBE_INTERVAL = 1.0  # seconds between two looks whether Redis is back


class ClinicSession(Session):
    """Asks the clinic's database; for what is read within `reporting`, the replica where there is one."""

    def get_bind(self, *mapper: Any, **asked: Any) -> Engine | Connection:
        """The engine of the next statement."""
        return db.engines[REPLICA if self.info.get(REPLICA) else None]


db = SQLAlchemy(model_class=Base, session_options={"class_": ClinicSession})
migrate = Migrate(db=db)
jwt = JWTManager()
bcrypt = Bcrypt()
cors = CORS()


# --- Database ------------------------------------------------------------------------------------------


@contextmanager
def reporting() -> Iterator[None]:
    """What is read in here may be some moments old: it comes from the read replica, if there is one."""
    db.session.info[REPLICA] = REPLICA in db.engines
    try:
        yield
    finally:
        db.session.info[REPLICA] = False


def remembered(what: str) -> dict[Any, Any]:
    """What this process has read of the clinic's database, under a name; checked before it is relied on."""
    kept: dict[str, dict[Any, Any]] = current_app.extensions["remembered"]
    return kept.setdefault(what, {})


def forget() -> None:
    """Remember nothing, as a new process does."""
    current_app.extensions["remembered"].clear()


# --- Redis ---------------------------------------------------------------------------------------------


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


# --- Limits --------------------------------------------------------------------------------------------


_parse = lru_cache(parse_rate)


class Limits:
    """Moving-window limits, counted in Redis where it is there and in this process where it is not."""

    def __init__(self) -> None:
        self.enabled = True
        self._memory = MovingWindowRateLimiter(MemoryStorage())
        self._shared: MovingWindowRateLimiter | None = None

    def init(self, *, enabled: bool, redis_url: str | None) -> None:
        """Start counting afresh."""
        self.enabled = enabled
        self._memory = MovingWindowRateLimiter(MemoryStorage())
        self._shared = None
        if redis_url:
            # the strategy is part of the prefix: another one could not read these keys
            storage = RedisStorage(redis_url, key_prefix="clinic:moving", **RedisStore.options())
            self._shared = MovingWindowRateLimiter(storage)

    def _ask(self, question: Callable[[MovingWindowRateLimiter], T]) -> T:
        shared = self._shared
        if shared is not None and redis_store.status == "ok":
            try:
                return question(shared)
            except (redis.RedisError, OSError):
                redis_store.trip()
        return question(self._memory)

    def hit(self, rate: str, *key: str) -> int | None:
        """Count one; None if it fits, else after how many seconds the next one will."""
        if not self.enabled:
            return None
        item = _parse(rate)
        return None if self._ask(lambda limiter: limiter.hit(item, *key)) else self._wait(item, key)

    def hit_and_ask(self, rate: str, key: tuple[str, ...], asked: str) -> tuple[int | None, bool]:
        """`hit`, and in the same round trip whether Redis holds the key `asked`."""
        shared = self._shared
        if self.enabled and shared is not None:
            item, storage = _parse(rate), cast(RedisStorage, shared.storage)

            place = storage.prefixed_key(item.key_for(*key))
            window = (time.time(), item.amount, item.get_expiry(), 1)
            count = ("EVALSHA", storage.lua_acquire_moving_window.sha, 1, place, *window)
            answers = redis_store.exchange(count, ("EXISTS", asked))
            if answers and not any(isinstance(answer, redis.RedisError) for answer in answers):
                fits, found = answers
                return None if fits else self._wait(item, key), bool(found)
        # without Redis, or where it has forgotten the script, the single questions know what to do
        return self.hit(rate, *key), redis_store.holds(asked)

    def full(self, rate: str, *key: str) -> int | None:
        """Without counting: None if one more fits, else the seconds until it does."""
        if not self.enabled:
            return None
        item = _parse(rate)
        return None if self._ask(lambda limiter: limiter.test(item, *key)) else self._wait(item, key)

    def forget(self, rate: str, *key: str) -> None:
        """Start this key afresh."""
        if self.enabled:
            item = _parse(rate)
            self._ask(lambda limiter: limiter.clear(item, *key))

    def _wait(self, item: RateLimitItem, key: tuple[str, ...]) -> int:
        stats = self._ask(lambda limiter: limiter.get_window_stats(item, *key))
        return max(1, int(stats.reset_time - time.time()) + 1)


limits = Limits()


def init_app(app: Flask) -> None:
    """Bind everything here to `app`, whose config is set."""
    app.extensions["remembered"] = {}
    db.init_app(app)
    migrate.init_app(app, directory=os.path.join(app.root_path, "migrations"))
    jwt.init_app(app)
    bcrypt.init_app(app)
    with app.app_context():
        for engine in db.engines.values():
            prepare_engine(engine)
