"""Events of changes, and jobs for worker processes."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None

BIG_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
INSTANT = sa.DateTime(timezone=True)
JSON = sa.JSON().with_variant(JSONB(), "postgresql")


def upgrade() -> None:
    """Create the tables and their indexes."""
    op.create_table(
        "events",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("type", sa.String(100), nullable=False),
        sa.Column("entity", sa.String(50), nullable=False),
        sa.Column("entity_id", BIG_ID),
        sa.Column("patient_id", BIG_ID),
        sa.Column("fields", JSON, nullable=False),
        sa.Column("at", INSTANT, nullable=False),
        sa.Column("dispatched_at", INSTANT),
        sa.PrimaryKeyConstraint("id", name="pk_events"),
    )
    op.create_table(
        "jobs",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("kind", sa.String(100), nullable=False),
        sa.Column("payload", JSON, nullable=False),
        sa.Column("state", sa.String(30), nullable=False),
        sa.Column("run_at", INSTANT, nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("locked_until", INSTANT),
        sa.Column("locked_by", sa.String(100)),
        sa.Column("dedupe_key", sa.String(255)),
        sa.Column("last_error", sa.String(500)),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.Column("finished_at", INSTANT),
        sa.PrimaryKeyConstraint("id", name="pk_jobs"),
        sa.UniqueConstraint("dedupe_key", name="uq_jobs_dedupe_key"),
        sa.CheckConstraint("attempts >= 0", name=op.f("ck_jobs_attempts_not_negative")),
        sa.CheckConstraint(
            "(state = 'running') = (locked_until IS NOT NULL) "
            "AND (state = 'running') = (locked_by IS NOT NULL)",
            name=op.f("ck_jobs_lease_while_running"),
        ),
        sa.CheckConstraint(
            "(state IN ('done', 'dead')) = (finished_at IS NOT NULL)", name=op.f("ck_jobs_finished_at_end")
        ),
        sa.CheckConstraint("state IN ('queued', 'running', 'done', 'dead')", name=op.f("ck_jobs_jobstate")),
    )
    _partial_index("ix_events_waiting", "events", ["id"], "dispatched_at IS NULL")
    _partial_index("ix_jobs_due", "jobs", ["run_at", "id"], "state = 'queued'")
    op.create_index("ix_jobs_state_kind", "jobs", ["state", "kind"])
    op.create_index("ix_jobs_finished_at", "jobs", ["finished_at"])


def downgrade() -> None:
    """Remove the tables. Waiting events and jobs are lost."""
    op.drop_table("jobs")
    op.drop_table("events")


def _partial_index(name: str, table: str, columns: list[str], condition: str) -> None:
    where = sa.text(condition)
    op.create_index(name, table, columns, postgresql_where=where, sqlite_where=where)
