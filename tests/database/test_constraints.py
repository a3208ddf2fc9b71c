"""Database constraints: overlapping intervals, append-only tables, and audit heads that only move forward."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import Engine, delete, insert, select, text, update
from sqlalchemy.exc import IntegrityError

from api.database_errors import constraint_name
from models import (
    Addendum,
    Appointment,
    AuditHead,
    AuditLog,
    AuditSubject,
    Base,
    Billing,
    CreditNote,
    Dispensing,
    Doctor,
    InventoryItem,
    InventoryLot,
    LedgerEntry,
    Patient,
    PrescribedMedication,
    Prescription,
    ScheduleWindow,
    StockMovement,
    User,
    Visit,
)
from tests.support.database import connected

NINE = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
STAMPS = {"created_at": NINE, "updated_at": NINE}


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    """Yield a migrated database with two patients and two doctors, ids 1 and 2."""
    with connected(database_url) as engine:
        for number in (1, 2):
            person = {"name": "Ada", "name_fold": "ada", **STAMPS}
            put(engine, Patient, file_number=f"P-{number}", file_number_key=f"p-{number}", **person)
            licence = {"license_number": f"L-{number}", "license_number_key": f"l-{number}"}
            put(engine, Doctor, specialty="general practice", **person, **licence)
        yield engine


def put(engine: Engine, table: type[Base], **values: Any) -> int:
    """Insert a row, and return its id, or 0 for a table without an id."""
    with engine.begin() as connection:
        key = connection.execute(insert(table).values(**values)).inserted_primary_key
        return int(key.id) if key is not None and hasattr(key, "id") else 0


def book(engine: Engine, start: datetime = NINE, minutes: int = 30, **values: Any) -> int:
    """Insert an appointment, by default of patient 1 with doctor 1."""
    end = start + timedelta(minutes=minutes)
    row = {"patient_id": 1, "doctor_id": 1, "start": start, "end": end, "blocked_until": end, **STAMPS}
    return put(engine, Appointment, **(row | values))


def move(engine: Engine, number: int, **values: Any) -> None:
    """Change an appointment."""
    with engine.begin() as connection:
        connection.execute(update(Appointment).where(Appointment.id == number).values(**values))


def violated(work: Callable[[], object]) -> str | None:
    """Return the name of the constraint that the work violates."""
    with pytest.raises(IntegrityError) as caught:
        work()
    return constraint_name(caught.value)


@pytest.mark.parametrize(("shift", "minutes"), [(0, 30), (10, 10), (-10, 60), (-15, 30), (29, 30)], ids=str)
def test_appointments_of_a_doctor_do_not_overlap(engine: Engine, shift: int, minutes: int) -> None:
    book(engine)

    constraint = violated(lambda: book(engine, NINE + timedelta(minutes=shift), minutes, patient_id=2))

    assert constraint == "ex_appointments_doctor"


def test_appointments_of_a_patient_do_not_overlap(engine: Engine) -> None:
    book(engine)

    assert violated(lambda: book(engine, doctor_id=2)) == "ex_appointments_patient"


def test_adjacent_appointments_do_not_overlap(engine: Engine) -> None:
    book(engine)

    book(engine, NINE + timedelta(minutes=30))
    book(engine, NINE - timedelta(minutes=30))


def test_appointments_of_other_doctors_and_patients_may_overlap(engine: Engine) -> None:
    book(engine)

    book(engine, patient_id=2, doctor_id=2)


def test_the_buffer_blocks_the_doctor_but_not_the_patient(engine: Engine) -> None:
    book(engine, blocked_until=NINE + timedelta(minutes=45))
    later = NINE + timedelta(minutes=30)

    assert violated(lambda: book(engine, later, patient_id=2)) == "ex_appointments_doctor"
    book(engine, later, doctor_id=2)


@pytest.mark.parametrize("status", ["cancelled", "no_show"])
def test_a_cancelled_or_missed_appointment_does_not_block(engine: Engine, status: str) -> None:
    book(engine, status=status)

    book(engine)


def test_a_completed_appointment_blocks(engine: Engine) -> None:
    book(engine, status="completed")

    assert violated(lambda: book(engine, patient_id=2)) == "ex_appointments_doctor"


@pytest.mark.parametrize("overbooked_first", [True, False])
def test_an_overbooked_appointment_may_overlap_for_the_doctor_but_not_the_patient(
    engine: Engine, overbooked_first: bool
) -> None:
    book(engine, overbooked=overbooked_first)

    book(engine, overbooked=not overbooked_first, patient_id=2)

    assert violated(lambda: book(engine, overbooked=True, doctor_id=2)) == "ex_appointments_patient"


def test_an_update_into_an_occupied_interval_is_refused(engine: Engine) -> None:
    noon = NINE + timedelta(hours=3)
    book(engine)
    book(engine, noon, patient_id=2, doctor_id=2)
    cancelled = book(engine, patient_id=2, status="cancelled")
    overbooked = book(engine, NINE + timedelta(minutes=10), 5, patient_id=2, overbooked=True)
    later = book(engine, NINE + timedelta(hours=1), patient_id=2)
    elsewhere = book(engine, NINE + timedelta(hours=2), patient_id=2, doctor_id=2)
    buffer = {"blocked_until": noon}

    assert violated(lambda: move(engine, overbooked, overbooked=False)) == "ex_appointments_doctor"
    assert (
        violated(lambda: move(engine, later, start=NINE + timedelta(minutes=20))) == "ex_appointments_doctor"
    )
    move(engine, overbooked, status="cancelled")
    assert violated(lambda: move(engine, cancelled, status="scheduled")) == "ex_appointments_doctor"
    move(engine, later, doctor_id=2)
    assert violated(lambda: move(engine, later, **buffer)) == "ex_appointments_doctor"
    again = book(engine, NINE + timedelta(hours=2))
    assert violated(lambda: move(engine, again, patient_id=2)) == "ex_appointments_patient"
    assert violated(lambda: move(engine, again, doctor_id=2)) == "ex_appointments_doctor"
    move(engine, elsewhere, status="no_show")
    move(engine, again, patient_id=2)
    longer = {"end": noon + timedelta(minutes=5), "blocked_until": noon + timedelta(minutes=5)}
    assert violated(lambda: move(engine, again, **longer)) == "ex_appointments_patient"


def test_random_bookings_and_moves_never_overlap(engine: Engine) -> None:
    generator = random.Random(5)
    blocking: dict[int, tuple[int, int]] = {}  # id -> start and end, in minutes after nine

    for _ in range(150):
        begin = generator.randrange(120)
        end = begin + generator.randint(1, 25)
        status = generator.choice(["scheduled", "scheduled", "cancelled"])
        moved = generator.choice(sorted(blocking)) if blocking and generator.random() < 0.3 else None
        others = [interval for number, interval in blocking.items() if number != moved]
        overlaps = status == "scheduled" and any(begin < other[1] and other[0] < end for other in others)
        start, until = NINE + timedelta(minutes=begin), NINE + timedelta(minutes=end)
        row = {"end": until, "blocked_until": until, "status": status, "overbooked": True}

        constraint = None
        try:
            if moved is None:
                moved = book(engine, start, **row)
            else:
                move(engine, moved, start=start, **row)
        except IntegrityError as error:
            constraint = constraint_name(error)
        assert constraint == ("ex_appointments_patient" if overlaps else None), (begin, end, blocking)
        if constraint is None and moved is not None:
            blocking.pop(moved, None)
            if status == "scheduled":
                blocking[moved] = (begin, end)


def test_other_columns_of_an_appointment_can_change(engine: Engine) -> None:
    booked = book(engine)

    move(engine, booked, notes="asks for a wheelchair", status="completed")
    move(engine, booked, start=NINE + timedelta(minutes=5))


def window(engine: Engine, start: time, end: time, weekday: int = 0, doctor_id: int = 1) -> int:
    """Insert working hours, and return their id."""
    return put(engine, ScheduleWindow, doctor_id=doctor_id, weekday=weekday, start=start, end=end)


def test_schedule_windows_of_a_doctor_and_weekday_do_not_overlap(engine: Engine) -> None:
    window(engine, time(9), time(13))
    afternoon = window(engine, time(13), time(17))
    window(engine, time(9), time(13), weekday=1)
    window(engine, time(9), time(13), doctor_id=2)

    def start_earlier() -> None:
        with engine.begin() as connection:
            change = update(ScheduleWindow).where(ScheduleWindow.id == afternoon)
            connection.execute(change.values(start=time(12, 59, 59)))

    assert (
        violated(lambda: window(engine, time(12, 59, 59, 900_000), time(13))) == "ex_schedule_windows_overlap"
    )
    assert violated(lambda: window(engine, time(10), time(11))) == "ex_schedule_windows_overlap"
    assert violated(start_earlier) == "ex_schedule_windows_overlap"


@pytest.fixture
def with_rows(engine: Engine) -> Engine:
    """Return a database with a row in each append-only table."""
    person = {"name": "Ada", "name_fold": "ada", **STAMPS}
    user = put(
        engine, User, email="a@clinic.example", password_hash="!", role="doctor", is_active=True, **person
    )
    care = {"patient_id": 1, "doctor_id": 1, **STAMPS}
    visit = put(engine, Visit, date=NINE, **care)
    prescription = put(engine, Prescription, visit_id=visit, issued_at=NINE, **care)
    medicine = put(engine, PrescribedMedication, prescription_id=prescription, name="Ibuprofen", quantity=10)
    item = put(engine, InventoryItem, quantity=5, **person)
    lot = put(engine, InventoryLot, item_id=item, quantity=5)
    once = {"created_at": NINE}
    put(engine, Addendum, visit_id=visit, author_id=user, text="left, not right", **once)
    ids = {"prescription_id": prescription, "medication_id": medicine, "dispensed_by_id": user}
    put(engine, Dispensing, quantity=1, **ids, **once)
    put(engine, StockMovement, item_id=item, lot_id=lot, type="restock", quantity=5, **once)
    charge = {"patient_id": 1, "kind": "charge", "amount": Decimal("10.00"), "occurred_at": NINE}
    put(engine, LedgerEntry, **charge, **once)
    kept = {"clinic_version_id": 1}
    number = {"invoice_number": "INV-1", "date": NINE.date()}
    bill = put(engine, Billing, patient_id=1, tax_rate=0, **number, **kept, **STAMPS)
    note = {"number": "CRN-1", "billing_id": bill, "patient_id": 1, "reason": "typed twice"}
    put(engine, CreditNote, amount=Decimal("1.00"), tax=0, **note, **kept, **once)
    entry = {"chain": 0, "number": 1, "at": NINE, "action": "read", "operation": "GET /", "mac": "0" * 64}
    audit = put(engine, AuditLog, outcome="success", **entry)
    put(engine, AuditSubject, patient_id=1, audit_id=audit)
    return engine


APPEND_ONLY: dict[type[Base], dict[str, Any]] = {
    Addendum: {"text": "right"},
    AuditLog: {"user_name": "Nobody"},
    AuditSubject: {"patient_id": 2},
    CreditNote: {"amount": Decimal("2.00")},
    Dispensing: {"quantity": 2},
    LedgerEntry: {"amount": Decimal("1.00")},
    StockMovement: {"quantity": 4},
}


@pytest.mark.parametrize("table", APPEND_ONLY, ids=lambda table: table.__tablename__)
def test_rows_of_append_only_tables_cannot_change_or_be_removed(with_rows: Engine, table: type[Base]) -> None:
    name = f"append_only_{table.__tablename__}"

    def run(statement: Any) -> None:
        with with_rows.begin() as connection:
            connection.execute(statement)

    assert violated(lambda: run(update(table).values(**APPEND_ONLY[table]))) == name
    assert violated(lambda: run(delete(table))) == name
    if with_rows.dialect.name == "postgresql":
        assert violated(lambda: run(text(f"TRUNCATE {table.__tablename__} CASCADE"))) == name
    with with_rows.connect() as connection:
        assert len(connection.execute(select(table)).all()) == 1


def test_a_new_database_has_the_head_of_each_audit_chain(engine: Engine) -> None:
    with engine.connect() as connection:
        heads = connection.execute(select(AuditHead.__table__).order_by(AuditHead.chain)).all()

    assert [tuple(head) for head in heads] == [(chain, 0, "") for chain in range(16)]


def test_an_audit_head_never_goes_back(engine: Engine) -> None:
    def head(**values: Any) -> None:
        with engine.begin() as connection:
            connection.execute(update(AuditHead).where(AuditHead.chain == 3).values(**values))

    def remove() -> None:
        with engine.begin() as connection:
            connection.execute(delete(AuditHead).where(AuditHead.chain == 3))

    head(number=2, mac="f" * 64)
    head(number=2, mac="e" * 64)

    assert violated(lambda: head(number=1)) == "append_only_audit_heads"
    assert violated(lambda: head(chain=99)) == "append_only_audit_heads"
    assert violated(remove) == "append_only_audit_heads"
