"""Migration 0007 with stored rows: decimal quantities, and the last day of each therapy."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from alembic import command
from sqlalchemy import DateTime, Engine, MetaData, String, Table, func, insert, select
from sqlalchemy.orm import Session

from models import Dispensing, PrescribedMedication
from services.clinical import therapy
from tests.conftest import NewDatabase
from tests.support.database import alembic_config, connected, migrate

ISSUED = datetime(2026, 1, 1, 12, tzinfo=UTC)
# (expires_on, duration_days, quantity, refills, dispensings as (day, quantity)); days count from the issue
THERAPIES: list[tuple[int | None, int | None, int | None, int, list[tuple[int, int]]]] = [
    (None, 90, 90, 0, []),
    (200, 90, 90, 0, []),
    (None, None, 90, 0, [(0, 90)]),
    (30, None, None, 0, []),
    (None, 90, 90, 0, [(5, 90)]),
    (None, 10, 3, 0, [(0, 1), (0, 1)]),
    (None, 30, 30, 2, [(0, 30), (25, 30), (100, 30)]),
    (5, 30, 30, 2, [(0, 30), (50, 10), (55, 30)]),
]


@pytest.fixture
def url(database_at: NewDatabase) -> str:
    """Return the URL of a database with the schema 0006."""
    return database_at("0006")


def put(engine: Engine, name: str, **values: Any) -> int:
    """Insert a row into a table of the old schema and return its id. Required columns get any value."""
    table = Table(name, MetaData(), autoload_with=engine, resolve_fks=False)
    for column in table.columns:
        if not column.nullable and not column.primary_key and column.name not in values:
            kinds = ((DateTime, ISSUED.replace(tzinfo=None)), (String, "[]"))
            values[column.name] = next((value for kind, value in kinds if isinstance(column.type, kind)), 1)
    with engine.begin() as connection:
        key = connection.execute(insert(table).values(**values)).inserted_primary_key
        return int(key[0])


def insert_therapies(engine: Engine) -> None:
    put(engine, "users", role="technician", is_active=True)
    put(engine, "doctors", user_id=None, slot_minutes=30, is_active=True)
    put(engine, "patients", is_active=True, needs_review=False)
    put(engine, "visits")
    for expires, duration, quantity, refills, dispensings in THERAPIES:
        prescription_id = put(
            engine,
            "prescriptions",
            status="active",
            overridden_alerts=[],
            expires_on=None if expires is None else (ISSUED + timedelta(days=expires)).date(),
        )
        medication_id = put(
            engine,
            "prescribed_medications",
            prescription_id=prescription_id,
            duration_days=duration,
            quantity=quantity,
            refills=refills,
            dispensed=sum(dispensed for _, dispensed in dispensings),
        )
        for day, dispensed in dispensings:
            put(
                engine,
                "dispensings",
                prescription_id=prescription_id,
                medication_id=medication_id,
                quantity=dispensed,
                created_at=(ISSUED + timedelta(days=day)).replace(tzinfo=None),
            )


def test_stored_therapies_get_their_last_day(url: str) -> None:
    with connected(url) as engine:
        insert_therapies(engine)
    migrate(url)

    with connected(url) as engine, Session(engine) as session:
        medications = session.scalars(select(PrescribedMedication).order_by(PrescribedMedication.id)).all()
        dispensed = session.execute(select(func.sum(Dispensing.quantity))).scalar_one()

    for medication, (expires, duration, quantity, _refills, dispensings) in zip(
        medications, THERAPIES, strict=True
    ):
        assert medication.quantity == quantity
        assert medication.dispensed == sum(quantity for _, quantity in dispensings)
        assert medication.ends_on == therapy.last_day(
            on(0),
            expires_on=None if expires is None else on(expires),
            duration_days=duration,
            quantity=None if quantity is None else Decimal(quantity),
            dispensings=[(on(day), Decimal(dispensed)) for day, dispensed in dispensings],
        )
    assert dispensed == 342


def on(day: int) -> date:
    return ISSUED.date() + timedelta(days=day)


def test_a_downgrade_restores_whole_quantities_and_refuses_fractions(url: str) -> None:
    with connected(url) as engine:
        insert_therapies(engine)
    migrate(url)
    with connected(url) as engine, Session(engine) as session:
        medication = session.get_one(PrescribedMedication, 1)
        medication.quantity = Decimal("90.5")
        session.commit()

        with pytest.raises(RuntimeError, match="has fractions"):
            command.downgrade(alembic_config(url), "0006")
        medication.quantity = Decimal(45)
        session.commit()
    command.downgrade(alembic_config(url), "0006")

    with connected(url) as engine, engine.connect() as connection:
        old = Table("prescribed_medications", MetaData(), autoload_with=engine, resolve_fks=False)
        rows = connection.execute(select(old.c.quantity, old.c.dispensed).order_by(old.c.id)).all()
    assert rows[0] == (45, 0)
    assert rows[6] == (30, 90)
    assert all(value is None or type(value) is int for row in rows for value in row)
