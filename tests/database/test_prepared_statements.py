"""Prepared statements on PostgreSQL: after some uses, and forgotten after a failure."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError, OperationalError

from database.postgresql import PREPARE_AFTER
from tests.support.clinic import Clinic
from tests.support.database import connected

QUESTION = text("SELECT CAST(:number AS integer) + 1").execution_options(prepare=True)
TABLE = text("SELECT count(*) FROM patients WHERE id > :number").execution_options(prepare=True)
PREPARED = text("SELECT count(*) FROM pg_prepared_statements")


@pytest.fixture
def engine(new_database: Callable[[str], str]) -> Iterator[Engine]:
    with connected(new_database("postgresql")) as engine:
        yield engine


def test_a_statement_is_prepared_after_some_uses_and_planned_once(engine: Engine) -> None:
    with engine.connect() as connection:
        for number in range(PREPARE_AFTER - 1):
            assert connection.execute(QUESTION, {"number": number}).scalar_one() == number + 1
        assert connection.execute(PREPARED).scalar_one() == 0

        for number in range(PREPARE_AFTER):
            assert connection.execute(QUESTION, {"number": number}).scalar_one() == number + 1

        assert connection.execute(PREPARED).scalar_one() == 1
        settings = [
            connection.execute(text(f"SHOW {name}")).scalar_one() for name in ("plan_cache_mode", "jit")
        ]
        assert settings == ["force_generic_plan", "off"]


def test_percent_signs_in_text_and_values_are_no_placeholders(engine: Engine) -> None:
    statement = text(r"SELECT '%(x)s %% %s' || :value").execution_options(prepare=True)
    with engine.connect() as connection:
        results = {
            connection.execute(statement, {"value": "50% %(a)s $1 '"}).scalar_one()
            for _ in range(PREPARE_AFTER + 2)
        }

    assert results == {"%(x)s %% %s50% %(a)s $1 '"}


def test_a_failed_prepare_is_forgotten(engine: Engine) -> None:
    """A lock on the table makes PREPARE fail. The next attempt on the same connection prepares it again."""
    with engine.connect() as connection, engine.connect() as other:
        for number in range(PREPARE_AFTER - 1):
            connection.execute(TABLE, {"number": number})
        connection.execute(text("SET SESSION lock_timeout = 50"))
        connection.commit()
        other.execute(text("LOCK TABLE patients IN ACCESS EXCLUSIVE MODE"))

        with pytest.raises(OperationalError):
            connection.execute(TABLE, {"number": 0})
        connection.rollback()
        other.rollback()

        for _ in range(3):
            assert connection.execute(TABLE, {"number": 0}).scalar_one() == 0
        assert connection.execute(PREPARED).scalar_one() == 1


def test_a_statement_that_the_server_has_lost_invalidates_the_connection(engine: Engine) -> None:
    with engine.connect() as connection:
        for number in range(PREPARE_AFTER + 1):
            connection.execute(QUESTION, {"number": number})
        connection.execute(text("DEALLOCATE ALL"))

        with pytest.raises(DBAPIError) as failure:
            connection.execute(QUESTION, {"number": 1})

        assert failure.value.connection_invalidated
    with engine.connect() as connection:
        assert connection.execute(QUESTION, {"number": 1}).scalar_one() == 2


@pytest.mark.parametrize("engine_name", ["postgresql"])
def test_a_request_on_a_connection_that_lost_its_statements_succeeds(clinic: Clinic) -> None:
    path = f"/patients/{clinic.patient()['id']}"
    for _ in range(PREPARE_AFTER + 1):
        assert clinic.admin.get(path).status_code == 200
    with clinic.inside() as session:
        session.execute(text("DEALLOCATE ALL"))

    assert clinic.admin.get(path).status_code == 200


@pytest.mark.parametrize("engine_name", ["postgresql"])
def test_a_request_after_a_change_of_a_table_succeeds(clinic: Clinic) -> None:
    """PostgreSQL refuses a prepared statement whose result type has changed."""
    path = f"/patients/{clinic.patient()['id']}"
    for length in (600, 500):  # the last one is that of the schema: other tests use this database
        for _ in range(PREPARE_AFTER + 1):
            assert clinic.admin.get(path).status_code == 200
        with clinic.inside() as session:
            session.execute(text(f"ALTER TABLE patients ALTER COLUMN address TYPE varchar({length})"))

        assert clinic.admin.get(path).status_code == 200
