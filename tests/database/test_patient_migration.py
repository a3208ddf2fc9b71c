"""Migration 0008: the stored rows get their new columns, or the upgrade names the rows that prevent it."""

from __future__ import annotations

from typing import Any

import pytest
from alembic import command
from sqlalchemy import Connection, text

from tests.conftest import NewDatabase
from tests.support.database import alembic_config, connected, migrate

AT = "2024-05-06 07:08:09+00:00"


@pytest.fixture
def old_url(database_at: NewDatabase) -> str:
    """Return the URL of a database with the previous schema."""
    return database_at("0006")


def insert(connection: Connection, table: str, **values: Any) -> None:
    if table not in ("allergies",):
        at = AT if connection.dialect.name == "postgresql" else AT.removesuffix("+00:00")
        values |= {"version": 1, "created_at": at, "updated_at": at}
    columns, marks = ", ".join(values), ", ".join(f":{name}" for name in values)
    connection.execute(text(f"INSERT INTO {table} ({columns}) VALUES ({marks})"), values)


def add_patient(
    connection: Connection, number: int, file_number: str, *allergies: str, **others: Any
) -> None:
    members = {"name": "Ada", "name_fold": "ada", "needs_review": False, "is_active": True} | others
    insert(connection, "patients", id=number, file_number=file_number, **members)
    insert(connection, "medical_histories", id=number, patient_id=number)
    for substance in allergies:
        insert(
            connection,
            "allergies",
            medical_history_id=number,
            substance=substance,
            substance_fold=substance.lower(),
            severity="unknown",
        )


def rows(url: str, statement: str) -> list[tuple[Any, ...]]:
    with connected(url) as engine, engine.connect() as connection:
        return [tuple(row) for row in connection.execute(text(statement))]


def test_stored_rows_get_the_new_columns(old_url: str) -> None:
    with connected(old_url) as engine, engine.begin() as connection:
        add_patient(connection, 1, " Ab-1", "N.K.D.A.", date_of_birth="1990-05-06", email="Ada@x.example")
        add_patient(connection, 2, "Größe", "Latex", is_active=False, insurance_id="AÉ-7")
        add_patient(connection, 3, "c", "none", "Latex", review_notes="No address.")
        add_patient(connection, 4, "d", "No known allergies", "NKDA")

    migrate(old_url, "0008")

    patients = (
        "SELECT file_number_key, email_key, insurance_id_key, birth_date_precision FROM patients ORDER BY id"
    )
    assert rows(old_url, patients) == [
        ("ab-1", "ada@x.example", None, "day"),
        ("grösse", None, "aé-7", None),
        ("c", None, None, None),
        ("d", None, None, None),
    ]
    archived = rows(old_url, "SELECT archived_on FROM patients ORDER BY id")
    assert [str(day) for (day,) in archived] == ["None", "2024-05-06", "None", "None"]
    stated = "SELECT id FROM medical_histories WHERE no_known_allergies_at IS NOT NULL ORDER BY id"
    assert rows(old_url, stated) == [(1,), (4,)]
    allergies = "SELECT medical_history_id, substance FROM allergies ORDER BY id"
    assert rows(old_url, allergies) == [(2, "Latex"), (3, "none"), (3, "Latex")]
    ((needs_review, notes),) = rows(old_url, "SELECT needs_review, review_notes FROM patients WHERE id = 3")
    assert (bool(needs_review), notes.startswith("No address. Allergies: ")) == (True, True)

    command.downgrade(alembic_config(old_url), "0006")

    stated_again = "SELECT substance FROM allergies WHERE medical_history_id IN (1, 4)"
    assert rows(old_url, stated_again) == [("NKDA",), ("NKDA",)]


def test_equal_values_stop_the_upgrade_and_are_named(old_url: str) -> None:
    with connected(old_url) as engine, engine.begin() as connection:
        for number, file_number in enumerate(("AB-1", "x", "ab-1 ", "Straße", "STRASSE"), 1):
            add_patient(connection, number, file_number)

    with pytest.raises(RuntimeError) as stopped:
        migrate(old_url, "0008")

    message = str(stopped.value)
    assert message.startswith("4 values are equal")
    for named in ("row 1: 'AB-1'", "row 3: 'ab-1 '", "row 4: 'Straße'", "row 5: 'STRASSE'"):
        assert f"patients.file_number of {named}" in message
    with connected(old_url) as engine, engine.begin() as connection:  # nothing was changed
        assert connection.execute(text("SELECT version_num FROM alembic_version")).scalar() == "0006"
        connection.execute(text("UPDATE patients SET file_number = 'y' WHERE id IN (3)"))
        connection.execute(text("UPDATE patients SET file_number = 'z' WHERE id IN (5)"))
    migrate(old_url, "0008")
