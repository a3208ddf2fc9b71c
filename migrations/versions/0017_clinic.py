"""Add the clinic record and the language of patients.

The record has one row, which this migration inserts. Its locale stays empty: the setting applies until an
administrator chooses another one.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

JSON = sa.JSON().with_variant(JSONB(), "postgresql")
INSTANT = sa.DateTime(timezone=True)
NAME = "Clinic"  # until an administrator enters the real one


def upgrade() -> None:
    """Create the table with its row, and the column."""
    op.create_table(
        "clinic_record",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("legal_name", sa.String(200), nullable=True),
        sa.Column("address", sa.String(500), nullable=True),
        sa.Column("phones", JSON, nullable=False),
        sa.Column("email", sa.String(254), nullable=True),
        sa.Column("website", sa.String(500), nullable=True),
        sa.Column("registration_number", sa.String(100), nullable=True),
        sa.Column("tax_number", sa.String(100), nullable=True),
        sa.Column("bank_details", sa.Text(), nullable=True),
        sa.Column("invoice_footer", sa.Text(), nullable=True),
        sa.Column("chosen_locale", sa.String(35), nullable=True),
        sa.Column("logo", sa.LargeBinary(), nullable=True),
        sa.Column("logo_hash", sa.String(64), nullable=True),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.Column("updated_at", INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_clinic_record"),
        sa.CheckConstraint("id = 1", name=op.f("ck_clinic_record_one_row")),
    )
    op.execute(
        "INSERT INTO clinic_record (id, name, phones, version, created_at, updated_at) "  # noqa: S608
        f"VALUES (1, '{NAME}', '[]', 1, CURRENT_TIMESTAMP, CURRENT_TIMESTAMP)"
    )
    op.add_column("patients", sa.Column("language", sa.String(35), nullable=True))


def downgrade() -> None:
    """Drop the column and the table."""
    op.drop_column("patients", "language")
    op.drop_table("clinic_record")
