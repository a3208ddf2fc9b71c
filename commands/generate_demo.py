"""`flask demo grow`: a made-up clinic of any size, written past the services but obeying every rule."""

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
    CLOSES,
    COLUMNS,
    DOCTORS,
    ITEMS,
    OPENS,
    OPERATION,
    SLOT,
    Batch,
    Ground,
    Population,
    Row,
)
from extensions import db
from models import (
    AuditHead,
    Base,
    Doctor,
    InventoryItem,
    InventoryLot,
    InvoiceCounter,
    Patient,
    ScheduleWindow,
)
from services import clock
from services.audit import audit_log
from services.search_key import search_key

WRITERS = 2  # connections that copy at once
WEEKDAYS = 5
# How COPY reads what is not simply its own text.
FIELDS: dict[type, Callable[[Any], str]] = {type(None): lambda _value: "\\N", list: json.dumps}
SPECIALTIES = ("general practice", "paediatrics", "surgery", "dermatology", "cardiology")


@click.command("grow")
@click.option("--patients", "count", type=click.IntRange(1, 10_000_000), default=10_000, show_default=True)
@click.option("--seed", default=1, show_default=True, help="The same seed makes the same people.")
@with_appcontext
def grow(count: int, seed: int) -> None:
    """Fill an empty clinic with made-up patients, for measuring.

    Each comes five times, with visits, diagnoses, bills and their ledger, payments, stock used and the
    audit's entries, so that `flask verify` and `flask audit verify` agree afterwards. Twenty doctors see
    them, over as many years as it takes. Nobody else should be working: invoices and the audit's chains are
    counted on from what is there at the beginning. Refuses where there are patients already.
    """
    if db.session.scalar(select(Patient.id).limit(1)) is not None:
        raise click.ClickException("There are patients already; only an empty clinic can be grown.")
    ground = prepare()
    population = Population(ground, count, seed, clock.now())
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    engine = db.engine
    write = _copying if engine.dialect.name == "postgresql" else _inserting
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("patients", total=count)
        for patients in write(engine, ground, population.batches()):
            progress.advance(task, patients)
    finish(engine)


# --- Before and after ----------------------------------------------------------------------------------


def prepare() -> Ground:
    """Doctors with their hours and a stock of everything, made through the session; what else is there."""
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
            hours = ScheduleWindow(doctor_id=doctor.id, weekday=weekday, start=OPENS, end=CLOSES)
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
    counters = db.session.execute(select(InvoiceCounter.year, InvoiceCounter.last_number))
    ground = Ground(
        last_ids={model: _last_id(model) for model in COLUMNS},
        heads={chain: (number, mac) for chain, number, mac in heads},
        invoices=dict(counters.tuples().all()),
        doctors=[doctor.id for doctor in doctors],
        items=[lot.item_id for lot in lots],
        lots=[lot.id for lot in lots],
    )
    db.session.commit()
    db.session.remove()
    return ground


def _last_id(model: type[Base]) -> int:
    key = model.__mapper__.primary_key[0]
    found: int = db.session.execute(select(func.coalesce(func.max(key), 0))).scalar_one()
    return found


def finish(engine: Engine) -> None:
    """Let the engine count on from the ids that were given out, and know what it holds."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        if engine.dialect.name != "postgresql":
            connection.execute(text("ANALYZE"))
            return
        for model, columns in COLUMNS.items():
            name = model.__tablename__
            if columns[0] == "id":
                sequence = f"pg_get_serial_sequence('{name}', 'id')"
                connection.execute(text(f"SELECT setval({sequence}, max(id)) FROM {name}"))  # noqa: S608
            # index-only scans need to know which pages everybody may see
            connection.execute(text(f"VACUUM (ANALYZE) {name}"))


# --- Writing -------------------------------------------------------------------------------------------


def _end(connection: Connection, ground: Ground, batch: Batch) -> None:
    """What a batch moves besides its rows: the last statements before its commit, so that nobody waits."""
    for item, quantity in batch.stock.items():
        for model, row_id in ((InventoryItem, ground.items[item]), (InventoryLot, ground.lots[item])):
            stock: Any = model
            moved = update(stock).where(stock.id == row_id).values(quantity=stock.quantity + quantity)
            connection.execute(moved)
    into = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    for year, count in batch.invoices.items():
        counted = into(InvoiceCounter).values(year=year, last_number=count)
        more = {"last_number": InvoiceCounter.last_number + count}
        connection.execute(counted.on_conflict_do_update(index_elements=["year"], set_=more))
    number, mac = batch.head
    head = update(AuditHead).where(AuditHead.chain == batch.chain)
    connection.execute(head.values(number=number, mac=mac))


def _inserting(engine: Engine, ground: Ground, batches: Iterator[Batch]) -> Iterator[int]:
    """Write batch by batch; yields how many patients each brought."""
    for batch in batches:
        with engine.begin() as connection:
            for model, columns in COLUMNS.items():
                if rows := batch.rows[model]:
                    named = [dict(zip(columns, row, strict=True)) for row in rows]
                    connection.execute(insert(model), named)
            _end(connection, ground, batch)
        yield batch.patients


def _copying(engine: Engine, ground: Ground, batches: Iterator[Batch]) -> Iterator[int]:
    """Write by COPY, several batches at once, committed in their order: counters count without gap."""
    waiting: deque[Future[int]] = deque()
    with _undisturbed(), ThreadPoolExecutor(WRITERS) as pool:
        before: Future[int] | None = None
        for batch in batches:
            before = pool.submit(_copy, engine, ground, batch, before)
            waiting.append(before)
            if len(waiting) > WRITERS:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _copy(engine: Engine, ground: Ground, batch: Batch, before: Future[int] | None) -> int:
    with engine.begin() as connection:
        cursor: Any = connection.connection.cursor()
        for model, columns in COLUMNS.items():
            if rows := batch.rows[model]:
                named = ", ".join(f'"{column}"' for column in columns)
                lines = StringIO("".join(map(_line, rows)))
                cursor.copy_expert(f"COPY {model.__tablename__} ({named}) FROM STDIN", lines, 1 << 20)
        if before is not None:
            before.result()
        _end(connection, ground, batch)
    return batch.patients


def _line(row: Row) -> str:
    r"""A row in COPY's text format; no text of the population holds a tab, a line break or a backslash."""
    return "\t".join([FIELDS.get(type(value), str)(value) for value in row]) + "\n"


@contextmanager
def _undisturbed() -> Iterator[None]:
    """The rows of a batch are no rubbish, however many: looking for some takes a third of the time."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
