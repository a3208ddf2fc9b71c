"""Add the calendar feeds of doctors."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None

TABLE = "calendar_feeds"
BIG_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
INSTANT = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Add the table."""
    op.create_table(
        TABLE,
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("doctor_id", BIG_ID, nullable=False),
        sa.Column("user_id", BIG_ID, nullable=True),
        sa.Column("token_hash", sa.String(64), nullable=False),
        sa.Column("detail", sa.String(30), nullable=False),
        sa.Column("days_back", sa.Integer(), nullable=False),
        sa.Column("days_ahead", sa.Integer(), nullable=False),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.Column("ended_at", INSTANT, nullable=True),
        sa.Column("last_fetched_at", INSTANT, nullable=True),
        sa.Column("user_agent", sa.String(500), nullable=True),
        sa.Column("content_digest", sa.String(64), nullable=True),
        sa.Column("content_changed_at", INSTANT, nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_calendar_feeds")),
        sa.ForeignKeyConstraint(["doctor_id"], ["doctors.id"], name=op.f("fk_calendar_feeds_doctor_id")),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_calendar_feeds_user_id")),
        sa.UniqueConstraint("token_hash", name=op.f("uq_calendar_feeds_token_hash")),
        sa.CheckConstraint(
            "detail IN ('busy', 'initials', 'names')", name=op.f("ck_calendar_feeds_calendardetail")
        ),
        sa.CheckConstraint("days_back BETWEEN 0 AND 366", name=op.f("ck_calendar_feeds_days_back_range")),
        sa.CheckConstraint("days_ahead BETWEEN 1 AND 366", name=op.f("ck_calendar_feeds_days_ahead_range")),
    )
    op.create_index("ix_calendar_feeds_doctor_id", TABLE, ["doctor_id"])
    op.create_index("ix_calendar_feeds_user_id", TABLE, ["user_id"])


def downgrade() -> None:
    """Remove the table. The addresses of all feeds end."""
    op.drop_table(TABLE)
