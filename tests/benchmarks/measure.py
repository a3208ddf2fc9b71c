"""Interleaved rounds: the clinic, the bare application and the bare driver take turns in short slices."""

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

from tests.benchmarks.drive import (
    BenchError,
    Connection,
    Ear,
    Sample,
    Script,
    drive,
)
from tests.benchmarks.operations import Operation
from tests.benchmarks.replay import COMMITS
from tests.benchmarks.stage import (
    CONNECTIONS,
    Ask,
    Served,
    Stage,
)
from tests.benchmarks.statements import is_query
from tests.support.database import connected
from tests.support.servers import ROOT

WARM_S = 0.25  # the first slice of each, which counts for nothing
REPLAYERS = 2  # processes: as many as the clinic has workers


@dataclass
class Recorded:
    """One request of each connection, and the statements that each took."""

    asked: list[Ask]
    statements: list[list[str]]

    @property
    def queries(self) -> float:
        """How many messages of a request ask something of the database."""
        return statistics.median(sum(map(is_query, one)) for one in self.statements)

    @property
    def round_trips(self) -> float:
        """How many messages a request takes in all, those that begin and end transactions too."""
        return statistics.median(map(len, self.statements))


@dataclass
class Figures:
    """What one operation showed. Rates are answers per second, by round."""

    title: str
    recorded: Recorded
    busy: Sample = field(default_factory=Sample)  # over all connections
    alone: Sample = field(default_factory=Sample)  # one request after the other
    rates: list[float] = field(default_factory=list)
    bare_rates: list[float] = field(default_factory=list)
    driver_rates: list[float] = field(default_factory=list)
    app_cpu_s: float = 0.0
    bare_cpu_s: float = 0.0
    bare_count: int = 0
    database_cpu_s: float = 0.0

    def told(self) -> dict[str, Any]:
        """The figures as they are written down."""
        count = len(self.busy.latencies_s)
        busy, alone = _milliseconds(self.busy), _milliseconds(self.alone)
        found: dict[str, Any] = {
            "title": self.title,
            "requests_per_second": round(statistics.median(self.rates), 1),
            "median_ms": round(statistics.median(busy), 3),
            "p99_ms": round(_p99(busy), 3),
            "alone_median_ms": round(statistics.median(alone), 3),
            "alone_p99_ms": round(_p99(alone), 3),
            "queries": self.recorded.queries,
            "round_trips": self.recorded.round_trips,
            "app_cpu_us": round(1e6 * self.app_cpu_s / count),
            "database_cpu_us": round(1e6 * self.database_cpu_s / count),
            "client_cpu_us": round(1e6 * self.busy.client_cpu_s / count),
        }
        if self.bare_rates:
            found["bare_requests_per_second"] = round(statistics.median(self.bare_rates), 1)
            found["bare_cpu_us"] = round(1e6 * self.bare_cpu_s / self.bare_count)
            found["ratio_bare"] = _ratio(self.rates, self.bare_rates)
        if self.driver_rates:
            found["driver_requests_per_second"] = round(statistics.median(self.driver_rates), 1)
            found["ratio_driver"] = _ratio(self.rates, self.driver_rates)
        return found


def _milliseconds(sample: Sample) -> list[float]:
    return [1000 * latency for latency in sample.latencies_s]


def _p99(values: Sequence[float]) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * 0.99))]


def _ratio(rates: Sequence[float], others: Sequence[float]) -> float:
    """The median over the rounds, to three digits: each round compares neighbours in time."""
    found = statistics.median(one / other for one, other in zip(rates, others, strict=True))
    return float(f"{found:.3g}")


class Replayers:
    """Yardstick (b): processes that repeat recorded statements through the driver alone."""

    def __init__(self, url: str, recorded: Path) -> None:
        self.url = url
        with connected(url) as engine, engine.begin() as connection:
            connection.exec_driver_sql(COMMITS)
        words = [sys.executable, "-m", "tests.benchmarks.replay", url, str(recorded)]
        places, pipe = list(map(str, range(CONNECTIONS))), subprocess.PIPE
        self.processes = [
            subprocess.Popen([*words, *places[n::REPLAYERS]], cwd=ROOT, stdin=pipe, stdout=pipe, text=True)
            for n in range(REPLAYERS)
        ]

    def rate(self, name: str, seconds: float) -> float:
        """Requests' worth of statements per second."""
        for process in self.processes:
            assert process.stdin is not None
            process.stdin.write(f"{name} {seconds}\n")
            process.stdin.flush()
        answers = []
        for process in self.processes:
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line:
                raise BenchError(f"the statements of {name} cannot be repeated")
            answers.append(json.loads(line))
        return sum(answer["count"] / answer["elapsed_s"] for answer in answers)

    def tidy(self) -> None:
        """Remove what was rolled back; else it is in the way of what follows, until chance removes it."""
        with connected(self.url) as engine:
            if engine.dialect.name == "postgresql":
                with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                    connection.exec_driver_sql("VACUUM")

    def stop(self) -> None:
        """End the processes."""
        for process in self.processes:
            process.communicate()


