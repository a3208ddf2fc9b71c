"""Fixtures of the attacks: how many, with what measured, on which fleet."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conftest import ENGINES, NewDatabase
from tests.robustness.fleet import (
    Fleet,
    assert_well,
    start_fleet,
    stop_fleet,
)
from tests.robustness.scale import Scale, chosen


class Figures:
    """What a test measured, printed at the end of the run: `figures["slowest answer, s"] = 0.31`."""

    def __init__(self, node: pytest.Item) -> None:
        self._node = node

    def __setitem__(self, name: str, value: object) -> None:
        self._node.user_properties.append(("figure", [name, value]))


@pytest.fixture(scope="session")
def scale() -> Scale:
    """The counts of this run."""
    return chosen()


@pytest.fixture
def figures(request: pytest.FixtureRequest) -> Figures:
    """Where a test writes what it measured."""
    return Figures(request.node)


@pytest.fixture(scope="session", params=ENGINES)
def workers(request: pytest.FixtureRequest, new_database: NewDatabase, scale: Scale) -> Iterator[Fleet]:
    """A fleet on a database of each engine, shared by many tests: starting it takes longer than a race."""
    made = start_fleet(new_database(request.param), workers=scale.workers)
    yield made
    stop_fleet(made)


@pytest.fixture
def fleet(workers: Fleet, scale: Scale, figures: Figures) -> Iterator[Fleet]:
    """An attack: afterwards nothing was answered with 5xx or late, and all that must be true still is."""
    workers.slowest_s = 0.0
    workers.statuses.clear()
    yield workers
    figures["requests"] = sum(workers.statuses.values())
    figures["slowest answer, s"] = round(workers.slowest_s, 2)
    assert not [status for status in workers.statuses if status >= 500], workers.statuses
    assert workers.slowest_s < scale.slowest_s
    assert_well(workers.clinic)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What was measured, whichever processes measured it."""
    reports = {
        id(report): report
        for kind in ("passed", "failed", "error", "")
        for report in terminalreporter.getreports(kind)
    }
    measured: dict[str, dict[str, object]] = {}
    for report in reports.values():
        for kind, value in report.user_properties:
            if kind == "figure":
                measured.setdefault(report.nodeid.removeprefix("tests/robustness/"), {})[value[0]] = value[1]
    if measured:
        terminalreporter.section("figures")
        for test, values in sorted(measured.items()):
            told = ", ".join(f"{name} {value}" for name, value in values.items())
            terminalreporter.line(f"{test}: {told}")
