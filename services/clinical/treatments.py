"""Treatments: ordering, carrying out, voiding; the stock they take follows their status.

    planned -> in_progress | completed | cancelled
    in_progress -> completed | cancelled
    completed -> cancelled (voided: the stock goes back to the lots it came from)

Completing takes the stock, once. Items named later for a completed treatment are taken then, items taken
off it go back. What can no longer change: a cancelled treatment; a billed one, until the bill is void; one
of a voided visit; one of a signed visit, except that what is still planned or begun may be carried out (its
status, notes and inventory items) or cancelled, since nurses and technicians finish what a doctor ordered
after the visit is signed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, func, or_, select
from sqlalchemy.orm import joinedload, selectinload

from enums import Role, TreatmentStatus
from errors import ClinicError, invalid
from extensions import db
from models import Doctor, InventoryItem, InventoryLot, InventoryUsage, StockMovement, Treatment, Visit
from security.permissions import Actor, Permission
from services.audit import audit_log
from services.inventory import stock
from services.listing import paging
from services.listing.paging import ListQuery, ListSpec, Page
from services.listing.related_rows import of_patient_or_file
from services.rows import (
    assign,
    changed_members,
    forbid_members,
    get_or_404,
    get_referenced,
)

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
UNDONE = (TreatmentStatus.PLANNED, TreatmentStatus.IN_PROGRESS)
CARRYING_OUT = frozenset({"status", "notes", "inventory_items"})  # what a technician records


def get(actor: Actor, treatment_id: int, *, lock: bool = False) -> Treatment:
    """The treatment, or 404. A lock takes its visit first: whoever signs or voids that waits."""
    if lock:
        visit_id = db.session.execute(
            select(Treatment.visit_id).where(Treatment.id == treatment_id)
        ).scalar_one_or_none()
        if visit_id is not None:
            get_or_404(Visit, visit_id, lock=True)
    return get_or_404(Treatment, treatment_id, lock=lock)


def _matches(text: str) -> ColumnElement[bool]:
    return or_(
        Treatment.name.icontains(text, autoescape=True),
        Treatment.procedure_code.icontains(text, autoescape=True),
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
)


def find(actor: Actor, query: ListQuery) -> Page[Treatment]:
    """One page of treatments."""
    return paging.page(actor, LIST, query)


def add_computed_fields(actor: Actor, rows: Sequence[Treatment]) -> None:
    """The lots that each treatment took and has not given back; one query for any number of treatments."""
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


def create(actor: Actor, *, visit_id: int, **values: Any) -> Treatment:
    """Record a treatment of an open visit; one that is completed takes its stock at once.

    Raises 409 `read_only` for a signed or voided visit, 409 `insufficient_stock` naming every short item.
    """
    return add(actor, get_referenced(Visit, visit_id, "visit_id", lock=True), **values)


def add(
    actor: Actor,
    visit: Visit,
    *,
    doctor_id: int | None = None,
    inventory_items: Sequence[Mapping[str, int]] = (),
    **values: Any,
) -> Treatment:
    """Like `create`, for a visit that the caller holds."""
    if visit.status != "open":
        raise ClinicError(
            "read_only", f"The visit is {_told(visit)}; record the treatment with another visit."
        )
    if doctor_id is not None and doctor_id != visit.doctor_id:
        get_referenced(Doctor, doctor_id, "doctor_id")
    doctor_id = doctor_id or visit.doctor_id
    actor.require_own(doctor_id)
    if values.get("status") is TreatmentStatus.CANCELLED:
        raise invalid("status", "a new treatment is planned, in_progress or completed")
    treatment = Treatment(visit_id=visit.id, patient_id=visit.patient_id, doctor_id=doctor_id, **values)
    treatment.inventory_items = _usages(inventory_items)
    db.session.add(treatment)
    db.session.flush()
    if treatment.status is TreatmentStatus.COMPLETED and treatment.inventory_items:
        stock.take(actor, treatment)
    return treatment


def update(actor: Actor, treatment: Treatment, **values: Any) -> Treatment:
    """Change the members given.

    A technician may change status, notes and inventory items. Raises 409 `read_only` for what can no longer
    change, 409 `invalid_transition` naming the allowed steps, 409 `insufficient_stock` on completing.
    """
    wanted = values.pop("inventory_items", None)
    values = changed_members(treatment, values)
    if wanted is not None and _pairs(treatment) != {one["item_id"]: one["quantity"] for one in wanted}:
        values["inventory_items"] = wanted
    if not values:
        return treatment
    _check_right(actor, treatment, values)
    if "status" in values:
        _check_step(treatment, values["status"])
    _check_changeable(treatment, values)
    cancelling = values.get("status") is TreatmentStatus.CANCELLED
    if cancelling:
        del values["status"]
    wanted = values.pop("inventory_items", None)
    if wanted is not None:
        _name_items(treatment, wanted)
    assign(treatment, values)
    if treatment.status is TreatmentStatus.COMPLETED and (wanted is not None or "status" in values):
        db.session.flush()
        stock.take(actor, treatment)
    if "status" in values:
        audit_log.set_action(
            treatment, "complete" if treatment.status is TreatmentStatus.COMPLETED else "begin"
        )
    return void(actor, treatment) if cancelling else treatment


def void(actor: Actor, treatment: Treatment, reason: str | None = None) -> Treatment:
    """Cancel a treatment; what a completed one took goes back to the lots it came from.

    Voiding a voided one again changes nothing. Raises 409 `read_only` for a billed one and for a completed
    one of a signed visit.
    """
    actor.require(Permission.TREATMENTS_ORDER, "Your role may not cancel treatments.")
    actor.require_own(treatment.doctor_id)
    if treatment.status is TreatmentStatus.CANCELLED:
        return treatment
    _check_changeable(treatment, {"status"})
    cancel(actor, treatment, reason)
    return treatment


def cancel(actor: Actor, treatment: Treatment, reason: str | None) -> None:
    """Cancel a locked treatment without asking who or when: its visit is voided with it."""
    stock.give_back(actor, treatment)
    treatment.status = TreatmentStatus.CANCELLED
    treatment.void_reason = reason
    audit_log.set_action(treatment, "void")


def _pairs(treatment: Treatment) -> dict[int, int]:
    return {usage.item_id: usage.quantity for usage in treatment.inventory_items}


def _usages(wanted: Sequence[Mapping[str, int]]) -> list[InventoryUsage]:
    """The items named, in ascending id; 422 for one that there is not, or that is retired."""
    if not wanted:
        return []
    ids = [one["item_id"] for one in wanted]
    active = set(
        db.session.scalars(select(InventoryItem.id).where(InventoryItem.id.in_(ids), InventoryItem.is_active))
    )
    for number, item_id in enumerate(ids):
        if item_id not in active:
            raise invalid(f"inventory_items.{number}.item_id", "there is no such inventory item in use")
    return [InventoryUsage(**one) for one in sorted(wanted, key=lambda one: one["item_id"])]


def _name_items(treatment: Treatment, wanted: Sequence[Mapping[str, int]]) -> None:
    """Replace the list, keeping the rows of items that stay: one row to an item."""
    stored = {usage.item_id: usage for usage in treatment.inventory_items}
    for one in wanted:
        if one["item_id"] in stored:
            stored[one["item_id"]].quantity = one["quantity"]
    new = _usages([one for one in wanted if one["item_id"] not in stored])
    kept = {one["item_id"] for one in wanted} & set(stored)
    treatment.inventory_items = sorted(
        [stored[item_id] for item_id in kept] + new, key=lambda usage: usage.item_id
    )


def _check_right(actor: Actor, treatment: Treatment, values: Mapping[str, Any]) -> None:
    actor.require_own(treatment.doctor_id)
    if actor.role is Role.TECHNICIAN:
        forbid_members(
            values, set(values) - CARRYING_OUT, "You may change status, notes and inventory items only."
        )
    if "visit_id" in values:
        raise ClinicError("read_only", "A treatment stays with its visit; void it and record it anew.")
    if "doctor_id" in values:
        if values["doctor_id"] is None:
            raise invalid("doctor_id", "a treatment has a doctor")
        actor.require_own(get_referenced(Doctor, values["doctor_id"], "doctor_id").id)


def _check_step(treatment: Treatment, status: TreatmentStatus) -> None:
    allowed = TRANSITIONS[treatment.status]
    if status not in allowed:
        raise ClinicError(
            "invalid_transition",
            f"A {treatment.status} treatment may become: {', '.join(allowed) or 'nothing else'}.",
            allowed=list(allowed),
        )


def _check_changeable(treatment: Treatment, fields: Collection[str]) -> None:
    """409 where these fields of the treatment can no longer change."""
    if treatment.billing_id is not None:
        raise ClinicError("read_only", "The treatment is billed; void the bill first.")
    if treatment.status is TreatmentStatus.CANCELLED:
        raise ClinicError("read_only", "The treatment is cancelled.")
    visit = treatment.visit
    carried_out = treatment.status in UNDONE and set(fields) <= CARRYING_OUT
    if visit.voided_at or (visit.signed_at and not carried_out):
        raise ClinicError("read_only", f"The visit of this treatment is {_told(visit)}.")


def _told(visit: Visit) -> str:
    return "void" if visit.voided_at else "signed"
