"""Requests and responses of inventory items, stock movements and stock alerts."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, ClassVar

from pydantic import AfterValidator, AliasPath, BeforeValidator, Field, PlainSerializer, WithJsonSchema

from enums import MovementType
from schemas.base import In, Out, PersonRef, patch_model
from schemas.fields import (
    Code,
    DayIn,
    DayOut,
    InstantOut,
    Line,
    MoneyOut,
    Name,
    Note,
    RequiredShort,
    Short,
    parse_decimal,
)

MAX_UNITS = 1_000_000  # in one movement
COST_PLACES = 4  # one tablet may cost less than a cent
Units = Annotated[int, Field(ge=0, le=MAX_UNITS)]
SignedUnits = Annotated[int, Field(ge=-MAX_UNITS, le=MAX_UNITS, examples=[-3])]
LotNumber = Annotated[Code, AfterValidator(str.strip)]
UnitCostIn = Annotated[
    Decimal,
    BeforeValidator(lambda value: parse_decimal(value, COST_PLACES)),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "pattern": r"^[0-9]{1,10}(\.[0-9]{1,4})?$"},
                {"type": "number", "minimum": 0, "maximum": 9999999999.99, "multipleOf": 0.0001},
            ],
            "examples": ["0.0125"],
        }
    ),
]


def _format_cost(cost: Decimal) -> str:
    """Return a unit cost with at least two decimal places, and without zeros after them."""
    text = f"{cost:.{COST_PLACES}f}"
    return text[:-2] + text[-2:].rstrip("0")


UnitCostOut = Annotated[
    Decimal,
    PlainSerializer(_format_cost, return_type=str),
    WithJsonSchema({"type": "string", "pattern": r"^[0-9]+\.[0-9]{2,4}$", "examples": ["0.0125"]}),
]


class PackageIn(In):
    """A package of an item: its name, and the units in it."""

    name: Annotated[RequiredShort, Field(examples=["box"])]
    quantity: Annotated[int, Field(ge=1, le=MAX_UNITS, examples=[100])]


def _check_package_names(packages: list[PackageIn]) -> list[PackageIn]:
    if len({package.name.strip().casefold() for package in packages}) != len(packages):
        raise ValueError("two packages have the same name")
    return packages


Packages = Annotated[list[PackageIn], Field(max_length=20), AfterValidator(_check_package_names)]


class ItemIn(In):
    """An inventory item. Only the name is required. All quantities count units, `unit_cost` is per unit."""

    name: Annotated[Name, Field(examples=["Sterile gloves, medium"])]
    sku: Code | None = None
    description: Note | None = None
    category: Short | None = None
    unit: Short | None = None
    quantity: Units = 0
    min_quantity: Units = 5
    reorder_quantity: Units | None = None
    unit_cost: UnitCostIn = Decimal("0.00")
    supplier: Name | None = None
    packages: Packages = Field(default_factory=list)
    is_active: bool = True


class ItemCreate(ItemIn):
    """A new item. A quantity is booked as a restock of the given lot."""

    lot_number: LotNumber | None = None
    expires_on: DayIn | None = None
    allow_expired: bool = False


class ItemChange(ItemIn):
    """Changes of an item. `quantity` is the counted stock, `quantity_adjustment` a signed difference."""

    quantity_adjustment: SignedUnits = 0


ItemPatch = patch_model(ItemChange, "ItemPatch")


class PackageOut(Out):
    """A package of an item, with the units in it."""

    name: str
    quantity: int


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
    unit_cost: UnitCostOut
    stock_value: MoneyOut
    supplier: str | None
    is_active: bool
    last_restocked: InstantOut | None
    packages: list[PackageOut]
    lots: list[LotOut]
    created_at: InstantOut
    updated_at: InstantOut


# --- Movements -----------------------------------------------------------------------------------------


class MovementIn(In):
    """A stock movement. `quantity` is positive for all types except an adjustment, which is signed.

    With `package`, the name of a package of the item, the quantity counts packages. `unit_cost` is always the
    cost of one unit. `allow_expired` permits the receipt of a lot that has expired.
    """

    type: MovementType
    quantity: Annotated[SignedUnits, Field(examples=[10])]
    package: Short | None = None
    lot_number: LotNumber | None = None
    expires_on: DayIn | None = None
    allow_expired: bool = False
    unit_cost: UnitCostIn | None = None
    reason: Line | None = None


class ExpiryCorrectionIn(In):
    """The right expiry date of a lot, and the reason of the correction."""

    lot_number: LotNumber
    expires_on: DayIn
    reason: Annotated[RequiredShort, Field(examples=["Wrong year typed, checked on the box"])]


class MovementOut(Out):
    """A stock movement of one lot, in units. `quantity` has the sign of the request, `change` is signed.

    `package` is the package in which it was counted, with `package_units` units.
    """

    area: ClassVar[str] = "stock_movement"

    id: int
    item_id: int
    type: MovementType
    quantity: int = Field(validation_alias="entered_quantity")
    change: int = Field(validation_alias="quantity")
    package: str | None
    package_units: int | None
    lot_number: str | None = Field(validation_alias=AliasPath("lot", "lot_number"))
    expires_on: DayOut | None = Field(validation_alias=AliasPath("lot", "expires_on"))
    unit_cost: UnitCostOut | None
    reason: str | None
    treatment_id: int | None
    created_by_id: int | None
    created_by_name: str | None = Field(default=None, validation_alias=AliasPath("created_by", "name"))
    created_by: PersonRef | None
    created_at: InstantOut


class StockChangeOut(Out):
    """A stock change in units, with its movements by lot. `item_quantity` is the remaining stock."""

    id: int
    item_id: int
    type: MovementType
    quantity: int
    change: int
    package: str | None
    package_units: int | None
    item_quantity: int
    reason: str | None
    created_at: InstantOut
    movements: list[MovementOut]


# --- Alerts --------------------------------------------------------------------------------------------


class AlertOut(Out):
    """An item to reorder. `reorder` are the units to order, in whole packages if the item has packages."""

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
    reorder_package: str | None
    reorder_packages: int | None


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
