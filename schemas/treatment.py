"""Treatments: what comes in and goes out."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import AfterValidator, Field

from enums import TreatmentStatus
from schemas.base import In, OfDoctor, OfPatient, Out, partial
from schemas.fields import Code, DayOut, Id, InstantOut, Line, MoneyIn, MoneyOut, Name, Note, Quantity


class UsageIn(In):
    """Units of an inventory item that a treatment takes when it is completed."""

    item_id: Id
    quantity: Quantity


def _named_once(usages: list[UsageIn]) -> list[UsageIn]:
    if len({usage.item_id for usage in usages}) != len(usages):
        raise ValueError("an item is named twice; name it once with the whole quantity")
    return usages


Usages = Annotated[list[UsageIn], Field(max_length=100), AfterValidator(_named_once)]


class VisitTreatmentIn(In):
    """A treatment created along with its visit."""

    doctor_id: Id | None = None
    name: Annotated[Name, Field(examples=["Wound dressing"])]
    description: Note | None = None
    procedure_code: Code | None = None
    cost: MoneyIn
    status: TreatmentStatus = TreatmentStatus.COMPLETED
    notes: Note | None = None
    inventory_items: Annotated[Usages, Field(default_factory=list)]


class TreatmentIn(VisitTreatmentIn):
    """A treatment of a visit; the doctor is the visit's unless named."""

    visit_id: Id


TreatmentPatch = partial(TreatmentIn, "TreatmentPatch")


class TreatmentVoidIn(In):
    """Why a treatment is voided."""

    reason: Annotated[Line | None, Field(description="Why it is voided.", examples=["Entered twice"])] = None


class UsageOut(Out):
    """Units of an item that the treatment needs."""

    item_id: int
    quantity: int


class UsedLotOut(Out):
    """Units of one lot that the treatment took."""

    item_id: int
    name: str
    lot_number: str | None
    expires_on: DayOut | None
    quantity: int


class TreatmentOut(OfPatient, OfDoctor):
    """A treatment with what it needs and what it took from stock."""

    area: ClassVar[str] = "treatment"

    id: int
    visit_id: int
    name: str
    description: str | None
    procedure_code: str | None
    cost: MoneyOut
    status: TreatmentStatus
    notes: str | None
    inventory_items: list[UsageOut]
    inventory_used: list[UsedLotOut]
    billing_id: int | None
    void_reason: str | None
    created_at: InstantOut
    updated_at: InstantOut
