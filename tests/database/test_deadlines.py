"""How long a request waits for PostgreSQL, and what its connections are told from the start."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest
from flask import Flask
from sqlalchemy import Engine, text
from sqlalchemy.exc import OperationalError

from database import engine as engine_module
from tests.support.database import connected

SLEEP = text("SELECT pg_sleep(:seconds)")


@pytest.fixture
def engine(new_database: Callable[[str], str]) -> Iterator[Engine]:
    with connected(new_database("postgresql")) as engine:
        yield engine


@pytest.fixture
def hurried(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """In a request whose caller is told after half a second."""
    monkeypatch.setattr(engine_module, "ANSWER_WITHIN", 0.5)
    with Flask(__name__).test_request_context():
        engine_module.begin_waiting()
        yield


@pytest.mark.usefixtures("hurried")
def test_a_database_that_does_not_answer_in_time_is_hung_up_on(engine: Engine) -> None:
    began = time.monotonic()

    with pytest.raises(OperationalError) as failure, engine.connect() as connection:
        connection.execute(SLEEP, {"seconds": 3})

    assert time.monotonic() - began < 2
    assert failure.value.connection_invalidated
    with engine.connect() as connection:
        assert connection.execute(text("SELECT 1")).scalar_one() == 1


@pytest.mark.usefixtures("hurried")
def test_time_is_counted_over_all_statements_of_a_request(engine: Engine) -> None:
    with engine.connect() as connection, pytest.raises(OperationalError):
        for _ in range(10):
            connection.execute(SLEEP, {"seconds": 0.4})


@pytest.mark.usefixtures("hurried")
def test_whoever_was_answered_in_time_is_not_hung_up_on_later(engine: Engine) -> None:
    with engine.connect() as connection:
        connection.execute(SLEEP, {"seconds": 0.1})
        time.sleep(1)

        assert connection.execute(text("SELECT 1")).scalar_one() == 1


def test_a_command_waits_as_long_as_it_takes(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "ANSWER_WITHIN", 0.1)
    with engine.connect() as connection:
        assert connection.execute(SLEEP, {"seconds": 1}).all()


def test_a_direct_connection_plans_what_is_prepared_once_and_compiles_nothing(engine: Engine) -> None:
    with engine.connect() as connection:
        told = [connection.execute(text(f"SHOW {name}")).scalar_one() for name in ("plan_cache_mode", "jit")]

    assert told == ["force_generic_plan", "off"]
