"""Add the letters of doctors."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0026"
down_revision = "0025"
branch_labels = None
depends_on = None

BIG_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
INSTANT = sa.DateTime(timezone=True)
JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")


def _reference(name: str, target: str) -> sa.Column[int]:
    return sa.Column(name, BIG_ID, sa.ForeignKey(f"{target}.id"), nullable=False)


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        "letters",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("number", sa.String(30), nullable=False),
        _reference("visit_id", "visits"),
        _reference("patient_id", "patients"),
        _reference("doctor_id", "doctors"),
        _reference("clinic_version_id", "clinic_record_versions"),
        sa.Column("type", sa.String(30), nullable=False),
        sa.Column("issued_on", sa.Date(), nullable=False),
        sa.Column("from_date", sa.Date(), nullable=True),
        sa.Column("to_date", sa.Date(), nullable=True),
        sa.Column("recipient", sa.String(500), nullable=True),
        sa.Column("text", sa.Text(), nullable=True),
        sa.Column("printed", JSON, nullable=False),
        sa.Column("voided_at", INSTANT, nullable=True),
        sa.Column("void_reason", sa.String(500), nullable=True),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.Column("updated_at", INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("number"),
        sa.CheckConstraint("type IN ('sick_note', 'referral', 'certificate')", name="lettertype"),
        sa.CheckConstraint("to_date >= from_date", name="period"),
        sa.CheckConstraint(
            "type <> 'sick_note' OR (from_date IS NOT NULL AND to_date IS NOT NULL)", name="sick_note_period"
        ),
        sa.CheckConstraint("(voided_at IS NULL) = (void_reason IS NULL)", name="void_reason"),
    )
    op.create_index("ix_letters_visit_id", "letters", ["visit_id"])
    op.create_index("ix_letters_patient_created", "letters", ["patient_id", "created_at"])
    op.create_index("ix_letters_doctor_created", "letters", ["doctor_id", "created_at"])
    op.create_index("ix_letters_issued_on", "letters", ["issued_on"])
    if op.get_context().dialect.name == "postgresql":  # for the search of a part of a number
        op.execute(
            "CREATE INDEX ix_letters_number_trgm ON letters USING gin (number gin_trgm_ops) "
            "WITH (gin_pending_list_limit = 128)"
        )


def downgrade() -> None:
    """Remove the table, and the counters of its numbers."""
    op.drop_table("letters")
    op.execute("DELETE FROM document_counters WHERE series = 'LTR'")
