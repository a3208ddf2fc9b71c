"""Prescriptions over HTTP."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from api.endpoint import endpoint
from api.request_context import current_actor
from api.resource import ApiResource
from api.serialization import Serializer
from models import Prescription
from schemas.prescription import (
    CancelPrescriptionIn,
    DispenseIn,
    PrescriptionIn,
    PrescriptionOut,
    PrescriptionPatch,
)
from security.permissions import Permission
from services.clinical import prescriptions
from services.listing.spec import ListQuery, Page

PRESCRIPTION = Serializer(
    PrescriptionOut, computed_fields=prescriptions.add_computed_fields, entity="prescription"
)


class PrescriptionList(ApiResource):
    """/prescriptions"""

    @endpoint(Permission.PRESCRIPTIONS_READ, lists=prescriptions.LIST, returns=PRESCRIPTION)
    def get(self, listed: ListQuery) -> Page[Prescription]:
        """List prescriptions."""
        return prescriptions.find(current_actor(), listed)

    @endpoint(
        Permission.PRESCRIPTIONS_WRITE,
        body=PrescriptionIn,
        returns=PRESCRIPTION,
        status=201,
        errors=("safety_alert", "read_only"),
    )
    def post(self, data: PrescriptionIn) -> Prescription:
        """Prescribe at an open visit.

        The patient's allergies and medications are checked first: a hit is 409 `safety_alert` with `alerts`
        `[{code, medication, with, prescription_id, message}]`, which `override_reason` passes. What could
        not be checked is in `warnings`.
        """
        return prescriptions.prescribe(current_actor(), **data.model_dump())


class PrescriptionItem(ApiResource):
    """/prescriptions/<prescription_id>"""

    @endpoint(Permission.PRESCRIPTIONS_READ, loads=prescriptions.get, returns=PRESCRIPTION)
    def get(self, row: Prescription) -> Prescription:
        """Show a prescription."""
        return row

    @endpoint(
        Permission.PRESCRIPTIONS_WRITE,
        loads=prescriptions.get,
        body=PrescriptionPatch,
        returns=PRESCRIPTION,
        errors=("read_only", "safety_alert", "invalid_transition"),
    )
    def patch(self, row: Prescription, data: BaseModel) -> Prescription:
        """Change a prescription of which nothing is dispensed yet, or end it by its status."""
        return prescriptions.update(current_actor(), row, **data.model_dump(exclude_unset=True))

    @endpoint(
        Permission.PRESCRIPTIONS_WRITE,
        loads=prescriptions.get,
        body=CancelPrescriptionIn,
        params=CancelPrescriptionIn,
        returns=PRESCRIPTION,
        errors=("invalid_transition",),
    )
    def delete(self, row: Prescription, data: Any, params: Any) -> Prescription:
        """Cancel a prescription, with the reason in the body or the query."""
        reason = data.cancellation_reason or params.cancellation_reason
        return prescriptions.cancel(current_actor(), row, reason)


class PrescriptionDispense(ApiResource):
    """/prescriptions/<prescription_id>/dispense"""

    @endpoint(
        Permission.PRESCRIPTIONS_DISPENSE,
        loads=prescriptions.get,
        body=DispenseIn,
        returns=PRESCRIPTION,
        errors=("excessive_dispensing", "safety_alert", "conflict"),
    )
    def post(self, row: Prescription, data: DispenseIn) -> Prescription:
        """Hand out medicine: at most quantity x (1 + refills) of each."""
        return prescriptions.dispense(current_actor(), row, **data.model_dump())
