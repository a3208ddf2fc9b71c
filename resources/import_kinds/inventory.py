"""The import of inventory items. The opening stock of an item is its first movement."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from functools import partial
from typing import Any

from sqlalchemy import exists, select, union

from enums import ImportSubject
from errors import ClinicError
from extensions import db
from models import InventoryItem, InventoryUsage, StockMovement
from resources.import_kinds.members import stored_members, validated_changes, validated_values
from resources.import_kinds.shared_columns import CATEGORY, DESCRIPTION, IS_ACTIVE
from schemas.inventory import ItemCreate, ItemPatch
from security.permissions import Actor
from services.imports.kinds import ImportKind, ImportRow, freed
from services.inventory import items
from services.search_key import search_key
from services.spreadsheets.columns import CellType, ImportColumn

STOCK = frozenset({"quantity", "lot_number", "expires_on"})
COLUMNS = (
    ImportColumn(
        "name",
        CellType.TEXT,
        required=True,
        synonyms=(
            *("item", "item name", "product", "drug", "medicine", "article", "jina", "dawa", "bidhaa", "nom"),
            *("désignation", "nombre", "producto", "artículo", "nome", "produto", "الاسم", "الصنف"),
        ),
    ),
    ImportColumn(
        "sku",
        CellType.CODE,
        synonyms=(
            *("code", "item code", "product code", "barcode", "stock code", "msimbo", "code article"),
            *("código", "codigo", "الرمز"),
        ),
    ),
    ImportColumn(
        "quantity",
        CellType.INTEGER,
        synonyms=(
            *("stock", "qty", "on hand", "in stock", "balance", "units", "idadi", "kiasi", "quantité"),
            *("cantidad", "existencias", "quantidade", "estoque", "الكمية"),
        ),
    ),
    ImportColumn(
        "unit",
        CellType.TEXT,
        synonyms=("unit of measure", "uom", "kipimo", "unité", "unidad", "unidade", "الوحدة"),
    ),
    ImportColumn(
        "unit_cost",
        CellType.DECIMAL,
        synonyms=(
            *("cost", "cost price", "purchase price", "buying price", "price", "gharama", "coût"),
            *("prix d'achat", "costo", "costo unitario", "custo", "custo unitário", "التكلفة"),
        ),
    ),
    ImportColumn(
        "lot_number",
        CellType.CODE,
        synonyms=("lot", "batch", "batch number", "batch no", "numéro de lot", "lote", "رقم التشغيلة"),
    ),
    ImportColumn(
        "expires_on",
        CellType.DATE,
        synonyms=(
            *("expiry", "expiry date", "expiration date", "exp", "exp date", "best before"),
            *("tarehe ya mwisho", "péremption", "date de péremption", "vencimiento", "caducidad"),
            *("validade", "تاريخ الانتهاء"),
        ),
    ),
    CATEGORY,
    ImportColumn(
        "supplier",
        CellType.TEXT,
        synonyms=("vendor", "msambazaji", "fournisseur", "proveedor", "fornecedor", "المورد"),
    ),
    ImportColumn(
        "min_quantity",
        CellType.INTEGER,
        synonyms=(
            *("minimum", "min", "reorder level", "minimum stock", "stock minimum", "existencia mínima"),
            *("estoque mínimo", "الحد الأدنى"),
        ),
    ),
    ImportColumn(
        "reorder_quantity",
        CellType.INTEGER,
        synonyms=("order quantity", "quantité à commander", "cantidad a pedir"),
    ),
    DESCRIPTION,
    IS_ACTIVE,
)
_RESTORED = tuple(column.name for column in COLUMNS if column.name not in STOCK)


def _create(actor: Actor, row: ImportRow) -> InventoryItem:
    """Create the item with its stock. An expired lot is accepted: the alerts list it."""
    if row.values["sku"] is None and not row.allow_duplicate:
        _refuse_same_name(row.values["name"])
    return items.create(actor, **{**row.values, "allow_expired": True})


def _refuse_same_name(name: str) -> None:
    """Raise 409 if an active item without SKU has this name: the file may have been imported before."""
    same = exists().where(
        InventoryItem.name_fold == search_key(name),
        InventoryItem.sku_key.is_(None),
        InventoryItem.is_active,
    )
    if db.session.execute(select(same)).scalar_one():
        problem = "another item without SKU has this name; give each item a SKU"
        raise ClinicError("already_exists", f"name: {problem}.", errors={"name": problem})


def _update(actor: Actor, item: InventoryItem, row: ImportRow) -> None:
    """Change the given members of an item. Raise 409 for another quantity: an import counts no stock."""
    changes = row.changes
    if changes.get("quantity") not in (None, item.quantity):
        problem = "an import does not change the stock of an item on file; record a movement"
        raise ClinicError("conflict", f"quantity: {problem}.", errors={"quantity": problem})
    details = {name: value for name, value in changes.items() if name in _RESTORED}
    items.update(actor, item, has_if_match=True, **details)


def _undo_create(actor: Actor, item: InventoryItem) -> None:
    items.undo_import(actor, item, "the import was undone")
    if item.sku is not None:
        item.sku = freed(item, "sku")


def _undo_update(actor: Actor, item: InventoryItem, previous: Mapping[str, Any]) -> None:
    changes = validated_changes(ItemPatch, previous)
    items.update(actor, item, has_if_match=True, **changes)


def _find_used(ids: Collection[int]) -> Iterable[int]:
    """Return the items that a treatment needs or has used."""
    return db.session.scalars(
        union(
            select(InventoryUsage.item_id).where(InventoryUsage.item_id.in_(ids)),
            select(StockMovement.item_id).where(
                StockMovement.item_id.in_(ids), StockMovement.treatment_id.is_not(None)
            ),
        )
    )


INVENTORY = ImportKind(
    name=ImportSubject.INVENTORY,
    model=InventoryItem,
    columns=COLUMNS,
    validate=partial(validated_values, ItemCreate),
    create=_create,
    undo_create=_undo_create,
    unique={"sku": InventoryItem.sku_key},
    update=_update,
    snapshot=partial(stored_members, names=_RESTORED),
    undo_update=_undo_update,
    find_used=_find_used,
)
