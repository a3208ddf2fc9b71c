"""Fixtures: the load level, the measured figures, the application with several workers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conftest import ENGINES, NewDatabase
from tests.robustness.cluster import (
    Cluster,
    assert_consistent,
    start_cluster,
    stop_cluster,
)
from tests.robustness.load_level import LoadLevel, selected_level


class Figures:
    """Figures of a test, printed at the end of the run: `figures["slowest response, s"] = 0.31`."""

    def __init__(self, node: pytest.Item) -> None:
        self._node = node

    def __setitem__(self, name: str, value: object) -> None:
        self._node.user_properties.append(("figure", [name, value]))


@pytest.fixture(scope="session")
def level() -> LoadLevel:
    """Return the load level of this run."""
    return selected_level()


@pytest.fixture
def figures(request: pytest.FixtureRequest) -> Figures:
    """Return the collection for the figures of a test."""
    return Figures(request.node)


@pytest.fixture(scope="session", params=ENGINES)
def shared_cluster(
    request: pytest.FixtureRequest, new_database: NewDatabase, level: LoadLevel
) -> Iterator[Cluster]:
    """Yield an application on a database of each engine. Tests share it, because the start is slow."""
    started = start_cluster(new_database(request.param), workers=level.workers)
    yield started
    stop_cluster(started)


@pytest.fixture
def cluster(shared_cluster: Cluster, level: LoadLevel, figures: Figures) -> Iterator[Cluster]:
    """Yield an application. After the test: no 5xx, no slow response, and consistent data."""
    shared_cluster.slowest_s = 0.0
    shared_cluster.statuses.clear()
    yield shared_cluster
    figures["requests"] = sum(shared_cluster.statuses.values())
    figures["slowest response, s"] = round(shared_cluster.slowest_s, 2)
    assert not [status for status in shared_cluster.statuses if status >= 500], shared_cluster.statuses
    assert shared_cluster.slowest_s < level.slowest_s
    assert_consistent(shared_cluster.clinic)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the figures of all test processes."""
    reports = {
        id(report): report
        for kind in ("passed", "failed", "error", "")
        for report in terminalreporter.getreports(kind)
    }
    measured: dict[str, dict[str, object]] = {}
    for report in reports.values():
        for kind, value in getattr(report, "user_properties", ()):  # a failed collection has none
            if kind == "figure":
                measured.setdefault(report.nodeid.removeprefix("tests/robustness/"), {})[value[0]] = value[1]
    if measured:
        terminalreporter.section("figures")
        for test, values in sorted(measured.items()):
            line = ", ".join(f"{name} {value}" for name, value in values.items())
            terminalreporter.line(f"{test}: {line}")
