"""Counters of failed attempts, in Redis and in the memory of a process."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
import time_machine

from cache import attempts as attempts_module
from cache.attempts import OPEN, Attempts, BlockedError, Counter
from cache.redis import redis_store
from tests.support.concurrency import run_concurrently
from tests.support.servers import RedisServer

TWO = Counter("2 per 15 minutes", ("network", "192.0.2.1"))
SLOW = Counter("1 per 15 minutes", ("account", "rita"), slows_down=True)
START = 1_800_000_000.0


@pytest.fixture(params=["memory", "redis"])
def attempts(request: pytest.FixtureRequest, redis_server: RedisServer) -> Iterator[Attempts]:
    """Return counters in the memory of this process or in Redis."""
    redis_server.flush()
    redis_store.init(redis_server.url if request.param == "redis" else None)
    yield Attempts()
    redis_store.init(None)


def fail(attempts: Attempts, *counters: Counter, since: float = 0) -> None:
    with attempts.count(counters, since=since):
        pass


def seconds_blocked(attempts: Attempts, *counters: Counter, since: float = 0) -> int | None:
    try:
        attempts.check(counters, since=since)
    except BlockedError as blocked:
        return blocked.seconds
    return 0


def test_failures_block_until_the_window_has_moved(attempts: Attempts) -> None:
    with time_machine.travel(START, tick=False) as clock:
        fail(attempts, TWO)
        clock.shift(100)
        fail(attempts, TWO)
        with pytest.raises(BlockedError) as blocked:
            fail(attempts, TWO)
        clock.shift(799)
        last_second = seconds_blocked(attempts, TWO)
        clock.shift(2)
        fail(attempts, TWO)
        blocked_again = seconds_blocked(attempts, TWO)

    assert blocked.value.seconds == 800
    assert last_second == 1
    assert blocked_again == 99


def test_a_refused_attempt_counts_with_no_counter(attempts: Attempts) -> None:
    other = Counter("1 per 15 minutes", ("network", "192.0.2.2"))
    fail(attempts, other)

    for _ in range(3):
        with pytest.raises(BlockedError):
            fail(attempts, TWO, other)

    fail(attempts, TWO)
    assert seconds_blocked(attempts, TWO) == 0


def test_a_success_reverses_the_failures_of_the_first_counter(attempts: Attempts) -> None:
    wide = Counter("4 per 15 minutes", ("network", "192.0.2.3"))
    fail(attempts, wide)
    fail(attempts, TWO, wide)

    with attempts.count([TWO, wide]) as attempt:
        attempt.succeeded = True

    fail(attempts, TWO, wide)
    fail(attempts, TWO, wide)
    assert seconds_blocked(attempts, wide) == 0
    fail(attempts, wide)
    assert seconds_blocked(attempts, wide) > 0


def test_an_error_during_an_attempt_counts_as_a_failure(attempts: Attempts) -> None:
    for _ in range(2):
        with pytest.raises(ZeroDivisionError), attempts.count([TWO]):
            raise ZeroDivisionError

    assert seconds_blocked(attempts, TWO) > 0


def test_an_attempt_in_progress_blocks_no_check_but_another_attempt(
    attempts: Attempts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempts_module, "LONGEST_WAIT", 0)
    fail(attempts, TWO)

    with attempts.count([TWO]) as attempt:
        assert seconds_blocked(attempts, TWO) == 0
        with pytest.raises(BlockedError) as blocked, attempts.count([TWO]):
            pass
        attempt.succeeded = True

    assert blocked.value.seconds is None
    assert seconds_blocked(attempts, TWO) == 0


def test_parallel_attempts_never_exceed_the_limit(attempts: Attempts) -> None:
    counter = Counter("5 per 15 minutes", ("network", "192.0.2.4"))
    in_progress, most, lock = [], [], threading.Lock()

    def try_once() -> bool:
        try:
            with attempts.count([counter]):
                with lock:
                    in_progress.append(1)
                    most.append(len(in_progress))
                time.sleep(0.01)  # as a hash does
                in_progress.pop()
        except BlockedError:
            return False
        return True

    admitted = run_concurrently([try_once] * 30)

    assert admitted.count(True) == 5
    assert max(most) <= 5


def test_an_attempt_of_a_process_that_ended_is_a_failure(attempts: Attempts) -> None:
    with time_machine.travel(START, tick=False) as clock:
        for number in range(2):
            attempts._load([TWO], f"{OPEN}{number}")
        assert seconds_blocked(attempts, TWO) == 0
        clock.shift(31)

        assert seconds_blocked(attempts, TWO) == 900 - 31


def test_the_delay_grows_and_ends_with_the_window(attempts: Attempts) -> None:
    with time_machine.travel(START, tick=False) as clock:
        delays = []
        for _ in range(8):
            fail(attempts, SLOW)
            delays.append(seconds_blocked(attempts, SLOW))
            clock.shift(60)
        clock.shift(900)
        fail(attempts, SLOW)

        assert delays == [1, 2, 4, 8, 16, 32, 60, 60]
        assert seconds_blocked(attempts, SLOW) == 1


def test_failures_before_an_unlock_are_ignored(attempts: Attempts) -> None:
    with time_machine.travel(START, tick=False) as clock:
        fail(attempts, TWO)
        fail(attempts, TWO)
        clock.shift(1)
        since = time.time()
        clock.shift(1)

        assert seconds_blocked(attempts, TWO) > 0
        assert seconds_blocked(attempts, TWO, since=since) == 0
        fail(attempts, TWO, since=since)
        fail(attempts, TWO, since=since)
        assert seconds_blocked(attempts, TWO, since=since) > 0


def test_counters_expire_in_redis(redis_server: RedisServer) -> None:
    redis_server.flush()
    redis_store.init(redis_server.url)
    fail(Attempts(), TWO, SLOW)

    times = redis_store.call(lambda client: [client.ttl(counter.name) for counter in (TWO, SLOW)], [])
    redis_store.init(None)

    assert all(0 < seconds <= 901 for seconds in times)


def test_without_redis_the_process_counts(redis_server: RedisServer) -> None:
    attempts = Attempts()
    redis_store.init("redis://127.0.0.1:1/0")
    fail(attempts, TWO)
    fail(attempts, TWO)

    assert seconds_blocked(attempts, TWO) > 0
    redis_store.init(None)


def test_expired_counters_leave_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempts_module, "SWEEP_ABOVE", 10)
    attempts = Attempts()
    with time_machine.travel(START, tick=False) as clock:
        for number in range(10):
            fail(attempts, Counter("1 per minute", ("account", str(number))))
        for number in range(100):
            assert seconds_blocked(attempts, Counter("1 per minute", ("account", f"new {number}"))) == 0
        clock.shift(61)
        fail(attempts, TWO)

    assert list(attempts._memory._sets) == [TWO.name]
