"""The deadline of a request for its waits on PostgreSQL."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import OperationalError

from database import deadline
from tests.support.database import connected

SLEEP = text("SELECT pg_sleep(:seconds)")


@pytest.fixture
def engine(new_database: Callable[[str], str]) -> Iterator[Engine]:
    with connected(new_database("postgresql")) as engine:
        yield engine


@pytest.fixture
def short_deadline(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Start a request whose deadline is in half a second."""
    monkeypatch.setattr(deadline, "REQUEST_BUDGET", 0.5)
    deadline.start()
    yield
    deadline.clear()


@pytest.mark.usefixtures("short_deadline")
def test_a_wait_beyond_the_deadline_closes_the_connection(engine: Engine) -> None:
    with pytest.raises(OperationalError) as failure, engine.connect() as connection:
        connection.execute(SLEEP, {"seconds": 60})

    assert failure.value.connection_invalidated
    with engine.connect() as connection:
        assert connection.execute(text("SELECT 1")).scalar_one() == 1


@pytest.mark.usefixtures("short_deadline")
def test_the_deadline_covers_all_statements_of_a_request(engine: Engine) -> None:
    def sleep_ten_times() -> None:
        with engine.connect() as connection:
            for _ in range(10):
                connection.execute(SLEEP, {"seconds": 0.4})

    with pytest.raises(OperationalError):
        sleep_ten_times()


def test_a_connection_that_answered_in_time_stays_open(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deadline, "REQUEST_BUDGET", 2)
    with engine.connect() as connection:
        deadline.start()
        connection.execute(SLEEP, {"seconds": 0.1})
        time.sleep(2.5)
        deadline.clear()

        assert connection.execute(text("SELECT 1")).scalar_one() == 1


def test_a_command_has_no_deadline(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deadline, "REQUEST_BUDGET", 0.1)
    with engine.connect() as connection:
        assert connection.execute(SLEEP, {"seconds": 1}).all()
