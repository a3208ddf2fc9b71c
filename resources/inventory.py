"""Endpoints of the inventory."""

from __future__ import annotations

from typing import Any

from flask import request
from pydantic import BaseModel

from api.endpoint import endpoint
from api.request_context import current_actor
from api.resource import ApiResource
from api.serialization import EndpointResult, Serializer
from models import InventoryItem, StockMovement
from schemas.inventory import (
    AlertsOut,
    ExpiryCorrectionIn,
    ItemCreate,
    ItemOut,
    ItemPatch,
    MovementIn,
    MovementOut,
    StockChangeOut,
)
from security.permissions import Permission
from services.inventory import items, reorder, stock
from services.inventory.reorder import StockAlerts
from services.listing.spec import ListQuery, Page

ITEM = Serializer(ItemOut, computed_fields=items.add_computed_fields)


class InventoryList(ApiResource):
    """Route `/inventory`."""

    @endpoint(Permission.INVENTORY_READ, list_spec=items.LIST, returns=ITEM)
    def get(self, query: ListQuery) -> Page[InventoryItem]:
        """List inventory items."""
        return items.find(current_actor(), query)

    @endpoint(
        Permission.INVENTORY_WRITE, body=ItemCreate, returns=ITEM, status=201, errors=("already_exists",)
    )
    def post(self, data: ItemCreate) -> InventoryItem:
        """Add an inventory item with its initial stock."""
        return items.create(current_actor(), **data.model_dump())


class InventoryItemResource(ApiResource):
    """Route `/inventory/<item_id>`."""

    @endpoint(Permission.INVENTORY_READ, load=items.get, returns=ITEM)
    def get(self, row: InventoryItem) -> InventoryItem:
        """Show an inventory item with its lots."""
        return row

    @endpoint(
        Permission.INVENTORY_WRITE,
        load=items.get,
        body=ItemPatch,
        returns=ITEM,
        errors=("already_exists", "insufficient_stock", "if_match_required"),
    )
    def patch(self, row: InventoryItem, data: BaseModel) -> InventoryItem:
        """Change an inventory item, or correct its quantity.

        `quantity` is the counted stock, `quantity_adjustment` a signed difference. Both record an adjustment.
        `quantity` together with other changes needs `If-Match`.
        """
        has_if_match = request.headers.get("If-Match") is not None
        changes = data.model_dump(exclude_unset=True)
        return items.update(current_actor(), row, has_if_match=has_if_match, **changes)

    @endpoint(Permission.INVENTORY_RETIRE, load=items.get, returns=ITEM)
    def delete(self, row: InventoryItem) -> InventoryItem:
        """Delete an inventory item.

        An item with movements, or one that a treatment uses, is deactivated instead.
        """
        return items.retire(row)


class InventoryMovementList(ApiResource):
    """Route `/inventory/<item_id>/movements`."""

    @endpoint(
        Permission.INVENTORY_READ, load=items.get, list_spec=items.MOVEMENTS, returns=Serializer(MovementOut)
    )
    def get(self, row: InventoryItem, query: ListQuery) -> Page[StockMovement]:
        """List the stock movements of an item."""
        return items.movements(current_actor(), row, query)

    @endpoint(
        Permission.INVENTORY_WRITE,
        load=items.get,
        body=MovementIn,
        returns=StockChangeOut,
        resource=MovementOut,
        status=201,
        errors=("insufficient_stock", "read_only", "conflict"),
    )
    def post(self, row: InventoryItem, data: MovementIn) -> EndpointResult:
        """Record a stock movement: restock, usage, adjustment, waste or return.

        Without `lot_number`, stock is taken from the lots with the earliest expiry, and returned to the lots
        that were used last. A return is at most the quantity that was used and not yet returned. `movements`
        has one row for each lot. With `package`, `quantity` counts packages; the response counts units.
        """
        rows = stock.move(current_actor(), row, **data.model_dump())
        ids = "&".join(f"id={movement.id}" for movement in rows)
        return EndpointResult(_movement_members(row, rows), headers={"Location": f"{request.path}?{ids}"})


def _movement_members(item: InventoryItem, rows: list[StockMovement]) -> dict[str, Any]:
    """Return the members of `StockChangeOut` for the movements of one request."""
    first = rows[0]
    return {
        "id": first.id,
        "item_id": item.id,
        "type": first.type,
        "quantity": sum(movement.entered_quantity for movement in rows),
        "change": sum(movement.quantity for movement in rows),
        "package": first.package,
        "package_units": first.package_units,
        "item_quantity": item.quantity,
        "reason": first.reason,
        "created_at": first.created_at,
        "movements": rows,
    }


class InventoryExpiryCorrection(ApiResource):
    """Route `/inventory/<item_id>/correct-expiry`."""

    @endpoint(Permission.INVENTORY_WRITE, load=items.get, body=ExpiryCorrectionIn, returns=ITEM)
    def post(self, row: InventoryItem, data: ExpiryCorrectionIn) -> InventoryItem:
        """Correct the expiry date of a lot.

        Two adjustments record it with its reason: the units leave with the old date and return with the new
        one. The stock stays the same.
        """
        return stock.correct_expiry(current_actor(), row, **data.model_dump())


class InventoryAlerts(ApiResource):
    """Route `/inventory/alerts`."""

    @endpoint(Permission.INVENTORY_READ, returns=AlertsOut)
    def get(self) -> StockAlerts:
        """Show items that are low, out of stock, expiring or expired, and quantities to reorder."""
        return reorder.find_alerts()
