"""Inventory: the items, what is shown of them, and their movements as lists."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import date, timedelta
from typing import Any

from sqlalchemy import ColumnElement, exists, func, or_, select
from sqlalchemy.orm import joinedload
from sqlalchemy.orm.attributes import set_committed_value

from enums import MovementType
from errors import ClinicError, invalid
from extensions import db
from models import InventoryItem, InventoryLot, InventoryUsage, StockMovement
from security.permissions import Actor, Permission
from services import clock
from services.audit import audit_log
from services.inventory import stock
from services.listing import paging
from services.listing.paging import (
    Filter,
    Kind,
    ListQuery,
    ListSpec,
    Page,
    words_in,
)
from services.rows import (
    assign,
    changed_members,
    get_or_404,
    mapping,
)
from services.search_key import search_key

LONGEST_OUTLOOK = 3650  # days


def get(actor: Actor, item_id: int, *, lock: bool = False) -> InventoryItem:
    """The item, retired ones included, or 404."""
    return get_or_404(InventoryItem, item_id, lock=lock)


def _matches(text: str) -> ColumnElement[bool]:
    return or_(
        words_in(InventoryItem.name_fold, text),
        InventoryItem.sku.icontains(text, autoescape=True),
    )


def _low(wanted: bool) -> ColumnElement[bool]:
    low = InventoryItem.quantity <= InventoryItem.min_quantity
    return low if wanted else ~low


def _expiring(days: int) -> ColumnElement[bool]:
    if not 0 <= days <= LONGEST_OUTLOOK:
        raise invalid("expiring_within_days", f"must be between 0 and {LONGEST_OUTLOOK}")
    today = clock.today()
    return exists().where(
        InventoryLot.item_id == InventoryItem.id,
        InventoryLot.quantity > 0,
        InventoryLot.expires_on.between(today, today + timedelta(days=days)),
    )


LIST: ListSpec[InventoryItem] = ListSpec(
    name="inventory",
    model=InventoryItem,
    area="inventory_item",
    main_date="created_at",
    text=_matches,
    omit=frozenset({"version"}),
    filters={
        "low_stock": Filter(Kind.BOOLEAN, _low, "Quantity at or under the minimum."),
        "expiring_within_days": Filter(
            Kind.INTEGER, _expiring, "Something in stock expires within so many days, today included."
        ),
    },
)
MOVEMENTS: ListSpec[StockMovement] = ListSpec(
    name="movements",
    kept_since="created_at",
    model=StockMovement,
    area="stock_movement",
    main_date="created_at",
    names={"change": "quantity"},
    options=(joinedload(StockMovement.lot), joinedload(StockMovement.created_by)),
)


def find(actor: Actor, query: ListQuery) -> Page[InventoryItem]:
    """One page of items."""
    return paging.page(actor, LIST, query)


def movements(actor: Actor, item: InventoryItem, query: ListQuery) -> Page[StockMovement]:
    """One page of an item's movements."""
    query.conditions.append(paging.Condition("item_id", "eq", item.id))
    return paging.page(actor, MOVEMENTS, query)


def add_computed_fields(actor: Actor, rows: Sequence[InventoryItem]) -> None:
    """What is in stock, usable, and last came in; two queries for any number of items."""
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
    # item by item, each by one look into an index: grouping would read every delivery there ever was
    last = (
        select(func.max(StockMovement.created_at))
        .where(StockMovement.item_id == InventoryItem.id, StockMovement.type == MovementType.RESTOCK)
        .scalar_subquery()
    )
    restocked = mapping(select(InventoryItem.id, last).where(InventoryItem.id.in_(ids)))
    for item in rows:
        # those in stock only: an item in use for years has many empty lots
        set_committed_value(item, "lots", lots[item.id])
        item.available = sum(
            lot.quantity for lot in lots[item.id] if lot.expires_on is None or lot.expires_on >= today
        )
        item.last_restocked = restocked.get(item.id)


# --- Changes -------------------------------------------------------------------------------------------


def create(
    actor: Actor,
    *,
    quantity: int = 0,
    lot_number: str | None = None,
    expires_on: date | None = None,
    **values: Any,
) -> InventoryItem:
    """A new item; a first quantity is its first restock, at the item's unit cost."""
    if not quantity and (lot_number is not None or expires_on is not None):
        raise invalid("quantity", "a lot needs a quantity")
    active = values.pop("is_active", True)
    if not active:
        actor.require(Permission.INVENTORY_RETIRE)
    item = InventoryItem(quantity=0, is_active=True, name_fold=search_key(values["name"]), **values)
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
            unit_cost=item.unit_cost,
            reason="first stock",
        )
    item.is_active = active
    return item


def update(
    actor: Actor,
    item: InventoryItem,
    *,
    version_named: bool,
    quantity: int | None = None,
    quantity_adjustment: int = 0,
    **values: Any,
) -> InventoryItem:
    """Change the members given. `quantity` (what was counted) or `quantity_adjustment` (signed) become one
    adjustment.

    `version_named` says whether the caller sent `If-Match`: 428 `if_match_required` for `quantity` together
    with other changes without it, since a stale row sent back whole must not move stock. Retiring an item
    and bringing it back need the right to retire.
    """
    values = changed_members(item, values)
    if quantity is not None and quantity_adjustment:
        raise invalid("quantity_adjustment", "send either quantity or quantity_adjustment")
    if quantity is not None and quantity != item.quantity and values and not version_named:
        raise ClinicError(
            "if_match_required",
            "A quantity together with other changes needs If-Match, so that it is not stale.",
        )
    if "is_active" in values:
        actor.require(Permission.INVENTORY_RETIRE)
    if "name" in values:
        values["name_fold"] = search_key(values["name"])
    assign(item, values)
    change = quantity_adjustment if quantity is None else quantity - item.quantity
    if change:
        stock.move(actor, item, type=MovementType.ADJUSTMENT, quantity=change)
    return item


def move(actor: Actor, item: InventoryItem, **values: Any) -> list[StockMovement]:
    """Move stock by hand, see `stock.move`; an expiry date or price says something of incoming goods only."""
    if values.get("unit_cost") is not None and values["type"] is not MovementType.RESTOCK:
        raise invalid("unit_cost", "only a restock has a unit cost")
    return stock.move(actor, item, **values)


def retire(actor: Actor, item: InventoryItem) -> InventoryItem:
    """Take an item out of use; one that never moved and that nothing names goes altogether."""
    moved = exists().where(StockMovement.item_id == item.id)
    named = exists().where(InventoryUsage.item_id == item.id)
    kept = db.session.execute(select(moved | named)).scalar_one()
    item.is_active = False
    if kept:
        audit_log.set_action(item, "deactivate")
    else:
        db.session.delete(item)
    return item
