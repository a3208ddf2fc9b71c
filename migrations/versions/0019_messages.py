"""Messages to patients, contact preferences, stops by answer, and the confirmation of an appointment."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None

BIG_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
INSTANT = sa.DateTime(timezone=True)
KINDS = ("booked", "moved", "cancelled", "reminder", "follow_up_due", "invoice")
CHANNELS = ("email", "sms", "whatsapp")
STATES = ("queued", "sending", "sent", "delivered", "failed", "cancelled", "suppressed", "unknown")
REASONS = (
    *("no_address", "not_allowed", "stopped", "patient_inactive", "not_needed", "quiet_hours", "by_user"),
    *("expired", "temporary", "refused", "undelivered", "interrupted", "no_answer"),
)
REFERENCES = {
    "patient_id": "patients",
    "appointment_id": "appointments",
    "visit_id": "visits",
    "billing_id": "billings",
    "created_by_id": "users",
}
INDEXES = {
    **{f"ix_messages_{name}": (name,) for name in REFERENCES if name != "created_by_id"},
    "ix_messages_state_send_at": ("state", "send_at"),
    "ix_messages_send_at": ("send_at",),
    "ix_messages_provider_message_id": ("provider_message_id",),
}


def upgrade() -> None:
    """Create the tables and the columns."""
    op.add_column("appointments", sa.Column("previous_start", INSTANT, nullable=True))
    op.add_column("appointments", sa.Column("confirmed_at", INSTANT, nullable=True))
    _create_messages()
    for name, columns in INDEXES.items():
        op.create_index(name, "messages", list(columns))
    op.create_table(
        "contact_preferences",
        sa.Column("id", BIG_ID, autoincrement=False, nullable=False),
        *(sa.Column(channel, sa.Boolean(), nullable=False) for channel in CHANNELS),
        sa.Column("preferred_channel", sa.String(30), nullable=True),
        *_versioned(),
        sa.PrimaryKeyConstraint("id", name="pk_contact_preferences"),
        sa.ForeignKeyConstraint(["id"], ["patients.id"], name="fk_contact_preferences_id"),
        _one_of("contact_preferences", "preferred_channel", "messagechannel", CHANNELS),
    )
    op.create_table(
        "contact_stops",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("channel", sa.String(30), nullable=False),
        sa.Column("number", sa.String(20), nullable=False),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_contact_stops"),
        sa.UniqueConstraint("channel", "number", name="uq_contact_stops_channel_number"),
        _one_of("contact_stops", "channel", "messagechannel", CHANNELS),
    )


def downgrade() -> None:
    """Remove the tables and the columns."""
    for table in ("contact_stops", "contact_preferences", "messages"):
        op.drop_table(table)
    op.drop_column("appointments", "confirmed_at")
    op.drop_column("appointments", "previous_start")


def _create_messages() -> None:
    op.create_table(
        "messages",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("kind", sa.String(30), nullable=False),
        sa.Column("channel", sa.String(30), nullable=False),
        sa.Column("state", sa.String(30), nullable=False),
        sa.Column("reason", sa.String(30), nullable=True),
        sa.Column("detail", sa.String(100), nullable=True),
        sa.Column("recipient", sa.String(254), nullable=True),
        sa.Column("locale", sa.String(35), nullable=True),
        *(sa.Column(name, BIG_ID, nullable=name != "patient_id") for name in REFERENCES),
        sa.Column("appointment_start", INSTANT, nullable=True),
        sa.Column("dedupe_key", sa.String(500), nullable=False),
        sa.Column("send_at", INSTANT, nullable=False),
        sa.Column("expires_at", INSTANT, nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("provider", sa.String(30), nullable=True),
        sa.Column("provider_message_id", sa.String(200), nullable=True),
        sa.Column("message_id_header", sa.String(300), nullable=True),
        sa.Column("segments", sa.Integer(), nullable=True),
        sa.Column("sent_at", INSTANT, nullable=True),
        sa.Column("delivered_at", INSTANT, nullable=True),
        *_versioned(),
        sa.PrimaryKeyConstraint("id", name="pk_messages"),
        sa.UniqueConstraint("dedupe_key", name="uq_messages_dedupe_key"),
        sa.CheckConstraint("attempts >= 0", name=op.f("ck_messages_attempts_not_negative")),
        sa.CheckConstraint(
            "state NOT IN ('sending', 'sent', 'delivered') OR recipient IS NOT NULL",
            name=op.f("ck_messages_sent_to_recipient"),
        ),
        _one_of("messages", "kind", "messagekind", KINDS),
        _one_of("messages", "channel", "messagechannel", CHANNELS),
        _one_of("messages", "state", "messagestate", STATES),
        _one_of("messages", "reason", "messagereason", REASONS),
        *(
            sa.ForeignKeyConstraint([column], [f"{table}.id"], name=f"fk_messages_{column}")
            for column, table in REFERENCES.items()
        ),
    )


def _versioned() -> tuple[sa.Column[object], ...]:
    return (
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.Column("updated_at", INSTANT, nullable=False),
    )


def _one_of(table: str, column: str, name: str, values: tuple[str, ...]) -> sa.CheckConstraint:
    listed = ", ".join(f"'{value}'" for value in values)
    return sa.CheckConstraint(f"{column} IN ({listed})", name=op.f(f"ck_{table}_{name}"))
