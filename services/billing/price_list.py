"""The price list: services and products with their default prices.

A new bill or treatment copies name and price of an item. It stores the id of the item, but a later change of
the price list changes no bill and no treatment.
"""

from __future__ import annotations

from collections.abc import Collection
from decimal import Decimal
from typing import TypedDict, Unpack

from sqlalchemy import ColumnElement, or_, select

from database.functions import contains_text
from errors import invalid
from extensions import db
from models import PriceListItem
from security.permissions import Actor
from services.audit import audit_log
from services.listing import paging
from services.listing.conditions import words_in
from services.listing.spec import ListQuery, ListSpec, Page
from services.rows import assign, changed_members, get_or_404
from services.search_key import search_key


class ItemChanges(TypedDict, total=False):
    """The members of an item that a change may contain."""

    code: str
    name: str
    description: str | None
    category: str | None
    unit_price: Decimal
    is_active: bool


def get(_actor: Actor, price_list_item_id: int, *, lock: bool = False) -> PriceListItem:
    """Return the item, active or not, or raise 404 `not_found`."""
    return get_or_404(PriceListItem, price_list_item_id, lock=lock)


def _matches(text: str) -> ColumnElement[bool]:
    return or_(
        words_in(PriceListItem.name_fold, text),
        contains_text(PriceListItem.code, text),
    )


LIST: ListSpec[PriceListItem] = ListSpec(
    name="price_list",
    model=PriceListItem,
    area="price_list_item",
    main_date="created_at",
    text=_matches,
    omit=frozenset({"version"}),
)


def find(actor: Actor, query: ListQuery) -> Page[PriceListItem]:
    """Return one page of the price list."""
    return paging.page(actor, LIST, query)


def active_items(ids: Collection[int | None]) -> dict[int, PriceListItem]:
    """Return the active items with these ids, by id. None, an unknown and an inactive item are left out."""
    known = {item_id for item_id in ids if item_id is not None}
    if not known:
        return {}
    statement = select(PriceListItem).where(PriceListItem.id.in_(known), PriceListItem.is_active)
    return {item.id: item for item in db.session.scalars(statement)}


def require_active(items: dict[int, PriceListItem], item_id: int, field: str) -> PriceListItem:
    """Return the item, or raise 422 for the member that names it."""
    if item_id not in items:
        raise invalid(field, "is not an active item of the price list")
    return items[item_id]


# --- Changes -------------------------------------------------------------------------------------------


def create(
    *,
    code: str,
    name: str,
    unit_price: Decimal,
    description: str | None = None,
    category: str | None = None,
    is_active: bool = True,
) -> PriceListItem:
    """Add an item. An equal `code` of another item, active or not, is a 409 `already_exists`."""
    item = PriceListItem(
        code=code,
        name=name,
        name_fold=search_key(name),
        unit_price=unit_price,
        description=description,
        category=category,
        is_active=is_active,
    )
    db.session.add(item)
    db.session.flush()
    return item


def update(item: PriceListItem, **changes: Unpack[ItemChanges]) -> PriceListItem:
    """Change the members of an item. Existing bills and treatments keep their text and price."""
    assign(item, changed_members(item, changes))
    item.name_fold = search_key(item.name)
    return item


def deactivate(item: PriceListItem) -> PriceListItem:
    """Deactivate an item, so that no new bill or treatment names it. It stays in the list."""
    if item.is_active:
        item.is_active = False
        audit_log.set_action(item, "deactivate")
    return item
