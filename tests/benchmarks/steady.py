"""Load at a constant rate, with a mix of operations (open workload).

A latency is measured from the time at which the request was due, not from the time at which a connection was
free. A pause of the server therefore delays all requests of that time (no coordinated omission).
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

from tests.benchmarks.client import TIMEOUT_S, BenchmarkError, Connection, send_load
from tests.benchmarks.environment import EMAIL, Environment, Request
from tests.benchmarks.operations import OPERATIONS, Operation

RATE = 100  # requests a second
# Shares in percent: 80% of the requests read.
READS = {"read": 37, "list": 15, "search": 8, "typo": 2, "phone": 6, "availability": 10, "day": 2}
WRITES = {"create": 6, "book": 7, "reschedule": 3, "pay": 4}
MIX = READS | WRITES
WARM_UP_S = 5.0
PHASE_S = 30.0  # with and without the failed sign-ins
SIGN_IN_CLIENTS = 50


@dataclass
class RateSample:
    """The responses to a load at a constant rate. Latencies are in seconds."""

    latencies_s: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def summary(self) -> dict[str, Any]:
        """Return the figures of the JSON file."""
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


class MixedLoad:
    """A load with the mix of operations, over all connections of the application."""

    def __init__(self, environment: Environment) -> None:
        self.app = environment.app
        self.random = random.Random("day")
        self.operations: dict[str, Operation] = {
            operation.name: operation(environment.data) for operation in OPERATIONS if operation.name in MIX
        }

    def run(self, seconds: float, rate: float = RATE) -> RateSample:
        """Send `rate` requests a second for `seconds`."""
        sample = RateSample()
        connections = self.app.connections
        idle, due = deque(range(len(connections))), deque[float]()
        open_requests: dict[int, tuple[Operation, float]] = {}
        started, scheduled = time.perf_counter(), 0
        with closing(selectors.DefaultSelector()) as selector:
            for index, connection in enumerate(connections):
                selector.register(connection.socket, selectors.EVENT_READ, index)
            while scheduled < seconds * rate or open_requests or due:
                now = time.perf_counter()
                while scheduled < seconds * rate and started + scheduled / rate <= now:
                    due.append(started + scheduled / rate)
                    scheduled += 1
                while due and idle:
                    index = idle.popleft()
                    open_requests[index] = self._send(index), due.popleft()
                until_next_s = started + scheduled / rate - time.perf_counter()
                self._receive(selector, open_requests, idle, sample, until_next_s)
        return sample

    def _send(self, index: int) -> Operation:
        operation = self.operations[self.random.choices(list(MIX), list(MIX.values()))[0]]
        self.app.connections[index].send(operation.next_request(index).encode())
        return operation

    def _receive(
        self,
        selector: selectors.BaseSelector,
        open_requests: dict[int, tuple[Operation, float]],
        idle: deque[int],
        sample: RateSample,
        timeout_s: float,
    ) -> None:
        for key, _events in selector.select(max(0.0, timeout_s)):
            index: int = key.data
            response = self.app.connections[index].receive()
            if response is None:
                continue
            operation, due = open_requests.pop(index)
            sample.latencies_s.append(time.perf_counter() - due)
            status, body = response
            if status == operation.status:
                operation.on_response(index, body)
            else:
                sample.errors.append(f"{operation.name}: {status} {body[:200]!r}")
            idle.append(index)


def measure_steady_load(environment: Environment, minutes: float) -> dict[str, Any]:
    """Return errors, latencies, and the growth of the memory of the workers after the first minute."""
    load = MixedLoad(environment)
    sample = load.run(60.0)
    early_mb = environment.app.memory_mb()
    rest = load.run(60.0 * (minutes - 1))
    late_mb = environment.app.memory_mb()
    sample.latencies_s += rest.latencies_s
    sample.errors += rest.errors
    return sample.summary() | {
        "first_errors": sample.errors[:5],
        "memory_after_a_minute_mb": round(early_mb, 1),
        "memory_at_the_end_mb": round(late_mb, 1),
        "memory_grew": round(late_mb / early_mb - 1, 4),
    }


def measure_beside_sign_ins(environment: Environment) -> dict[str, Any]:
    """Return the figures of the mixed load alone, and during failed sign-ins of `SIGN_IN_CLIENTS` clients."""
    load = MixedLoad(environment)
    load.run(WARM_UP_S)
    alone = load.run(PHASE_S).summary()
    clients = [Connection(environment.app.server.url) for _ in range(SIGN_IN_CLIENTS)]
    wrong = Request("POST", "/auth/login", {"email": EMAIL, "password": "not what it is"}).encode()
    sign_in_rates: list[float] = []

    def pause_if_unavailable(_index: int, body: bytes) -> None:
        if b'"unavailable"' in body:  # a client waits for Retry-After; without a pause these load the server
            time.sleep(0.1)

    def sign_in() -> None:
        seconds = PHASE_S + WARM_UP_S
        sample = send_load(clients, lambda _index: wrong, pause_if_unavailable, seconds, 401, 503)
        sign_in_rates.append(sample.statuses[401] / sample.elapsed_s)

    thread = threading.Thread(target=sign_in)
    thread.start()
    time.sleep(WARM_UP_S)
    beside = load.run(PHASE_S).summary()
    thread.join(2 * TIMEOUT_S)
    if not sign_in_rates:
        raise BenchmarkError("the failed sign-ins were not answered")
    return {
        "quiet": alone,
        "beside": beside,
        "wrong_sign_ins_per_second": round(sign_in_rates[0], 2),
        "p99_ratio": round(beside["p99_ms"] / alone["p99_ms"], 2),
        "median_ratio": round(beside["median_ms"] / alone["median_ms"], 2),
    }
