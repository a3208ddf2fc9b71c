"""Compared forms of unique values, partial birth dates, deaths, archiving days and "no known allergies".

Unique values that people type are now compared trimmed and case-folded. If two stored values are equal in
this form, the upgrade stops and names the rows. Change one of the values and run the upgrade again.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

# table, column, required, unique
FOLDED = (
    ("users", "email", True, True),
    ("patients", "file_number", True, True),
    ("patients", "email", False, False),
    ("patients", "insurance_id", False, False),
    ("doctors", "license_number", True, True),
    ("inventory_items", "sku", False, True),
)
REPLACED_INDEXES = ("email", "insurance_id")  # of patients; the index of the compared form replaces them
PRECISIONS = "'day', 'month', 'year', 'estimated'"
ADDED = {
    "patients": (
        "birth_date_precision VARCHAR(30) CONSTRAINT ck_patients_birthdateprecision "
        f"CHECK (birth_date_precision IN ({PRECISIONS}))",
        "deceased_on DATE",
        "archived_on DATE",
    ),
    "medical_histories": (
        "no_known_allergies_at {instant}",
        "no_known_allergies_by_id {big_id} "
        "CONSTRAINT fk_medical_histories_no_known_allergies_by_id REFERENCES users (id)",
    ),
}
TYPES = {
    "postgresql": {"instant": "TIMESTAMP WITH TIME ZONE", "big_id": "BIGINT"},
    "sqlite": {"instant": "DATETIME", "big_id": "INTEGER"},
}
ASCII_ONLY = {"postgresql": "{0} ~ '^[ -~]*$'", "sqlite": "{0} NOT GLOB '*[^ -~]*'"}
# Texts in the list of allergies that mean "no known allergies", without blanks and punctuation.
NONE_KNOWN = frozenset(
    "nka nkda nkma nil nilknown nilknownallergies no none noneknown nonereported deniesallergies "
    "noallergies noallergy noallergiesknown nodrugallergies nodrugallergy nomedicationallergies "
    "noknownallergies noknownallergy noknowndrugallergies noknowndrugallergy noknownmedicationallergies "
    "noknownmedicineallergies".split()
)
REVIEW_NOTE = "Allergies: a text that means no known allergies stands beside recorded allergies."
NOTES = f"coalesce(review_notes || ' ', '') || '{REVIEW_NOTE}'"
MAX_NAMED = 20  # collisions in the error message


def upgrade() -> None:
    """Add the columns and fill them from the stored rows."""
    context = op.get_context()
    dialect = context.dialect.name
    for table, definitions in ADDED.items():
        for definition in definitions:
            op.execute(f"ALTER TABLE {table} ADD COLUMN {definition.format(**TYPES[dialect])}")
    for table, column, required, _unique in FOLDED:
        default = " DEFAULT '' NOT NULL" if required else ""
        op.execute(f"ALTER TABLE {table} ADD COLUMN {column}_key VARCHAR(800){default}")
        ascii_only = ASCII_ONLY[dialect].format(column)
        op.execute(f"UPDATE {table} SET {column}_key = lower(trim({column})) WHERE {ascii_only}")  # noqa: S608
    op.execute("UPDATE patients SET birth_date_precision = 'day' WHERE date_of_birth IS NOT NULL")
    # the row was last changed when the patient was archived, or later
    op.execute("UPDATE patients SET archived_on = date(updated_at) WHERE NOT is_active")
    if not context.as_sql:
        connection = op.get_bind()
        for table, column, _required, _unique in FOLDED:
            _fold_other_letters(connection, table, column, ASCII_ONLY[dialect].format(column))
        _refuse_collisions(connection)
        _move_none_known(connection)
    for column in REPLACED_INDEXES:
        op.drop_index(f"ix_patients_{column}", "patients")
    for table, column, _required, unique in FOLDED:
        prefix = "uq" if unique else "ix"
        op.create_index(f"{prefix}_{table}_{column}_key", table, [f"{column}_key"], unique=unique)


def downgrade() -> None:
    """Remove the columns. The statement "no known allergies" becomes an entry in the list of allergies."""
    op.execute(
        "INSERT INTO allergies (medical_history_id, substance, substance_fold, severity) "
        "SELECT id, 'NKDA', 'nkda', 'unknown' FROM medical_histories WHERE no_known_allergies_at IS NOT NULL"
    )
    for table, column, _required, unique in FOLDED:
        op.drop_index(f"{'uq' if unique else 'ix'}_{table}_{column}_key", table)
        op.drop_column(table, f"{column}_key")
    for column in REPLACED_INDEXES:
        op.create_index(f"ix_patients_{column}", "patients", [column])
    for table, definitions in ADDED.items():
        for definition in definitions:
            op.drop_column(table, definition.partition(" ")[0])


def _fold_other_letters(connection: sa.Connection, table: str, column: str, ascii_only: str) -> None:
    """Set the compared form of values with letters outside ASCII, which the engines fold differently."""
    rows = connection.execute(sa.text(f"SELECT id, {column} FROM {table} WHERE NOT ({ascii_only})"))  # noqa: S608
    values = [
        {"row": row_id, "fold": unicodedata.normalize("NFC", value.strip()).casefold()}
        for row_id, value in rows.all()
    ]
    if values:
        update = f"UPDATE {table} SET {column}_key = :fold WHERE id = :row"  # noqa: S608
        connection.execute(sa.text(update), values)


def _refuse_collisions(connection: sa.Connection) -> None:
    collisions: list[str] = []
    for table, column, _required, unique in FOLDED:
        if not unique:
            continue
        equal = f"SELECT {column}_key FROM {table} GROUP BY {column}_key HAVING count({column}_key) > 1"  # noqa: S608
        rows = connection.execute(
            sa.text(
                f"SELECT id, {column} FROM {table} WHERE {column}_key IN ({equal}) "  # noqa: S608
                f"ORDER BY {column}_key, id"
            )
        )
        collisions += [f"{table}.{column} of row {row_id}: {value!r}" for row_id, value in rows]
    if collisions:
        named = "\n".join(collisions[:MAX_NAMED])
        raise RuntimeError(
            f"{len(collisions)} values are equal when case and outer blanks are ignored. "
            f"Make them different and run the upgrade again:\n{named}"
        )


def _move_none_known(connection: sa.Connection) -> None:
    """Replace allergies such as NKDA by the statement that there are no known allergies.

    Beside recorded allergens such a text contradicts them. It stays, and the patient needs a review.
    """
    rows = connection.execute(
        sa.text("SELECT id, medical_history_id, substance_fold, reaction FROM allergies")
    ).all()
    stated = {row.medical_history_id for row in rows if _is_none_known(row)}
    contradicted = {
        row.medical_history_id for row in rows if row.medical_history_id in stated and not _is_none_known(row)
    }
    _execute_for(
        connection,
        "UPDATE medical_histories SET no_known_allergies_at = updated_at WHERE id = :id",
        stated - contradicted,
    )
    _execute_for(
        connection,
        "DELETE FROM allergies WHERE id = :id",
        {row.id for row in rows if row.medical_history_id in stated - contradicted and _is_none_known(row)},
    )
    _execute_for(
        connection,
        f"UPDATE patients SET needs_review = true, review_notes = {NOTES} WHERE id = "  # noqa: S608
        "(SELECT patient_id FROM medical_histories WHERE medical_histories.id = :id)",
        contradicted,
    )


def _is_none_known(row: Any) -> bool:
    text = "".join(character for character in row.substance_fold if character.isalnum())
    return text in NONE_KNOWN and row.reaction is None


def _execute_for(connection: sa.Connection, statement: str, ids: Iterable[Any]) -> None:
    parameters = [{"id": row_id} for row_id in sorted(ids)]
    if parameters:
        connection.execute(sa.text(statement), parameters)
