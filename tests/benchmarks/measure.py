"""Measurement in interleaved rounds: the application, the bare application and the driver take turns."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from tests.benchmarks.client import (
    BenchmarkError,
    Connection,
    NextRequest,
    OnResponse,
    Sample,
    send_load,
)
from tests.benchmarks.environment import CONNECTIONS, Environment, Request, RunningApp
from tests.benchmarks.operations import Operation
from tests.benchmarks.replay import CREATE_COMMITS_TABLE
from tests.benchmarks.statements import is_query
from tests.support.database import connected
from tests.support.servers import ROOT

WARM_UP_S = 0.25  # length of the first round, which is not counted
REPLAY_PROCESSES = 2  # as many as the application has workers


@dataclass
class Recording:
    """One request per connection and its SQL messages."""

    requests: list[Request]
    messages: list[list[str]]

    @property
    def queries(self) -> float:
        """The median number of messages per request that do not only begin or end a transaction."""
        return statistics.median(sum(map(is_query, messages)) for messages in self.messages)

    @property
    def round_trips(self) -> float:
        """The median number of messages per request."""
        return statistics.median(map(len, self.messages))


@dataclass
class Figures:
    """The figures of one operation. Rates are responses per second, one per round."""

    title: str
    recording: Recording
    busy: Sample = field(default_factory=Sample)  # all connections
    alone: Sample = field(default_factory=Sample)  # one request after the other
    rates: list[float] = field(default_factory=list)
    bare_rates: list[float] = field(default_factory=list)
    driver_rates: list[float] = field(default_factory=list)
    app_cpu_s: float = 0.0
    bare_cpu_s: float = 0.0
    bare_count: int = 0
    database_cpu_s: float = 0.0

    def summary(self) -> dict[str, Any]:
        """Return the figures of the JSON file."""
        count = len(self.busy.latencies_s)
        busy, alone = milliseconds(self.busy), milliseconds(self.alone)
        summary: dict[str, Any] = {
            "title": self.title,
            "requests_per_second": round(statistics.median(self.rates), 1),
            "median_ms": round(statistics.median(busy), 3),
            "p99_ms": round(p99(busy), 3),
            "alone_median_ms": round(statistics.median(alone), 3),
            "alone_p99_ms": round(p99(alone), 3),
            "queries": self.recording.queries,
            "round_trips": self.recording.round_trips,
            "app_cpu_us": round(1e6 * self.app_cpu_s / count),
            "database_cpu_us": round(1e6 * self.database_cpu_s / count),
            "client_cpu_us": round(1e6 * self.busy.client_cpu_s / count),
        }
        if self.bare_rates:
            summary["bare_requests_per_second"] = round(statistics.median(self.bare_rates), 1)
            summary["bare_cpu_us"] = round(1e6 * self.bare_cpu_s / self.bare_count)
            summary["ratio_bare"] = median_ratio(self.rates, self.bare_rates)
        if self.driver_rates:
            summary["driver_requests_per_second"] = round(statistics.median(self.driver_rates), 1)
            summary["ratio_driver"] = median_ratio(self.rates, self.driver_rates)
        return summary


def milliseconds(sample: Sample) -> list[float]:
    """Return the latencies in milliseconds."""
    return [1000 * latency for latency in sample.latencies_s]


def p99(values: Sequence[float]) -> float:
    """Return the 99th percentile."""
    return sorted(values)[min(len(values) - 1, int(len(values) * 0.99))]


def median_ratio(rates: Sequence[float], base_rates: Sequence[float]) -> float:
    """Return the median of the ratios by round, with three digits. A round compares neighbours in time."""
    ratio = statistics.median(rate / base for rate, base in zip(rates, base_rates, strict=True))
    return float(f"{ratio:.3g}")


class DriverReplay:
    """Baseline (b), "driver": processes that repeat the recorded statements with the driver alone."""

    def __init__(self, url: str, recording: Path) -> None:
        self.url = url
        with connected(url) as engine, engine.begin() as connection:
            connection.exec_driver_sql(CREATE_COMMITS_TABLE)
        command = [sys.executable, "-m", "tests.benchmarks.replay", url, str(recording)]
        indexes, pipe = list(map(str, range(CONNECTIONS))), subprocess.PIPE
        self.processes = [
            subprocess.Popen(
                [*command, *indexes[n::REPLAY_PROCESSES]], cwd=ROOT, stdin=pipe, stdout=pipe, text=True
            )
            for n in range(REPLAY_PROCESSES)
        ]

    def measure(self, name: str, seconds: float) -> float:
        """Return the number of times a second that the statements of a request were executed."""
        for process in self.processes:
            assert process.stdin is not None
            process.stdin.write(f"{name} {seconds}\n")
            process.stdin.flush()
        results = []
        for process in self.processes:
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line:
                raise BenchmarkError(f"the statements of {name} cannot be repeated")
            results.append(json.loads(line))
        return sum(result["count"] / result["elapsed_s"] for result in results)

    def vacuum(self) -> None:
        """Remove the rolled back rows, which slow down later statements until autovacuum runs."""
        with connected(self.url) as engine:
            if engine.dialect.name == "postgresql":
                with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                    connection.exec_driver_sql("VACUUM")

    def stop(self) -> None:
        """End the processes."""
        for process in self.processes:
            process.communicate()


class OperationRun:
    """The measurements of one operation, one method per participant."""

    def __init__(
        self, environment: Environment, operation: Operation, recording: Recording, seconds: float
    ) -> None:
        self.environment, self.operation = environment, operation
        self.recording, self.seconds = recording, seconds
        self.figures = Figures(operation.title, recording)

    def measure_app(self) -> None:
        """Measure the application over all connections, then with one request after the other."""
        app, before = self.environment.app, self.environment.database_cpu_s()
        sample, cpu_s = self._measure(app, app.connections, self._next_request, self.operation.on_response)
        self.figures.busy.merge(sample)
        self.figures.app_cpu_s += cpu_s
        self.figures.database_cpu_s += self.environment.database_cpu_s() - before
        self.figures.rates.append(sample.rate)
        alone, _cpu_s = self._measure(
            app, app.connections[:1], self._next_request, self.operation.on_response
        )
        self.figures.alone.merge(alone)

    def measure_bare_app(self) -> None:
        """Measure the bare application with the same requests."""
        app = self.environment.bare_app
        sample, cpu_s = self._measure(app, app.connections, self._next_bare_request, _ignore, 200)
        self.figures.bare_rates.append(sample.rate)
        self.figures.bare_cpu_s += cpu_s
        self.figures.bare_count += len(sample.latencies_s)

    def measure_driver(self, replay: DriverReplay) -> None:
        """Measure the driver with the recorded statements."""
        self.figures.driver_rates.append(replay.measure(self.operation.name, self.seconds))

    def _next_request(self, index: int) -> bytes:
        return self.operation.next_request(index).encode()

    def _next_bare_request(self, index: int) -> bytes:
        request = self.recording.requests[index]._replace(token=self.operation.token(index))
        return request.encode(f"/{self.operation.name}/{self.operation.patient()}")

    def _measure(
        self,
        app: RunningApp,
        connections: Sequence[Connection],
        next_request: NextRequest,
        on_response: OnResponse,
        status: int | None = None,
    ) -> tuple[Sample, float]:
        seconds = self.seconds if len(connections) > 1 else self.seconds / 2
        before = app.cpu_s()
        sample = send_load(connections, next_request, on_response, seconds, status or self.operation.status)
        return sample, app.cpu_s() - before


def _ignore(_index: int, _body: bytes) -> None:
    pass


def record(environment: Environment, operation: Operation) -> Recording:
    """Execute one request per connection in this process and record its SQL messages."""
    recording = Recording([], [])
    for index in range(CONNECTIONS):
        request = operation.next_request(index)
        with environment.recorder.recording() as messages:
            body = environment.send_locally(request)
        operation.on_response(index, body)
        recording.requests.append(request)
        recording.messages.append(messages)
    (environment.response_folder / operation.name).write_bytes(body)
    return recording


def measure(
    environment: Environment,
    operations: Sequence[type[Operation]],
    *,
    rounds: int,
    seconds: float,
    baselines: str,
) -> dict[str, Figures]:
    """Return the figures by operation. `baselines` contains `a`, `b` or both."""
    local_operations = [operation(environment.data) for operation in operations]
    for _round in range(2):  # the first round has statements that run only once per process
        recordings = {operation.name: record(environment, operation) for operation in local_operations}
    statements = environment.response_folder / "statements.json"
    samples = {name: recording.messages for name, recording in recordings.items()}
    prepared = list(environment.recorder.prepared.values())
    statements.write_text(json.dumps({"prepared": prepared, "samples": samples}))
    runs = [
        OperationRun(environment, operation(environment.data), recordings[operation.name], seconds)
        for operation in operations
    ]
    with ExitStack() as stack:
        if "b" in baselines:
            replay = DriverReplay(environment.replay_url, statements)
            stack.callback(replay.stop)
        for number in range(rounds + 1):
            if "b" in baselines:
                replay.vacuum()
            for run in runs:
                run.seconds = seconds if number else min(seconds, WARM_UP_S)
                turns: list[Callable[[], None]] = [run.measure_app]
                if "a" in baselines:
                    turns.append(run.measure_bare_app)
                if "b" in baselines:
                    turns.append(partial(run.measure_driver, replay))
                for turn in turns if number % 2 else reversed(turns):
                    turn()
                if number == 0:  # the warm-up
                    run.figures = Figures(run.operation.title, run.recording)
    return {run.operation.name: run.figures for run in runs}
