"""Treatments: order, carry out, void. The status decides when stock is used and returned.

    planned -> in_progress | completed | cancelled
    in_progress -> completed | cancelled
    completed -> cancelled (void: the stock returns to its lots)

Completing a treatment uses its stock once. For a completed treatment, new inventory items are used at once
and removed ones are returned at once.

These treatments cannot change:

- cancelled treatments
- billed treatments, until the bill is void
- treatments of a voided visit
- treatments of a signed visit. Exception: a planned or begun treatment may be carried out (status, notes and
  inventory items) or cancelled, because nurses and technicians finish it after the doctor has signed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from decimal import Decimal
from typing import Any, TypedDict, Unpack

from sqlalchemy import ColumnElement, func, or_, select
from sqlalchemy.orm import joinedload, selectinload

from database.functions import contains_text
from enums import Role, TreatmentStatus
from errors import ClinicError, invalid
from extensions import db
from models import Doctor, InventoryItem, InventoryLot, InventoryUsage, StockMovement, Treatment, Visit
from security.permissions import Actor, Permission, hidden
from services.audit import audit_log
from services.billing import price_list
from services.clinical import visit_rows
from services.inventory import stock
from services.listing import paging
from services.listing.conditions import words_in
from services.listing.related_rows import (
    doctor_column,
    doctor_filter,
    of_patient_or_file,
    patient_column,
    patient_filter,
)
from services.listing.spec import ListQuery, ListSpec, Page
from services.patients import activity
from services.rows import assign, changed_members, forbid_members, get_or_404, get_referenced
from services.search_key import search_key

TRANSITIONS: Mapping[TreatmentStatus, tuple[TreatmentStatus, ...]] = {
    TreatmentStatus.PLANNED: (
        TreatmentStatus.IN_PROGRESS,
        TreatmentStatus.COMPLETED,
        TreatmentStatus.CANCELLED,
    ),
    TreatmentStatus.IN_PROGRESS: (TreatmentStatus.COMPLETED, TreatmentStatus.CANCELLED),
    TreatmentStatus.COMPLETED: (TreatmentStatus.CANCELLED,),
    TreatmentStatus.CANCELLED: (),
}
OPEN_STATUSES = (TreatmentStatus.PLANNED, TreatmentStatus.IN_PROGRESS)
CARRY_OUT_MEMBERS = frozenset({"status", "notes", "inventory_items"})  # members that a technician may change


class _OptionalMembers(TypedDict, total=False):
    doctor_id: int | None
    description: str | None
    procedure_code: str | None
    status: TreatmentStatus
    notes: str | None
    inventory_items: Sequence[Mapping[str, int]]


class NewTreatment(_OptionalMembers, total=False):
    """The members of a new treatment, without its visit. A price list item gives default name and cost."""

    name: str | None
    cost: Decimal | None
    price_list_item_id: int | None


class TreatmentChanges(_OptionalMembers, total=False):
    """The members of a treatment that a change may contain."""

    name: str
    cost: Decimal
    visit_id: int


def get(_actor: Actor, treatment_id: int, *, lock: bool = False) -> Treatment:
    """Return the treatment, or raise 404 `not_found`.

    A lock takes the visit first, so that signing or voiding the visit waits.
    """
    if lock:
        visit_id = db.session.execute(
            select(Treatment.visit_id).where(Treatment.id == treatment_id)
        ).scalar_one_or_none()
        if visit_id is not None:
            get_or_404(Visit, visit_id, lock=True)
    return get_or_404(Treatment, treatment_id, lock=lock)


def _matches(text: str) -> ColumnElement[bool]:
    return or_(
        words_in(Treatment.name_fold, text),
        contains_text(Treatment.procedure_code, text),
        of_patient_or_file(Treatment.patient_id, text),
    )


LIST: ListSpec[Treatment] = ListSpec(
    name="treatments",
    kept_since="created_at",
    model=Treatment,
    area="treatment",
    main_date="created_at",
    text=_matches,
    options=(
        joinedload(Treatment.patient),
        joinedload(Treatment.doctor),
        selectinload(Treatment.inventory_items),
    ),
    omit=frozenset({"stock_taken_at", "version"}),
    computed={
        "patient_name": patient_column(Treatment.patient_id),
        "doctor_name": doctor_column(Treatment.doctor_id),
    },
    filters={
        "patient_name": patient_filter(Treatment.patient_id),
        "doctor_name": doctor_filter(Treatment.doctor_id),
    },
    newest_first=True,
)


def find(actor: Actor, query: ListQuery) -> Page[Treatment]:
    """Return one page of treatments."""
    return paging.page(actor, LIST, query)


def add_computed_fields(_actor: Actor, rows: Sequence[Treatment]) -> None:
    """Set the used lots (used minus returned units); one query for any number of treatments."""
    statement = (
        select(
            StockMovement.treatment_id,
            StockMovement.item_id,
            InventoryItem.name,
            InventoryLot.lot_number,
            InventoryLot.expires_on,
            -func.sum(StockMovement.quantity),
        )
        .join(InventoryItem, InventoryItem.id == StockMovement.item_id)
        .join(InventoryLot, InventoryLot.id == StockMovement.lot_id)
        .where(StockMovement.treatment_id.in_([treatment.id for treatment in rows]))
        .group_by(
            StockMovement.treatment_id,
            StockMovement.item_id,
            InventoryItem.name,
            InventoryLot.id,
            InventoryLot.lot_number,
            InventoryLot.expires_on,
        )
        .having(func.sum(StockMovement.quantity) < 0)
        .order_by(StockMovement.item_id, InventoryLot.id)
    )
    used: dict[int, list[dict[str, Any]]] = defaultdict(list)
    names = ("item_id", "name", "lot_number", "expires_on", "quantity")
    for treatment_id, *values in db.session.execute(statement):
        used[treatment_id].append(dict(zip(names, values, strict=True)))
    for treatment in rows:
        treatment.inventory_used = used[treatment.id]


# --- Changes -------------------------------------------------------------------------------------------


def create(
    actor: Actor, *, visit_id: int, importing: bool = False, **values: Unpack[NewTreatment]
) -> Treatment:
    """Record a treatment of an open visit. A completed treatment uses its stock at once.

    The default `doctor_id` is the doctor of the visit. `importing` accepts a visit from before the archiving
    or death of the patient. Raises 409 `read_only` for a signed or voided visit, 409 `patient_inactive`, 409
    `insufficient_stock` with every missing item, and 422 for the status cancelled, and for an inactive price
    list item.
    """
    visit = visit_rows.lock_with_patient(visit_id)
    activity.require_active(visit.patient, visit.date if importing else None)
    return add(actor, visit, **values)


def add(actor: Actor, visit: Visit, **values: Unpack[NewTreatment]) -> Treatment:
    """Record a treatment of a locked visit of an active patient. Same rules as `create`."""
    if visit.status != "open":
        raise ClinicError(
            "read_only", f"The visit is {_closed_state(visit)}. Record the treatment at another visit."
        )
    doctor_id = values.pop("doctor_id", None)
    usages = values.pop("inventory_items", ())
    if doctor_id is not None and doctor_id != visit.doctor_id:
        get_referenced(Doctor, doctor_id, "doctor_id")
    doctor_id = doctor_id or visit.doctor_id
    actor.require_own(doctor_id)
    if values.get("status") is TreatmentStatus.CANCELLED:
        raise invalid("status", "must be planned, in_progress or completed for a new treatment")
    name, cost = _name_and_cost(values)
    values["name"], values["cost"] = name, cost
    treatment = Treatment(
        visit_id=visit.id,
        patient_id=visit.patient_id,
        doctor_id=doctor_id,
        name_fold=search_key(name),
        **values,
    )
    _set_usages(treatment, usages)
    db.session.add(treatment)
    db.session.flush()
    if treatment.status is TreatmentStatus.COMPLETED and treatment.inventory_items:
        stock.use_for_treatment(actor, treatment)
    return treatment


def _name_and_cost(values: NewTreatment) -> tuple[str, Decimal]:
    """Return name and cost of a new treatment, by default those of its price list item."""
    name, cost, item_id = values.get("name"), values.get("cost"), values.get("price_list_item_id")
    if item_id is not None:
        item = price_list.require_active(price_list.active_items([item_id]), item_id, "price_list_item_id")
        name, cost = name or item.name, item.unit_price if cost is None else cost
    if name is None or cost is None:
        missing = [field for field, value in (("name", name), ("cost", cost)) if value is None]
        problem = "is required without price_list_item_id"
        raise ClinicError(
            "validation_failed",
            f"{' and '.join(missing)}: {problem}.",
            errors=dict.fromkeys(missing, problem),
        )
    return name, cost


def update(actor: Actor, treatment: Treatment, **changes: Unpack[TreatmentChanges]) -> Treatment:
    """Change the members of a treatment.

    A technician may change status, notes and inventory items only. Raises 409 `read_only` for a treatment
    that cannot change, 409 `invalid_transition` with the allowed statuses, and 409 `insufficient_stock`.
    """
    actor.require_own(treatment.doctor_id)
    usages = changes.pop("inventory_items", None)
    values = changed_members(treatment, changes)
    if usages is not None and _units_by_item(treatment) != {
        usage["item_id"]: usage["quantity"] for usage in usages
    }:
        values["inventory_items"] = usages
    if not values:
        return treatment
    _check_permission(actor, values)
    if "status" in values:
        _check_transition(treatment, values["status"])
    _check_changeable(actor, treatment, values)
    is_cancelled = values.get("status") is TreatmentStatus.CANCELLED
    if is_cancelled:
        del values["status"]
    new_usages = values.pop("inventory_items", None)
    if new_usages is not None:
        _set_usages(treatment, new_usages)
    assign(treatment, values)
    treatment.name_fold = search_key(treatment.name)
    if treatment.status is TreatmentStatus.COMPLETED and (new_usages is not None or "status" in values):
        db.session.flush()
        stock.use_for_treatment(actor, treatment)
    if "status" in values:
        audit_log.set_action(
            treatment, "complete" if treatment.status is TreatmentStatus.COMPLETED else "begin"
        )
    return void(actor, treatment) if is_cancelled else treatment


def void(actor: Actor, treatment: Treatment, reason: str | None = None) -> Treatment:
    """Cancel a treatment, and return its used stock to the same lots.

    Voiding it again changes nothing. Raises 409 `read_only` for a billed treatment, and for a completed
    treatment of a signed visit.
    """
    actor.require(Permission.TREATMENTS_ORDER, "Your role may not cancel treatments.")
    actor.require_own(treatment.doctor_id)
    if treatment.status is TreatmentStatus.CANCELLED:
        return treatment
    _check_changeable(actor, treatment, {"status"})
    cancel(actor, treatment, reason)
    return treatment


def cancel(actor: Actor, treatment: Treatment, reason: str | None) -> None:
    """Cancel a locked treatment without checks, because its visit is voided too."""
    stock.return_from_treatment(actor, treatment)
    treatment.status = TreatmentStatus.CANCELLED
    treatment.void_reason = reason
    audit_log.set_action(treatment, "void")


def _units_by_item(treatment: Treatment) -> dict[int, int]:
    return {usage.item_id: usage.quantity for usage in treatment.inventory_items}


def _set_usages(treatment: Treatment, usages: Sequence[Mapping[str, int]]) -> None:
    """Replace the usages. An item that stays keeps its row, because an item has one row per treatment.

    Raises 422 for a new item that is unknown or retired.
    """
    stored = {usage.item_id: usage for usage in treatment.inventory_items}
    _check_items(usages, stored)
    rows = []
    for usage in sorted(usages, key=lambda usage: usage["item_id"]):
        row = stored.get(usage["item_id"]) or InventoryUsage(item_id=usage["item_id"])
        row.quantity = usage["quantity"]
        rows.append(row)
    treatment.inventory_items = rows


def _check_items(usages: Sequence[Mapping[str, int]], known: Collection[int]) -> None:
    """Raise 422 for the first item that is unknown or retired and not one of the `known` items."""
    ids = [usage["item_id"] for usage in usages]
    if set(ids) <= set(known):
        return
    active = set(
        db.session.scalars(select(InventoryItem.id).where(InventoryItem.id.in_(ids), InventoryItem.is_active))
    )
    for number, item_id in enumerate(ids):
        if item_id not in active and item_id not in known:
            raise invalid(f"inventory_items.{number}.item_id", "is not an active inventory item")


def _check_permission(actor: Actor, values: Mapping[str, Any]) -> None:
    if actor.role is Role.TECHNICIAN:
        forbid_members(
            values, set(values) - CARRY_OUT_MEMBERS, "You may change status, notes and inventory items only."
        )
    if "visit_id" in values:
        raise ClinicError(
            "read_only", "A treatment cannot move to another visit. Void it and record it again."
        )
    if "doctor_id" in values:
        if values["doctor_id"] is None:
            raise invalid("doctor_id", "must not be null")
        actor.require_own(get_referenced(Doctor, values["doctor_id"], "doctor_id").id)


def _check_transition(treatment: Treatment, status: TreatmentStatus) -> None:
    allowed = TRANSITIONS[treatment.status]
    if status not in allowed:
        raise ClinicError(
            "invalid_transition",
            f"A {treatment.status} treatment can become: {', '.join(allowed) or 'nothing'}.",
            allowed=list(allowed),
        )


def _check_changeable(actor: Actor, treatment: Treatment, members: Collection[str]) -> None:
    """Raise 409 `read_only` if these members of the treatment cannot change any more.

    The error names the bill only to roles that may read `billing_id`.
    """
    if treatment.billing_id is not None:
        if "billing_id" in hidden("treatment", actor.role):
            raise ClinicError("read_only", "The treatment is closed. Ask the reception to change it.")
        raise ClinicError("read_only", "The treatment is billed. Void the bill first.")
    if treatment.status is TreatmentStatus.CANCELLED:
        raise ClinicError("read_only", "The treatment is cancelled.")
    visit = treatment.visit
    is_carried_out = treatment.status in OPEN_STATUSES and set(members) <= CARRY_OUT_MEMBERS
    if visit.voided_at or (visit.signed_at and not is_carried_out):
        raise ClinicError("read_only", f"The visit of this treatment is {_closed_state(visit)}.")


def _closed_state(visit: Visit) -> str:
    return "void" if visit.voided_at else "signed"
