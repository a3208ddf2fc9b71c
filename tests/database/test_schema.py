"""Conventions of the schema: names, keys, indexes, types, checks and error messages."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest
from sqlalchemy import (
    CheckConstraint,
    Column,
    Connection,
    DateTime,
    Enum,
    Float,
    Integer,
    Numeric,
    PrimaryKeyConstraint,
    Table,
    UniqueConstraint,
    text,
)

from column_types import FixedPointType
from errors import CONSTRAINTS
from models import Base
from tests.support.database import connected, objects_at
from tests.support.servers import ROOT

TABLES = sorted((mapper.class_ for mapper in Base.registry.mappers), key=lambda table: table.__name__)
ENTITIES = {table.__entity__: table for table in TABLES if table.__entity__}
PARTS = [table for table in TABLES if table.__part_of__]
# Foreign keys without an index: no query searches by them, and the rows that they name are never removed.
UNINDEXED_KEYS = {
    "addenda.author_id",
    "billings.clinic_version_id",
    "billing_items.price_list_item_id",
    "letters.clinic_version_id",
    "credit_notes.clinic_version_id",
    "credit_notes.created_by_id",
    "dispensings.dispensed_by_id",
    "emergency_accesses.reviewed_by_id",
    "ledger_entries.claim_id",
    "ledger_entries.created_by_id",
    "ledger_entries.item_id",
    "ledger_entries.overpaid_billing_id",
    "medical_histories.no_known_allergies_by_id",
    "messages.created_by_id",
    "refunds.decided_by_id",
    "refunds.entry_id",
    "refunds.payment_id",
    "refunds.requested_by_id",
    "stock_movements.created_by_id",
}
# Unique constraints without an error message: the server assigns these values, not a caller.
SERVER_ASSIGNED = {
    "uq_audit_logs_chain_number",
    "uq_billings_invoice_number",
    "uq_calendar_feeds_token_hash",
    "uq_import_rows_import_id_number",
    "uq_import_sources_kind_source_source_id",
    "uq_contact_stops_channel_number",
    "uq_credit_notes_number",
    "uq_credit_notes_refund_id",
    "uq_credit_notes_void",
    "uq_idempotency_keys_user_id_key",
    "uq_jobs_dedupe_key",
    "uq_ledger_entries_reverses_id",
    "uq_letters_number",
    "uq_medical_histories_patient_id",
    "uq_messages_dedupe_key",
    "uq_password_resets_token_hash",
    "uq_factor_challenges_token_hash",
    "uq_recovery_codes_user_id_code_hash",
    "uq_totp_secrets_user_id",
}
# Values that no amount may have, as each engine would store them.
INVALID_AMOUNTS = {
    "postgresql": ("'NaN'::numeric", "'Infinity'::numeric", "'-Infinity'::numeric"),
    "sqlite": ("'NaN'", "'1.00'", "9e999", "-9e999"),
}
MAX_NAME_LENGTH = 63  # PostgreSQL truncates longer names
CLOCKS_AND_QUERIES = {
    "now",
    "utcnow",
    "today",
    "select",
    "insert",
    "update",
    "delete",
    "func",
    "query",
    "execute",
}


def columns() -> Iterator[Column[object]]:
    for table in Base.metadata.tables.values():
        yield from table.columns


def names_at(url: str) -> set[str]:
    """Return the names of all constraints, including those that a trigger raises."""
    objects = objects_at(url)
    raised = {name for each in objects for name in re.findall(r"RAISE\(ABORT, '(\w+)'\)", each.definition)}
    return {each.name for each in objects} | raised


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.__name__)
def test_every_table_has_a_docstring(table: type[Base]) -> None:
    first = (table.__dict__.get("__doc__") or "").partition("\n")[0]

    assert first.endswith(".")
    assert len(first) > 20


@pytest.mark.parametrize("part", PARTS, ids=lambda table: table.__name__)
def test_part_of_names_an_entity_and_a_foreign_key_to_it(part: type[Base]) -> None:
    entity, attribute = part.__part_of__ or ("", "")

    (key,) = part.__table__.columns[attribute].foreign_keys
    assert key.column.table is ENTITIES[entity].__table__
    assert part.__entity__ is None


def test_every_foreign_key_is_indexed_except_the_listed_ones() -> None:
    unindexed = set()

    for column in (column for column in columns() if column.foreign_keys):
        table = column.table
        assert isinstance(table, Table)
        keys = [key for key in table.constraints if isinstance(key, (UniqueConstraint, PrimaryKeyConstraint))]
        leading = [next(iter(each.columns)) for each in (*table.indexes, *keys)]
        if column not in leading:
            unindexed.add(str(column))

    assert unindexed == UNINDEXED_KEYS


def test_every_enumeration_has_a_check_that_lists_its_values(database_url: str) -> None:
    checks = {each.name: each.definition for each in objects_at(database_url) if each.kind == "constraint"}
    enums = [(column, column.type) for column in columns() if isinstance(column.type, Enum)]

    assert enums
    for column, kind in enums:
        listed = checks[f"ck_{column.table.name}_{kind.name}"]
        assert re.findall(r"'(\w+)'", listed) == [member.value for member in kind.enum_class or ()], column
        assert re.search(rf"\b{column.name}\b", listed), column


def test_no_column_is_a_plain_datetime_or_a_float() -> None:
    inexact = [str(column) for column in columns() if isinstance(column.type, (DateTime, Float))]

    assert inexact == []


def accepts(connection: Connection, column: Column[object], value: str) -> bool:
    """Return True if the CHECKs of the table accept `value` in the column, with 1 in every other number."""
    kinds = (FixedPointType, Numeric, Integer)
    numbers = [other for other in column.table.columns if isinstance(other.type, kinds)]
    row = ", ".join(f'{value if other is column else 1} AS "{other.name}"' for other in numbers)
    checks = [
        str(rule.sqltext)
        for rule in column.table.constraints
        if isinstance(rule, CheckConstraint) and re.search(rf"\b{column.name}\b", str(rule.sqltext))
    ]
    conditions = ", ".join(f"({check})" for check in checks) or "true"
    return False not in {
        None if result is None else bool(result)
        for result in connection.execute(text(f"SELECT {conditions} FROM (SELECT {row}) AS numbers")).one()
    }


def test_no_amount_is_infinite_or_not_a_number(database_url: str, engine_name: str) -> None:
    amounts = [column for column in columns() if isinstance(column.type, (FixedPointType, Numeric))]

    assert amounts
    with connected(database_url) as engine, engine.connect() as connection:
        for column in amounts:
            too_large = 10 ** (column.type.precision or 12)
            values = INVALID_AMOUNTS[engine_name]
            values += () if engine_name == "postgresql" else (str(too_large), str(-too_large))
            accepted = [value for value in values if accepts(connection, column, value)]
            assert accepted == [], column
            assert accepts(connection, column, "1"), column


def test_every_constraint_with_an_error_message_exists(database_url: str) -> None:
    assert set(CONSTRAINTS) - names_at(database_url) == set()


def test_every_constraint_that_a_request_can_violate_has_an_error_message(database_url: str) -> None:
    unique = {name for name in names_at(database_url) if name.startswith(("uq_", "ex_"))}
    triggers = {each.name for each in objects_at(database_url) if each.kind == "trigger"}

    assert unique - triggers - set(CONSTRAINTS) == SERVER_ASSIGNED


def test_constraints_and_indexes_follow_the_naming_convention(database_url: str) -> None:
    for kind, table, name, definition in objects_at(database_url):
        listed = re.match(r"(?:PRIMARY KEY|FOREIGN KEY|UNIQUE) ?\((.*?)\)", definition)
        listed_columns = re.findall(r"\w+", listed[1]) if listed else []
        expected = {
            "PRIMARY": f"pk_{table}",
            "FOREIGN": "_".join([f"fk_{table}", *listed_columns[:1]]),
            "UNIQUE": "_".join([f"uq_{table}", *listed_columns]),
            "CHECK": name if name.startswith(f"ck_{table}_") else None,
            "EXCLUDE": name if name.startswith(f"ex_{table}_") else None,
            "NOT": name,  # NOT NULL constraints, which PostgreSQL names
        }
        if kind == "constraint":
            assert name == expected[re.split(r"\W", definition)[0]], definition
        if kind == "index":
            assert name == f"pk_{table}" or name.startswith((f"ix_{table}_", f"uq_{table}_", f"ex_{table}_"))
        assert len(name) <= MAX_NAME_LENGTH


def test_the_models_have_no_queries_no_clock_and_no_web_framework() -> None:
    tree = ast.parse((ROOT / "models.py").read_text())

    imported = {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    imported |= {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
    used = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    used |= {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}

    roots = {name.partition(".")[0] for name in imported}
    assert roots == {
        "__future__",
        "column_types",
        "datetime",
        "decimal",
        "enum",
        "enums",
        "sqlalchemy",
        "typing",
    }
    assert used & CLOCKS_AND_QUERIES == set()
