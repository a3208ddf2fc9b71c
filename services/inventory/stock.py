"""Stock: every change is a movement of one lot, and nothing is ever below zero.

Whoever moves stock holds the item's row, taken in ascending id; lots are changed under their item's lock
only. So movements of one item come one after the other, two treatments that name the same items in
opposite orders wait instead of blocking each other, and the quantity is the sum of the movements and of the
lots. The CHECKs of both tables have the last word.

Which lot: the one named; else the earliest expiry first, lots without expiry last, then the oldest lot.
Usage never takes what has expired. Waste and corrections downwards take expired units too, and first, since
those are what leaves the shelf; what is added without naming a lot joins the lot without number and expiry.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from typing import Any

from sqlalchemy import func, select

from enums import MovementType
from errors import ClinicError, invalid
from extensions import db
from models import InventoryItem, InventoryLot, StockMovement, Treatment
from security.permissions import Actor
from services import clock
from services.rows import for_update

OUTWARD = (MovementType.USAGE, MovementType.WASTE)
Portion = tuple[InventoryLot, int]  # what a lot rises by


def lock_items(ids: Iterable[int]) -> dict[int, InventoryItem]:
    """The items by id, held until the end of the transaction, taken in ascending id."""
    wanted = sorted(set(ids))
    if not wanted:
        return {}
    statement = select(InventoryItem).where(InventoryItem.id.in_(wanted)).order_by(InventoryItem.id)
    return {item.id: item for item in db.session.scalars(for_update(statement))}


def _lock_lots(ids: Iterable[int], *, also: Iterable[int] = ()) -> list[InventoryLot]:
    """The lots of the items that hold something, and those named, held in ascending id."""
    statement = (
        select(InventoryLot)
        .where(
            InventoryLot.item_id.in_(sorted(set(ids))),
            (InventoryLot.quantity > 0) | InventoryLot.id.in_(sorted(set(also))),
        )
        .order_by(InventoryLot.id)
    )
    return list(db.session.scalars(for_update(statement)))


def _usable(lot: InventoryLot, today: date) -> bool:
    return lot.expires_on is None or lot.expires_on >= today


def _first_out(lots: Iterable[InventoryLot]) -> list[InventoryLot]:
    """Earliest expiry first, unknown expiry last, the older lot before the newer."""
    return sorted(lots, key=lambda lot: (lot.expires_on is None, lot.expires_on or date.max, lot.id))


def _portions(lots: Iterable[InventoryLot], units: int) -> tuple[list[Portion], int]:
    """What each lot gives, as negative changes, and how many units are found."""
    chosen: list[Portion] = []
    missing = units
    for lot in _first_out(lots):
        taken = min(missing, lot.quantity)
        if taken > 0:
            chosen.append((lot, -taken))
            missing -= taken
    return chosen, units - missing


def _post(
    actor: Actor,
    item: InventoryItem,
    kind: MovementType,
    portions: Sequence[Portion],
    *,
    unit_cost: Decimal | None = None,
    reason: str | None = None,
    treatment_id: int | None = None,
) -> list[StockMovement]:
    """Write the movements and what they leave behind. Item and lots are held by the caller."""
    made = []
    for lot, change in portions:
        lot.quantity += change
        item.quantity += change
        made.append(
            StockMovement(
                item_id=item.id,
                lot_id=lot.id,
                type=kind,
                quantity=change,
                unit_cost=unit_cost,
                reason=reason,
                treatment_id=treatment_id,
                created_by_id=actor.user_id,
            )
        )
    db.session.add_all(made)
    db.session.flush()
    return made


@dataclass
class Shortages:
    """What is not there, gathered so that one refusal names all of it."""

    found: list[dict[str, Any]] = field(default_factory=list)

    def add(self, item: InventoryItem, needed: int, available: int) -> None:
        """Note that `needed` units of the item are asked for and only `available` can be had."""
        self.found.append({"item_id": item.id, "name": item.name, "needed": needed, "available": available})

    def refuse(self) -> None:
        """409 `insufficient_stock` naming each item, if there is any."""
        if self.found:
            told = ", ".join(
                f"{one['name']} (needed {one['needed']}, available {one['available']})" for one in self.found
            )
            raise ClinicError(
                "insufficient_stock", f"There is not enough in stock: {told}.", items=self.found
            )


# --- Movements by hand ---------------------------------------------------------------------------------


def move(
    actor: Actor,
    item: InventoryItem,
    *,
    type: MovementType,
    quantity: int,
    lot_number: str | None = None,
    expires_on: date | None = None,
    unit_cost: Decimal | None = None,
    reason: str | None = None,
) -> list[StockMovement]:
    """Change the stock of a locked item; one movement per lot that it touches.

    `quantity` in units: positive, and signed for an adjustment only (422 otherwise). A restock that tells
    its `unit_cost` sets the item's, which values the stock: the last price paid. Raises 422 on a lot that
    there is not, 409 `insufficient_stock` for more than the lots hold (for usage: unexpired units).
    """
    signed = type is MovementType.ADJUSTMENT
    if quantity == 0 or (quantity < 0 and not signed):
        raise invalid("quantity", "must not be zero" if signed else "must be more than zero")
    if type is MovementType.RESTOCK and not item.is_active:
        raise ClinicError("read_only", "The item is no longer kept in stock; bring it back first.")
    outward = type in OUTWARD or quantity < 0
    if outward:
        portions = _outward(item, type, abs(quantity), lot_number, expires_on)
    else:
        portions = [(_lot(item, lot_number, expires_on), quantity)]
    if type is MovementType.RESTOCK and unit_cost is not None:
        item.unit_cost = unit_cost
    return _post(actor, item, type, portions, unit_cost=unit_cost, reason=reason)


def _outward(
    item: InventoryItem, kind: MovementType, units: int, lot_number: str | None, expires_on: date | None
) -> list[Portion]:
    lots = _lock_lots([item.id])
    if lot_number is not None:
        lots = [lot for lot in lots if lot.lot_number == lot_number]
    if expires_on is not None:
        lots = [lot for lot in lots if lot.expires_on == expires_on]
    if not lots and (lot_number is not None or expires_on is not None):
        raise invalid(
            "lot_number" if lot_number is not None else "expires_on", "there is no such lot in stock"
        )
    if kind is MovementType.USAGE:
        today = clock.today()
        lots = [lot for lot in lots if _usable(lot, today)]
    portions, found = _portions(lots, units)
    shortages = Shortages()
    if found < units:
        shortages.add(item, units, found)
    shortages.refuse()
    return portions


def _lot(item: InventoryItem, lot_number: str | None, expires_on: date | None) -> InventoryLot:
    """The lot that is named, made if it is new. A number without expiry means the lot that has the number."""
    lots = select(InventoryLot).where(
        InventoryLot.item_id == item.id, InventoryLot.lot_number.is_not_distinct_from(lot_number)
    )
    exact = lots.where(InventoryLot.expires_on.is_not_distinct_from(expires_on))
    found = list(db.session.scalars(exact.order_by(InventoryLot.id)))
    if not found and lot_number is not None and expires_on is None:
        found = list(db.session.scalars(lots.order_by(InventoryLot.id)))
    if found:
        return found[0]
    lot = InventoryLot(item_id=item.id, lot_number=lot_number, expires_on=expires_on, quantity=0)
    db.session.add(lot)
    db.session.flush()
    return lot


# --- Treatments ----------------------------------------------------------------------------------------


def use_for_treatment(actor: Actor, treatment: Treatment) -> None:
    """Take what a completed treatment needs, less what it has taken already; give back what is too much.

    All or nothing: 409 `insufficient_stock` names every item that is short, in `items`.
    """
    _settle(actor, treatment, {usage.item_id: usage.quantity for usage in treatment.inventory_items})
    treatment.stock_taken_at = clock.now() if treatment.inventory_items else None


def return_from_treatment(actor: Actor, treatment: Treatment) -> None:
    """Return everything a treatment has taken to the lots it came from."""
    _settle(actor, treatment, {})
    treatment.stock_taken_at = None


def _settle(actor: Actor, treatment: Treatment, wanted: Mapping[int, int]) -> None:
    """Bring what the treatment has taken to what is wanted of each item; the movements say what it has.

    The caller holds the treatment's row, so that it cannot be settled twice at once.
    """
    taken = _taken(treatment)
    ids = {*wanted, *taken}
    if not ids:
        return
    items = lock_items(ids)
    lots = _lock_lots(ids, also=(lot_id for held in taken.values() for lot_id in held))
    today = clock.today()
    plan: list[tuple[InventoryItem, MovementType, list[Portion]]] = []
    shortages = Shortages()
    for item_id in sorted(ids):
        own = [lot for lot in lots if lot.item_id == item_id]
        held = taken.get(item_id, {})
        missing = wanted.get(item_id, 0) - sum(held.values())
        if missing > 0:
            portions, found = _portions((lot for lot in own if _usable(lot, today)), missing)
            if found < missing:
                shortages.add(items[item_id], missing, found)
            plan.append((items[item_id], MovementType.USAGE, portions))
        elif missing < 0:
            plan.append((items[item_id], MovementType.RETURN, _returned(own, held, -missing)))
    shortages.refuse()
    for item, kind, portions in plan:
        _post(actor, item, kind, portions, treatment_id=treatment.id)


def _taken(treatment: Treatment) -> dict[int, dict[int, int]]:
    """Item id -> lot id -> units that the treatment has taken and not given back."""
    statement = (
        select(StockMovement.item_id, StockMovement.lot_id, func.sum(StockMovement.quantity))
        .where(StockMovement.treatment_id == treatment.id)
        .group_by(StockMovement.item_id, StockMovement.lot_id)
    )
    found: dict[int, dict[int, int]] = defaultdict(dict)
    for item_id, lot_id, change in db.session.execute(statement).tuples():
        if change < 0:
            found[item_id][lot_id] = -int(change)
    return found


def _returned(lots: Iterable[InventoryLot], held: Mapping[int, int], units: int) -> list[Portion]:
    """Units back to the lots they came from, those taken last first."""
    chosen: list[Portion] = []
    for lot in reversed(_first_out(lot for lot in lots if lot.id in held)):
        back = min(units, held[lot.id])
        if back > 0:
            chosen.append((lot, back))
            units -= back
    return chosen
