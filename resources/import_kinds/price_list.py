"""The import of the price list."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from functools import partial
from typing import Any

from sqlalchemy import select, union

from enums import ImportSubject
from extensions import db
from models import BillingItem, PriceListItem, Treatment
from resources.import_kinds.members import stored_members, validated_changes, validated_values
from resources.import_kinds.shared_columns import CATEGORY, DESCRIPTION, IS_ACTIVE
from schemas.price_list import PriceListItemIn, PriceListItemPatch
from security.permissions import Actor
from services.billing import price_list
from services.imports.kinds import ImportKind, ImportRow, freed
from services.spreadsheets.columns import CellType, ImportColumn

COLUMNS = (
    ImportColumn(
        "code",
        CellType.CODE,
        required=True,
        synonyms=(
            *("item code", "service code", "procedure code", "product code", "sku", "msimbo", "code article"),
            *("código", "codigo", "الرمز"),
        ),
    ),
    ImportColumn(
        "name",
        CellType.TEXT,
        required=True,
        synonyms=(
            *("service", "procedure", "item", "product", "jina", "huduma", "nom", "libellé", "désignation"),
            *("nombre", "servicio", "nome", "serviço", "الاسم", "الخدمة"),
        ),
    ),
    ImportColumn(
        "unit_price",
        CellType.MONEY,
        required=True,
        synonyms=(
            *("price", "fee", "cost", "amount", "tariff", "rate", "bei", "prix", "prix unitaire", "tarif"),
            *("precio", "precio unitario", "preço", "preço unitário", "valor", "السعر"),
        ),
    ),
    DESCRIPTION,
    CATEGORY,
    IS_ACTIVE,
)


def _create(_actor: Actor, row: ImportRow) -> PriceListItem:
    return price_list.create(**row.values)


def _update(_actor: Actor, item: PriceListItem, row: ImportRow) -> None:
    price_list.update(item, **row.changes)


def _undo_create(_actor: Actor, item: PriceListItem) -> None:
    price_list.deactivate(item)
    price_list.update(item, code=freed(item, "code"))


def _undo_update(_actor: Actor, item: PriceListItem, previous: Mapping[str, Any]) -> None:
    price_list.update(item, **validated_changes(PriceListItemPatch, previous))


def _find_used(ids: Collection[int]) -> Iterable[int]:
    """Return the items that a bill or a treatment names."""
    return db.session.scalars(
        union(
            *(
                select(model.price_list_item_id).where(model.price_list_item_id.in_(ids))
                for model in (BillingItem, Treatment)
            )
        )
    )


PRICE_LIST = ImportKind(
    name=ImportSubject.PRICE_LIST,
    model=PriceListItem,
    columns=COLUMNS,
    validate=partial(validated_values, PriceListItemIn),
    create=_create,
    undo_create=_undo_create,
    unique={"code": PriceListItem.code_key},
    update=_update,
    snapshot=partial(stored_members, names=[column.name for column in COLUMNS]),
    undo_update=_undo_update,
    find_used=_find_used,
)
