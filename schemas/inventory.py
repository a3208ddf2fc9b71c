"""Requests and responses of inventory items, stock movements and stock alerts."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, ClassVar

from pydantic import AliasPath, Field

from enums import MovementType
from schemas.base import In, Out, patch_model
from schemas.fields import Code, DayIn, DayOut, InstantOut, Line, MoneyIn, MoneyOut, Name, Note, Short

MAX_UNITS = 1_000_000  # in one movement
Units = Annotated[int, Field(ge=0, le=MAX_UNITS)]
SignedUnits = Annotated[int, Field(ge=-MAX_UNITS, le=MAX_UNITS, examples=[-3])]


class ItemIn(In):
    """An inventory item. Only the name is required."""

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
    """A new item. A quantity is booked as a restock of the given lot."""

    lot_number: Code | None = None
    expires_on: DayIn | None = None


class ItemChange(ItemIn):
    """Changes of an item. `quantity` is the counted stock, `quantity_adjustment` a signed difference."""

    quantity_adjustment: SignedUnits = 0


ItemPatch = patch_model(ItemChange, "ItemPatch")


class LotOut(Out):
    """A lot in stock. Null: the lot number or the expiry date is unknown."""

    lot_number: str | None
    expires_on: DayOut | None
    quantity: int


class ItemOut(Out):
    """An inventory item with its stock. `lots` are the lots in stock, earliest expiry first."""

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
    """A stock movement. `quantity` is positive for all types except an adjustment, which is signed."""

    type: MovementType
    quantity: Annotated[SignedUnits, Field(examples=[10])]
    lot_number: Code | None = None
    expires_on: DayIn | None = None
    unit_cost: MoneyIn | None = None
    reason: Line | None = None


class MovementOut(Out):
    """A stock movement of one lot. `quantity` is as in the request, `change` is the signed change."""

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


class StockChangeOut(Out):
    """A stock change with its movements by lot. `item_quantity` is the remaining stock of the item."""

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
    """An item to reorder, with the quantity to order."""

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
    """A lot that expires soon or has expired. `days` until expiry; negative after it."""

    item_id: int
    name: str
    lot_number: str | None
    expires_on: DayOut
    quantity: int
    days: int


class AlertsOut(Out):
    """Stock alerts.

    * `low`: items at or below the minimum, with usable stock.
    * `out`: items without usable stock.
    * `expiring`, `expired`: lots that expire within 30 days or have expired.
    * `reorder`: all items to order.
    """

    low: list[AlertOut]
    out: list[AlertOut]
    expiring: list[LotAlertOut]
    expired: list[LotAlertOut]
    reorder: list[AlertOut]
