"""Migration 0012 with existing rows: unit costs, windows, and the times of cancellations and moves."""

from __future__ import annotations

from typing import Any

import pytest
from alembic import command
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import IntegrityError

from api.database_errors import constraint_name
from tests.conftest import NewDatabase
from tests.support.database import alembic_config, connected, migrate

REVISION = "0012"
AT = "2026-03-02 09:00:00.000000"
STAMPS = "created_at, updated_at"
ROWS = [
    "INSERT INTO patients (id, file_number, name, name_fold, needs_review, is_active, version, {stamps}) "
    "VALUES (1, 'P-1', 'Ada', 'ada', false, true, 1, {at}, {at})",
    "INSERT INTO doctors (id, name, name_fold, specialty, specialties, license_number, certifications, "
    "consultation_fee, slot_minutes, buffer_minutes, is_active, version, {stamps}) "
    "VALUES (1, 'Bo', 'bo', 'x', '[]', 'L-1', '[]', 0, 30, 0, true, 1, {at}, {at})",
    "INSERT INTO inventory_items (id, name, name_fold, quantity, min_quantity, unit_cost, is_active, "
    "version, {stamps}) VALUES (1, 'Gauze', 'gauze', 5, 5, {cost}, true, 1, {at}, {at})",
    "INSERT INTO inventory_lots (id, item_id, quantity) VALUES (1, 1, 5)",
    "INSERT INTO stock_movements (id, item_id, lot_id, type, quantity, unit_cost, created_at) "
    "VALUES (1, 1, 1, 'restock', 5, {cost}, {at}), (2, 1, 1, 'usage', -1, NULL, {at})",
    'INSERT INTO schedule_windows (doctor_id, weekday, start, "end") '
    "VALUES (1, 0, '09:00:00.000000', '13:00:00.000000')",
]
APPOINTMENT = (
    'INSERT INTO appointments (id, patient_id, doctor_id, start, "end", blocked_until, status, overbooked, '
    "version, {stamps}) "
    "VALUES ({id}, 1, 1, '2026-03-0{id} 10:00:00.000000', '2026-03-0{id} 10:30:00.000000', "
    "'2026-03-0{id} 10:30:00.000000', '{status}', false, 1, {at}, '2026-03-09 12:00:00.000000')"
)
ENTRY = (
    "INSERT INTO audit_logs (chain, number, at, action, entity, entity_id, entity_ids, patient_ids, fields, "
    "outcome, operation, mac) VALUES (0, {number}, '2026-03-0{number} 08:00:00.000000', '{action}', "
    "'appointment', {id}, '[]', '[]', '[]', 'success', 'PATCH', '')"
)
WINDOW = (
    'INSERT INTO schedule_windows (doctor_id, weekday, start, "end") '
    "VALUES (1, {weekday}, '{start}:00.000000', '{end}:00.000000')"
)

COSTS = "SELECT unit_cost FROM inventory_items UNION ALL SELECT unit_cost FROM stock_movements"


@pytest.fixture
def url(engine_name: str, database_at: NewDatabase) -> str:
    """Return the URL of a database before the migration, with rows."""
    url = database_at("0011")
    values = {"stamps": STAMPS, "at": f"'{AT}'", "cost": 125 if engine_name == "sqlite" else "1.25"}
    with connected(url) as engine, engine.begin() as connection:
        for statement in ROWS:
            run(connection, statement, **values)
        for number, status in ((1, "cancelled"), (2, "cancelled"), (3, "scheduled"), (4, "scheduled")):
            run(connection, APPOINTMENT, id=number, status=status, **values)
        for number, (row, action) in enumerate(
            [(1, "cancel"), (3, "reschedule"), (3, "reschedule"), (3, "update")], start=1
        ):
            run(connection, ENTRY, number=number, id=row, action=action)
    return url


def previous(url: str) -> str:
    revision = ScriptDirectory.from_config(alembic_config(url)).get_revision(REVISION)
    assert isinstance(revision.down_revision, str)
    return revision.down_revision


def run(connection: Connection, statement: str, **values: Any) -> None:
    connection.execute(text(statement.format(**values)))


def read(engine: Engine, statement: str) -> list[tuple[Any, ...]]:
    with engine.connect() as connection:
        return [tuple(str(value) for value in row) for row in connection.execute(text(statement))]


def test_existing_rows_get_the_new_values_and_keep_them_in_a_downgrade(url: str, engine_name: str) -> None:
    scale = 100 if engine_name == "sqlite" else 1
    migrate(url, REVISION)

    with connected(url) as engine:
        costs = read(
            engine, "SELECT unit_cost FROM inventory_items UNION ALL SELECT unit_cost FROM stock_movements"
        )
        times = read(
            engine, "SELECT cancelled_at, rescheduled_at, reschedule_count FROM appointments ORDER BY id"
        )
        with engine.begin() as connection:
            for weekday, start, end in ((0, "22:00", "06:00"), (6, "22:00", "06:00"), (2, "20:00", "00:00")):
                run(connection, WINDOW, weekday=weekday, start=start, end=end)
        for weekday, start, end in ((1, "05:00", "07:00"), (0, "05:30", "06:30"), (2, "23:00", "23:30")):
            with pytest.raises(IntegrityError) as refused, engine.begin() as connection:
                run(connection, WINDOW, weekday=weekday, start=start, end=end)
            assert constraint_name(refused.value) == "ex_schedule_windows_overlap"
        with engine.begin() as connection:
            run(connection, WINDOW, weekday=1, start="06:00", end="07:00")
    assert [float(cost) for (cost,) in costs[:2]] == [1.25 * 100 * scale if scale > 1 else 1.25] * 2
    assert costs[2] == ("None",)
    assert [(cancelled[:16], moved[:16], count) for cancelled, moved, count in times] == [
        ("2026-03-01 08:00", "None", "0"),
        ("2026-03-09 12:00", "None", "0"),
        ("None", "2026-03-03 08:00", "2"),
        ("None", "None", "0"),
    ]

    command.downgrade(alembic_config(url), previous(url))

    with connected(url) as engine:
        costs = read(
            engine, "SELECT unit_cost FROM inventory_items UNION ALL SELECT unit_cost FROM stock_movements"
        )
        windows = read(engine, 'SELECT weekday, start, "end" FROM schedule_windows ORDER BY weekday, start')
    assert [float(cost) for (cost,) in costs[:2]] == [1.25 * scale] * 2
    assert [(weekday, start[:5], end[:5]) for weekday, start, end in windows] == [
        ("0", "00:00", "06:00"),
        ("0", "09:00", "13:00"),
        ("0", "22:00", "23:59"),
        ("1", "00:00", "06:00"),
        ("1", "06:00", "07:00"),
        ("2", "20:00", "23:59"),
        ("6", "22:00", "23:59"),
    ]