class Turns:
    """One operation's turns: who answers it, and what that showed."""

    def __init__(self, stage: Stage, operation: Operation, recorded: Recorded, seconds: float) -> None:
        self.stage, self.operation, self.recorded, self.seconds = stage, operation, recorded, seconds
        self.figures = Figures(operation.title, recorded)

    def clinic(self) -> None:
        """The clinic, over all connections, then one request after the other."""
        served, before = self.stage.clinic, self.stage.database_cpu_s()
        sample, cpu_s = self._drive(served.connections, served, self._ask, self.operation.heard)
        self.figures.busy.merge(sample)
        self.figures.app_cpu_s += cpu_s
        self.figures.database_cpu_s += self.stage.database_cpu_s() - before
        self.figures.rates.append(sample.rate)
        alone, _cpu_s = self._drive(served.connections[:1], served, self._ask, self.operation.heard)
        self.figures.alone.merge(alone)

    def bare(self) -> None:
        """The bare application, asked the same way."""
        bare = self.stage.bare
        sample, cpu_s = self._drive(bare.connections, bare, self._ask_bare, _nothing, 200)
        self.figures.bare_rates.append(sample.rate)
        self.figures.bare_cpu_s += cpu_s
        self.figures.bare_count += len(sample.latencies_s)

    def driver(self, replayers: Replayers) -> None:
        """The recorded statements, repeated by the driver alone."""
        self.figures.driver_rates.append(replayers.rate(self.operation.name, self.seconds))

    def _ask(self, place: int) -> bytes:
        return self.operation.ask(place).encode()

    def _ask_bare(self, place: int) -> bytes:
        asked = self.recorded.asked[place]._replace(token=self.stage.pairs[place].access_token)
        return asked.encode(f"/{self.operation.name}/{self.operation.patient()}")

    def _drive(
        self,
        connections: Sequence[Connection],
        served: Served,
        script: Script,
        ear: Ear,
        wanted: int | None = None,
    ) -> tuple[Sample, float]:
        seconds = self.seconds if len(connections) > 1 else self.seconds / 2
        before = served.cpu_s()
        sample = drive(connections, script, ear, seconds, wanted or self.operation.status)
        return sample, served.cpu_s() - before


def _nothing(_place: int, _body: bytes) -> None:
    pass


def record(stage: Stage, operation: Operation) -> Recorded:
    """One request of each connection, answered in this process: what it asks of the database."""
    found = Recorded([], [])
    for place in range(CONNECTIONS):
        asked = operation.ask(place)
        with stage.listener.listening() as statements:
            answer = stage.rehearse(asked)
        operation.heard(place, answer)
        found.asked.append(asked)
        found.statements.append(statements)
    (stage.answers / operation.name).write_bytes(answer)
    return found


def measure(
    stage: Stage, chosen: Sequence[type[Operation]], *, rounds: int, seconds: float, yardsticks: str
) -> dict[str, Figures]:
    """Figures by operation: `rounds` of slices of `seconds`; `yardsticks` holds `a`, `b` or both."""
    rehearsed = [kind(stage) for kind in chosen]
    for _warm in range(2):  # what is asked only the first time is not what a request asks
        recorded = {operation.name: record(stage, operation) for operation in rehearsed}
    statements = stage.answers / "statements.json"
    samples = {name: one.statements for name, one in recorded.items()}
    prepared = list(stage.listener.prepared.values())
    statements.write_text(json.dumps({"prepared": prepared, "samples": samples}))
    turns = [Turns(stage, kind(stage), recorded[kind.name], seconds) for kind in chosen]
    with ExitStack() as stack:
        if "b" in yardsticks:
            replayers = Replayers(stage.replay_url, statements)
            stack.callback(replayers.stop)
        for number in range(rounds + 1):
            if "b" in yardsticks:
                replayers.tidy()
            for turn in turns:
                turn.seconds = seconds if number else min(seconds, WARM_S)
                order: list[Callable[[], None]] = [turn.clinic]
                if "a" in yardsticks:
                    order.append(turn.bare)
                if "b" in yardsticks:
                    order.append(partial(turn.driver, replayers))
                for action in order if number % 2 else reversed(order):
                    action()
                if number == 0:  # it warmed everything up
                    turn.figures = Figures(turn.operation.title, turn.recorded)
    return {turn.operation.name: turn.figures for turn in turns}
