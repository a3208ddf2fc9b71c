"""Migration 0011 on a database with bills, payments and refunds."""

from __future__ import annotations

import pytest
from alembic import command
from sqlalchemy import Engine, text

from tests.conftest import NewDatabase
from tests.support.database import alembic_config, connected, migrate

PEOPLE = """
INSERT INTO users
(id, name, name_fold, email, password_hash, role, is_active, version, created_at, updated_at) VALUES
(1, 'A', 'a', 'a@b.example', '!', 'admin', {true}, 1, {now}, {now});
INSERT INTO patients
(id, file_number, name, name_fold, needs_review, is_active, version, created_at, updated_at) VALUES
(1, 'P-1', 'B', 'b', {false}, {true}, 1, {now}, {now})
"""
BILL = """
INSERT INTO billings (id, invoice_number, patient_id, tax_rate, version, created_at, updated_at)
VALUES ({id}, 'INV-{id}', 1, 0, 1, {now}, {now})
"""
ENTRY = """
INSERT INTO ledger_entries (id, patient_id, billing_id, kind, amount, method, occurred_at, created_at)
VALUES ({id}, 1, {bill}, '{kind}', {amount}, '{method}', {now}, {now})
"""
REFUND = """
INSERT INTO refunds
(id, billing_id, payment_id, entry_id, amount, reason, status, requested_by_id, created_at, updated_at) VALUES
({id}, {bill}, {payment}, {entry}, 10, 'x', '{status}', 1, {now}, {now})
"""
# refund -> method after the migration
EXPECTED = {
    1: "card",  # requested for a payment by card
    2: None,  # requested for a bill that was paid by two methods
    3: "cash",  # rejected, and the bill was paid in cash only
    4: "cash",  # paid out in cash, and received in cash
    5: None,  # paid out by card, more than was received by card
    6: None,  # spent credit, paid out by another method
}


@pytest.fixture
def older_url(database_at: NewDatabase) -> str:
    """Return the URL of a database with the schema of 0006."""
    return database_at("0006")


def fill(engine: Engine) -> None:
    """Insert bills with payments and refunds."""
    sqlite = engine.dialect.name == "sqlite"
    now = "'2026-03-02 09:00:00.000000'" if sqlite else "'2026-03-02 09:00:00Z'"
    values = {"now": now, "true": "1" if sqlite else "true", "false": "0" if sqlite else "false"}
    entries = [
        (1, 1, "payment", -30, "cash"),
        (2, 1, "payment", -30, "card"),
        (3, 2, "payment", -30, "cash"),
        (4, 2, "refund", 10, "cash"),
        (5, 3, "payment", -50, "cash"),
        (6, 3, "payment", -5, "card"),
        (7, 3, "refund", 10, "card"),
        (8, 4, "credit", -10, "credit"),
        (9, 4, "refund", 10, "other"),
    ]
    refunds = [
        (1, 1, 2, "NULL", "requested"),
        (2, 1, "NULL", "NULL", "requested"),
        (3, 2, "NULL", "NULL", "rejected"),
        (4, 2, "NULL", 4, "approved"),
        (5, 3, "NULL", 7, "approved"),
        (6, 4, "NULL", 9, "approved"),
    ]
    statements = PEOPLE.format(**values).split(";")
    statements += [BILL.format(id=bill, **values) for bill in (1, 2, 3, 4)]
    for number, bill, kind, amount, method in entries:
        statements.append(
            ENTRY.format(id=number, bill=bill, kind=kind, amount=amount, method=method, **values)
        )
    for number, bill, payment, entry, status in refunds:
        statements.append(
            REFUND.format(id=number, bill=bill, payment=payment, entry=entry, status=status, **values)
        )
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(text(statement))


def test_refunds_and_bills_of_an_older_version_are_completed(older_url: str) -> None:
    with connected(older_url) as engine:
        fill(engine)
    migrate(older_url)

    with connected(older_url) as engine, engine.connect() as connection:
        refunds = connection.execute(text("SELECT id, method FROM refunds")).tuples().all()
        patients = connection.execute(text("SELECT DISTINCT patient_id FROM refunds")).scalars().all()
        days = connection.execute(text("SELECT DISTINCT date FROM billings")).scalars().all()
    assert dict(refunds) == EXPECTED
    assert (patients, [str(day) for day in days]) == ([1], ["2026-03-02"])


def test_a_downgrade_keeps_the_refunds_of_bills_and_refuses_new_kinds_of_rows(older_url: str) -> None:
    with connected(older_url) as engine:
        fill(engine)
    migrate(older_url)
    command.downgrade(alembic_config(older_url), "0006")
    with connected(older_url) as engine, engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM refunds")).scalar_one() == len(EXPECTED)
    migrate(older_url)
    with connected(older_url) as engine, engine.begin() as connection:
        connection.execute(text("UPDATE refunds SET billing_id = NULL WHERE id = 1"))

    with pytest.raises(Exception, match=r"refunds of credit|billing_id"):
        command.downgrade(alembic_config(older_url), "0006")
