"""Add imports of spreadsheets: their files, the results of their rows, and the sources of imported rows."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0029"
down_revision = "0028"
branch_labels = None
depends_on = None

BIG_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
INSTANT = sa.DateTime(timezone=True)
JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
KINDS = "kind IN ('patients', 'doctors', 'appointments', 'inventory', 'price_list', 'opening_balances')"
STATES = "state IN ('uploaded', 'checking', 'checked', 'applying', 'applied', 'failed', 'undoing', 'undone')"
COUNTS = ("ready", "applied", "skipped", "refused", "undone")


def upgrade() -> None:
    """Create the tables."""
    _create_imports()
    op.create_table(
        "import_files",
        sa.Column("import_id", BIG_ID, nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.Column("sample", JSON, nullable=False),
        sa.PrimaryKeyConstraint("import_id"),
        _of_import("import_files"),
    )
    op.create_table(
        "import_rows",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("import_id", BIG_ID, nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(30), nullable=False),
        sa.Column("action", sa.String(30), nullable=False),
        sa.Column("entity_id", BIG_ID, nullable=True),
        sa.Column("version", sa.Integer(), nullable=True),
        sa.Column("problems", JSON, nullable=False),
        sa.Column("previous", JSON, nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("import_id", "number", name="uq_import_rows_import_id_number"),
        sa.CheckConstraint(
            "state IN ('ready', 'applied', 'skipped', 'refused', 'undone')",
            name=op.f("ck_import_rows_importrowstate"),
        ),
        sa.CheckConstraint(
            "action IN ('create', 'update', 'none')", name=op.f("ck_import_rows_importaction")
        ),
        _of_import("import_rows"),
    )
    op.create_index("ix_import_rows_import_id_state", "import_rows", ["import_id", "state"])
    op.create_index("ix_import_rows_entity_id", "import_rows", ["entity_id"])
    op.create_table(
        "import_sources",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("kind", sa.String(30), nullable=False),
        sa.Column("source", sa.String(100), nullable=False),
        sa.Column("source_id", sa.String(200), nullable=False),
        sa.Column("entity_id", BIG_ID, nullable=False),
        sa.Column("import_id", BIG_ID, nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("kind", "source", "source_id", name="uq_import_sources_kind_source_source_id"),
        sa.CheckConstraint(KINDS, name=op.f("ck_import_sources_importsubject")),
        sa.ForeignKeyConstraint(["import_id"], ["imports.id"], name="fk_import_sources_import_id"),
    )
    op.create_index("ix_import_sources_import_id_entity_id", "import_sources", ["import_id", "entity_id"])


def _create_imports() -> None:
    op.create_table(
        "imports",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("kind", sa.String(30), nullable=False),
        sa.Column("source", sa.String(100), nullable=False),
        sa.Column("file_name", sa.String(200), nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("sheet", sa.String(200), nullable=True),
        sa.Column("encoding", sa.String(30), nullable=True),
        sa.Column("delimiter", sa.String(1), nullable=True),
        sa.Column("date_format", sa.String(30), nullable=True),
        sa.Column("decimal", sa.String(1), nullable=True),
        sa.Column("on_duplicate", sa.String(30), nullable=False),
        sa.Column("on_error", sa.String(30), nullable=False),
        sa.Column("header", JSON, nullable=False),
        sa.Column("mapping", JSON, nullable=False),
        sa.Column("state", sa.String(30), nullable=False),
        sa.Column("rows", sa.Integer(), nullable=False),
        sa.Column("blank", sa.Integer(), nullable=False),
        sa.Column("title_rows", sa.Integer(), nullable=False),
        sa.Column("other_sheets", JSON, nullable=False),
        *(sa.Column(name, sa.Integer(), nullable=False) for name in COUNTS),
        sa.Column("digest", sa.String(64), nullable=True),
        sa.Column("failure", sa.String(500), nullable=True),
        sa.Column("job_id", BIG_ID, nullable=True),
        sa.Column("checked_at", INSTANT, nullable=True),
        sa.Column("applied_at", INSTANT, nullable=True),
        sa.Column("undone_at", INSTANT, nullable=True),
        sa.Column("created_by_id", BIG_ID, nullable=True),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.Column("updated_at", INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.ForeignKeyConstraint(["created_by_id"], ["users.id"], name="fk_imports_created_by_id"),
        sa.CheckConstraint(KINDS, name=op.f("ck_imports_importsubject")),
        sa.CheckConstraint(STATES, name=op.f("ck_imports_importstate")),
        sa.CheckConstraint(
            "on_duplicate IN ('report', 'skip', 'update', 'create_flagged')",
            name=op.f("ck_imports_onduplicate"),
        ),
        sa.CheckConstraint("on_error IN ('none', 'skip')", name=op.f("ck_imports_onerror")),
        sa.CheckConstraint(
            "ready + applied + skipped + refused + undone <= rows", name=op.f("ck_imports_counts")
        ),
    )
    op.create_index("ix_imports_created_at", "imports", ["created_at"])
    op.create_index("ix_imports_created_by_id", "imports", ["created_by_id"])


def _of_import(table: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(
        ["import_id"], ["imports.id"], name=f"fk_{table}_import_id", ondelete="CASCADE"
    )


def downgrade() -> None:
    """Remove the tables. The imported records stay."""
    for table in ("import_sources", "import_rows", "import_files", "imports"):
        op.drop_table(table)
