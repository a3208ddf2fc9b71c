"""Requests and responses of treatments."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import AfterValidator, ConfigDict, Field

from enums import TreatmentStatus
from schemas.base import In, OfDoctor, OfPatient, Out, patch_model, require_any
from schemas.fields import Code, DayOut, Id, InstantOut, Line, MoneyIn, MoneyOut, Name, Note, Quantity


class UsageIn(In):
    """Units of an inventory item. They leave the stock when the treatment is completed."""

    item_id: Id
    quantity: Quantity


def _check_unique_items(usages: list[UsageIn]) -> list[UsageIn]:
    if len({usage.item_id for usage in usages}) != len(usages):
        raise ValueError("an item occurs twice; give it once with the total quantity")
    return usages


Usages = Annotated[list[UsageIn], Field(max_length=100), AfterValidator(_check_unique_items)]


TreatmentName = Annotated[Name, Field(examples=["Wound dressing"])]


class _Treatment(In):
    doctor_id: Id | None = None
    description: Note | None = None
    procedure_code: Code | None = None
    status: TreatmentStatus = TreatmentStatus.COMPLETED
    notes: Note | None = None
    inventory_items: Annotated[Usages, Field(default_factory=list)]


class VisitTreatmentIn(_Treatment):
    """A treatment, created together with its visit.

    `price_list_item_id` names an active item of the price list, which gives the default name and cost.
    """

    model_config = ConfigDict(json_schema_extra=require_any(("name", "cost"), "price_list_item_id"))

    name: TreatmentName | None = None
    cost: MoneyIn | None = None
    price_list_item_id: Id | None = None


class TreatmentIn(VisitTreatmentIn):
    """A treatment for an existing visit. The default doctor is the doctor of the visit."""

    visit_id: Id


class _TreatmentChange(_Treatment):
    """Changes of a treatment."""

    name: TreatmentName
    cost: MoneyIn
    visit_id: Id


TreatmentPatch = patch_model(_TreatmentChange, "TreatmentPatch")


class TreatmentVoidIn(In):
    """The reason for voiding a treatment."""

    reason: Annotated[
        Line | None, Field(description="The reason for voiding the treatment.", examples=["Entered twice"])
    ] = None


class UsageOut(Out):
    """Units of an inventory item that the treatment needs."""

    item_id: int
    quantity: int


class UsedLotOut(Out):
    """Units of one lot that the treatment used."""

    item_id: int
    name: str
    lot_number: str | None
    expires_on: DayOut | None
    quantity: int


class TreatmentOut(OfPatient, OfDoctor):
    """A treatment with the needed items and the used lots."""

    area: ClassVar[str] = "treatment"

    id: int
    visit_id: int
    name: str
    description: str | None
    procedure_code: str | None
    price_list_item_id: int | None
    cost: MoneyOut
    status: TreatmentStatus
    notes: str | None
    inventory_items: list[UsageOut]
    inventory_used: list[UsedLotOut]
    billing_id: int | None
    void_reason: str | None
    created_at: InstantOut
    updated_at: InstantOut
