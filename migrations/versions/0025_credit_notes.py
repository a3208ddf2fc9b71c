"""Add the versions of the clinic record.

A bill prints the clinic as it was at the issue of the bill. The content of today becomes the first version.
It is also the one of existing bills, because earlier contents were not stored.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0025"
down_revision = "0024"
branch_labels = None
depends_on = None

BIG_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
INSTANT = sa.DateTime(timezone=True)
JSON = sa.JSON().with_variant(JSONB(), "postgresql")
VERSIONS = "clinic_record_versions"
CONTENT = (
    "name, legal_name, address, phones, email, website, registration_number, tax_number, bank_details, "
    "invoice_footer, chosen_locale, logo, logo_hash"
)
VERSION_KEY = "CONSTRAINT fk_billings_clinic_version_id"


def upgrade() -> None:
    """Create the tables and the columns, and fill them."""
    _create_versions()


def downgrade() -> None:
    """Remove the columns and the tables."""
    op.drop_column("billings", "clinic_version_id")
    op.drop_table(VERSIONS)


def _create_versions() -> None:
    op.create_table(
        VERSIONS,
        sa.Column("id", BIG_ID, nullable=False),
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
        sa.Column("created_at", INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("id", name=f"pk_{VERSIONS}"),
    )
    columns = f"{CONTENT}, created_at"
    values = f"{CONTENT}, updated_at"
    op.execute(f"INSERT INTO {VERSIONS} ({columns}) SELECT {values} FROM clinic_record")  # noqa: S608
    version = f"REFERENCES {VERSIONS} (id)"
    if op.get_context().dialect.name == "sqlite":
        # SQLite adds a reference only as a column without a value
        op.execute(f"ALTER TABLE billings ADD COLUMN clinic_version_id INTEGER {VERSION_KEY} {version}")
    else:
        op.execute(f"ALTER TABLE billings ADD COLUMN clinic_version_id BIGINT {VERSION_KEY} {version}")
    op.execute(f"UPDATE billings SET clinic_version_id = (SELECT max(id) FROM {VERSIONS})")  # noqa: S608
    _require_version()


def _require_version() -> None:
    if op.get_context().dialect.name != "sqlite":
        op.alter_column("billings", "clinic_version_id", nullable=False)
        return
    # The rows stay as they are (https://www.sqlite.org/lang_altertable.html, section 7).
    connection = op.get_bind()
    connection.exec_driver_sql("PRAGMA writable_schema = ON")
    connection.exec_driver_sql(
        "UPDATE sqlite_master SET sql = replace(sql, ?, ?) WHERE type = 'table' AND name = 'billings'",
        (f"clinic_version_id INTEGER {VERSION_KEY}", f"clinic_version_id INTEGER NOT NULL {VERSION_KEY}"),
    )
    connection.exec_driver_sql("PRAGMA writable_schema = RESET")
