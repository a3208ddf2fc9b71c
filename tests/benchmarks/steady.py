"""A clinic's day at a steady pace: so many requests a second, whether or not those before are answered.

A latency counts from when its request was due, not from when a connection was free to send it: a server that
stands still for a second owes an answer to everybody who would have asked meanwhile.
"""

from __future__ import annotations

import random
import selectors
import statistics
import threading
import time
from collections import deque
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

from tests.benchmarks.drive import (
    TIMEOUT_S,
    BenchError,
    Connection,
    drive,
)
from tests.benchmarks.operations import OPERATIONS, Operation
from tests.benchmarks.stage import EMAIL, Ask, Stage

RATE = 100  # requests a second
# Four of five requests read.
READS = {"read": 37, "list": 15, "search": 8, "typo": 2, "phone": 6, "availability": 10, "day": 2}
WRITES = {"create": 6, "book": 7, "reschedule": 3, "pay": 4}
MIX = READS | WRITES
WARM_S = 5.0
QUIET_S = 30.0  # and as long with the crowd
CROWD = 50


@dataclass
class Paced:
    """What a stretch at a steady pace showed; latencies in seconds."""

    latencies_s: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def told(self) -> dict[str, Any]:
        """The figures as they are written down."""
        ordered = sorted(self.latencies_s)
        median, p99 = statistics.median(ordered), ordered[int(len(ordered) * 0.99)]
        return {
            "requests": len(ordered),
            "errors": len(self.errors),
            "median_ms": round(1000 * median, 2),
            "p99_ms": round(1000 * p99, 2),
            "slowest_ms": round(1000 * ordered[-1], 1),
            "p99_to_median": round(p99 / median, 1),
        }


class Day:
    """The requests of a clinic's day, mixed, over the stage's connections."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.dice = random.Random("day")
        self.kinds: dict[str, Operation] = {kind.name: kind(stage) for kind in OPERATIONS if kind.name in MIX}

    def work(self, seconds: float, rate: float = RATE) -> Paced:
        """So many requests a second, for so long."""
        found = Paced()
        connections = self.stage.clinic.connections
        idle, due = deque(range(len(connections))), deque[float]()
        asked: dict[int, tuple[Operation, float]] = {}
        begun, sent = time.perf_counter(), 0
        with closing(selectors.DefaultSelector()) as selector:
            for place, connection in enumerate(connections):
                selector.register(connection.socket, selectors.EVENT_READ, place)
            while sent < seconds * rate or asked or due:
                now = time.perf_counter()
                while sent < seconds * rate and begun + sent / rate <= now:
                    due.append(begun + sent / rate)
                    sent += 1
                while due and idle:
                    place = idle.popleft()
                    asked[place] = self._send(place), due.popleft()
                self._receive(selector, asked, idle, found, begun + sent / rate - time.perf_counter())
        return found

    def _send(self, place: int) -> Operation:
        kind = self.kinds[self.dice.choices(list(MIX), list(MIX.values()))[0]]
        self.stage.clinic.connections[place].send(kind.ask(place).encode())
        return kind

    def _receive(
        self,
        selector: selectors.BaseSelector,
        asked: dict[int, tuple[Operation, float]],
        idle: deque[int],
        found: Paced,
        until_next: float,
    ) -> None:
        for key, _events in selector.select(max(0.0, until_next)):
            place: int = key.data
            answer = self.stage.clinic.connections[place].receive()
            if answer is None:
                continue
            kind, due = asked.pop(place)
            found.latencies_s.append(time.perf_counter() - due)
            status, body = answer
            if status == kind.status:
                kind.heard(place, body)
            else:
                found.errors.append(f"{kind.name}: {status} {body[:200]!r}")
            idle.append(place)


def steady(stage: Stage, minutes: float) -> dict[str, Any]:
    """Minutes of work: errors, latencies, and what the workers' memory does after the first minute."""
    day = Day(stage)
    whole = day.work(60.0)
    early_mb = _memory_mb(stage)
    rest = day.work(60.0 * (minutes - 1))
    late_mb = _memory_mb(stage)
    whole.latencies_s += rest.latencies_s
    whole.errors += rest.errors
    return whole.told() | {
        "first_errors": whole.errors[:5],
        "memory_after_a_minute_mb": round(early_mb, 1),
        "memory_at_the_end_mb": round(late_mb, 1),
        "memory_grew": round(late_mb / early_mb - 1, 4),
    }


def _memory_mb(stage: Stage) -> float:
    return sum(worker.memory_full_info().uss for worker in stage.clinic.workers) / 1e6


def crowded(stage: Stage) -> dict[str, Any]:
    """The same work alone, and while `CROWD` clients sign in with a wrong password, over and over."""
    day = Day(stage)
    day.work(WARM_S)
    quiet = day.work(QUIET_S)
    crowd = [Connection(stage.clinic.server.url) for _ in range(CROWD)]
    wrong = Ask("POST", "/auth/login", {"email": EMAIL, "password": "not what it is"}).encode()
    tried: list[float] = []

    def wait_if_refused(_place: int, body: bytes) -> None:
        if (
            b'"unavailable"' in body
        ):  # Retry-After says 2 s; without a pause the refused would load the server
            time.sleep(0.1)

    def sign_in() -> None:
        sample = drive(crowd, lambda _place: wrong, wait_if_refused, QUIET_S + WARM_S, 401, 503)
        tried.append(sample.statuses[401] / sample.elapsed_s)

    thread = threading.Thread(target=sign_in)
    thread.start()
    time.sleep(WARM_S)
    beside = day.work(QUIET_S)
    thread.join(2 * TIMEOUT_S)
    if not tried:
        raise BenchError("the crowd was not answered")
    told = {"quiet": quiet.told(), "beside": beside.told()}
    return told | {
        "wrong_sign_ins_per_second": round(tried[0], 2),
        "p99_ratio": round(told["beside"]["p99_ms"] / told["quiet"]["p99_ms"], 2),
        "median_ratio": round(told["beside"]["median_ms"] / told["quiet"]["median_ms"], 2),
    }
