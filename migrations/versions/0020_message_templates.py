"""Add the settings of messages, and the templates that an administrator has changed.

The settings have one row, which this migration inserts. A new clinic sends e-mails about appointments: the
other channels need a provider that charges for each message.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None

BIG_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
JSON = sa.JSON().with_variant(JSONB(), "postgresql")
INSTANT = sa.DateTime(timezone=True)
KINDS = ("booked", "moved", "cancelled", "reminder", "follow_up_due", "invoice")
CHANNELS = ("email", "sms", "whatsapp")


def upgrade() -> None:
    """Create the tables, and the row of the settings."""
    op.create_table(
        "message_settings",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("kinds", JSON, nullable=False),
        sa.Column("channels", JSON, nullable=False),
        sa.Column("reminder_hours", JSON, nullable=False),
        sa.Column("quiet_start", sa.Time(), nullable=True),
        sa.Column("quiet_end", sa.Time(), nullable=True),
        sa.Column("expiry_hours", sa.Integer(), nullable=False),
        *_version_columns(),
        sa.PrimaryKeyConstraint("id", name="pk_message_settings"),
        sa.CheckConstraint("id = 1", name=op.f("ck_message_settings_one_row")),
        sa.CheckConstraint(
            "(quiet_start IS NULL) = (quiet_end IS NULL)",
            name=op.f("ck_message_settings_quiet_hours_have_an_end"),
        ),
        sa.CheckConstraint(
            "expiry_hours BETWEEN 1 AND 336", name=op.f("ck_message_settings_expiry_hours_range")
        ),
    )
    op.create_table(
        "message_templates",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("kind", sa.String(30), nullable=False),
        sa.Column("channel", sa.String(30), nullable=False),
        sa.Column("locale", sa.String(35), nullable=False),
        sa.Column("subject", sa.String(500), nullable=True),
        sa.Column("text", sa.Text(), nullable=False),
        *_version_columns(),
        sa.PrimaryKeyConstraint("id", name="pk_message_templates"),
        sa.UniqueConstraint(
            "kind", "channel", "locale", name=op.f("uq_message_templates_kind_channel_locale")
        ),
        _values_check("kind", "messagekind", KINDS),
        _values_check("channel", "messagechannel", CHANNELS),
    )
    op.execute(
        "INSERT INTO message_settings (id, kinds, channels, reminder_hours, quiet_start, quiet_end, "
        "expiry_hours, version, created_at, updated_at) VALUES (1, "
        """'["booked", "moved", "cancelled", "reminder"]', '["email"]', '[24, 2]', """
        "'20:00:00.000000', '07:30:00.000000', 72, 1, CURRENT_TIMESTAMP, CURRENT_TIMESTAMP)"
    )


def downgrade() -> None:
    """Drop the tables."""
    op.drop_table("message_templates")
    op.drop_table("message_settings")


def _version_columns() -> tuple[sa.Column[object], ...]:
    return (
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.Column("updated_at", INSTANT, nullable=False),
    )


def _values_check(column: str, name: str, values: tuple[str, ...]) -> sa.CheckConstraint:
    listed = ", ".join(f"'{value}'" for value in values)
    return sa.CheckConstraint(f"{column} IN ({listed})", name=op.f(f"ck_message_templates_{name}"))
