"""Concurrent calls in tests."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any


def run_concurrently(calls: Sequence[Callable[[], Any]]) -> list[Any]:
    """Run all calls at the same time, each in its own thread, and return their results in order."""
    barrier = threading.Barrier(len(calls))
    results: list[Any] = [None] * len(calls)

    def run(number: int) -> None:
        barrier.wait()
        results[number] = calls[number]()

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results
