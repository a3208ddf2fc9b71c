"""The queue of password hashes: the order of the groups, and the limit of waiting hashes.

The groups with capital letters are known.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

import config
from errors import ClinicError
from security.password_queue import Group, PasswordQueue
from tests.conftest import settings_for


def group_of(name: str) -> Group:
    return Group(name, is_known=name.isupper())


class Crowd:
    """Threads that wait in a queue of one place, which the test holds."""

    def __init__(self, queue: PasswordQueue) -> None:
        self.queue = queue
        self.served: list[str] = []
        self.refused: list[str] = []
        self.errors: set[tuple[str, int | None]] = set()
        self.threads: list[threading.Thread] = []

    def arrive(self, group: str, times: int = 1) -> None:
        """Start threads one after the other: each waits, or is refused, before the next one arrives."""
        for _ in range(times):
            before = self._settled()
            self.threads.append(threading.Thread(target=self._run, args=(group,)))
            self.threads[-1].start()
            while self._settled() == before:
                time.sleep(0.001)

    def _settled(self) -> int:
        return self.queue.waiting + len(self.refused)

    def _run(self, group: str) -> None:
        try:
            with self.queue.turn(group_of(group)):
                self.served.append(group)
        except ClinicError as error:
            self.errors.add((error.code, error.retry_after))
            self.refused.append(group)


@contextmanager
def crowd(limit: int) -> Iterator[Crowd]:
    """Yield a crowd before a queue whose place is taken. At the end all are served."""
    config.use(settings_for("sqlite:////nowhere", password_check_queue=limit))
    present = Crowd(PasswordQueue(1))
    with present.queue.turn(group_of("first")):
        yield present
    for thread in present.threads:
        thread.join()
    assert present.queue.waiting == 0
    with present.queue.turn(group_of("last")):
        pass


def test_the_smallest_group_is_served_first() -> None:
    with crowd(20) as present:
        present.arrive("a", 3)
        present.arrive("b", 2)
        present.arrive("c")

    assert present.served == ["c", "b", "b", "a", "a", "a"]


def test_a_full_queue_refuses_the_largest_group() -> None:
    with crowd(4) as present:
        present.arrive("a", 6)
        refused_first = list(present.refused)
        present.arrive("b", 2)
        present.arrive("b")
        present.arrive("c")

    assert refused_first == ["a", "a"]
    assert present.refused == ["a", "a", "a", "a", "b", "a"]
    assert present.served == ["a", "c", "b", "b"]
    assert present.errors == {("unavailable", 2)}


def test_known_groups_are_served_before_the_smallest_one() -> None:
    with crowd(20) as present:
        present.arrive("a")
        present.arrive("B", 3)
        present.arrive("C")

    assert present.served == ["C", "B", "B", "B", "a"]


def test_many_networks_do_not_keep_a_known_group_out_of_a_full_queue() -> None:
    with crowd(3) as present:
        for network in "abcd":
            present.arrive(network)
        present.arrive("K")
        present.arrive("L", 3)
        present.arrive("e")

    assert present.refused[0] == "d"
    assert sorted(present.refused) == ["L", "a", "b", "c", "d", "e"]
    assert present.served == ["K", "L", "L"]


@pytest.mark.parametrize("limit", [1, 3])
def test_a_group_alone_may_fill_the_queue(limit: int) -> None:
    with crowd(limit) as present:
        present.arrive("a", limit + 2)

    assert (present.served, present.refused) == (["a"] * limit, ["a"] * 2)


def test_a_group_leaves_the_last_place_to_others() -> None:
    config.use(settings_for("sqlite:////nowhere"))
    present = Crowd(PasswordQueue(2))
    with present.queue.turn(group_of("a")):
        present.arrive("a")
        with present.queue.turn(group_of("b")):
            assert present.served == []
    for thread in present.threads:
        thread.join()

    assert present.served == ["a"]
    with present.queue.turn(group_of("a")), present.queue.turn(group_of("b")):
        pass
