"""Inventory over HTTP."""

from __future__ import annotations

from typing import Any

from flask import request
from pydantic import BaseModel

from api.endpoint import endpoint
from api.request_context import current_actor
from api.resource import ApiResource
from api.serialization import Answer, Serializer
from models import InventoryItem, StockMovement
from schemas.inventory import (
    AlertsOut,
    ItemCreate,
    ItemOut,
    ItemPatch,
    MovementIn,
    MovementOut,
    StockChangeOut,
)
from security.permissions import Permission
from services.inventory import items, reorder
from services.inventory.reorder import Alerts
from services.listing.paging import ListQuery, Page

ITEM = Serializer(ItemOut, computed_fields=items.add_computed_fields)


class InventoryList(ApiResource):
    """/inventory"""

    @endpoint(Permission.INVENTORY_READ, lists=items.LIST, returns=ITEM)
    def get(self, listed: ListQuery) -> Page[InventoryItem]:
        """List inventory items."""
        return items.find(current_actor(), listed)

    @endpoint(
        Permission.INVENTORY_WRITE, body=ItemCreate, returns=ITEM, status=201, errors=("already_exists",)
    )
    def post(self, data: ItemCreate) -> InventoryItem:
        """Add an inventory item, with its first stock."""
        return items.create(current_actor(), **data.model_dump())


class InventoryDetail(ApiResource):
    """/inventory/<item_id>"""

    @endpoint(Permission.INVENTORY_READ, loads=items.get, returns=ITEM)
    def get(self, row: InventoryItem) -> InventoryItem:
        """Show an inventory item with its lots."""
        return row

    @endpoint(
        Permission.INVENTORY_WRITE,
        loads=items.get,
        body=ItemPatch,
        returns=ITEM,
        errors=("already_exists", "insufficient_stock", "if_match_required"),
    )
    def patch(self, row: InventoryItem, data: BaseModel) -> InventoryItem:
        """Change an inventory item, or correct its quantity.

        `quantity` is what was counted, `quantity_adjustment` a signed difference; either becomes an
        adjustment. `quantity` together with other changes needs `If-Match`.
        """
        version_named = request.headers.get("If-Match") is not None
        changes = data.model_dump(exclude_unset=True)
        return items.update(current_actor(), row, version_named=version_named, **changes)

    @endpoint(Permission.INVENTORY_RETIRE, loads=items.get, returns=ITEM)
    def delete(self, row: InventoryItem) -> InventoryItem:
        """Remove an inventory item; one with movements is deactivated."""
        return items.retire(current_actor(), row)


class InventoryMovements(ApiResource):
    """/inventory/<item_id>/movements"""

    @endpoint(
        Permission.INVENTORY_READ, loads=items.get, lists=items.MOVEMENTS, returns=Serializer(MovementOut)
    )
    def get(self, row: InventoryItem, listed: ListQuery) -> Page[StockMovement]:
        """List an item's movements."""
        return items.movements(current_actor(), row, listed)

    @endpoint(
        Permission.INVENTORY_WRITE,
        loads=items.get,
        body=MovementIn,
        returns=StockChangeOut,
        status=201,
        errors=("insufficient_stock", "read_only"),
    )
    def post(self, row: InventoryItem, data: MovementIn) -> Answer:
        """Move stock: restock, usage, adjustment, waste or return.

        Without `lot_number` units leave by earliest expiry, over as many lots as it takes: `movements` has
        one row for each.
        """
        made = items.move(current_actor(), row, **data.model_dump())
        ids = "&".join(f"id={movement.id}" for movement in made)
        return Answer(_posting(row, made), headers={"Location": f"{request.path}?{ids}"})


def _posting(item: InventoryItem, made: list[StockMovement]) -> dict[str, Any]:
    first = made[0]
    return {
        "id": first.id,
        "item_id": item.id,
        "type": first.type,
        "quantity": sum(movement.stated for movement in made),
        "change": sum(movement.quantity for movement in made),
        "item_quantity": item.quantity,
        "reason": first.reason,
        "created_at": first.created_at,
        "movements": made,
    }


class InventoryAlerts(ApiResource):
    """/inventory/alerts"""

    @endpoint(Permission.INVENTORY_READ, returns=AlertsOut)
    def get(self) -> Alerts:
        """What is low, out, expiring or expired, and what to order."""
        return reorder.alerts(current_actor())
