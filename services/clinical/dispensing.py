"""Dispensing the medications of a prescription.

A quantity is in the unit of its medication, such as tablets or ml. At most quantity x (1 + refills) may be
dispensed. A medication without a quantity has no such limit, because the doctor has set none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import TypedDict

from column_types import QUANTITY_LIMIT, json_number
from enums import PrescriptionStatus
from errors import ClinicError, invalid
from models import Dispensing, PrescribedMedication, Prescription
from security.permissions import Actor
from services import clock
from services.audit import audit_log
from services.clinical import prescriptions, therapy
from services.patients import activity
from services.search_key import search_key

MAX_COURSES = 100  # the prescribed quantity and at most 99 refills


class Item(TypedDict):
    """The id or the name of a medication, and the quantity to dispense."""

    medication: int | str
    quantity: Decimal


def dispense(
    actor: Actor, row: Prescription, *, items: Sequence[Item], override_reason: str | None = None
) -> Prescription:
    """Dispense medications: all `items` or nothing.

    The safety check runs again for these medications. It ignores alerts that were overridden before.

    Raises 409 `excessive_dispensing` with the remaining quantities, and 409 `conflict` if the prescription is
    not active or the therapy is stopped. Raises 409 `patient_inactive` and 409 `safety_alert`. Raises 403
    `forbidden` for an `override_reason` without the permission to prescribe.
    """
    actor.require_own(row.doctor_id)
    if actor.user_id is None:
        raise ClinicError("forbidden", "Sign in to dispense medications.")
    quantities = _requested_quantities(row, items)
    _check_remaining(quantities)
    _check_dispensable(row)
    activity.require_active(row.patient)
    has_override = prescriptions.check_safety(
        actor, row, override_reason, {medication.name for medication in quantities}
    )
    now = clock.now()
    for medication, quantity in quantities.items():
        medication.dispensed += quantity
        row.dispensings.append(
            Dispensing(
                medication=medication, quantity=quantity, dispensed_by_id=actor.user_id, created_at=now
            )
        )
    therapy.set_last_days(row)
    if all(medication.remaining == 0 for medication in row.medications):
        row.status = PrescriptionStatus.COMPLETED
    audit_log.set_action(row, "override" if has_override else "dispense")
    return row


def _check_dispensable(row: Prescription) -> None:
    status = prescriptions.current_status(row)
    if status is not PrescriptionStatus.ACTIVE:
        raise ClinicError(
            "conflict", f"Only an active prescription can be dispensed. This one is {status.value}."
        )
    if row.stopped_at is not None:
        raise ClinicError("conflict", "The therapy is stopped. To continue it, write a new prescription.")


def _requested_quantities(row: Prescription, items: Sequence[Item]) -> dict[PrescribedMedication, Decimal]:
    """Return the quantity of each medication. Several items of one medication are added up."""
    quantities: dict[PrescribedMedication, Decimal] = {}
    for number, item in enumerate(items):
        medication = _find_medication(row, item["medication"], f"items.{number}.medication")
        quantities[medication] = quantities.get(medication, Decimal(0)) + item["quantity"]
    return quantities


def _find_medication(row: Prescription, id_or_name: int | str, field: str) -> PrescribedMedication:
    text = str(id_or_name)
    matches = [item for item in row.medications if str(item.id) == text] or [
        item for item in row.medications if search_key(item.name) == search_key(text)
    ]
    if len(matches) == 1:
        return matches[0]
    available = ", ".join(f"{item.id} ({item.name})" for item in row.medications) or "no medications"
    if matches:
        raise invalid(field, f"is the name of several medications; send the id of one of them: {available}")
    raise invalid(field, f"is not on this prescription, which contains: {available}")


def _check_remaining(quantities: Mapping[PrescribedMedication, Decimal]) -> None:
    excessive = {
        medication: quantity for medication, quantity in quantities.items() if quantity > _maximum(medication)
    }
    if not excessive:
        return
    messages = [
        f"{medication.name}: {_maximum(medication).normalize():f} remaining, "
        f"{quantity.normalize():f} requested"
        for medication, quantity in excessive.items()
    ]
    raise ClinicError(
        "excessive_dispensing",
        "; ".join(messages) + ".",
        remaining=[
            {
                "medication_id": medication.id,
                "medication": medication.name,
                "quantity": json_number(quantity),
                "dispensed": json_number(medication.dispensed),
                "remaining": json_number(_maximum(medication)),
            }
            for medication, quantity in excessive.items()
        ],
    )


def _maximum(medication: PrescribedMedication) -> Decimal:
    """Return the quantity that can be dispensed. Without a limit, the column has one."""
    if medication.remaining is not None:
        return medication.remaining
    return QUANTITY_LIMIT * MAX_COURSES - medication.dispensed
