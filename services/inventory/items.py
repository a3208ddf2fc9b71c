"""Inventory items: create, change, retire; lists of items and of their movements."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import date, timedelta
from decimal import Decimal
from typing import Any, TypedDict, Unpack

from sqlalchemy import ColumnElement, bindparam, case, exists, func, or_, select
from sqlalchemy.orm import aliased, joinedload
from sqlalchemy.orm.attributes import set_committed_value

from column_types import MoneyType
from config import settings
from database.functions import contains_text, priced
from enums import MovementType
from errors import ClinicError, invalid
from extensions import db
from models import InventoryItem, InventoryLot, InventoryUsage, StockMovement
from security.permissions import Actor, Permission
from services import clock
from services.audit import audit_log
from services.billing import ledger
from services.inventory import stock
from services.listing import paging
from services.listing.conditions import words_in
from services.listing.related_rows import user_column
from services.listing.spec import (
    Condition,
    Filter,
    Kind,
    ListColumn,
    ListQuery,
    ListSpec,
    Page,
    RelatedRow,
)
from services.rows import assign, changed_members, get_or_404, mapping
from services.search_key import search_key

MAX_EXPIRY_DAYS = 3650  # for the filter `expiring_within_days`


class ItemDetails(TypedDict, total=False):
    """The optional members of an inventory item, without its stock."""

    sku: str | None
    description: str | None
    category: str | None
    unit: str | None
    min_quantity: int
    reorder_quantity: int | None
    unit_cost: Decimal
    supplier: str | None
    packages: list[dict[str, Any]]
    is_active: bool


class ItemChanges(ItemDetails, total=False):
    """The members of an inventory item that a change may contain, without its stock."""

    name: str


def get(_actor: Actor, item_id: int, *, lock: bool = False) -> InventoryItem:
    """Return the item, retired or not, or raise 404 `not_found`."""
    return get_or_404(InventoryItem, item_id, lock=lock)


def _matches(text: str) -> ColumnElement[bool]:
    return or_(
        words_in(InventoryItem.name_fold, text),
        contains_text(InventoryItem.sku, text),
    )


def _expires_within(days: int) -> ColumnElement[bool]:
    if not 0 <= days <= MAX_EXPIRY_DAYS:
        raise invalid("expiring_within_days", f"must be between 0 and {MAX_EXPIRY_DAYS}")
    today = clock.today()
    return exists().where(
        InventoryLot.item_id == InventoryItem.id,
        InventoryLot.quantity > 0,
        InventoryLot.expires_on.between(today, today + timedelta(days=days)),
    )


_AVAILABLE = (
    select(func.coalesce(func.sum(InventoryLot.quantity), 0))
    .where(
        InventoryLot.item_id == InventoryItem.id,
        InventoryLot.quantity > 0,
        or_(
            InventoryLot.expires_on.is_(None),
            InventoryLot.expires_on
            >= bindparam("today", callable_=clock.today, type_=InventoryLot.expires_on.type),
        ),
    )
    .correlate(InventoryItem)
    .scalar_subquery()
)
# A subquery per item reads one index entry. GROUP BY would read every restock of all time.
_LAST_RESTOCK = (
    select(func.max(StockMovement.created_at))
    .where(StockMovement.item_id == InventoryItem.id, StockMovement.type == MovementType.RESTOCK)
    .correlate(InventoryItem)
    .scalar_subquery()
)
LIST: ListSpec[InventoryItem] = ListSpec(
    name="inventory",
    model=InventoryItem,
    area="inventory_item",
    main_date="created_at",
    text=_matches,
    omit=frozenset({"version"}),
    filters={
        "expiring_within_days": Filter(
            Kind.INTEGER,
            _expires_within,
            "A lot in stock expires within this number of days from today.",
            once=True,
        ),
    },
    computed={
        "low_stock": ListColumn(
            Kind.BOOLEAN,
            case((InventoryItem.quantity <= InventoryItem.min_quantity, True), else_=False),
            nullable=False,
        ),
        "available": ListColumn(Kind.INTEGER, _AVAILABLE, nullable=False),
        "last_restocked": ListColumn(Kind.INSTANT, _LAST_RESTOCK),
        "stock_value": ListColumn(
            Kind.MONEY,
            priced(
                InventoryItem.quantity,
                InventoryItem.unit_cost,
                bindparam("step", callable_=lambda: settings().smallest_amount, type_=MoneyType()),
            ),
            nullable=False,
        ),
    },
)
_LOT = aliased(InventoryLot)
_LOT_OF_MOVEMENT = RelatedRow(_LOT, StockMovement.lot_id)
MOVEMENTS: ListSpec[StockMovement] = ListSpec(
    name="movements",
    kept_since="created_at",
    model=StockMovement,
    area="stock_movement",
    main_date="created_at",
    names={"change": "quantity"},
    newest_first=True,
    omit=frozenset({"lot_id"}),
    computed={
        "quantity": ListColumn(
            Kind.INTEGER,
            case(
                (StockMovement.type == MovementType.ADJUSTMENT, StockMovement.quantity),
                else_=func.abs(StockMovement.quantity),
            ),
            nullable=False,
        ),
        "lot_number": ListColumn(Kind.TEXT, _LOT.lot_number, related=_LOT_OF_MOVEMENT),
        "expires_on": ListColumn(Kind.DAY, _LOT.expires_on, related=_LOT_OF_MOVEMENT),
        "created_by_name": user_column(StockMovement.created_by_id),
    },
    options=(joinedload(StockMovement.lot), joinedload(StockMovement.created_by)),
)


def find(actor: Actor, query: ListQuery) -> Page[InventoryItem]:
    """Return one page of items."""
    return paging.page(actor, LIST, query)


def movements(actor: Actor, item: InventoryItem, query: ListQuery) -> Page[StockMovement]:
    """Return one page of the movements of an item."""
    query.conditions.append(Condition("item_id", "eq", item.id))
    return paging.page(actor, MOVEMENTS, query)


def add_computed_fields(_actor: Actor, rows: Sequence[InventoryItem]) -> None:
    """Set lots, available units, value and last restock; two queries for any number of items."""
    ids = [item.id for item in rows]
    today = clock.today()
    lots: dict[int, list[InventoryLot]] = defaultdict(list)
    in_stock = (
        select(InventoryLot)
        .where(InventoryLot.item_id.in_(ids), InventoryLot.quantity > 0)
        .order_by(InventoryLot.expires_on.is_(None), InventoryLot.expires_on, InventoryLot.id)
    )
    for lot in db.session.scalars(in_stock):
        lots[lot.item_id].append(lot)
    restocks = mapping(select(InventoryItem.id, _LAST_RESTOCK).where(InventoryItem.id.in_(ids)))
    for item in rows:
        # Only lots in stock, because an item has many empty lots after some years.
        set_committed_value(item, "lots", lots[item.id])
        item.available = sum(
            lot.quantity for lot in lots[item.id] if lot.expires_on is None or lot.expires_on >= today
        )
        item.last_restocked = restocks.get(item.id)
        item.stock_value = ledger.half_up(item.quantity * item.unit_cost)


# --- Changes -------------------------------------------------------------------------------------------


def create(
    actor: Actor,
    *,
    name: str,
    quantity: int = 0,
    lot_number: str | None = None,
    expires_on: date | None = None,
    allow_expired: bool = False,
    **details: Unpack[ItemDetails],
) -> InventoryItem:
    """Create an item. A first `quantity` becomes its first restock, at the unit cost of the item.

    Raises 422 for a lot without quantity and for an expired lot (see `stock.move`), and 403 for an inactive
    item without the permission to retire.
    """
    if not quantity and (lot_number is not None or expires_on is not None):
        raise invalid("quantity", "is required for a lot")
    is_active = details.pop("is_active", True)
    if not is_active:
        actor.require(Permission.INVENTORY_RETIRE)
    item = InventoryItem(name=name, name_fold=search_key(name), quantity=0, is_active=True, **details)
    db.session.add(item)
    db.session.flush()
    if quantity:
        stock.move(
            actor,
            item,
            type=MovementType.RESTOCK,
            quantity=quantity,
            lot_number=lot_number,
            expires_on=expires_on,
            allow_expired=allow_expired,
            unit_cost=item.unit_cost,
            reason="first stock",
        )
    item.is_active = is_active
    return item


def update(
    actor: Actor,
    item: InventoryItem,
    *,
    has_if_match: bool,
    quantity: int | None = None,
    quantity_adjustment: int = 0,
    **changes: Unpack[ItemChanges],
) -> InventoryItem:
    """Change the members of an item.

    `quantity` (the counted units) or `quantity_adjustment` (signed) becomes one adjustment. `has_if_match`
    tells whether the request has an `If-Match` header. Without it, `quantity` together with other changes
    raises 428 `if_match_required`, because an outdated row that is sent back must not move stock. Raises 422
    for both quantities at once, and 403 for a change of `is_active` without the permission to retire.
    """
    values = changed_members(item, changes)
    if quantity is not None and quantity_adjustment:
        raise invalid("quantity_adjustment", "must not be sent together with quantity")
    if quantity is not None and quantity != item.quantity and values and not has_if_match:
        raise ClinicError(
            "if_match_required",
            "To change the quantity together with other members, send If-Match with the current ETag.",
        )
    if "is_active" in values:
        actor.require(Permission.INVENTORY_RETIRE)
    if "name" in values:
        values["name_fold"] = search_key(values["name"])
    assign(item, values)
    difference = quantity_adjustment if quantity is None else quantity - item.quantity
    if difference:
        stock.move(actor, item, type=MovementType.ADJUSTMENT, quantity=difference)
    return item


def undo_import(actor: Actor, item: InventoryItem, reason: str) -> None:
    """Take the stock of an imported item back by movements, and deactivate it. The caller holds its lock."""
    if item.quantity:
        stock.move(actor, item, type=MovementType.ADJUSTMENT, quantity=-item.quantity, reason=reason)
    item.is_active = False
    audit_log.set_action(item, "deactivate")


def retire(item: InventoryItem) -> InventoryItem:
    """Retire an item. Delete it if it has no movements and no treatment uses it."""
    has_movements = exists().where(StockMovement.item_id == item.id)
    has_usages = exists().where(InventoryUsage.item_id == item.id)
    is_referenced = db.session.execute(select(has_movements | has_usages)).scalar_one()
    item.is_active = False
    if is_referenced:
        audit_log.set_action(item, "deactivate")
    else:
        db.session.delete(item)
    return item
