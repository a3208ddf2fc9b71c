"""Migration 0025 on a database with void bills and refunds."""

from __future__ import annotations

from alembic import command
from sqlalchemy import Engine, select, text

from models import Billing, ClinicRecordVersion, CreditNote, DocumentCounter
from services.billing.credit_note_checks import credit_note_checks
from tests.conftest import NewDatabase
from tests.support.database import alembic_config, connected, migrate

SETUP = """
INSERT INTO users
(id, name, name_fold, email, email_key, password_hash, role, is_active, version, created_at, updated_at)
VALUES (1, 'A', 'a', 'a@b.example', 'a@b.example', '!', 'admin', {true}, 1, {now}, {now});
INSERT INTO patients
(id, file_number, file_number_key, name, name_fold, needs_review, is_active, version, created_at, updated_at)
VALUES (1, 'P-1', 'p-1', 'B', 'b', {false}, {true}, 1, {now}, {now});
UPDATE clinic_record SET name = 'Lakeside Clinic';
INSERT INTO invoice_counters (year, last_number) VALUES (2025, 4), (2026, 7)
"""
BILL = """
INSERT INTO billings
(id, invoice_number, patient_id, tax_rate, date, voided_at, void_reason, version, created_at, updated_at)
VALUES ({id}, 'INV-{id}', 1, 10, '2025-01-01', {voided_at}, 'typed twice', 1, {now}, {now})
"""
ENTRY = """
INSERT INTO ledger_entries
(patient_id, billing_id, kind, amount, method, reverses_id, occurred_at, created_at, created_by_id)
VALUES (1, {bill}, '{kind}', {amount}, 'cash', {reverses}, {now}, {now}, 1)
"""
REFUND = """
INSERT INTO refunds (id, billing_id, patient_id, amount, method, reason, status, requested_by_id,
decided_by_id, decided_at, created_at, updated_at)
VALUES ({id}, {bill}, 1, {amount}, 'cash', 'late', '{status}', 1, 1, {at}, {now}, {now})
"""
OLD, NEW, NEWEST = "2025-12-31 10:00:00.000000", "2026-02-01 10:00:00.000000", "2026-03-01 10:00:00.000000"
# number, bill, refund, amount, tax
EXPECTED = [
    ("CRN-2025-000001", 2, 1, "33.33", "3.03"),
    ("CRN-2026-000001", 1, None, "88.00", "8.00"),
    ("CRN-2026-000002", 3, 3, "110.00", "10.00"),  # of the same instant, but no void
    ("CRN-2026-000003", 2, None, "76.67", "6.97"),
]


def fill(engine: Engine) -> None:
    """Insert void bills and refunds. The first bill had its discount changed before the void."""
    sqlite = engine.dialect.name == "sqlite"
    values = {"now": f"'{OLD}'" if sqlite else f"'{OLD}Z'"}
    values |= {"true": "1" if sqlite else "true", "false": "0" if sqlite else "false"}
    at = {day: f"'{day}'" if sqlite else f"'{day}Z'" for day in (OLD, NEW, NEWEST)}
    entries = [
        *((1, "charge", 100, "NULL"), (1, "discount", -50, "NULL"), (1, "tax", 5, "NULL")),
        *(
            (1, "reversal", 50, 2),
            (1, "reversal", -5, 3),
            (1, "discount", -20, "NULL"),
            (1, "tax", 8, "NULL"),
        ),
        *((2, "charge", 100, "NULL"), (2, "tax", 10, "NULL"), (2, "payment", -110, "NULL")),
        *((1, "reversal", -100, 1), (1, "reversal", 20, 6), (1, "reversal", -8, 7)),
        *((2, "refund", 33.33, "NULL"), (2, "reversal", -100, 8), (2, "reversal", -10, 9)),
        *((3, "charge", 100, "NULL"), (3, "tax", 10, "NULL"), (3, "payment", -150, "NULL")),
        *((4, "charge", 0, "NULL"), (4, "reversal", 0, 20)),
    ]
    voids = {1: at[NEW], 2: at[NEWEST], 4: at[NEW]}
    statements = SETUP.format(**values).split(";")
    statements += [BILL.format(id=bill, voided_at=voids.get(bill, "NULL"), **values) for bill in (1, 2, 3, 4)]
    for bill, kind, amount, reverses in entries:
        stored = round(amount * 100) if sqlite else amount
        statements.append(ENTRY.format(bill=bill, kind=kind, amount=stored, reverses=reverses, **values))
    refunds = [
        (1, 2, 33.33, "approved", at[OLD]),
        (2, 3, 50, "rejected", at[OLD]),
        (3, 3, 150, "approved", at[NEWEST]),
        (4, "NULL", 5, "approved", at[NEWEST]),
        (5, 3, 10, "requested", "NULL"),
    ]
    for number, refunded_bill, amount, status, decided_at in refunds:
        stored = round(amount * 100) if sqlite else amount
        row = {"id": number, "bill": refunded_bill, "amount": stored, "status": status, "at": decided_at}
        statements.append(REFUND.format(**row, **values))
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(text(statement))


def test_voids_and_refunds_of_an_older_version_get_their_credit_notes(database_at: NewDatabase) -> None:
    url = database_at("0024")
    with connected(url) as engine:
        fill(engine)
    migrate(url)

    with connected(url) as engine, engine.connect() as connection:
        notes = connection.execute(
            select(
                CreditNote.number,
                CreditNote.billing_id,
                CreditNote.refund_id,
                CreditNote.amount,
                CreditNote.tax,
            ).order_by(CreditNote.id)
        ).all()
        columns = select(CreditNote.created_by_id, CreditNote.reason, ClinicRecordVersion.name).distinct()
        version = ClinicRecordVersion.id == CreditNote.clinic_version_id
        origins = connection.execute(columns.join(ClinicRecordVersion, version)).all()
        counters = connection.execute(select(DocumentCounter.__table__).order_by("series", "year")).all()
        bills = connection.execute(select(Billing.clinic_version_id).distinct()).scalars().all()
        rules = [check.rule for check in credit_note_checks() if connection.execute(check.query).first()]

    assert [(*note[:3], str(note.amount), str(note.tax)) for note in notes] == EXPECTED
    assert sorted(map(tuple, origins)) == [
        (1, "late", "Lakeside Clinic"),
        (1, "typed twice", "Lakeside Clinic"),
    ]
    expected = [("CRN", 2025, 1), ("CRN", 2026, 3), ("INV", 2025, 4), ("INV", 2026, 7)]
    assert [tuple(counter) for counter in counters] == expected
    assert bills == [1]
    assert rules == []


def test_a_downgrade_keeps_the_bills_and_the_invoice_counters(database_at: NewDatabase) -> None:
    url = database_at("0024")
    with connected(url) as engine:
        fill(engine)
    migrate(url)

    command.downgrade(alembic_config(url), "0024")

    with connected(url) as engine, engine.connect() as connection:
        counters = connection.execute(text("SELECT year, last_number FROM invoice_counters ORDER BY 1")).all()
        assert [tuple(counter) for counter in counters] == [(2025, 4), (2026, 7)]
        assert connection.execute(text("SELECT count(*) FROM billings")).scalar_one() == 4
