"""Where one request's time goes: the application in this process, without a server, under two profilers."""

from __future__ import annotations

import cProfile
import pstats
import signal
import time
from collections import Counter
from collections.abc import Iterator
from functools import cache
from io import StringIO
from pathlib import Path
from types import FrameType
from typing import Any

from werkzeug.test import EnvironBuilder

from tests.benchmarks.operations import Operation
from tests.benchmarks.stage import Stage
from tests.support.servers import ROOT

WARM, COUNT = 50, 300  # requests
SAMPLED_S, EVERY_S = 5.0, 0.0005
LINES = 60
# The functions of ours that a request passes -> the layer that what they call belongs to.
LAYERS = {
    ("api/hooks.py", "begin"): "limits, and the list of ended sessions",
    ("api/endpoint.py", "_identify"): "who the caller is",
    ("api/endpoint.py", "_arguments"): "query, body, the row of the path",
    ("api/endpoint.py", "_respond"): "the answer",
    ("services/audit/audit_log.py", "settle"): "the audit's entry",
    ("api/hooks.py", "finish"): "headers, log line, metrics",
    ("api/endpoint.py", "_perform"): "the rule",
    ("api/endpoint.py", "_attempt_once"): "session and commit",
}
WAITS = (("database/engine.py", "bound"), ("redis/_parsers/socket.py", "_read_from_socket"))


def profile(stage: Stage, kind: type[Operation]) -> str:
    """Microseconds a request takes in this process, by layer, and the functions that take them."""
    operation = kind(stage)
    for _ in _requests(stage, operation, WARM):
        pass
    layers = _layers(stage, operation)
    profiler = cProfile.Profile()
    for _ in _requests(stage, operation, COUNT, profiler):
        pass
    out = StringIO()
    stats = pstats.Stats(profiler, stream=out)
    stats.sort_stats("cumulative").print_stats(LINES)
    stats.sort_stats("tottime").print_stats(LINES)
    return f"{kind.title}, in process, database included\n{layers}\n{COUNT} profiled\n{out.getvalue()}"


def _layers(stage: Stage, operation: Operation) -> str:
    """By samples of the stack: microseconds of a request in each layer, and how many wait for a store."""
    found, waiting = Counter[str](), Counter[str]()

    def sample(_signal: int, frame: FrameType | None) -> None:
        places = list(_places(frame))
        layer = next((LAYERS[place] for place in LAYERS if place in places), "Flask, and this client")
        found[layer] += 1
        waiting[layer] += any(place in places for place in WAITS)

    kept = signal.signal(signal.SIGALRM, sample)
    signal.setitimer(signal.ITIMER_REAL, EVERY_S, EVERY_S)
    began, count = time.perf_counter(), 0
    try:
        while time.perf_counter() - began < SAMPLED_S:
            count += sum(1 for _ in _requests(stage, operation, COUNT))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, kept)
    whole_us = 1e6 * (time.perf_counter() - began) / count
    each_us = whole_us / sum(found.values())
    lines = [f"{whole_us:6.0f} µs in all"]
    lines += [
        f"{each_us * samples:6.0f} µs {layer}, {each_us * waiting[layer]:.0f} of them waiting"
        for layer, samples in found.most_common()
    ]
    return "\n".join(lines)


def _places(frame: FrameType | None) -> Iterator[tuple[str, str]]:
    """File and function of every frame, the innermost first."""
    while frame is not None:
        yield _file(frame.f_code.co_filename), frame.f_code.co_name
        frame = frame.f_back


@cache
def _file(name: str) -> str:
    """A file of ours by its path in the project, a library's by its path in the library."""
    path = Path(name)
    parts = path.relative_to(ROOT).parts if path.is_relative_to(ROOT) else path.parts
    return "/".join(parts[parts.index("site-packages") + 1 :] if "site-packages" in parts else parts)


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
