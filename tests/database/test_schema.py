"""The rules that every table keeps, so that nobody has to remember them."""

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
    Numeric,
    PrimaryKeyConstraint,
    Table,
    UniqueConstraint,
    text,
)

from column_types import MoneyType
from errors import CONSTRAINTS
from models import Base
from tests.support.database import connected, objects_at
from tests.support.servers import ROOT

TABLES = sorted((mapper.class_ for mapper in Base.registry.mappers), key=lambda table: table.__name__)
ENTITIES = {table.__entity__: table for table in TABLES if table.__entity__}
PARTS = [table for table in TABLES if table.__part_of__]
# Who did it, and what a row came of: shown beside the row, never searched by, and what they name stays.
NOT_SEARCHED_BY = {
    "addenda.author_id",
    "dispensings.dispensed_by_id",
    "ledger_entries.claim_id",
    "ledger_entries.created_by_id",
    "ledger_entries.item_id",
    "refunds.decided_by_id",
    "refunds.entry_id",
    "refunds.payment_id",
    "refunds.requested_by_id",
    "stock_movements.created_by_id",
}
# Unique by the clinic's own doing: no caller chooses these values.
NOT_CHOSEN = {
    "uq_audit_logs_chain_number",
    "uq_billings_invoice_number",
    "uq_idempotency_keys_user_id_key",
    "uq_ledger_entries_reverses_id",
    "uq_medical_histories_patient_id",
    "uq_password_resets_token_hash",
}
# What no amount may be, as each engine would hold it.
NO_AMOUNTS = {
    "postgresql": ("'NaN'::numeric", "'Infinity'::numeric", "'-Infinity'::numeric"),
    "sqlite": ("'NaN'", "'1.00'", "9e999", "-9e999", "1000000000000", "-1000000000000"),
}
LONGEST_NAME = 63  # PostgreSQL cuts longer ones off
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
    """The names of all constraints, with those that only a trigger speaks of."""
    found = objects_at(url)
    spoken = {name for each in found for name in re.findall(r"RAISE\(ABORT, '(\w+)'\)", each.definition)}
    return {each.name for each in found} | spoken


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.__name__)
def test_every_table_says_what_a_row_of_it_is(table: type[Base]) -> None:
    first = (table.__dict__.get("__doc__") or "").partition("\n")[0]

    assert first.endswith(".")
    assert len(first) > 20


@pytest.mark.parametrize("part", PARTS, ids=lambda table: table.__name__)
def test_a_part_names_the_record_it_belongs_to(part: type[Base]) -> None:
    entity, attribute = part.__part_of__ or ("", "")

    (key,) = part.__table__.columns[attribute].foreign_keys
    assert key.column.table is ENTITIES[entity].__table__
    assert part.__entity__ is None


def test_every_foreign_key_is_indexed_unless_nothing_is_searched_by_it() -> None:
    unindexed = set()

    for column in (column for column in columns() if column.foreign_keys):
        table = column.table
        assert isinstance(table, Table)
        keys = [key for key in table.constraints if isinstance(key, (UniqueConstraint, PrimaryKeyConstraint))]
        leading = [next(iter(each.columns)) for each in (*table.indexes, *keys)]
        if column not in leading:
            unindexed.add(str(column))

    assert unindexed == NOT_SEARCHED_BY


def test_every_enum_is_text_with_a_check_that_lists_its_values(database_url: str) -> None:
    checks = {each.name: each.definition for each in objects_at(database_url) if each.kind == "constraint"}
    enums = [(column, column.type) for column in columns() if isinstance(column.type, Enum)]

    assert enums
    for column, kind in enums:
        listed = checks[f"ck_{column.table.name}_{kind.name}"]
        assert re.findall(r"'(\w+)'", listed) == [member.value for member in kind.enum_class or ()], column
        assert re.search(rf"\b{column.name}\b", listed), column


def test_instants_have_a_zone_and_numbers_are_exact() -> None:
    loose = [str(column) for column in columns() if isinstance(column.type, (DateTime, Float))]

    assert loose == []


def accepts(connection: Connection, column: Column[object], value: str) -> bool:
    """Whether the table's CHECKs let the column be `value` while every other amount is 1."""
    amounts = [other for other in column.table.columns if isinstance(other.type, (MoneyType, Numeric))]
    row = ", ".join(f"{value if other is column else 1} AS {other.name}" for other in amounts)
    checks = [
        str(rule.sqltext)
        for rule in column.table.constraints
        if isinstance(rule, CheckConstraint) and re.search(rf"\b{column.name}\b", str(rule.sqltext))
    ]
    verdicts = ", ".join(f"({check})" for check in checks) or "true"
    return False not in {
        None if verdict is None else bool(verdict)
        for verdict in connection.execute(text(f"SELECT {verdicts} FROM (SELECT {row}) AS amounts")).one()
    }


def test_no_amount_is_infinite_or_not_a_number(database_url: str, engine_name: str) -> None:
    amounts = [column for column in columns() if isinstance(column.type, (MoneyType, Numeric))]

    assert amounts
    with connected(database_url) as engine, engine.connect() as connection:
        for column in amounts:
            taken = [value for value in NO_AMOUNTS[engine_name] if accepts(connection, column, value)]
            assert taken == [], column
            assert accepts(connection, column, "1"), column


def test_every_constraint_that_has_a_message_is_in_the_database(database_url: str) -> None:
    assert set(CONSTRAINTS) - names_at(database_url) == set()


def test_every_constraint_that_a_caller_can_run_into_has_a_message(database_url: str) -> None:
    unique = {name for name in names_at(database_url) if name.startswith(("uq_", "ex_"))}
    triggers = {each.name for each in objects_at(database_url) if each.kind == "trigger"}

    assert unique - triggers - set(CONSTRAINTS) == NOT_CHOSEN


def test_constraints_and_indexes_are_named_by_the_convention(database_url: str) -> None:
    for kind, table, name, definition in objects_at(database_url):
        listed = re.match(r"(?:PRIMARY KEY|FOREIGN KEY|UNIQUE) ?\((.*?)\)", definition)
        listed_columns = re.findall(r"\w+", listed[1]) if listed else []
        expected = {
            "PRIMARY": f"pk_{table}",
            "FOREIGN": "_".join([f"fk_{table}", *listed_columns[:1]]),
            "UNIQUE": "_".join([f"uq_{table}", *listed_columns]),
            "CHECK": name if name.startswith(f"ck_{table}_") else None,
            "EXCLUDE": name if name.startswith(f"ex_{table}_") else None,
            "NOT": name,  # PostgreSQL's own, one a column
        }
        if kind == "constraint":
            assert name == expected[re.split(r"\W", definition)[0]], definition
        if kind == "index":
            assert name == f"pk_{table}" or name.startswith((f"ix_{table}_", f"uq_{table}_", f"ex_{table}_"))
        assert len(name) <= LONGEST_NAME


def test_the_models_ask_no_database_no_clock_and_no_web_framework() -> None:
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
