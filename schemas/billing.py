"""Requests and responses of bills, payments, refunds and insurance claims."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    AliasPath,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    WithJsonSchema,
    computed_field,
)

from config import settings
from enums import ClaimStatus, PaymentMethod, RefundStatus
from schemas.base import DoctorRef, In, OfPatient, Out, PersonRef, patch_model, require_any
from schemas.fields import (
    Code,
    DayIn,
    DayOut,
    Id,
    InstantOrDay,
    InstantOut,
    Line,
    MoneyIn,
    MoneyOut,
    Name,
    Note,
    PositiveMoneyIn,
    Quantity,
    RequiredLine,
    Short,
    parse_decimal,
)

MAX_ITEMS = 200  # lines of one bill
PERCENT_PLACES = 2  # in every currency


def _parse_percent(value: Any) -> Decimal:
    percent = parse_decimal(value, PERCENT_PLACES)
    if percent > 100:
        raise ValueError("must be at most 100 percent")
    return percent


Percent = Annotated[
    Decimal,
    BeforeValidator(_parse_percent),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "pattern": r"^[0-9]{1,3}(\.[0-9]{1,2})?$"},
                {"type": "number", "minimum": 0, "maximum": 100, "multipleOf": 0.01},
            ],
            "examples": ["7.50"],
        }
    ),
]


PercentOut = Annotated[
    Decimal,
    PlainSerializer(lambda percent: f"{percent:.{PERCENT_PLACES}f}", return_type=str),
    WithJsonSchema({"type": "string", "pattern": r"^[0-9]{1,3}\.[0-9]{2}$", "examples": ["7.50"]}),
]


# --- Requests ------------------------------------------------------------------------------------------


class BillingItemIn(In):
    """A bill item. The default price of the item `consultation` is the fee of the doctor.

    `price_list_item_id` names an active item of the price list: the default description and price.
    """

    model_config = ConfigDict(json_schema_extra=require_any("description", "price_list_item_id"))

    description: Annotated[RequiredLine, Field(examples=["Consultation"])] | None = None
    quantity: Quantity = 1
    unit_price: MoneyIn | None = None
    price_list_item_id: Id | None = None


class BillingChange(In):
    """Changes of a bill. A higher `amount_paid` adds a payment of the difference by `payment_method`.

    `due_date` is at most 366 days ago and at most ten years ahead.
    """

    due_date: Annotated[DayIn | None, Field(examples=["2030-03-02"])] = None
    notes: Note | None = None
    discount: MoneyIn = Decimal("0.00")
    discount_reason: Line | None = None
    payment_method: PaymentMethod | None = None
    amount_paid: MoneyIn = Decimal("0.00")


class BillingIn(BillingChange):
    """A bill for the completed treatments of a visit, for one treatment, or for items of a patient.

    `tax_rate` is a percentage of the subtotal less the discount. The revenue of items goes to `doctor_id`.
    `date` is the date of issue: today by default, at most 366 days ago, and not in the future.
    """

    model_config = ConfigDict(json_schema_extra=require_any("visit_id", "treatment_id", "patient_id"))

    visit_id: Id | None = None
    treatment_id: Id | None = None
    patient_id: Id | None = None
    doctor_id: Id | None = None
    date: Annotated[DayIn | None, Field(examples=["2026-11-02"])] = None
    items: Annotated[list[BillingItemIn], Field(min_length=1, max_length=MAX_ITEMS)] | None = None
    tax_rate: Percent = Decimal("0.00")
    insurer_reference: Short | None = None
    allow_credit: bool = False


BillingPatch = patch_model(BillingChange, "BillingPatch")


class PaymentIn(In):
    """A payment of a bill. The method `credit` uses the credit of the patient.

    `received_at` is at most 366 days ago, and not in the future.
    """

    amount: PositiveMoneyIn
    method: PaymentMethod
    reference: Short | None = None
    received_at: InstantOrDay | None = None
    allow_credit: bool = False


class RefundIn(In):
    """A request for a refund of a bill or of one payment.

    The method defaults to the one of the payment, or to the only one of the bill. `credit` returns the amount
    to the credit of the patient.
    """

    amount: PositiveMoneyIn
    reason: Annotated[RequiredLine, Field(examples=["Billed twice"])]
    payment_id: Id | None = None
    method: PaymentMethod | None = None


class AccountRefundIn(In):
    """A request to pay back the credit of a patient."""

    amount: PositiveMoneyIn
    method: PaymentMethod
    reason: Annotated[RequiredLine, Field(examples=["Paid twice"])]


class RefundDecision(In):
    """The decision on a requested refund."""

    status: Literal[RefundStatus.APPROVED, RefundStatus.REJECTED]


RefundPatch = patch_model(RefundDecision, "RefundPatch")


def _parse_signed_money(value: Any) -> Decimal:
    """Return an amount of money that may be negative. Raises ValueError."""
    text = str(value)
    is_negative = text.startswith("-")
    amount: Decimal = parse_decimal(text[1:] if is_negative else value, settings().currency_places)
    return -amount if is_negative else amount


class OpeningBalanceIn(In):
    """A debt of a patient (positive) or money paid in advance (negative) on a day, in another system."""

    amount: Annotated[Decimal, BeforeValidator(_parse_signed_money)]
    date: DayIn
    currency: Short | None = None
    reference: Short | None = None
    description: Line | None = None


class WriteOffIn(In):
    """The write-off of an amount, with the reason."""

    amount: PositiveMoneyIn
    reason: Annotated[RequiredLine, Field(examples=["Hardship"])]


class VoidIn(In):
    """The reason for voiding a bill."""

    reason: Annotated[RequiredLine, Field(examples=["Made out to the wrong patient"])]


class ClaimIn(In):
    """A claim to an insurer."""

    insurer: Annotated[Name, Field(examples=["Acme Health"])]
    policy_number: Annotated[Code, Field(examples=["AH-104-22"])]
    amount: PositiveMoneyIn
    claim_number: Code | None = None


def _check_not_null(value: Any) -> Any:
    if value is None:
        raise ValueError("must not be null; it can only be changed")
    return value


class ClaimChange(In):
    """The next step of a claim. `allow_credit` books a payment above the balance as credit."""

    status: Annotated[ClaimStatus, Field(examples=["submitted"])]
    approved_amount: Annotated[MoneyIn | None, AfterValidator(_check_not_null)]
    paid_amount: MoneyIn
    reason: Annotated[Line | None, AfterValidator(_check_not_null)]
    claim_number: Annotated[Code | None, AfterValidator(_check_not_null)]
    allow_credit: bool = False


ClaimPatch = patch_model(ClaimChange, "ClaimPatch")


# --- Responses -----------------------------------------------------------------------------------------


class BillingItemOut(Out):
    """A bill item."""

    id: int
    treatment_id: int | None
    price_list_item_id: int | None
    description: str
    quantity: int
    unit_price: MoneyOut

    @computed_field  # type: ignore[prop-decorator]
    @property
    def amount(self) -> MoneyOut:
        """Return the quantity times the unit price."""
        return self.quantity * self.unit_price


def _negate(amount: Decimal) -> Decimal:
    return -amount


class PaymentOut(Out):
    """A payment of a bill by the patient, an insurer, or credit. The amount is positive."""

    id: int
    # in the ledger a payment is negative: it reduces the debt of the patient
    amount: Annotated[MoneyOut, BeforeValidator(_negate)]
    method: PaymentMethod | None
    reference: str | None
    received_at: InstantOut = Field(validation_alias="occurred_at")
    claim_id: int | None
    created_by_id: int | None
    created_by_name: str | None = Field(None, validation_alias=AliasPath("created_by", "name"))
    created_by: PersonRef | None
    created_at: InstantOut


class RefundOut(Out):
    """A refund with its decision. Without a bill it pays back the credit of the patient."""

    id: int
    billing_id: int | None
    patient_id: int
    payment_id: int | None
    amount: MoneyOut
    method: PaymentMethod | None
    reason: str
    status: RefundStatus
    requested_by_id: int
    decided_by_id: int | None
    decided_at: InstantOut | None
    created_at: InstantOut


class CreditNoteOut(Out):
    """A credit note of a bill, for a refund or for the void. `tax` is the part of the amount."""

    id: int
    number: str
    refund_id: int | None
    amount: MoneyOut
    tax: MoneyOut
    reason: str
    created_by_id: int | None
    created_at: InstantOut


class ClaimOut(Out):
    """A claim with the allowed changes of its status."""

    area: ClassVar[str] = "claim"

    id: int
    billing_id: int
    patient_id: int
    patient_name: str = Field(validation_alias=AliasPath("billing", "patient", "name"))
    patient: PersonRef = Field(validation_alias=AliasPath("billing", "patient"))
    insurer: str
    policy_number: str
    claim_number: str | None
    amount: MoneyOut
    approved_amount: MoneyOut | None
    paid_amount: MoneyOut
    status: ClaimStatus
    reason: str | None
    submitted_at: InstantOut | None
    allowed_transitions: list[str] | None
    created_at: InstantOut
    updated_at: InstantOut


class BillingOut(OfPatient):
    """A bill. `amount` = `subtotal` - `discount` + `tax`. `balance` is the unpaid amount.

    `account_balance` is the balance of all bills of the patient: positive is debt, negative is credit.
    `owed_to_insurers` is the money of insurers on a void bill.
    """

    area: ClassVar[str] = "billing"

    id: int
    invoice_number: str
    visit_id: int | None
    doctor_id: int | None
    doctor_name: str | None = Field(None, validation_alias=AliasPath("doctor", "name"))
    doctor: DoctorRef | None
    items: list[BillingItemOut]
    subtotal: MoneyOut
    discount: MoneyOut
    discount_reason: str | None
    tax_rate: PercentOut
    tax: MoneyOut
    amount: MoneyOut
    amount_paid: MoneyOut
    written_off: MoneyOut
    balance: MoneyOut
    owed_to_insurers: MoneyOut
    currency: str
    is_paid: bool
    status: Literal["unpaid", "partial", "paid", "void"]
    account_balance: MoneyOut
    payment_method: PaymentMethod | None
    insurer_reference: str | None
    date: DayOut
    due_date: DayOut | None
    notes: str | None
    payments: list[PaymentOut]
    refunds: list[RefundOut]
    credit_notes: list[CreditNoteOut]
    claims: list[ClaimOut]
    voided_at: InstantOut | None
    void_reason: str | None
    created_by_id: int | None
    created_at: InstantOut
    updated_at: InstantOut
