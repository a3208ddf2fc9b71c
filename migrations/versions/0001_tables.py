"""The initial tables, in the order of the models.

This revision does not import the models, because they change later. Triggers and exclusion constraints are
in 0002.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.schema import CreateIndex, CreateTable, DropTable

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

METADATA = sa.MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
    }
)
BIG_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")  # SQLite numbers INTEGER keys only
INSTANT = sa.DateTime(timezone=True)
JSON = sa.JSON().with_variant(JSONB(), "postgresql")
MONEY = sa.Numeric(12, 2).with_variant(sa.BigInteger(), "sqlite")  # SQLite has no decimal type: cents


def table(name: str, *parts: sa.schema.SchemaItem) -> None:
    """Declare a table. `upgrade` creates all of them."""
    sa.Table(name, METADATA, *parts)


def key() -> sa.Column[Any]:
    """Return the id column."""
    return sa.Column("id", BIG_ID, primary_key=True)


def ref(name: str, target: str, *, ondelete: str | None = None, **options: Any) -> sa.Column[Any]:
    """Return a foreign key column to the id of `target`."""
    return sa.Column(name, BIG_ID, sa.ForeignKey(f"{target}.id", ondelete=ondelete), **options)


def enum(name: str, *values: str) -> sa.Enum:
    """Return a text column with a CHECK constraint on the values of the enumeration."""
    return sa.Enum(*values, name=name, native_enum=False, length=30, create_constraint=True)


def stamps() -> tuple[sa.Column[Any], ...]:
    """Return the columns for the instants of creation and last change."""
    return tuple(sa.Column(name, INSTANT, nullable=False) for name in ("created_at", "updated_at"))


# --- People --------------------------------------------------------------------------------------------

table(
    "users",
    key(),
    sa.Column("name", sa.String(200), nullable=False),
    sa.Column("name_fold", sa.String(400), nullable=False),
    sa.Column("email", sa.String(254), nullable=False, unique=True),
    sa.Column("phone", sa.String(100)),
    sa.Column("password_hash", sa.String(100), nullable=False),
    sa.Column("role", enum("role", "admin", "doctor", "receptionist", "technician"), nullable=False),
    sa.Column("is_active", sa.Boolean(), nullable=False),
    sa.Column("last_login_at", INSTANT),
    sa.Column("version", sa.Integer(), nullable=False),
    *stamps(),
    sa.Index("ix_users_role_active", "role", "is_active"),
)

table(
    "user_sessions",
    key(),
    ref("user_id", "users", nullable=False, index=True),
    sa.Column("counter", sa.Integer(), nullable=False),
    sa.Column("rotated_at", INSTANT),
    sa.Column("device", sa.String(500)),
    sa.Column("address", sa.String(100)),
    sa.Column("created_at", INSTANT, nullable=False),
    sa.Column("last_used_at", INSTANT, nullable=False),
    sa.Column("expires_at", INSTANT, nullable=False, index=True),
    sa.Column("ended_at", INSTANT),
)

table(
    "password_resets",
    key(),
    ref("user_id", "users", nullable=False, index=True),
    sa.Column("token_hash", sa.String(64), nullable=False, unique=True),
    sa.Column("created_at", INSTANT, nullable=False),
    sa.Column("expires_at", INSTANT, nullable=False),
    sa.Column("used_at", INSTANT),
)

table(
    "patients",
    key(),
    sa.Column("file_number", sa.String(50), nullable=False, unique=True),
    sa.Column("name", sa.String(200), nullable=False),
    sa.Column("name_fold", sa.String(400), nullable=False),
    sa.Column("gender", enum("gender", "male", "female", "other")),
    sa.Column("date_of_birth", sa.Date()),
    sa.Column("phone", sa.String(100)),
    sa.Column("phone_e164", sa.String(20), index=True),
    sa.Column("phone_digits", sa.String(50)),
    sa.Column("email", sa.String(254), index=True),
    sa.Column("address", sa.String(500)),
    sa.Column("blood_type", sa.String(3)),
    sa.Column("insurance_provider", sa.String(200)),
    sa.Column("insurance_id", sa.String(100)),
    sa.Column("emergency_contact_name", sa.String(200)),
    sa.Column("emergency_contact_phone", sa.String(100)),
    sa.Column("needs_review", sa.Boolean(), nullable=False),
    sa.Column("review_notes", sa.Text()),
    sa.Column("is_active", sa.Boolean(), nullable=False),
    sa.Column("version", sa.Integer(), nullable=False),
    *stamps(),
    sa.Index("ix_patients_date_of_birth", "date_of_birth"),
    sa.Index("ix_patients_insurance_id", "insurance_id"),
)

table(
    "medical_histories",
    key(),
    ref("patient_id", "patients", nullable=False, unique=True),
    sa.Column("surgical_history", sa.Text()),
    sa.Column("family_history", sa.Text()),
    sa.Column("notes", sa.Text()),
    sa.Column("version", sa.Integer(), nullable=False),
    *stamps(),
)

table(
    "allergies",
    key(),
    ref("medical_history_id", "medical_histories", nullable=False, ondelete="CASCADE"),
    sa.Column("substance", sa.String(200), nullable=False),
    sa.Column("substance_fold", sa.String(400), nullable=False, index=True),
    sa.Column("reaction", sa.String(500)),
    sa.Column("severity", enum("allergyseverity", "mild", "moderate", "severe", "unknown"), nullable=False),
    sa.UniqueConstraint("medical_history_id", "substance_fold"),
)

table(
    "conditions",
    key(),
    ref("medical_history_id", "medical_histories", nullable=False, index=True, ondelete="CASCADE"),
    sa.Column("name", sa.String(500), nullable=False),
    sa.Column("name_fold", sa.String(400), nullable=False, index=True),
    sa.Column("icd10", sa.String(10), index=True),
    sa.Column("since", sa.Date()),
    sa.Column("status", enum("conditionstatus", "active", "resolved"), nullable=False),
)

table(
    "home_medications",
    key(),
    ref("medical_history_id", "medical_histories", nullable=False, index=True, ondelete="CASCADE"),
    sa.Column("name", sa.String(200), nullable=False),
    sa.Column("dosage", sa.String(200)),
    sa.Column("since", sa.Date()),
)

table(
    "doctors",
    key(),
    ref("user_id", "users", unique=True),
    sa.Column("name", sa.String(200), nullable=False),
    sa.Column("name_fold", sa.String(400), nullable=False),
    sa.Column("email", sa.String(254)),
    sa.Column("phone", sa.String(100)),
    sa.Column("specialty", sa.String(100), nullable=False),
    sa.Column("specialties", JSON, nullable=False),
    sa.Column("license_number", sa.String(100), nullable=False, unique=True),
    sa.Column("license_expires_on", sa.Date()),
    sa.Column("certifications", JSON, nullable=False),
    sa.Column("consultation_fee", MONEY, nullable=False),
    sa.Column("slot_minutes", sa.Integer(), nullable=False),
    sa.Column("buffer_minutes", sa.Integer(), nullable=False),
    sa.Column("is_active", sa.Boolean(), nullable=False),
    sa.Column("version", sa.Integer(), nullable=False),
    *stamps(),
    sa.CheckConstraint(
        "consultation_fee >= 0 AND consultation_fee <= 999999999999", name="consultation_fee_range"
    ),
    sa.CheckConstraint("slot_minutes BETWEEN 5 AND 480", name="slot_minutes_range"),
    sa.CheckConstraint("buffer_minutes BETWEEN 0 AND 240", name="buffer_minutes_range"),
)

# --- Scheduling ----------------------------------------------------------------------------------------

table(
    "schedule_windows",
    key(),
    ref("doctor_id", "doctors", nullable=False),
    sa.Column("weekday", sa.Integer(), nullable=False),
    sa.Column("start", sa.Time(), nullable=False),
    sa.Column("end", sa.Time(), nullable=False),
    sa.CheckConstraint("weekday BETWEEN 0 AND 6", name="weekday_range"),
    sa.CheckConstraint('start < "end"', name="start_before_end"),
    sa.UniqueConstraint("doctor_id", "weekday", "start"),
)

table(
    "time_off",
    key(),
    ref("doctor_id", "doctors", nullable=False),
    sa.Column("start", INSTANT, nullable=False),
    sa.Column("end", INSTANT, nullable=False),
    sa.Column("reason", sa.String(500)),
    *stamps(),
    sa.CheckConstraint('start < "end"', name="start_before_end"),
    sa.Index("ix_time_off_doctor_start", "doctor_id", "start"),
)

table(
    "appointments",
    key(),
    ref("patient_id", "patients", nullable=False),
    ref("doctor_id", "doctors", nullable=False),
    sa.Column("start", INSTANT, nullable=False),
    sa.Column("end", INSTANT, nullable=False),
    sa.Column("blocked_until", INSTANT, nullable=False),
    sa.Column(
        "status", enum("appointmentstatus", "scheduled", "completed", "cancelled", "no_show"), nullable=False
    ),
    sa.Column("type", sa.String(100)),
    sa.Column("reason", sa.String(500)),
    sa.Column("notes", sa.Text()),
    sa.Column("cancellation_reason", sa.String(500)),
    sa.Column("cancelled_by", enum("cancelledby", "patient", "clinic")),
    sa.Column("status_reason", sa.String(500)),
    sa.Column("overbooked", sa.Boolean(), nullable=False),
    sa.Column("overbook_reason", sa.String(500)),
    sa.Column("checked_in_at", INSTANT),
    ref("created_by_id", "users"),
    sa.Column("version", sa.Integer(), nullable=False),
    *stamps(),
    sa.CheckConstraint('start < "end"', name="start_before_end"),
    sa.CheckConstraint('"end" <= blocked_until', name="blocked_covers_end"),
    sa.Index("ix_appointments_doctor_start", "doctor_id", "start"),
    sa.Index("ix_appointments_patient_start", "patient_id", "start"),
    sa.Index("ix_appointments_start", "start"),
    sa.Index("ix_appointments_status_start", "status", "start"),
)

# --- Clinical ------------------------------------------------------------------------------------------

table(
    "visits",
    key(),
    ref("patient_id", "patients", nullable=False),
    ref("doctor_id", "doctors", nullable=False),
    ref("appointment_id", "appointments"),
    sa.Column("date", INSTANT, nullable=False),
    sa.Column("visit_type", sa.String(100)),
    sa.Column("summary", sa.Text()),
    sa.Column("procedure_details", sa.Text()),
    sa.Column("chief_complaint", sa.Text()),
    sa.Column("notes", sa.Text()),
    sa.Column("vitals", JSON),
    sa.Column("follow_up_date", sa.Date()),
    sa.Column("signed_at", INSTANT),
    ref("signed_by_id", "users"),
    sa.Column("voided_at", INSTANT),
    sa.Column("void_reason", sa.String(500)),
    sa.Column("version", sa.Integer(), nullable=False),
    *stamps(),
    sa.CheckConstraint("signed_at IS NULL OR voided_at IS NULL", name="signed_or_voided"),
    sa.Index("ix_visits_date", "date"),
    sa.Index("ix_visits_doctor_date", "doctor_id", "date"),
    sa.Index("ix_visits_follow_up_date", "follow_up_date"),
    sa.Index("ix_visits_patient_date", "patient_id", "date"),
    sa.Index(
        "uq_visits_appointment_id",
        "appointment_id",
        unique=True,
        postgresql_where=sa.text("voided_at IS NULL"),
        sqlite_where=sa.text("voided_at IS NULL"),
    ),
)

table(
    "diagnoses",
    key(),
    ref("visit_id", "visits", nullable=False, index=True, ondelete="CASCADE"),
    sa.Column("icd10", sa.String(10), index=True),
    sa.Column("description", sa.String(500), nullable=False),
)

table(
    "addenda",
    key(),
    ref("visit_id", "visits", nullable=False, index=True),
    ref("author_id", "users", nullable=False),
    sa.Column("text", sa.Text(), nullable=False),
    sa.Column("created_at", INSTANT, nullable=False),
)

table(
    "treatments",
    key(),
    ref("visit_id", "visits", nullable=False, index=True),
    ref("patient_id", "patients", nullable=False, index=True),
    ref("doctor_id", "doctors", nullable=False),
    sa.Column("name", sa.String(200), nullable=False),
    sa.Column("description", sa.Text()),
    sa.Column("procedure_code", sa.String(100)),
    sa.Column("cost", MONEY, nullable=False),
    sa.Column(
        "status", enum("treatmentstatus", "planned", "in_progress", "completed", "cancelled"), nullable=False
    ),
    sa.Column("notes", sa.Text()),
    sa.Column("stock_taken_at", INSTANT),
    sa.Column("void_reason", sa.String(500)),
    ref("billing_id", "billings", index=True),
    sa.Column("version", sa.Integer(), nullable=False),
    *stamps(),
    sa.CheckConstraint("cost >= 0 AND cost <= 999999999999", name="cost_range"),
    sa.Index("ix_treatments_doctor_created", "doctor_id", "created_at"),
    sa.Index("ix_treatments_status", "status"),
)

table(
    "prescriptions",
    key(),
    ref("visit_id", "visits", nullable=False, index=True),
    ref("patient_id", "patients", nullable=False),
    ref("doctor_id", "doctors", nullable=False),
    sa.Column("details", sa.Text()),
    sa.Column(
        "status", enum("prescriptionstatus", "active", "completed", "cancelled", "expired"), nullable=False
    ),
    sa.Column("issued_at", INSTANT, nullable=False),
    sa.Column("expires_on", sa.Date()),
    sa.Column("override_reason", sa.String(500)),
    sa.Column("overridden_alerts", JSON, nullable=False),
    sa.Column("cancellation_reason", sa.String(500)),
    sa.Column("version", sa.Integer(), nullable=False),
    *stamps(),
    sa.Index("ix_prescriptions_doctor_issued", "doctor_id", "issued_at"),
    sa.Index("ix_prescriptions_patient_status", "patient_id", "status"),
)

table(
    "prescribed_medications",
    key(),
    ref("prescription_id", "prescriptions", nullable=False, index=True, ondelete="CASCADE"),
    sa.Column("name", sa.String(200), nullable=False),
    sa.Column("dosage", sa.String(200)),
    sa.Column("frequency", sa.String(200)),
    sa.Column("route", sa.String(100)),
    sa.Column("duration_days", sa.Integer()),
    sa.Column("quantity", sa.Integer()),
    sa.Column("refills", sa.Integer(), nullable=False),
    sa.Column("instructions", sa.Text()),
    sa.Column("dispensed", sa.Integer(), nullable=False),
    sa.CheckConstraint("quantity > 0", name="quantity_positive"),
    sa.CheckConstraint("refills BETWEEN 0 AND 99", name="refills_range"),
    sa.CheckConstraint(
        "dispensed >= 0 AND (quantity IS NULL OR dispensed <= quantity * (1 + refills))",
        name="dispensed_range",
    ),
)

table(
    "dispensings",
    key(),
    ref("prescription_id", "prescriptions", nullable=False, index=True),
    ref("medication_id", "prescribed_medications", nullable=False, index=True),
    sa.Column("quantity", sa.Integer(), nullable=False),
    ref("dispensed_by_id", "users", nullable=False),
    sa.Column("created_at", INSTANT, nullable=False),
    sa.CheckConstraint("quantity > 0", name="quantity_positive"),
)

# --- Money ---------------------------------------------------------------------------------------------

table(
    "invoice_counters",
    sa.Column("year", sa.Integer(), primary_key=True, autoincrement=False),
    sa.Column("last_number", sa.Integer(), nullable=False),
)

table(
    "billings",
    key(),
    sa.Column("invoice_number", sa.String(30), nullable=False, unique=True),
    ref("patient_id", "patients", nullable=False),
    ref("visit_id", "visits", index=True),
    ref("doctor_id", "doctors"),
    sa.Column("discount_reason", sa.String(500)),
    sa.Column("tax_rate", sa.Numeric(5, 2), nullable=False),
    sa.Column(
        "payment_method",
        enum(
            "paymentmethod",
            "cash",
            "card",
            "mobile_money",
            "bank_transfer",
            "cheque",
            "insurance",
            "credit",
            "other",
        ),
    ),
    sa.Column("insurer_reference", sa.String(100)),
    sa.Column("due_date", sa.Date()),
    sa.Column("notes", sa.Text()),
    sa.Column("voided_at", INSTANT),
    sa.Column("void_reason", sa.String(500)),
    ref("created_by_id", "users"),
    sa.Column("version", sa.Integer(), nullable=False),
    *stamps(),
    sa.CheckConstraint("tax_rate >= 0 AND tax_rate <= 100", name="tax_rate_range"),
    sa.Index("ix_billings_created_at", "created_at"),
    sa.Index("ix_billings_doctor_created", "doctor_id", "created_at"),
    sa.Index("ix_billings_patient_created", "patient_id", "created_at"),
)

table(
    "billing_items",
    key(),
    ref("billing_id", "billings", nullable=False, index=True),
    ref("treatment_id", "treatments", index=True),
    sa.Column("description", sa.String(500), nullable=False),
    sa.Column("quantity", sa.Integer(), nullable=False),
    sa.Column("unit_price", MONEY, nullable=False),
    sa.CheckConstraint("unit_price >= 0 AND unit_price <= 999999999999", name="unit_price_range"),
    sa.CheckConstraint("quantity BETWEEN 1 AND 1000000", name="quantity_range"),
)

table(
    "refunds",
    key(),
    ref("billing_id", "billings", nullable=False, index=True),
    ref("payment_id", "ledger_entries"),
    ref("entry_id", "ledger_entries"),
    sa.Column("amount", MONEY, nullable=False),
    sa.Column("reason", sa.String(500), nullable=False),
    sa.Column("status", enum("refundstatus", "requested", "approved", "rejected"), nullable=False),
    ref("requested_by_id", "users", nullable=False),
    ref("decided_by_id", "users"),
    sa.Column("decided_at", INSTANT),
    *stamps(),
    sa.CheckConstraint("amount > 0 AND amount <= 999999999999", name="amount_range"),
    sa.Index("ix_refunds_status", "status"),
)

table(
    "claims",
    key(),
    ref("billing_id", "billings", nullable=False, index=True),
    ref("patient_id", "patients", nullable=False, index=True),
    sa.Column("insurer", sa.String(200), nullable=False),
    sa.Column("policy_number", sa.String(100), nullable=False),
    sa.Column("claim_number", sa.String(100)),
    sa.Column("amount", MONEY, nullable=False),
    sa.Column("approved_amount", MONEY),
    sa.Column("paid_amount", MONEY, nullable=False),
    sa.Column(
        "status",
        enum(
            "claimstatus",
            "draft",
            "submitted",
            "approved",
            "partially_approved",
            "denied",
            "resubmitted",
            "paid",
        ),
        nullable=False,
    ),
    sa.Column("reason", sa.String(500)),
    sa.Column("submitted_at", INSTANT),
    sa.Column("version", sa.Integer(), nullable=False),
    *stamps(),
    sa.CheckConstraint("amount > 0 AND amount <= 999999999999", name="amount_range"),
    sa.CheckConstraint(
        "approved_amount IS NULL OR (approved_amount >= 0 AND approved_amount <= amount)",
        name="approved_within_claimed",
    ),
    sa.CheckConstraint(
        "paid_amount >= 0 AND paid_amount <= coalesce(approved_amount, 0)", name="paid_within_approved"
    ),
)

table(
    "ledger_entries",
    key(),
    ref("patient_id", "patients", nullable=False),
    ref("billing_id", "billings"),
    sa.Column(
        "kind",
        enum(
            "ledgerkind",
            "charge",
            "tax",
            "discount",
            "payment",
            "insurance_payment",
            "credit",
            "refund",
            "write_off",
            "reversal",
        ),
        nullable=False,
    ),
    sa.Column("amount", MONEY, nullable=False),
    sa.Column(
        "method",
        enum(
            "paymentmethod",
            "cash",
            "card",
            "mobile_money",
            "bank_transfer",
            "cheque",
            "insurance",
            "credit",
            "other",
        ),
    ),
    sa.Column("reference", sa.String(100)),
    sa.Column("reason", sa.String(500)),
    sa.Column("occurred_at", INSTANT, nullable=False),
    ref("reverses_id", "ledger_entries"),
    ref("claim_id", "claims"),
    ref("item_id", "billing_items"),
    ref("visit_id", "visits", index=True),
    ref("created_by_id", "users"),
    sa.Column("created_at", INSTANT, nullable=False),
    sa.CheckConstraint("amount >= -999999999999 AND amount <= 999999999999", name="amount_range"),
    sa.Index("ix_ledger_entries_billing_kind", "billing_id", "kind"),
    sa.Index("ix_ledger_entries_occurred_kind", "occurred_at", "kind"),
    sa.Index("ix_ledger_entries_patient_id", "patient_id"),
    sa.Index("uq_ledger_entries_reverses_id", "reverses_id", unique=True),
)

# --- Stock ---------------------------------------------------------------------------------------------

table(
    "inventory_items",
    key(),
    sa.Column("name", sa.String(200), nullable=False),
    sa.Column("name_fold", sa.String(400), nullable=False),
    sa.Column("sku", sa.String(100), unique=True),
    sa.Column("description", sa.Text()),
    sa.Column("category", sa.String(100)),
    sa.Column("unit", sa.String(100)),
    sa.Column("quantity", sa.Integer(), nullable=False),
    sa.Column("min_quantity", sa.Integer(), nullable=False),
    sa.Column("reorder_quantity", sa.Integer()),
    sa.Column("unit_cost", MONEY, nullable=False),
    sa.Column("supplier", sa.String(200)),
    sa.Column("is_active", sa.Boolean(), nullable=False),
    sa.Column("version", sa.Integer(), nullable=False),
    *stamps(),
    sa.CheckConstraint("unit_cost >= 0 AND unit_cost <= 999999999999", name="unit_cost_range"),
    sa.CheckConstraint("quantity >= 0", name="quantity_not_negative"),
    sa.CheckConstraint("min_quantity >= 0", name="min_quantity_not_negative"),
    sa.CheckConstraint("reorder_quantity >= 0", name="reorder_quantity_not_negative"),
    sa.Index("ix_inventory_items_category", "category"),
)

table(
    "inventory_lots",
    key(),
    ref("item_id", "inventory_items", nullable=False),
    sa.Column("lot_number", sa.String(100)),
    sa.Column("expires_on", sa.Date()),
    sa.Column("quantity", sa.Integer(), nullable=False),
    sa.CheckConstraint("quantity >= 0", name="quantity_not_negative"),
    sa.Index("ix_inventory_lots_expires_on", "expires_on"),
    sa.Index("ix_inventory_lots_item_expiry", "item_id", "expires_on"),
)

table(
    "stock_movements",
    key(),
    ref("item_id", "inventory_items", nullable=False),
    ref("lot_id", "inventory_lots", nullable=False, index=True),
    sa.Column(
        "type", enum("movementtype", "restock", "usage", "adjustment", "waste", "return"), nullable=False
    ),
    sa.Column("quantity", sa.Integer(), nullable=False),
    sa.Column("unit_cost", MONEY),
    sa.Column("reason", sa.String(500)),
    ref("treatment_id", "treatments", index=True),
    ref("created_by_id", "users"),
    sa.Column("created_at", INSTANT, nullable=False),
    sa.CheckConstraint("quantity <> 0", name="quantity_not_zero"),
    sa.CheckConstraint("unit_cost >= 0 AND unit_cost <= 999999999999", name="unit_cost_range"),
    sa.Index("ix_stock_movements_item_created", "item_id", "created_at"),
)

table(
    "inventory_usages",
    key(),
    ref("treatment_id", "treatments", nullable=False, ondelete="CASCADE"),
    ref("item_id", "inventory_items", nullable=False, index=True),
    sa.Column("quantity", sa.Integer(), nullable=False),
    sa.CheckConstraint("quantity > 0", name="quantity_positive"),
    sa.UniqueConstraint("treatment_id", "item_id"),
)

# --- Audit and idempotency -----------------------------------------------------------------------------

table(
    "audit_logs",
    key(),
    sa.Column("chain", sa.Integer(), nullable=False),
    sa.Column("number", sa.BigInteger(), nullable=False),
    sa.Column("at", INSTANT, nullable=False),
    sa.Column("user_id", BIG_ID),
    sa.Column("user_name", sa.String(200)),
    sa.Column("role", sa.String(30)),
    sa.Column("action", sa.String(100), nullable=False),
    sa.Column("entity", sa.String(50)),
    sa.Column("entity_id", BIG_ID),
    sa.Column("entity_ids", JSON, nullable=False),
    sa.Column("patient_ids", JSON, nullable=False),
    sa.Column("fields", JSON, nullable=False),
    sa.Column("outcome", enum("auditoutcome", "success", "refused"), nullable=False),
    sa.Column("detail", sa.String(100)),
    sa.Column("operation", sa.String(100), nullable=False),
    sa.Column("address", sa.String(100)),
    sa.Column("request_id", sa.String(100)),
    sa.Column("mac", sa.String(64), nullable=False),
    sa.UniqueConstraint("chain", "number"),
    sa.Index("ix_audit_logs_at", "at"),
    sa.Index("ix_audit_logs_entity", "entity", "entity_id"),
    sa.Index("ix_audit_logs_user_at", "user_id", "at"),
)

table(
    "audit_subjects",
    sa.Column("patient_id", BIG_ID, primary_key=True, autoincrement=False),
    ref("audit_id", "audit_logs", primary_key=True, autoincrement=False, index=True),
)

table(
    "audit_heads",
    sa.Column("chain", sa.Integer(), primary_key=True, autoincrement=False),
    sa.Column("number", sa.BigInteger(), nullable=False),
    sa.Column("mac", sa.String(64), nullable=False),
)

table(
    "idempotency_keys",
    key(),
    ref("user_id", "users", nullable=False),
    sa.Column("key", sa.String(255), nullable=False),
    sa.Column("fingerprint", sa.String(64), nullable=False),
    sa.Column("status", sa.Integer()),
    sa.Column("headers", JSON),
    sa.Column("body", sa.Text()),
    sa.Column("created_at", INSTANT, nullable=False, index=True),
    sa.UniqueConstraint("user_id", "key"),
)


def upgrade() -> None:
    """Create the tables, parents first, and their indexes."""
    for new_table in METADATA.sorted_tables:
        op.execute(CreateTable(new_table))
        for index in sorted(new_table.indexes, key=lambda index: str(index.name)):
            op.execute(CreateIndex(index))


def downgrade() -> None:
    """Drop the tables, children first."""
    for new_table in reversed(METADATA.sorted_tables):
        op.execute(DropTable(new_table))
