"""Add second factors of users: secrets of authenticator apps, recovery codes, passkeys, and step-up.

Existing users have no second factor, and sign in as before.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None

BIG_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
INSTANT = sa.DateTime(timezone=True)
PURPOSES = "purpose IN ('sign_in', 'step_up', 'registration')"
COLUMNS = (
    ("users", "mfa_enabled_at"),
    ("users", "mfa_required_since"),
    ("user_sessions", "stepped_up_at"),
)


def upgrade() -> None:
    """Create the tables and add the columns."""
    for table, name in COLUMNS:
        op.add_column(table, sa.Column(name, INSTANT, nullable=True))
    _create_table(
        "totp_secrets",
        sa.Column("secret", sa.LargeBinary(), nullable=False),
        sa.Column("last_step", sa.BigInteger(), nullable=False),
        sa.Column("confirmed_at", INSTANT, nullable=True),
        sa.UniqueConstraint("user_id", name="uq_totp_secrets_user_id"),
    )
    _create_table(
        "recovery_codes",
        sa.Column("code_hash", sa.String(64), nullable=False),
        sa.Column("used_at", INSTANT, nullable=True),
        sa.UniqueConstraint("user_id", "code_hash", name="uq_recovery_codes_user_id_code_hash"),
    )
    _create_table(
        "passkeys",
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("credential_id", sa.String(1400), nullable=False),
        sa.Column("public_key", sa.LargeBinary(), nullable=False),
        sa.Column("sign_count", sa.BigInteger(), nullable=False),
        sa.Column("last_used_at", INSTANT, nullable=True),
        sa.UniqueConstraint("credential_id", name="uq_passkeys_credential_id"),
    )
    _create_table(
        "factor_challenges",
        sa.Column("session_id", BIG_ID, nullable=True),
        sa.Column("purpose", sa.String(30), nullable=False),
        sa.Column("token_hash", sa.String(64), nullable=True),
        sa.Column("challenge", sa.String(100), nullable=True),
        sa.Column("origin", sa.String(500), nullable=True),
        sa.Column("expires_at", INSTANT, nullable=False),
        sa.UniqueConstraint("token_hash", name="uq_factor_challenges_token_hash"),
        sa.CheckConstraint(PURPOSES, name=op.f("ck_factor_challenges_factorpurpose")),
        sa.ForeignKeyConstraint(
            ["session_id"],
            ["user_sessions.id"],
            name="fk_factor_challenges_session_id",
            ondelete="CASCADE",
        ),
    )
    for table, column in (
        ("passkeys", "user_id"),
        ("factor_challenges", "user_id"),
        ("factor_challenges", "session_id"),
    ):
        op.create_index(f"ix_{table}_{column}", table, [column])


def downgrade() -> None:
    """Drop the tables and the columns. All users sign in with the password only."""
    for table in ("factor_challenges", "passkeys", "recovery_codes", "totp_secrets"):
        op.drop_table(table)
    for table, name in COLUMNS:
        op.drop_column(table, name)


def _create_table(table: str, *parts: sa.schema.SchemaItem) -> None:
    """Create a table of rows that belong to a user."""
    op.create_table(
        table,
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("user_id", BIG_ID, nullable=False),
        sa.Column("created_at", INSTANT, nullable=False),
        *parts,
        sa.PrimaryKeyConstraint("id", name=f"pk_{table}"),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=f"fk_{table}_user_id"),
    )
