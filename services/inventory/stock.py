"""Stock: every change is a movement of one lot, and no quantity is ever below zero.

Locks: a caller that moves stock holds the lock on the item's row. Item rows are locked in ascending id, and
lots change only under the lock of their item. So movements of one item run one after the other. Two
treatments with the same items in opposite order wait instead of causing a deadlock. The quantity of an item
is always the sum of its movements and the sum of its lots. CHECK constraints of both tables are the last
protection.

Choice of the lot: the lot in the request; otherwise first expired, first out (FEFO): the earliest expiry
first, lots without expiry last, then the oldest lot. Usage never takes expired units. Waste and downward
adjustments take expired units too, and first, because these units leave the shelf. Units that are added
without a lot go to the lot without number and expiry.

A lot number of an item has one expiry date, which `correct_expiry` changes. Returns go to lots from which
units were used and not yet returned, at most that many. A manual return takes back manual usage first, then
usage of treatments, the last treatment first. So voiding a treatment returns exactly the units that were
not yet returned.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from decimal import Decimal
from typing import Any, NamedTuple

from sqlalchemy import func, select

from column_types import MAX_INT
from enums import MovementType
from errors import ClinicError, invalid
from extensions import db
from models import InventoryItem, InventoryLot, StockMovement, Treatment
from security.permissions import Actor
from services import clock
from services.audit import audit_log
from services.rows import for_update
from services.search_key import search_key

OUTWARD_TYPES = (MovementType.USAGE, MovementType.WASTE)
MAX_UNITS = 1_000_000  # in one movement
# An expiry date further away is a typing error: 1926 or 2126 for 2026.
OLDEST_EXPIRY, LATEST_EXPIRY = timedelta(days=20 * 365), timedelta(days=75 * 365)


class LotChange(NamedTuple):
    """A signed change of the quantity of a lot, for a treatment or not."""

    lot: InventoryLot
    quantity: int
    treatment_id: int | None = None


def lock_items(ids: Iterable[int]) -> dict[int, InventoryItem]:
    """Lock the items in ascending id until the end of the transaction. Return them by id."""
    item_ids = sorted(set(ids))
    if not item_ids:
        return {}
    statement = select(InventoryItem).where(InventoryItem.id.in_(item_ids)).order_by(InventoryItem.id)
    return {item.id: item for item in db.session.scalars(for_update(statement))}


def _lock_lots(item_ids: Iterable[int], *, lot_ids: Iterable[int]) -> list[InventoryLot]:
    """Lock the lots of the items that have stock or are in `lot_ids`, in ascending id."""
    statement = (
        select(InventoryLot)
        .where(
            InventoryLot.item_id.in_(sorted(set(item_ids))),
            (InventoryLot.quantity > 0) | InventoryLot.id.in_(sorted(set(lot_ids))),
        )
        .order_by(InventoryLot.id)
    )
    return list(db.session.scalars(for_update(statement)))


def _is_usable(lot: InventoryLot, today: date) -> bool:
    return lot.expires_on is None or lot.expires_on >= today


def _sort_fefo(lots: Iterable[InventoryLot]) -> list[InventoryLot]:
    """Return the lots by earliest expiry (unknown expiry last), then the older lot first."""
    return sorted(lots, key=lambda lot: (lot.expires_on is None, lot.expires_on or date.max, lot.id))


def _allocate(
    lots: Iterable[InventoryLot], units: int, treatment_id: int | None = None
) -> tuple[list[LotChange], int]:
    """Return the negative changes of the lots, and the number of units that the lots provide."""
    changes: list[LotChange] = []
    missing = units
    for lot in _sort_fefo(lots):
        quantity = min(missing, lot.quantity)
        if quantity > 0:
            changes.append(LotChange(lot, -quantity, treatment_id))
            missing -= quantity
    return changes, units - missing


def _record_movements(
    actor: Actor,
    item: InventoryItem,
    movement_type: MovementType,
    changes: Sequence[LotChange],
    *,
    unit_cost: Decimal | None = None,
    reason: str | None = None,
    package: Mapping[str, Any] | None = None,
) -> list[StockMovement]:
    """Insert the movements and change the quantities. The caller holds the locks on item and lots."""
    movements = []
    for lot, change, treatment_id in changes:
        lot.quantity += change
        item.quantity += change
        movements.append(
            StockMovement(
                item_id=item.id,
                lot_id=lot.id,
                type=movement_type,
                quantity=change,
                unit_cost=unit_cost,
                reason=reason,
                treatment_id=treatment_id,
                created_by_id=actor.user_id,
                package=package["name"] if package is not None else None,
                package_units=package["quantity"] if package is not None else None,
            )
        )
    db.session.add_all(movements)
    db.session.flush()
    return movements


@dataclass
class Shortages:
    """The items without enough stock, collected so that one error reports all of them."""

    items: list[dict[str, Any]] = field(default_factory=list)

    def add(self, item: InventoryItem, needed: int, available: int) -> None:
        """Add an item; `needed` and `available` in units."""
        self.items.append({"item_id": item.id, "name": item.name, "needed": needed, "available": available})

    def raise_if_any(self) -> None:
        """Raise 409 `insufficient_stock` with all items in `items`, if there are any."""
        if self.items:
            shortages = ", ".join(
                f"{item['name']} (needed {item['needed']}, available {item['available']})"
                for item in self.items
            )
            raise ClinicError(
                "insufficient_stock", f"There is not enough stock: {shortages}.", items=self.items
            )


# --- Manual movements ----------------------------------------------------------------------------------


def move(
    actor: Actor,
    item: InventoryItem,
    *,
    type: MovementType,
    quantity: int,
    package: str | None = None,
    lot_number: str | None = None,
    expires_on: date | None = None,
    allow_expired: bool = False,
    unit_cost: Decimal | None = None,
    reason: str | None = None,
) -> list[StockMovement]:
    """Move stock of a locked item. Return one movement for each changed lot.

    `quantity` is positive; only an adjustment may be negative (422 otherwise). It is in units, or in packages
    of the item with the name `package`. Only a restock has a `unit_cost` (422 otherwise); it becomes the unit
    cost of the item, which values the stock at the last price paid. Raises:

    - 422 for an unknown lot, and for the receipt of an expired lot without `allow_expired`
    - 409 `read_only` for a restock of a retired item
    - 409 `conflict` for a return of more than was used
    - 409 `insufficient_stock` for more units than the lots hold (for usage: unexpired units)
    """
    is_restock = type is MovementType.RESTOCK
    if unit_cost is not None and not is_restock:
        raise invalid("unit_cost", "is allowed only for a restock")
    is_signed = type is MovementType.ADJUSTMENT
    if quantity == 0 or (quantity < 0 and not is_signed):
        raise invalid("quantity", "must not be zero" if is_signed else "must be more than zero")
    if is_restock and not item.is_active:
        raise ClinicError("read_only", "The item is retired. Activate it first.")
    counted_in = _find_package(item, package)
    units = quantity * (counted_in["quantity"] if counted_in is not None else 1)
    if abs(units) > MAX_UNITS:
        raise invalid("quantity", f"is {abs(units)} units; a movement has at most {MAX_UNITS}")
    if type in OUTWARD_TYPES or units < 0:
        changes = _allocate_outward(item, type, abs(units), lot_number, expires_on)
    elif type is MovementType.RETURN:
        changes = _allocate_return(item, units, lot_number, expires_on)
    else:
        lot = _find_or_create_lot(item, lot_number, expires_on, allow_expired=allow_expired)
        if is_restock and not allow_expired and not _is_usable(lot, clock.today()):
            raise _expired()
        changes = [LotChange(lot, units)]
    if unit_cost is not None:
        item.unit_cost = unit_cost
    return _record_movements(
        actor, item, type, changes, unit_cost=unit_cost, reason=reason, package=counted_in
    )


def _find_package(item: InventoryItem, name: str | None) -> Mapping[str, Any] | None:
    if name is None:
        return None
    for package in item.packages:
        if search_key(package["name"]) == search_key(name):
            return package  # type: ignore[no-any-return]
    names = ", ".join(package["name"] for package in item.packages)
    raise invalid("package", f"must be one of: {names}" if names else "the item has no packages")


def _lock_requested_lots(
    item: InventoryItem, lot_number: str | None, expires_on: date | None, *, with_empty: bool
) -> list[InventoryLot]:
    """Lock the lots with this number and expiry, in ascending id. None means any.

    A requested lot may be empty. Without a request, `with_empty` also locks empty lots. Raises 422 if a
    requested lot is unknown.
    """
    is_requested = lot_number is not None or expires_on is not None
    statement = select(InventoryLot).where(InventoryLot.item_id == item.id).order_by(InventoryLot.id)
    if lot_number is not None:
        statement = statement.where(InventoryLot.lot_number == lot_number)
    if expires_on is not None:
        statement = statement.where(InventoryLot.expires_on == expires_on)
    if not is_requested and not with_empty:
        statement = statement.where(InventoryLot.quantity > 0)
    lots = list(db.session.scalars(for_update(statement)))
    if is_requested and not lots:
        raise invalid("lot_number" if lot_number is not None else "expires_on", "is not a lot of this item")
    return lots


def _allocate_outward(
    item: InventoryItem,
    movement_type: MovementType,
    units: int,
    lot_number: str | None,
    expires_on: date | None,
) -> list[LotChange]:
    lots = _lock_requested_lots(item, lot_number, expires_on, with_empty=False)
    if movement_type is MovementType.USAGE:
        today = clock.today()
        lots = [lot for lot in lots if _is_usable(lot, today)]
    changes, available = _allocate(lots, units)
    if available < units:
        shortages = Shortages()
        shortages.add(item, units, available)
        shortages.raise_if_any()
    return changes


def _allocate_return(
    item: InventoryItem, units: int, lot_number: str | None, expires_on: date | None
) -> list[LotChange]:
    """Return the changes of the lots that the units came from; the lot used last comes first."""
    used: dict[int, dict[int | None, int]] = defaultdict(dict)  # lot id -> treatment id -> units
    statement = (
        select(StockMovement.lot_id, StockMovement.treatment_id, func.sum(StockMovement.quantity))
        .where(
            StockMovement.item_id == item.id,
            StockMovement.type.in_((MovementType.USAGE, MovementType.RETURN)),
        )
        .group_by(StockMovement.lot_id, StockMovement.treatment_id)
    )
    for lot_id, treatment_id, change in db.session.execute(statement).tuples():
        used[lot_id][treatment_id] = -int(change)
    lots = _lock_requested_lots(item, lot_number, expires_on, with_empty=True)
    returnable = {lot.id: max(sum(used[lot.id].values()), 0) for lot in lots}
    if sum(returnable.values()) < units:
        raise _too_many_returned(sum(returnable.values()))
    changes: list[LotChange] = []
    for lot in reversed(_sort_fefo(lots)):
        of_lot = min(units, returnable[lot.id])
        units -= of_lot
        for treatment_id in sorted(used[lot.id], key=lambda key: -(key or MAX_INT)):
            quantity = min(of_lot, used[lot.id][treatment_id])
            if quantity > 0:
                changes.append(LotChange(lot, quantity, treatment_id))
                of_lot -= quantity
    return changes


def _too_many_returned(returnable: int) -> ClinicError:
    message = f"Only {returnable} units were used and not yet returned. Return at most that quantity."
    return ClinicError("conflict", message, errors={"quantity": message}, returnable=returnable)


def _find_or_create_lot(
    item: InventoryItem, lot_number: str | None, expires_on: date | None, *, allow_expired: bool
) -> InventoryLot:
    """Return the lot, created if it is new.

    A number without expiry means the lot with this number. An expiry completes a lot with an unknown one.
    Raises 422 for another expiry of a known lot, and for a new lot with an expiry that is not plausible, or
    past without `allow_expired`.
    """
    same_number = select(InventoryLot).where(
        InventoryLot.item_id == item.id, InventoryLot.lot_number.is_not_distinct_from(lot_number)
    )
    exact = same_number.where(InventoryLot.expires_on.is_not_distinct_from(expires_on))
    lot = db.session.scalars(exact.order_by(InventoryLot.id)).first()
    if lot is None and lot_number is not None:
        lot = db.session.scalars(same_number.order_by(InventoryLot.id)).first()
    if lot is not None and expires_on in (None, lot.expires_on):
        return lot
    if lot is not None and lot.expires_on is not None:
        raise invalid(
            "expires_on",
            f"lot {lot_number} of this item expires on {lot.expires_on}; "
            "correct a wrong date with POST /inventory/<id>/correct-expiry",
        )
    _check_expiry(expires_on, allow_expired=allow_expired)
    if lot is None:
        lot = InventoryLot(item_id=item.id, lot_number=lot_number, quantity=0)
        db.session.add(lot)
    lot.expires_on = expires_on
    db.session.flush()
    return lot


def correct_expiry(
    actor: Actor, item: InventoryItem, *, lot_number: str, expires_on: date, reason: str
) -> InventoryItem:
    """Set the expiry date of a lot of a locked item that was entered wrongly.

    The units of the lot leave the stock with the old date and return with the new one. These are two
    adjustments with the reason and both dates. So the movements show who corrected it, when and why. Units
    that were used can still be returned, and then have the new date. Raises 422 for an unknown lot and for a
    date that is not plausible.
    """
    _check_expiry(expires_on, allow_expired=True)
    for lot in _lock_requested_lots(item, lot_number, None, with_empty=True):
        if lot.expires_on == expires_on:
            continue
        text = f"Expiry date {lot.expires_on or 'unknown'} corrected to {expires_on}: {reason}"
        units = lot.quantity
        if units:
            _record_movements(actor, item, MovementType.ADJUSTMENT, [LotChange(lot, -units)], reason=text)
        lot.expires_on = expires_on
        if units:
            _record_movements(actor, item, MovementType.ADJUSTMENT, [LotChange(lot, units)], reason=text)
        item.updated_at = clock.now()  # raises the version, also if the lot is empty
        audit_log.set_action(item, "correct_expiry")
    db.session.flush()
    return item


def _check_expiry(expires_on: date | None, *, allow_expired: bool) -> None:
    if expires_on is None:
        return
    today = clock.today()
    if not today - OLDEST_EXPIRY <= expires_on <= today + LATEST_EXPIRY:
        raise invalid("expires_on", "check the year; leave it empty if the item does not expire")
    if expires_on < today and not allow_expired:
        raise _expired()


def _expired() -> ClinicError:
    return invalid("expires_on", "the lot has expired; send allow_expired true to receive it anyway")


# --- Treatments ----------------------------------------------------------------------------------------


def use_for_treatment(actor: Actor, treatment: Treatment) -> None:
    """Bring the used stock of a completed treatment to its inventory items: use or return the difference.

    All or nothing. Raises 409 `insufficient_stock` with every missing item in `items`.
    """
    _set_used_units(actor, treatment, {usage.item_id: usage.quantity for usage in treatment.inventory_items})
    treatment.stock_taken_at = clock.now() if treatment.inventory_items else None


def return_from_treatment(actor: Actor, treatment: Treatment) -> None:
    """Return all used stock of a treatment to the lots that it came from."""
    _set_used_units(actor, treatment, {})
    treatment.stock_taken_at = None


def _set_used_units(actor: Actor, treatment: Treatment, needed: Mapping[int, int]) -> None:
    """Make the used units of each item equal to `needed` (item id -> units), by usage and return movements.

    The movements tell the units used so far. The caller holds the lock on the treatment, so that two
    requests cannot do this at the same time.
    """
    used = _used_units(treatment)
    item_ids = {*needed, *used}
    if not item_ids:
        return
    items = lock_items(item_ids)
    if used:
        used = _used_units(treatment)  # a return may have changed it before the locks were granted
    lots = _lock_lots(item_ids, lot_ids=(lot_id for by_lot in used.values() for lot_id in by_lot))
    today = clock.today()
    movements: list[tuple[InventoryItem, MovementType, list[LotChange]]] = []
    shortages = Shortages()
    for item_id in sorted(item_ids):
        item = items[item_id]
        item_lots = [lot for lot in lots if lot.item_id == item_id]
        used_by_lot = used.get(item_id, {})
        missing = needed.get(item_id, 0) - sum(used_by_lot.values())
        if missing > 0:
            usable = [lot for lot in item_lots if _is_usable(lot, today)]
            changes, available = _allocate(usable, missing, treatment.id)
            if available < missing:
                shortages.add(item, missing, available)
            movements.append((item, MovementType.USAGE, changes))
        elif missing < 0:
            changes = _return_to_lots(item_lots, used_by_lot, -missing, treatment.id)
            movements.append((item, MovementType.RETURN, changes))
    shortages.raise_if_any()
    for item, movement_type, changes in movements:
        _record_movements(actor, item, movement_type, changes)


def _used_units(treatment: Treatment) -> dict[int, dict[int, int]]:
    """Return the units that the treatment used and did not return: item id -> lot id -> units."""
    statement = (
        select(StockMovement.item_id, StockMovement.lot_id, func.sum(StockMovement.quantity))
        .where(StockMovement.treatment_id == treatment.id)
        .group_by(StockMovement.item_id, StockMovement.lot_id)
    )
    used: dict[int, dict[int, int]] = defaultdict(dict)
    for item_id, lot_id, change in db.session.execute(statement).tuples():
        if change < 0:
            used[item_id][lot_id] = -int(change)
    return used


def _return_to_lots(
    lots: Iterable[InventoryLot], used_by_lot: Mapping[int, int], units: int, treatment_id: int
) -> list[LotChange]:
    """Return the positive changes of the lots that the units came from; the lot used last comes first."""
    changes: list[LotChange] = []
    for lot in reversed(_sort_fefo(lot for lot in lots if lot.id in used_by_lot)):
        quantity = min(units, used_by_lot[lot.id])
        if quantity > 0:
            changes.append(LotChange(lot, quantity, treatment_id))
            units -= quantity
    return changes
