"""Stock alerts: low, out of stock, expiring and expired items, and the quantity to order.

The quantity to order of an item, in units:

    needed  = minimum + 1 + open need + daily use x 30 days
    reorder = needed - available, rounded up to whole packs; 0 if that is zero or less

- *daily use*: the units used (usage minus returns) in the last 90 days, divided by the number of those days
  on which the item was in stock. Days without stock show no demand. If they counted, an item that runs out
  often would seem to have little use. At least 7 days count, because one busy day shows no trend.
- *open need*: the units that planned and begun treatments will use when they are completed.
- *available*: the units in stock that are not expired.
- *pack*: the item's `reorder_quantity`, or 1. An item with packages is ordered in whole packages of its
  smallest package.
- The 1 brings the item above its minimum, because an item at its minimum is low.

An item is due for an order in two cases: it is low, or the available units after the open need and a week of
use would be below the minimum.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import date, timedelta
from fractions import Fraction

from sqlalchemy import func, select

from enums import MovementType, TreatmentStatus
from extensions import db
from models import InventoryItem, InventoryLot, InventoryUsage, StockMovement, Treatment
from services import clock
from services.rows import mapping

DEMAND_DAYS = 90  # period of the daily use
COVER_DAYS = 30  # days of use that an order covers
LEAD_DAYS = 7  # days of use before the minimum is reached at which to order
MIN_DEMAND_DAYS = 7  # fewest days in stock for the daily use
EXPIRY_DAYS = 30  # a lot is reported this many days before its expiry


@dataclass(frozen=True)
class ItemAlert:
    """An item that is low, out of stock or due for an order; `daily_use` in units a day."""

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


@dataclass(frozen=True)
class LotAlert:
    """A lot that expires in `days` days; a negative number after its expiry."""

    item_id: int
    name: str
    lot_number: str | None
    expires_on: date
    quantity: int
    days: int


@dataclass
class StockAlerts:
    """All stock alerts: items by name, lots by expiry."""

    low: list[ItemAlert] = field(default_factory=list)
    out: list[ItemAlert] = field(default_factory=list)
    expiring: list[LotAlert] = field(default_factory=list)
    expired: list[LotAlert] = field(default_factory=list)
    reorder: list[ItemAlert] = field(default_factory=list)


def find_alerts() -> StockAlerts:
    """Return the alerts of active items and of their lots in stock; five queries for any number of items."""
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
    open_needs = mapping(
        select(InventoryUsage.item_id, func.sum(InventoryUsage.quantity))
        .join(Treatment, Treatment.id == InventoryUsage.treatment_id)
        .where(Treatment.status.in_((TreatmentStatus.PLANNED, TreatmentStatus.IN_PROGRESS)))
        .group_by(InventoryUsage.item_id)
    )
    rates = daily_use(items, today)
    alerts = StockAlerts()
    for item in items:
        alert = _item_alert(
            item, int(available.get(item.id, 0)), int(open_needs.get(item.id, 0)), rates[item.id]
        )
        if alert.available == 0:
            alerts.out.append(alert)
        elif alert.available <= alert.min_quantity:
            alerts.low.append(alert)
        if alert.reorder:
            alerts.reorder.append(alert)
    _add_lot_alerts(alerts, today)
    return alerts


def _item_alert(item: InventoryItem, available: int, open_need: int, rate: Fraction) -> ItemAlert:
    expected = available - open_need - rate * LEAD_DAYS
    is_due = available <= item.min_quantity or expected < item.min_quantity
    missing = item.min_quantity + 1 + open_need + math.ceil(rate * COVER_DAYS) - available
    reorder = _round_up(missing, item.reorder_quantity or 1) if is_due and missing > 0 else 0
    package = min(item.packages, key=lambda package: int(package["quantity"]), default=None)
    if package is not None:
        reorder = _round_up(reorder, package["quantity"])
    return ItemAlert(
        item_id=item.id,
        name=item.name,
        sku=item.sku,
        category=item.category,
        unit=item.unit,
        supplier=item.supplier,
        quantity=item.quantity,
        available=available,
        min_quantity=item.min_quantity,
        daily_use=round(float(rate), 2),
        days_left=int(available / rate) if rate else None,
        open_need=open_need,
        reorder=reorder,
        reorder_package=package["name"] if package is not None else None,
        reorder_packages=reorder // package["quantity"] if package is not None else None,
    )


def _round_up(units: int, pack: int) -> int:
    return -(-units // pack) * pack


def daily_use(items: Iterable[InventoryItem], today: date) -> dict[int, Fraction]:
    """Return the units used per day in stock, by item id, over `DEMAND_DAYS` days including today.

    They are exact: 31 units in 30 days are 31 units for the next 30 days. With floats they would be 32.
    """
    first_day = today - timedelta(days=DEMAND_DAYS - 1)
    statement = select(
        StockMovement.item_id, StockMovement.created_at, StockMovement.quantity, StockMovement.type
    ).where(StockMovement.created_at >= clock.day_start(first_day))
    used: dict[int, int] = defaultdict(int)
    changes: dict[int, dict[date, list[int]]] = defaultdict(lambda: defaultdict(lambda: [0, 0]))
    for item_id, moved_at, change, movement_type in db.session.execute(statement).tuples():
        if movement_type in (MovementType.USAGE, MovementType.RETURN):
            used[item_id] -= change
        of_day = changes[item_id][clock.local(moved_at).date()]
        of_day[0] += change
        of_day[1] += max(change, 0)
    return {
        item.id: Fraction(
            max(used[item.id], 0),
            max(_days_in_stock(item.quantity, changes[item.id], today), MIN_DEMAND_DAYS),
        )
        for item in items
    }


def _days_in_stock(quantity: int, changes: dict[date, list[int]], today: date) -> int:
    """Return the number of days of the period with stock: at the start of the day, or received that day.

    `quantity` is the current stock; the loop goes back day by day. `changes` holds for each day the sum of
    all changes and the sum of the incoming ones.
    """
    days = 0
    for days_ago in range(DEMAND_DAYS):
        change, incoming = changes.get(today - timedelta(days=days_ago), (0, 0))
        quantity -= change  # the quantity at the start of that day
        days += quantity > 0 or incoming > 0
    return days


def _add_lot_alerts(alerts: StockAlerts, today: date) -> None:
    statement = (
        select(InventoryLot, InventoryItem.name)
        .join(InventoryItem, InventoryItem.id == InventoryLot.item_id)
        .where(
            InventoryItem.is_active,
            InventoryLot.quantity > 0,
            InventoryLot.expires_on <= today + timedelta(days=EXPIRY_DAYS),
        )
        .order_by(InventoryLot.expires_on, InventoryLot.id)
    )
    for lot, name in db.session.execute(statement).tuples():
        if lot.expires_on is not None:  # always true here; for the type checker
            days = (lot.expires_on - today).days
            alert = LotAlert(lot.item_id, name, lot.lot_number, lot.expires_on, lot.quantity, days)
            (alerts.expired if days < 0 else alerts.expiring).append(alert)
