"""`flask demo grow`: generate a fictitious clinic of any size.

The rows are written without the services, because those are too slow for millions of rows. They obey the
same rules: `flask verify` and `flask audit verify` find no violation.
"""

from __future__ import annotations

import gc
import json
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from decimal import Decimal
from io import StringIO
from typing import Any

import click
from flask.cli import with_appcontext
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from sqlalchemy import Connection, Engine, func, insert, select, text, update
from sqlalchemy.dialects import postgresql, sqlite

from commands.demo import CLERK
from commands.demo_data import (
    CLOSING_TIME,
    COLUMNS,
    DOCTORS,
    ITEMS,
    OPENING_TIME,
    OPERATION,
    SLOT,
    Batch,
    DemoGenerator,
    InitialState,
    Row,
)
from database.roles import owner_engine, owns_tables
from extensions import db
from models import (
    AuditHead,
    Base,
    Doctor,
    DocumentCounter,
    InventoryItem,
    InventoryLot,
    Patient,
    ScheduleWindow,
)
from services import clock
from services.audit import audit_log
from services.clinic.versions import current_version
from services.document_numbers import INVOICE
from services.search_key import search_key

WRITERS = 2  # concurrent connections
WEEKDAYS = 5
# Conversions to the text format of COPY. Other types use str().
COPY_CONVERSIONS: dict[type, Callable[[Any], str]] = {type(None): lambda _value: "\\N", list: json.dumps}
SPECIALTIES = ("general practice", "paediatrics", "surgery", "dermatology", "cardiology")


@click.command("grow")
@click.option("--patients", "count", type=click.IntRange(1, 10_000_000), default=10_000, show_default=True)
@click.option("--seed", default=1, show_default=True, help="The same seed generates the same patients.")
@with_appcontext
def grow(count: int, seed: int) -> None:
    """Fill an empty database with generated patients, for measurements.

    Every patient has five appointments, with visits, diagnoses, bills, ledger entries, payments, stock
    movements and audit entries. `flask verify` and `flask audit verify` find no violation afterwards. Twenty
    doctors see the patients, over as many years as needed. Stop the server first: the command reads the last
    invoice numbers and audit entries once, at the start. Refuses a database with patients.
    """
    if db.session.scalar(select(Patient.id).limit(1)) is not None:
        raise click.ClickException(
            "The database has patients. The command needs a database without patients."
        )
    with owner_engine(db.engine) as owner:
        with owner.connect() as connection:
            if owner.dialect.name == "postgresql" and not owns_tables(connection):
                raise click.ClickException("Only the owner can do this. Set MIGRATION_DATABASE_URI.")
        _write_rows(count, seed)
        update_statistics(owner)


def _write_rows(count: int, seed: int) -> None:
    initial = create_initial_rows()
    generator = DemoGenerator(initial, count, seed, clock.now())
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    engine = db.engine
    write = _copy_batches if engine.dialect.name == "postgresql" else _insert_batches
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("patients", total=count)
        for patients in write(engine, initial, generator.batches()):
            progress.advance(task, patients)


# --- Before and after ----------------------------------------------------------------------------------


