"""Thousands of random operations by many at once, replayed one by one through a clinic with one desk."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

from tests.robustness.conftest import Figures
from tests.robustness.fleet import Fleet
from tests.robustness.replay_clients import Client, World
from tests.robustness.replay_judge import judge
from tests.robustness.scale import Scale

CALENDAR = {"book": 45, "reschedule": 25, "cancel": 24, "reopen": 6}
STOCK = {"use": 8, "restock": 6, "treat": 6, "untreat": 3}
MONEY = {"bill": 4, "pay": 14, "refund": 6, "write_off": 3, "make_void": 1}
PAPERS = {"visit": 2, "document": 5, "sign": 2}
PEOPLE = {"sign_in": 1, "look": 5, "sign_out": 1}
EVERYTHING = {"book": 20, "reschedule": 6, "cancel": 6, "reopen": 1} | STOCK | MONEY | PAPERS | PEOPLE
SHARE_OF_CALENDAR = 5  # one operation in so many is of the calendar's own replay


def play(world: World, weights: Mapping[str, int], clients: int, operations: int, seed: int) -> None:
    """So many operations by so many clients at once."""
    players = [Client(world, seed * 1_000 + number, weights) for number in range(clients)]
    with ThreadPoolExecutor(clients) as pool:
        for result in [pool.submit(player.run, operations // clients) for player in players]:
            result.result()


def test_the_calendar_is_as_if_one_booked_after_the_other(
    fleet: Fleet, scale: Scale, figures: Figures
) -> None:
    world = World(fleet)
    world.open()

    play(world, CALENDAR, scale.clients, scale.operations // SHARE_OF_CALENDAR, seed=2)

    figures["judged"] = dict(judge(world))


def test_a_clinic_at_work_is_as_if_one_acted_after_the_other(
    fleet: Fleet, scale: Scale, figures: Figures
) -> None:
    world = World(fleet)
    world.open()
    world.open_rest()

    play(world, EVERYTHING, scale.clients, scale.operations - scale.operations // SHARE_OF_CALENDAR, seed=12)

    figures["judged"] = dict(judge(world))
