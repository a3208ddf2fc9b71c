"""Inventory: items, their movements, and what the alerts tell."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, ClassVar

from pydantic import AliasPath, Field

from enums import MovementType
from schemas.base import In, Out, partial
from schemas.fields import Code, DayIn, DayOut, InstantOut, Line, MoneyIn, MoneyOut, Name, Note, Short

MOST = 1_000_000  # units in one movement
Units = Annotated[int, Field(ge=0, le=MOST)]
SignedUnits = Annotated[int, Field(ge=-MOST, le=MOST, examples=[-3])]


class ItemIn(In):
    """An inventory item; only the name is required."""

    name: Annotated[Name, Field(examples=["Sterile gloves, medium"])]
    sku: Code | None = None
    description: Note | None = None
    category: Short | None = None
    unit: Short | None = None
    quantity: Units = 0
    min_quantity: Units = 5
    reorder_quantity: Units | None = None
    unit_cost: MoneyIn = Decimal("0.00")
    supplier: Name | None = None
    is_active: bool = True


class ItemCreate(ItemIn):
    """A new item; a first quantity is its first restock, of the lot named."""

    lot_number: Code | None = None
    expires_on: DayIn | None = None


class ItemChange(ItemIn):
    """Changes of an item. `quantity` is what was counted, `quantity_adjustment` a signed difference."""

    quantity_adjustment: SignedUnits = 0


ItemPatch = partial(ItemChange, "ItemPatch")


class LotOut(Out):
    """Units in stock that share a lot number and an expiry date, both of which may be unknown."""

    lot_number: str | None
    expires_on: DayOut | None
    quantity: int


class ItemOut(Out):
    """An item with what is in stock of it; `lots` are those in stock, earliest expiry first."""

    area: ClassVar[str] = "inventory_item"

    id: int
    name: str
    sku: str | None
    description: str | None
    category: str | None
    unit: str | None
    quantity: int
    available: int
    min_quantity: int
    low_stock: bool
    reorder_quantity: int | None
    unit_cost: MoneyOut
    stock_value: MoneyOut
    supplier: str | None
    is_active: bool
    last_restocked: InstantOut | None
    lots: list[LotOut]
    created_at: InstantOut
    updated_at: InstantOut


# --- Movements -----------------------------------------------------------------------------------------


class MovementIn(In):
    """A change of stock. `quantity` is positive, whatever the type; only an adjustment is signed."""

    type: MovementType
    quantity: Annotated[SignedUnits, Field(examples=[10])]
    lot_number: Code | None = None
    expires_on: DayIn | None = None
    unit_cost: MoneyIn | None = None
    reason: Line | None = None


class MovementOut(Out):
    """One change of one lot. `quantity` reads as it was given, `change` is what the stock rose by."""

    area: ClassVar[str] = "stock_movement"

    id: int
    item_id: int
    type: MovementType
    quantity: int = Field(validation_alias="stated")
    change: int = Field(validation_alias="quantity")
    lot_number: str | None = Field(validation_alias=AliasPath("lot", "lot_number"))
    expires_on: DayOut | None = Field(validation_alias=AliasPath("lot", "expires_on"))
    unit_cost: MoneyOut | None
    reason: str | None
    treatment_id: int | None
    created_by_id: int | None
    created_by_name: str | None = Field(default=None, validation_alias=AliasPath("created_by", "name"))
    created_at: InstantOut


class PostingOut(Out):
    """A change of stock as it was asked for, and the lots it moved; `item_quantity` is what is left."""

    id: int
    item_id: int
    type: MovementType
    quantity: int
    change: int
    item_quantity: int
    reason: str | None
    created_at: InstantOut
    movements: list[MovementOut]


# --- Alerts --------------------------------------------------------------------------------------------


class AlertOut(Out):
    """An item that runs low or is out, and how much of it to order."""

    item_id: int
    name: str
    sku: str | None
    category: str | None
    unit: str | None
    supplier: str | None
    quantity: int
    available: int
    min_quantity: int
    daily_use: float
    days_left: int | None
    open_need: int
    reorder: int


class LotAlertOut(Out):
    """Units that expire soon or have expired; `days` until then, negative afterwards."""

    item_id: int
    name: str
    lot_number: str | None
    expires_on: DayOut
    quantity: int
    days: int


class AlertsOut(Out):
    """What needs a hand: `low` (at or under the minimum, something left), `out` (nothing usable), lots that
    expire within 30 days, lots that have expired, and everything to order."""

    low: list[AlertOut]
    out: list[AlertOut]
    expiring: list[LotAlertOut]
    expired: list[LotAlertOut]
    reorder: list[AlertOut]
