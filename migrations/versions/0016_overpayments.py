"""Record which bill a payment exceeded.

The excess of a payment is an entry on the account of the patient. When the bill is voided, the excess that an
insurer paid is a debt to the insurer. Existing entries are never changed: those of claims have the claim.
"""

from __future__ import annotations

from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

BIG_ID = {"postgresql": "BIGINT", "sqlite": "INTEGER"}


def upgrade() -> None:
    """Add the column."""
    op.execute(
        f"ALTER TABLE ledger_entries ADD COLUMN overpaid_billing_id {BIG_ID[op.get_context().dialect.name]} "
        "CONSTRAINT fk_ledger_entries_overpaid_billing_id REFERENCES billings (id)"
    )


def downgrade() -> None:
    """Remove the column."""
    op.drop_column("ledger_entries", "overpaid_billing_id")
