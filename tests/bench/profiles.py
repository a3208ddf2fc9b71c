"""Where one request's time goes: the application in this process, without a server, under the profiler."""

from __future__ import annotations

import cProfile
import pstats
import time
from collections.abc import Iterator
from io import StringIO
from typing import Any

from werkzeug.test import EnvironBuilder

from tests.bench.operations import Operation
from tests.bench.stage import Stage

WARM, COUNT = 50, 300  # requests
LINES = 60


def profile(stage: Stage, kind: type[Operation]) -> str:
    """Microseconds a request takes in this process, and the functions that take them."""
    operation = kind(stage)
    for _ in _requests(stage, operation, WARM):
        pass
    began = time.perf_counter()
    for _ in _requests(stage, operation, COUNT):
        pass
    plain_us = 1e6 * (time.perf_counter() - began) / COUNT
    profiler = cProfile.Profile()
    for _ in _requests(stage, operation, COUNT, profiler):
        pass
    out = StringIO()
    stats = pstats.Stats(profiler, stream=out)
    stats.sort_stats("cumulative").print_stats(LINES)
    stats.sort_stats("tottime").print_stats(LINES)
    return (
        f"{kind.title}: {plain_us:.0f} µs in process, database included; {COUNT} profiled\n{out.getvalue()}"
    )


def _requests(
    stage: Stage, operation: Operation, count: int, profiler: cProfile.Profile | None = None
) -> Iterator[None]:
    statuses: list[str] = []

    def begin(status: str, _headers: Any, _failure: Any = None) -> Any:
        statuses.append(status)

    for number in range(count):
        place = number % len(stage.pairs)
        asked = operation.ask(place)
        headers = {"Authorization": f"Bearer {asked.token}"} if asked.token else {}
        builder = EnvironBuilder(asked.path, method=asked.method, json=asked.body, headers=headers)
        environ = builder.get_environ()
        if profiler is not None:
            profiler.enable()
        answer = stage.rehearsal(environ, begin)
        body = b"".join(answer)
        if profiler is not None:
            profiler.disable()
        assert statuses[-1].startswith("20"), body
        operation.heard(place, body)
        yield
