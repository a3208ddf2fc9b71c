"""Alerts of the stock room: what is low, out, expiring, expired, and how much to order.

How much to order of an item, in units:

    wanted  = minimum + 1 + open need + daily use x 30 days
    reorder = wanted - available, rounded up to whole packs; nothing where that is zero or less

- *daily use*: units used (usage less returns) in the last 90 days, by the number of those days on which the
  item was in stock. A day on which the shelf was empty says nothing about demand; counting it would make an
  item that keeps running out look unwanted. At least 7 days are counted: one busy day is no habit.
- *open need*: what planned and begun treatments will take when they are completed.
- *available*: in stock and not expired. *Pack*: the item's `reorder_quantity`; 1 where it has none.
- The 1 lifts an item over its minimum: at the minimum it is low.

An item is due for an order when it is low, or when what is available after the open need and a week of use
would be under the minimum.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import date, timedelta

from sqlalchemy import func, select

from enums import MovementType, TreatmentStatus
from extensions import db
from models import InventoryItem, InventoryLot, InventoryUsage, StockMovement, Treatment
from security.permissions import Actor
from services import clock
from services.rows import mapping

LOOK_BACK = 90  # days of use that tell the demand
COVER = 30  # days an order should last
NOTICE = 7  # days of use before the minimum at which to order; the fewest that tell a habit
SOON = 30  # days before its expiry at which a lot is named


@dataclass(frozen=True)
class Alert:
    """An item that runs low, is out, or is due for an order. `daily_use` in units a day."""

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


@dataclass(frozen=True)
class LotAlert:
    """Units that expire in `days` days; negative once they have."""

    item_id: int
    name: str
    lot_number: str | None
    expires_on: date
    quantity: int
    days: int


@dataclass
class Alerts:
    """All of it, most urgent first."""

    low: list[Alert] = field(default_factory=list)
    out: list[Alert] = field(default_factory=list)
    expiring: list[LotAlert] = field(default_factory=list)
    expired: list[LotAlert] = field(default_factory=list)
    reorder: list[Alert] = field(default_factory=list)


def alerts(actor: Actor) -> Alerts:
    """What needs a hand among the items in use; four queries, whatever the number of items."""
    today = clock.today()
    items = list(
        db.session.scalars(
            select(InventoryItem)
            .where(InventoryItem.is_active)
            .order_by(InventoryItem.name_fold, InventoryItem.id)
        )
    )
    available = mapping(
        select(InventoryLot.item_id, func.sum(InventoryLot.quantity))
        .where(InventoryLot.expires_on.is_(None) | (InventoryLot.expires_on >= today))
        .group_by(InventoryLot.item_id)
    )
    needs = mapping(
        select(InventoryUsage.item_id, func.sum(InventoryUsage.quantity))
        .join(Treatment, Treatment.id == InventoryUsage.treatment_id)
        .where(Treatment.status.in_((TreatmentStatus.PLANNED, TreatmentStatus.IN_PROGRESS)))
        .group_by(InventoryUsage.item_id)
    )
    rates = daily_use(items, today)
    found = Alerts()
    for item in items:
        alert = _judge(item, int(available.get(item.id, 0)), int(needs.get(item.id, 0)), rates[item.id])
        if alert.available == 0:
            found.out.append(alert)
        elif alert.available <= alert.min_quantity:
            found.low.append(alert)
        if alert.reorder:
            found.reorder.append(alert)
    _add_lots(found, today)
    return found


def _judge(item: InventoryItem, available: int, need: int, rate: float) -> Alert:
    left = available - need - rate * NOTICE
    due = available <= item.min_quantity or left < item.min_quantity
    wanted = item.min_quantity + 1 + need + math.ceil(rate * COVER) - available
    pack = item.reorder_quantity or 1
    return Alert(
        item_id=item.id,
        name=item.name,
        sku=item.sku,
        category=item.category,
        unit=item.unit,
        supplier=item.supplier,
        quantity=item.quantity,
        available=available,
        min_quantity=item.min_quantity,
        daily_use=round(rate, 2),
        days_left=int(available / rate) if rate else None,
        open_need=need,
        reorder=-(-wanted // pack) * pack if due and wanted > 0 else 0,
    )


def daily_use(items: Iterable[InventoryItem], today: date) -> dict[int, float]:
    """Units used a day in stock, by item, over the last `LOOK_BACK` days, today included."""
    first = today - timedelta(days=LOOK_BACK - 1)
    statement = select(
        StockMovement.item_id, StockMovement.created_at, StockMovement.quantity, StockMovement.type
    ).where(StockMovement.created_at >= clock.day_start(first))
    used: dict[int, int] = defaultdict(int)
    changes: dict[int, dict[date, list[int]]] = defaultdict(lambda: defaultdict(lambda: [0, 0]))
    for item_id, at, change, kind in db.session.execute(statement).tuples():
        if kind in (MovementType.USAGE, MovementType.RETURN):
            used[item_id] -= change
        of_day = changes[item_id][clock.local(at).date()]
        of_day[0] += change
        of_day[1] += max(change, 0)
    return {
        item.id: max(used[item.id], 0) / max(_days_in_stock(item.quantity, changes[item.id], today), NOTICE)
        for item in items
    }


def _days_in_stock(quantity: int, changes: dict[date, list[int]], today: date) -> int:
    """Days of the period on which there was something: at their beginning, or because it came that day.

    Walks back from what there is now; `changes` holds, by day, the sum of all changes and of the incoming.
    """
    days = 0
    for back in range(LOOK_BACK):
        change, incoming = changes.get(today - timedelta(days=back), (0, 0))
        quantity -= change  # now what there was when the day began
        days += quantity > 0 or incoming > 0
    return days


def _add_lots(found: Alerts, today: date) -> None:
    statement = (
        select(InventoryLot, InventoryItem.name)
        .join(InventoryItem, InventoryItem.id == InventoryLot.item_id)
        .where(InventoryLot.quantity > 0, InventoryLot.expires_on <= today + timedelta(days=SOON))
        .order_by(InventoryLot.expires_on, InventoryLot.id)
    )
    for lot, name in db.session.execute(statement).tuples():
        if lot.expires_on is not None:  # the statement has seen to it
            days = (lot.expires_on - today).days
            alert = LotAlert(lot.item_id, name, lot.lot_number, lot.expires_on, lot.quantity, days)
            (found.expired if days < 0 else found.expiring).append(alert)
