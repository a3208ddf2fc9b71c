"""Profiles of one operation: the application in this process, without a server, under two profilers."""

from __future__ import annotations

import cProfile
import pstats
import signal
import time
from collections import Counter
from collections.abc import Iterator
from functools import cache
from io import StringIO
from types import CodeType, FrameType
from typing import Any

from redis._parsers.socket import SocketBuffer
from werkzeug.test import EnvironBuilder

from api import authentication, hooks, request_cycle
from database import postgresql
from services.audit import audit_log
from tests.benchmarks.environment import CONNECTIONS, Environment
from tests.benchmarks.operations import Operation

WARM_UP, COUNT = 50, 300  # requests
SAMPLING_S, INTERVAL_S = 5.0, 0.0005
LINES = 60
OTHER_LAYER = "Flask and the client"


@cache
def layers() -> dict[CodeType, str]:
    """Return the layers. A stack sample belongs to the first of these functions that is on the stack."""
    return {
        hooks.begin_request.__code__: "rate limits, revoked sessions",
        authentication.identify.__code__: "authentication",
        request_cycle._arguments.__code__: "query, body, row of the path",
        request_cycle._respond.__code__: "response",
        audit_log.append_pending.__code__: "audit entry",
        hooks.finish_request.__code__: "headers, log line, metrics",
        request_cycle._perform.__code__: "service",
        request_cycle._attempt.__code__: "session and commit",
    }


@cache
def waiting_functions() -> set[CodeType]:
    """Return the functions that wait for PostgreSQL and for Redis."""
    return {postgresql._Watchdog.run.__code__, SocketBuffer._read_from_socket.__code__}


def profile(environment: Environment, operation_type: type[Operation]) -> str:
    """Return the microseconds of a request by layer, and the slowest functions."""
    operation = operation_type(environment.data)
    for _ in _send_requests(environment, operation, WARM_UP):
        pass
    layers = _measure_layers(environment, operation)
    profiler = cProfile.Profile()
    for _ in _send_requests(environment, operation, COUNT, profiler):
        pass
    out = StringIO()
    stats = pstats.Stats(profiler, stream=out)
    stats.sort_stats("cumulative").print_stats(LINES)
    stats.sort_stats("tottime").print_stats(LINES)
    return f"{operation.title}, in process, database included\n{layers}\n{COUNT} profiled\n{out.getvalue()}"


def _measure_layers(environment: Environment, operation: Operation) -> str:
    """Return the microseconds of a request by layer, and how many of them wait for a database or Redis.

    They are estimated from samples of the stack.
    """
    samples, waiting = Counter[str](), Counter[str]()

    def sample(_signal: int, frame: FrameType | None) -> None:
        functions = set(_stack_functions(frame))
        layer = next((layers()[function] for function in layers() if function in functions), OTHER_LAYER)
        samples[layer] += 1
        waiting[layer] += not functions.isdisjoint(waiting_functions())

    previous_handler = signal.signal(signal.SIGALRM, sample)
    signal.setitimer(signal.ITIMER_REAL, INTERVAL_S, INTERVAL_S)
    started, count = time.perf_counter(), 0
    try:
        while time.perf_counter() - started < SAMPLING_S:
            count += sum(1 for _ in _send_requests(environment, operation, COUNT))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous_handler)
    request_us = 1e6 * (time.perf_counter() - started) / count
    sample_us = request_us / sum(samples.values())
    lines = [f"{request_us:6.0f} µs in total"]
    lines += [
        f"{sample_us * count:6.0f} µs {layer}, {sample_us * waiting[layer]:.0f} of them waiting"
        for layer, count in samples.most_common()
    ]
    return "\n".join(lines)


def _stack_functions(frame: FrameType | None) -> Iterator[CodeType]:
    while frame is not None:
        yield frame.f_code
        frame = frame.f_back


def _send_requests(
    environment: Environment, operation: Operation, count: int, profiler: cProfile.Profile | None = None
) -> Iterator[None]:
    statuses: list[str] = []

    def start_response(status: str, _headers: Any, _failure: Any = None) -> Any:
        statuses.append(status)

    for number in range(count):
        index = number % CONNECTIONS
        request = operation.next_request(index)
        headers = {"Authorization": f"Bearer {request.token}"} if request.token else {}
        builder = EnvironBuilder(request.path, method=request.method, json=request.body, headers=headers)
        environ = builder.get_environ()
        if profiler is not None:
            profiler.enable()
        response = environment.local_app(environ, start_response)
        body = b"".join(response)
        if profiler is not None:
            profiler.disable()
        assert statuses[-1].startswith("20"), body
        operation.on_response(index, body)
        yield