def create_initial_rows() -> InitialState:
    """Create the doctors, their hours and the stock items. Return the state of the database after that."""
    doctors = []
    for number in range(1, DOCTORS + 1):
        name = f"Dr. Grown {number}"
        doctor = Doctor(
            name=name,
            name_fold=search_key(name),
            specialty=SPECIALTIES[number % len(SPECIALTIES)],
            license_number=f"GROWN-{number:03d}",
            consultation_fee=Decimal(55 + 5 * number),
            slot_minutes=int(SLOT.total_seconds() // 60),
        )
        db.session.add(doctor)
        doctors.append(doctor)
    db.session.flush()
    for doctor in doctors:
        for weekday in range(WEEKDAYS):
            hours = ScheduleWindow(doctor_id=doctor.id, weekday=weekday, start=OPENING_TIME, end=CLOSING_TIME)
            db.session.add(hours)
    lots = []
    for number in range(1, ITEMS + 1):
        name = f"Grown supply {number}"
        item = InventoryItem(name=name, name_fold=search_key(name), sku=f"GROWN-{number:03d}", unit="piece")
        lots.append(InventoryLot(item=item, lot_number="1", expires_on=clock.today() + timedelta(days=730)))
        db.session.add(lots[-1])
    audit_log.append_pending(CLERK, OPERATION)
    db.session.flush()
    heads = db.session.execute(select(AuditHead.chain, AuditHead.number, AuditHead.mac))
    counters = db.session.execute(
        select(DocumentCounter.year, DocumentCounter.last_number).where(DocumentCounter.series == INVOICE)
    )
    initial = InitialState(
        last_ids={model: _last_id(model) for model in COLUMNS},
        heads={chain: (number, mac) for chain, number, mac in heads},
        invoices=dict(counters.tuples().all()),
        doctors=[doctor.id for doctor in doctors],
        items=[lot.item_id for lot in lots],
        lots=[lot.id for lot in lots],
        clinic_version_id=current_version().id,
    )
    db.session.commit()
    db.session.remove()
    return initial


def _last_id(model: type[Base]) -> int:
    key = model.__mapper__.primary_key[0]
    last_id: int = db.session.execute(select(func.coalesce(func.max(key), 0))).scalar_one()
    return last_id


def update_statistics(engine: Engine) -> None:
    """Set the id sequences to the last ids, and update the statistics of the query planner."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        if engine.dialect.name != "postgresql":
            connection.execute(text("ANALYZE"))
            return
        for model, columns in COLUMNS.items():
            name = model.__tablename__
            if columns[0] == "id":
                sequence = f"pg_get_serial_sequence('{name}', 'id')"
                connection.execute(text(f"SELECT setval({sequence}, max(id)) FROM {name}"))  # noqa: S608
            # VACUUM sets the visibility map, which index-only scans need.
            connection.execute(text(f"VACUUM (ANALYZE) {name}"))


# --- Writing -------------------------------------------------------------------------------------------


def _update_totals(connection: Connection, initial: InitialState, batch: Batch) -> None:
    """Update stock quantities, invoice counters and the head of the audit chain.

    These are the last statements before the commit, so that the row locks of the other batches are short.
    """
    for item, quantity in batch.stock.items():
        for model, row_id in ((InventoryItem, initial.items[item]), (InventoryLot, initial.lots[item])):
            stock: Any = model
            statement = update(stock).where(stock.id == row_id).values(quantity=stock.quantity + quantity)
            connection.execute(statement)
    upsert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    for year, count in batch.invoices.items():
        counter = upsert(DocumentCounter).values(series=INVOICE, year=year, last_number=count)
        changes = {"last_number": DocumentCounter.last_number + count}
        connection.execute(counter.on_conflict_do_update(index_elements=["series", "year"], set_=changes))
    number, mac = batch.head
    head = update(AuditHead).where(AuditHead.chain == batch.chain)
    connection.execute(head.values(number=number, mac=mac))


def _insert_batches(engine: Engine, initial: InitialState, batches: Iterator[Batch]) -> Iterator[int]:
    """Insert one batch after the other. Yield the number of patients of each."""
    for batch in batches:
        with engine.begin() as connection:
            for model, columns in COLUMNS.items():
                if rows := batch.rows[model]:
                    values = [dict(zip(columns, row, strict=True)) for row in rows]
                    connection.execute(insert(model), values)
            _update_totals(connection, initial, batch)
        yield batch.patients


def _copy_batches(engine: Engine, initial: InitialState, batches: Iterator[Batch]) -> Iterator[int]:
    """Write several batches at once by COPY. Yield the number of patients of each.

    The batches are committed in order, so that the audit and invoice numbers have no gaps.
    """
    pending: deque[Future[int]] = deque()
    with _garbage_collection_disabled(), ThreadPoolExecutor(WRITERS) as pool:
        previous: Future[int] | None = None
        for batch in batches:
            previous = pool.submit(_copy_batch, engine, initial, batch, previous)
            pending.append(previous)
            if len(pending) > WRITERS:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


def _copy_batch(engine: Engine, initial: InitialState, batch: Batch, previous: Future[int] | None) -> int:
    """Write one batch. Commit after the previous batch. Return the number of patients."""
    with engine.begin() as connection:
        cursor: Any = connection.connection.cursor()
        for model, columns in COLUMNS.items():
            if rows := batch.rows[model]:
                names = ", ".join(f'"{column}"' for column in columns)
                lines = StringIO("".join(map(_copy_line, rows)))
                cursor.copy_expert(f"COPY {model.__tablename__} ({names}) FROM STDIN", lines, 1 << 20)
        if previous is not None:
            previous.result()
        _update_totals(connection, initial, batch)
    return batch.patients


def _copy_line(row: Row) -> str:
    r"""Return a row in the text format of COPY. Generated text has no tab, line break or backslash."""
    return "\t".join([COPY_CONVERSIONS.get(type(value), str)(value) for value in row]) + "\n"


@contextmanager
def _garbage_collection_disabled() -> Iterator[None]:
    """Disable the garbage collector. It takes a third of the time, and the rows of a batch are all in use."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
