"""Add packages and unit costs of four places, overnight windows, and the times of cancellations and moves.

- Unit costs have four places: one tablet may cost less than a cent.
- Items have packages. A movement records the package in which it was counted.
- A window of working hours may end on the next day. Windows of one doctor do not overlap, also across
  midnight and across the end of the week.
- Appointments record the time of a cancellation and of the last change of the start. Existing rows get them
  from the audit log.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import context, op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

JSON = sa.JSON().with_variant(JSONB(), "postgresql")
INSTANT = sa.DateTime(timezone=True)
COSTS = ("inventory_items", "stock_movements")
MONEY_TOP, COST_TOP = "999999999999", "99999999999999"
GUARD = "append_only_stock_movements"
WINDOWS, EXCLUSION = "schedule_windows", "ex_schedule_windows_overlap"
IN_ORDER, NOT_EMPTY = "start_before_end", "start_is_not_end"
DAY, WEEK = 86_400, 7 * 86_400  # seconds
END_OF_DAY = "23:59:59.999999"  # stored for 24:00


def upgrade() -> None:
    """Change both engines to the new schema and fill the new columns."""
    op.add_column("inventory_items", sa.Column("packages", JSON, server_default="[]", nullable=False))
    op.add_column("stock_movements", sa.Column("package", sa.String(100), nullable=True))
    op.add_column("stock_movements", sa.Column("package_units", sa.Integer(), nullable=True))
    op.add_column("appointments", sa.Column("cancelled_at", INSTANT, nullable=True))
    op.add_column("appointments", sa.Column("rescheduled_at", INSTANT, nullable=True))
    op.add_column(
        "appointments",
        sa.Column("reschedule_count", sa.Integer(), server_default=sa.text("0"), nullable=False),
    )
    _fill_appointments()
    if op.get_context().dialect.name == "sqlite":
        _upgrade_sqlite()
    else:
        _upgrade_postgresql()


def downgrade() -> None:
    """Restore the previous schema. Unit costs are rounded to cents, overnight windows become two windows."""
    if op.get_context().dialect.name == "sqlite":
        _downgrade_sqlite()
    else:
        _downgrade_postgresql()
    for name in ("reschedule_count", "rescheduled_at", "cancelled_at"):
        op.drop_column("appointments", name)
    op.drop_column("stock_movements", "package_units")
    op.drop_column("stock_movements", "package")
    op.drop_column("inventory_items", "packages")


def _fill_appointments() -> None:
    entries = (
        "FROM audit_logs WHERE entity = 'appointment' AND entity_id = appointments.id "
        "AND outcome = 'success' AND action = "
    )
    op.execute(
        f"UPDATE appointments SET cancelled_at = coalesce((SELECT max(at) {entries}'cancel'), updated_at) "  # noqa: S608
        "WHERE status = 'cancelled'"
    )
    moved = "SELECT entity_id FROM audit_logs WHERE entity = 'appointment' AND action = 'reschedule'"
    op.execute(
        f"UPDATE appointments SET rescheduled_at = (SELECT max(at) {entries}'reschedule'), "  # noqa: S608
        f"reschedule_count = (SELECT count(*) {entries}'reschedule') WHERE id IN ({moved})"
    )


def _split_overnight_windows() -> None:
    """Store each overnight window as two: until 24:00, and from 00:00 of the next day."""
    op.execute(
        f'INSERT INTO {WINDOWS} (doctor_id, weekday, start, "end") '  # noqa: S608
        "SELECT doctor_id, (weekday + 1) % 7, '00:00:00.000000', \"end\" "
        f'FROM {WINDOWS} WHERE "end" < start AND "end" > \'00:00:00.000000\''
    )
    op.execute(f'UPDATE {WINDOWS} SET "end" = \'{END_OF_DAY}\' WHERE "end" < start')  # noqa: S608


# --- PostgreSQL ----------------------------------------------------------------------------------------


def _upgrade_postgresql() -> None:
    for table in COSTS:
        _change_cost_postgresql(table, "numeric(14, 4)", COST_TOP)
    op.execute(f"ALTER TABLE {WINDOWS} DROP CONSTRAINT {EXCLUSION}")
    op.execute(f"ALTER TABLE {WINDOWS} DROP CONSTRAINT ck_{WINDOWS}_{IN_ORDER}")
    op.execute(f'ALTER TABLE {WINDOWS} ADD CONSTRAINT ck_{WINDOWS}_{NOT_EMPTY} CHECK (start <> "end")')
    start = f"weekday * {DAY} + extract(epoch FROM start)"
    end = f'weekday * {DAY} + extract(epoch FROM "end") + CASE WHEN "end" < start THEN {DAY} ELSE 0 END'
    # the part after the end of the week continues at its beginning
    week = f"nummultirange(numrange({start}, least({end}, {WEEK})), numrange(0, greatest({end} - {WEEK}, 0)))"
    op.execute(
        f"ALTER TABLE {WINDOWS} ADD CONSTRAINT {EXCLUSION} EXCLUDE USING gist "
        f"(doctor_id WITH =, ({week}) WITH &&)"
    )


def _downgrade_postgresql() -> None:
    for table in COSTS:
        _change_cost_postgresql(table, "numeric(12, 2)", MONEY_TOP)
    op.execute(f"ALTER TABLE {WINDOWS} DROP CONSTRAINT {EXCLUSION}")
    op.execute(f"ALTER TABLE {WINDOWS} DROP CONSTRAINT ck_{WINDOWS}_{NOT_EMPTY}")
    _split_overnight_windows()
    op.execute(f'ALTER TABLE {WINDOWS} ADD CONSTRAINT ck_{WINDOWS}_{IN_ORDER} CHECK (start < "end")')
    of_day = "numrange(extract(epoch FROM start), extract(epoch FROM \"end\"), '[)')"
    op.execute(
        f"ALTER TABLE {WINDOWS} ADD CONSTRAINT {EXCLUSION} EXCLUDE USING gist "
        f"(doctor_id WITH =, weekday WITH =, {of_day} WITH &&)"
    )


def _change_cost_postgresql(table: str, column_type: str, top: str) -> None:
    name = f"ck_{table}_unit_cost_range"
    op.execute(f"ALTER TABLE {table} DROP CONSTRAINT {name}")
    op.execute(f"ALTER TABLE {table} ALTER COLUMN unit_cost TYPE {column_type}")
    op.execute(f"ALTER TABLE {table} ADD CONSTRAINT {name} CHECK (unit_cost >= 0 AND unit_cost <= {top})")


# --- SQLite --------------------------------------------------------------------------------------------


def _upgrade_sqlite() -> None:
    for table in COSTS:
        _edit_table(table, f"unit_cost <= {MONEY_TOP}", f"unit_cost <= {COST_TOP}")
    _set_costs("unit_cost * 100")
    _drop_window_triggers()
    _edit_table(WINDOWS, f'{IN_ORDER} CHECK (start < "end")', f'{NOT_EMPTY} CHECK (start <> "end")')
    # Two windows overlap if one starts inside the other, on the circle of the week.
    starts_in = "({after} - {before} + {week}) % {week} < {length}"
    new, other = _seconds("NEW"), _seconds("other")
    overlap = (
        starts_in.format(after=other[0], before=new[0], week=WEEK, length=new[1])
        + " OR "
        + starts_in.format(after=new[0], before=other[0], week=WEEK, length=other[1])
    )
    others = (
        f"SELECT 1 FROM {WINDOWS} AS other "  # noqa: S608
        "WHERE other.id <> NEW.id AND other.doctor_id = NEW.doctor_id"
    )
    for event, columns in (("INSERT", ""), ("UPDATE", ' OF doctor_id, weekday, start, "end"')):
        op.execute(
            f"CREATE TRIGGER {EXCLUSION}_{event.lower()} AFTER {event}{columns} ON {WINDOWS} "
            f"WHEN EXISTS ({others} AND ({overlap})) BEGIN SELECT RAISE(ABORT, '{EXCLUSION}'); END"
        )


def _downgrade_sqlite() -> None:
    _set_costs("(unit_cost + 50) / 100")
    for table in COSTS:
        _edit_table(table, f"unit_cost <= {COST_TOP}", f"unit_cost <= {MONEY_TOP}")
    _drop_window_triggers()
    _split_overnight_windows()
    _edit_table(WINDOWS, f'{NOT_EMPTY} CHECK (start <> "end")', f'{IN_ORDER} CHECK (start < "end")')
    _, _, start, end, _ = context.script.get_revision("0002").module.OVERLAPS[EXCLUSION]
    others = (
        f"SELECT other.{end} FROM {WINDOWS} AS other WHERE other.id <> NEW.id "  # noqa: S608
        "AND other.doctor_id = NEW.doctor_id AND other.weekday = NEW.weekday"
    )
    overlap = context.script.get_revision("0005").module._among_neighbours(others, start, end)
    for event, columns in (("INSERT", ""), ("UPDATE", f" OF doctor_id, weekday, {start}, {end}")):
        op.execute(
            f"CREATE TRIGGER {EXCLUSION}_{event.lower()} AFTER {event}{columns} ON {WINDOWS} WHEN {overlap} "
            f"BEGIN SELECT RAISE(ABORT, '{EXCLUSION}'); END"
        )


def _seconds(row: str) -> tuple[str, str]:
    """Return the start in seconds of the week, and the length in seconds, of a window."""
    start, end = (f"CAST(strftime('%s', {row}.{name}) AS INTEGER)" for name in ("start", '"end"'))
    midnight = "CAST(strftime('%s', '00:00:00') AS INTEGER)"
    return f"({row}.weekday * {DAY} + {start} - {midnight})", f"(({end} - {start} + {DAY}) % {DAY})"


def _drop_window_triggers() -> None:
    for event in ("insert", "update"):
        op.execute(f"DROP TRIGGER {EXCLUSION}_{event}")


def _set_costs(value: str) -> None:
    """Change the stored costs, also those of movements, whose append-only trigger is created again."""
    op.execute(f"DROP TRIGGER {GUARD}_update")
    for table in COSTS:
        op.execute(f"UPDATE {table} SET unit_cost = {value} WHERE unit_cost IS NOT NULL")  # noqa: S608
    op.execute(
        f"CREATE TRIGGER {GUARD}_update BEFORE UPDATE ON stock_movements "
        f"BEGIN SELECT RAISE(ABORT, '{GUARD}'); END"
    )


def _edit_table(table: str, old: str, new: str) -> None:
    """Replace a CHECK constraint. SQLite documents this way for a change that does not touch the rows.

    A new table cannot replace the old one: other tables refer to it (https://sqlite.org/lang_altertable.html).
    """
    connection = op.get_bind()
    version = connection.exec_driver_sql("PRAGMA schema_version").scalar_one()
    connection.exec_driver_sql("PRAGMA writable_schema = ON")
    changed = connection.exec_driver_sql(
        "UPDATE sqlite_master SET sql = replace(sql, ?, ?) WHERE type = 'table' AND name = ?",
        (old, new, table),
    )
    if changed.rowcount != 1:
        raise RuntimeError(f"the table {table} is missing")
    connection.exec_driver_sql(f"PRAGMA schema_version = {version + 1}")
    connection.exec_driver_sql("PRAGMA writable_schema = RESET")
