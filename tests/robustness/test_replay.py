"""Linearizability: random concurrent operations are compared with the sequential reference model."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

from tests.robustness.cluster import Cluster
from tests.robustness.conftest import Figures
from tests.robustness.load_level import LoadLevel
from tests.robustness.replay_checker import check_history
from tests.robustness.replay_clients import Client, Scenario

CALENDAR = {"book": 45, "reschedule": 25, "cancel": 24, "reopen": 6}
STOCK = {"use": 8, "restock": 6, "treat": 6, "cancel_treatment": 3}
BILLING = {"bill": 4, "pay": 14, "refund": 6, "write_off": 3, "make_void": 1}
VISITS = {"visit": 2, "document": 5, "sign": 2}
SESSIONS = {"sign_in": 1, "read_profile": 5, "sign_out": 1}
ALL_OPERATIONS = {"book": 20, "reschedule": 6, "cancel": 6, "reopen": 1} | STOCK | BILLING | VISITS | SESSIONS
CALENDAR_SHARE = 5  # one operation in five belongs to the calendar test


def run_clients(
    scenario: Scenario, weights: Mapping[str, int], clients: int, operations: int, seed: int
) -> None:
    """Run the operations with concurrent clients."""
    all_clients = [Client(scenario, seed * 1_000 + number, weights) for number in range(clients)]
    with ThreadPoolExecutor(clients) as pool:
        for result in [pool.submit(client.run, operations // clients) for client in all_clients]:
            result.result()


def test_concurrent_bookings_are_linearizable(cluster: Cluster, level: LoadLevel, figures: Figures) -> None:
    scenario = Scenario(cluster)
    scenario.create_rows()

    run_clients(scenario, CALENDAR, level.clients, level.operations // CALENDAR_SHARE, seed=2)

    figures["checked operations"] = dict(check_history(scenario))


def test_concurrent_operations_of_all_kinds_are_linearizable(
    cluster: Cluster, level: LoadLevel, figures: Figures
) -> None:
    scenario = Scenario(cluster)
    scenario.create_rows()
    scenario.create_other_rows()

    run_clients(
        scenario,
        ALL_OPERATIONS,
        level.clients,
        level.operations - level.operations // CALENDAR_SHARE,
        seed=12,
    )

    figures["checked operations"] = dict(check_history(scenario))
