"""Endpoints of the price list."""

from __future__ import annotations

from pydantic import BaseModel

from api.endpoint import endpoint
from api.request_context import current_actor
from api.resource import ApiResource
from api.serialization import Serializer
from models import PriceListItem
from schemas.price_list import PriceListItemIn, PriceListItemOut, PriceListItemPatch
from security.permissions import Permission
from services.billing import price_list
from services.listing.spec import ListQuery, Page

PRICE = Serializer(PriceListItemOut)


class PriceList(ApiResource):
    """Route `/price-list`."""

    @endpoint(Permission.PRICE_LIST_READ, list_spec=price_list.LIST, returns=PRICE)
    def get(self, query: ListQuery) -> Page[PriceListItem]:
        """List the items of the price list."""
        return price_list.find(current_actor(), query)

    @endpoint(
        Permission.PRICE_LIST_WRITE,
        body=PriceListItemIn,
        returns=PRICE,
        status=201,
        errors=("already_exists",),
    )
    def post(self, data: PriceListItemIn) -> PriceListItem:
        """Add an item to the price list."""
        return price_list.create(**data.model_dump())


class PriceListItemResource(ApiResource):
    """Route `/price-list/<price_list_item_id>`."""

    @endpoint(Permission.PRICE_LIST_READ, load=price_list.get, returns=PRICE)
    def get(self, row: PriceListItem) -> PriceListItem:
        """Show an item of the price list."""
        return row

    @endpoint(
        Permission.PRICE_LIST_WRITE,
        load=price_list.get,
        body=PriceListItemPatch,
        returns=PRICE,
        errors=("already_exists",),
    )
    def patch(self, row: PriceListItem, data: BaseModel) -> PriceListItem:
        """Change an item of the price list. Existing bills and treatments keep their prices."""
        return price_list.update(row, **data.model_dump(exclude_unset=True))

    @endpoint(Permission.PRICE_LIST_WRITE, load=price_list.get, returns=PRICE)
    def delete(self, row: PriceListItem) -> PriceListItem:
        """Deactivate an item of the price list."""
        return price_list.deactivate(row)
