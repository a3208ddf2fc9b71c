"""Endpoints of prescriptions."""

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
    StopPrescriptionIn,
)
from security.permissions import Permission
from services.clinical import dispensing, prescriptions
from services.listing.spec import ListQuery, Page

PRESCRIPTION = Serializer(
    PrescriptionOut, computed_fields=prescriptions.add_computed_fields, entity="prescription"
)


class PrescriptionList(ApiResource):
    """Route `/prescriptions`."""

    @endpoint(Permission.PRESCRIPTIONS_READ, list_spec=prescriptions.LIST, returns=PRESCRIPTION)
    def get(self, query: ListQuery) -> Page[Prescription]:
        """List prescriptions."""
        return prescriptions.find(current_actor(), query)

    @endpoint(
        Permission.PRESCRIPTIONS_WRITE,
        body=PrescriptionIn,
        returns=PRESCRIPTION,
        status=201,
        errors=("safety_alert", "patient_inactive", "read_only"),
    )
    def post(self, data: PrescriptionIn) -> Prescription:
        """Prescribe medications at an open visit. Doctors: own only.

        First, the patient's allergies and medications are checked, also for severe interactions.
        An alert is 409 `safety_alert` with `alerts`: `[{code, medication, with, prescription_id, message}]`.
        The alert `interaction` also has `severity` and `source`. An `override_reason` overrides the alerts.
        `warnings` has the codes `unchecked`, `understood_as` (a typing error) and `allergies_not_asked`.
        Not checked: other interactions, dose, pregnancy, kidney and liver.
        """
        return prescriptions.prescribe(current_actor(), **data.model_dump())


class PrescriptionItem(ApiResource):
    """Route `/prescriptions/<prescription_id>`."""

    @endpoint(Permission.PRESCRIPTIONS_READ, load=prescriptions.get, returns=PRESCRIPTION)
    def get(self, row: Prescription) -> Prescription:
        """Show a prescription."""
        return row

    @endpoint(
        Permission.PRESCRIPTIONS_WRITE,
        load=prescriptions.get,
        body=PrescriptionPatch,
        returns=PRESCRIPTION,
        errors=("read_only", "patient_inactive", "safety_alert", "invalid_transition"),
    )
    def patch(self, row: Prescription, data: BaseModel) -> Prescription:
        """Change a prescription that is not dispensed yet, or end it by its `status`. Doctors: own only."""
        return prescriptions.update(current_actor(), row, **data.model_dump(exclude_unset=True))

    @endpoint(
        Permission.PRESCRIPTIONS_WRITE,
        load=prescriptions.get,
        body=CancelPrescriptionIn,
        query=CancelPrescriptionIn,
        returns=PRESCRIPTION,
        errors=("invalid_transition",),
    )
    def delete(self, row: Prescription, data: Any, query: Any) -> Prescription:
        """Cancel a prescription. Doctors: own only.

        Send the reason in the body or in the query string.
        """
        reason = data.cancellation_reason or query.cancellation_reason
        return prescriptions.cancel(current_actor(), row, reason)


class PrescriptionDispense(ApiResource):
    """Route `/prescriptions/<prescription_id>/dispense`."""

    @endpoint(
        Permission.PRESCRIPTIONS_DISPENSE,
        load=prescriptions.get,
        body=DispenseIn,
        returns=PRESCRIPTION,
        errors=("patient_inactive", "excessive_dispensing", "safety_alert", "conflict"),
    )
    def post(self, row: Prescription, data: DispenseIn) -> Prescription:
        """Dispense medications of a prescription. Doctors: own only.

        The maximum of each medication is quantity x (1 + refills). The safety check runs again. A new alert
        is 409 `safety_alert`. The prescribing doctor or an admin overrides it with an `override_reason`.
        """
        return dispensing.dispense(current_actor(), row, **data.model_dump())


class PrescriptionStop(ApiResource):
    """Route `/prescriptions/<prescription_id>/stop`."""

    @endpoint(
        Permission.PRESCRIPTIONS_WRITE,
        load=prescriptions.get,
        body=StopPrescriptionIn,
        returns=PRESCRIPTION,
        errors=("conflict",),
    )
    def post(self, row: Prescription, data: StopPrescriptionIn) -> Prescription:
        """Stop a therapy before its supply ends. Doctors: own only.

        The status stays. The safety check ignores a stopped therapy, and nothing more can be dispensed.
        """
        return prescriptions.stop(current_actor(), row, **data.model_dump())
