"""The items of a new bill: treatments with their cost, or lines with a price."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import NotRequired, TypedDict

from sqlalchemy import select

from enums import TreatmentStatus
from errors import ClinicError, invalid
from extensions import db
from models import Billing, BillingItem, Doctor, Patient, PriceListItem, Treatment, Visit
from services.billing import price_list
from services.patients import activity
from services.rows import for_update, get_or_404, get_referenced

CONSULTATION = "consultation"  # an item with this description costs the doctor's fee by default


class BillLine(TypedDict):
    """An item to bill. A price list item gives the default description and price."""

    description: str | None
    quantity: int
    unit_price: Decimal | None
    price_list_item_id: NotRequired[int | None]


def items_of_treatments(
    treatments: Sequence[Treatment], bill: Billing, patient_id: int | None, doctor_id: int | None
) -> list[BillingItem]:
    """Return an item for each treatment, with its cost.

    Raises 422 for a patient or doctor other than the one of the visit or treatment.
    """
    if patient_id not in (None, bill.patient_id):
        raise invalid("patient_id", "is not the patient of the visit")
    if doctor_id not in (None, bill.doctor_id):
        raise invalid("doctor_id", "is not the doctor of the visit or treatment")
    return [
        BillingItem(
            description=treatment.name,
            quantity=1,
            unit_price=treatment.cost,
            treatment_id=treatment.id,
            price_list_item_id=treatment.price_list_item_id,
        )
        for treatment in treatments
    ]


def items_of_lines(
    bill: Billing,
    patient_id: int | None,
    doctor_id: int | None,
    lines: Sequence[BillLine],
    billed_at: datetime | None,
) -> list[BillingItem]:
    """Return the items of these lines. Set patient and doctor of the bill, and lock the patient."""
    if patient_id is None:
        raise invalid("patient_id", "is required with items")
    bill.patient = get_referenced(Patient, patient_id, "patient_id", lock=True)
    activity.require_active(bill.patient, billed_at)
    doctor = None if doctor_id is None else get_referenced(Doctor, doctor_id, "doctor_id")
    bill.patient_id, bill.doctor_id, bill.doctor = patient_id, doctor_id, doctor
    prices = price_list.active_items([line.get("price_list_item_id") for line in lines])
    return [_item(line, prices, doctor, f"items.{index}") for index, line in enumerate(lines)]


def _item(line: BillLine, prices: dict[int, PriceListItem], doctor: Doctor | None, path: str) -> BillingItem:
    description, price, item_id = line["description"], line["unit_price"], line.get("price_list_item_id")
    if item_id is not None:
        listed = price_list.require_active(prices, item_id, f"{path}.price_list_item_id")
        description = description or listed.name
        price = listed.unit_price if price is None else price
    if description is None:
        raise invalid(f"{path}.description", "is required without price_list_item_id")
    if price is None:
        price = _default_price(description, doctor, f"{path}.unit_price")
    return BillingItem(
        description=description, quantity=line["quantity"], unit_price=price, price_list_item_id=item_id
    )


def _default_price(description: str, doctor: Doctor | None, field: str) -> Decimal:
    """Return the doctor's fee for a consultation. Other items have no default price."""
    if description.strip().casefold() != CONSULTATION:
        raise invalid(field, "is required")
    if doctor is None:
        raise invalid(
            field, "is required without doctor_id: the default is the consultation fee of the doctor"
        )
    return doctor.consultation_fee


def lock_unbilled_treatments(
    bill: Billing, visit_id: int | None, treatment_id: int | None, billed_at: datetime | None
) -> list[Treatment]:
    """Lock the patient, the visit and the treatments, in this order; return the treatments to bill."""
    if treatment_id is not None:
        visit = get_referenced(Treatment, treatment_id, "treatment_id").visit
        condition = Treatment.id == treatment_id
    else:
        visit = get_referenced(Visit, visit_id or 0, "visit_id")
        condition = Treatment.visit_id == visit_id
    bill.patient = get_or_404(Patient, visit.patient_id, lock=True)
    activity.require_active(bill.patient, billed_at)
    visit = get_or_404(Visit, visit.id, lock=True)
    statement = for_update(select(Treatment).where(condition).order_by(Treatment.id))
    treatments = [
        treatment
        for treatment in db.session.execute(statement).scalars()
        if treatment.status is TreatmentStatus.COMPLETED and treatment.billing_id is None
    ]
    if visit.voided_at is not None or not treatments:
        raise ClinicError("nothing_to_bill", "There is no completed treatment without a bill.")
    bill.patient_id, bill.visit_id = visit.patient_id, visit.id
    bill.doctor_id = treatments[0].doctor_id if treatment_id is not None else visit.doctor_id
    return treatments
