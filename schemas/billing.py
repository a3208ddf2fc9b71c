"""Bills, payments, refunds and claims: what comes in and goes out."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    AliasPath,
    BeforeValidator,
    ConfigDict,
    Field,
    WithJsonSchema,
    computed_field,
)

from enums import ClaimStatus, PaymentMethod, RefundStatus
from schemas.base import DoctorRef, In, OfPatient, Out, PersonRef, given, partial
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
)

ITEMS_AT_MOST = 200  # lines of one bill


def _percent(value: Decimal) -> Decimal:
    if value > 100:
        raise ValueError("must be at most 100 percent")
    return value


Percent = Annotated[
    MoneyIn,
    AfterValidator(_percent),
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


# --- In ------------------------------------------------------------------------------------------------


class BillingItemIn(In):
    """A line to bill. An item `consultation` costs the doctor's fee where it names no price."""

    description: Annotated[RequiredLine, Field(examples=["Consultation"])]
    quantity: Quantity = 1
    unit_price: MoneyIn | None = None


class BillingChange(In):
    """What can change of a bill; `amount_paid` upwards pays the difference by `payment_method`."""

    due_date: DayIn | None = None
    notes: Note | None = None
    discount: MoneyIn = Decimal("0.00")
    discount_reason: Line | None = None
    payment_method: PaymentMethod | None = None
    amount_paid: MoneyIn = Decimal("0.00")


class BillingIn(BillingChange):
    """A bill over a visit's completed treatments, over one treatment, or over items for a patient.

    `tax_rate` is a percentage of what the discount leaves; `doctor_id` says whose revenue the items are.
    """

    model_config = ConfigDict(
        json_schema_extra=given("visit_id", "treatment_id", "patient_id")
        | {
            "examples": [
                {
                    "patient_id": 1,
                    "items": [{"description": "Blood count", "quantity": 1, "unit_price": "25.00"}],
                }
            ]
        }
    )

    visit_id: Id | None = None
    treatment_id: Id | None = None
    patient_id: Id | None = None
    doctor_id: Id | None = None
    items: Annotated[list[BillingItemIn], Field(min_length=1, max_length=ITEMS_AT_MOST)] | None = None
    tax_rate: Percent = Decimal("0.00")
    insurer_reference: Short | None = None
    allow_credit: bool = False


BillingPatch = partial(BillingChange, "BillingPatch")


class PaymentIn(In):
    """Money received on a bill; the method `credit` spends the patient's credit."""

    amount: PositiveMoneyIn
    method: PaymentMethod
    reference: Short | None = None
    received_at: InstantOrDay | None = None
    allow_credit: bool = False


class RefundIn(In):
    """Money asked back, of the whole bill or of one payment."""

    amount: PositiveMoneyIn
    reason: Annotated[RequiredLine, Field(examples=["Billed twice"])]
    payment_id: Id | None = None


class RefundDecision(In):
    """The decision on a refund that was asked for."""

    status: Literal[RefundStatus.APPROVED, RefundStatus.REJECTED]


RefundPatch = partial(RefundDecision, "RefundPatch")


class WriteOffIn(In):
    """What the clinic gives up of a balance, and why."""

    amount: PositiveMoneyIn
    reason: Annotated[RequiredLine, Field(examples=["Hardship"])]


class VoidIn(In):
    """Why a bill is made void."""

    reason: Annotated[RequiredLine, Field(examples=["Made out to the wrong patient"])]


class ClaimIn(In):
    """What an insurer is to be asked for."""

    insurer: Annotated[Name, Field(examples=["Acme Health"])]
    policy_number: Annotated[Code, Field(examples=["AH-104-22"])]
    amount: PositiveMoneyIn
    claim_number: Code | None = None


def _kept(value: Any) -> Any:
    if value is None:
        raise ValueError("can be changed, not taken away")
    return value


class ClaimChange(In):
    """A claim's next step; `allow_credit` keeps what the insurer pays beyond the balance as credit."""

    status: Annotated[ClaimStatus, Field(examples=["submitted"])]
    approved_amount: Annotated[MoneyIn | None, AfterValidator(_kept)]
    paid_amount: MoneyIn
    reason: Annotated[Line | None, AfterValidator(_kept)]
    claim_number: Annotated[Code | None, AfterValidator(_kept)]
    allow_credit: bool = False


ClaimPatch = partial(ClaimChange, "ClaimPatch")


# --- Out -----------------------------------------------------------------------------------------------


class BillingItemOut(Out):
    """A line of a bill."""

    id: int
    treatment_id: int | None
    description: str
    quantity: int
    unit_price: MoneyOut

    @computed_field  # type: ignore[prop-decorator]
    @property
    def amount(self) -> MoneyOut:
        """Quantity at unit price."""
        return self.quantity * self.unit_price


def _received(amount: Decimal) -> Decimal:
    return -amount


class PaymentOut(Out):
    """Money received on a bill, from the patient, an insurer, or the patient's credit; positive."""

    id: int
    # in the ledger it lowers what the patient owes
    amount: Annotated[MoneyOut, BeforeValidator(_received)]
    method: PaymentMethod | None
    reference: str | None
    received_at: InstantOut = Field(validation_alias="occurred_at")
    claim_id: int | None
    created_by_id: int | None
    created_by: PersonRef | None
    created_at: InstantOut


class RefundOut(Out):
    """Money asked back, and what was decided."""

    id: int
    billing_id: int
    payment_id: int | None
    amount: MoneyOut
    reason: str
    status: RefundStatus
    requested_by_id: int
    decided_by_id: int | None
    decided_at: InstantOut | None
    created_at: InstantOut


class ClaimOut(Out):
    """A claim and the steps it can take."""

    area: ClassVar[str] = "claim"

    id: int
    billing_id: int
    patient_id: int
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
    """A bill. `amount` = `subtotal` - `discount` + `tax`; `balance` is what is still owed of it.

    `account_balance` is over all bills of the patient: positive is owed, negative is credit.
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
    tax_rate: MoneyOut
    tax: MoneyOut
    amount: MoneyOut
    amount_paid: MoneyOut
    written_off: MoneyOut
    balance: MoneyOut
    is_paid: bool
    status: Literal["unpaid", "partial", "paid", "void"]
    account_balance: MoneyOut
    payment_method: PaymentMethod | None
    insurer_reference: str | None
    due_date: DayOut | None
    notes: str | None
    payments: list[PaymentOut]
    refunds: list[RefundOut]
    claims: list[ClaimOut]
    voided_at: InstantOut | None
    void_reason: str | None
    created_by_id: int | None
    created_at: InstantOut
    updated_at: InstantOut
