"""Endpoints of emergency access."""

from __future__ import annotations

from api.endpoint import endpoint
from api.request_context import current_actor
from api.resource import ApiResource
from api.serialization import EndpointResult, Serializer
from models import EmergencyAccess, Patient
from schemas.emergency_access import EmergencyAccessIn, EmergencyAccessOut, ReviewIn
from security.permissions import Permission
from services.listing.spec import ListQuery, Page
from services.patients import patients
from services.users import emergency_access

ACCESS = Serializer(
    EmergencyAccessOut,
    computed_fields=emergency_access.add_computed_fields,
    entity="emergency_access",
)


class PatientEmergencyAccess(ApiResource):
    """Route `/patients/<patient_id>/emergency-access`."""

    @endpoint(
        Permission.EMERGENCY_REQUEST, load=patients.get, body=EmergencyAccessIn, returns=ACCESS, status=201
    )
    def post(self, row: Patient, data: EmergencyAccessIn) -> EndpointResult:
        """Open the clinical fields of one patient to yourself for 60 minutes.

        You can read the visits, the treatments, the prescriptions and the medical history of the patient.
        Lists show the hidden fields in the rows of this patient. A filter by such a field needs `patient_id`.
        Each read is marked in the audit log, and an administrator reviews the access.
        """
        access = emergency_access.grant(current_actor(), row, reason=data.reason)
        return EndpointResult(access, headers={"Location": f"/emergency-access/{access.id}"})


class EmergencyAccessList(ApiResource):
    """Route `/emergency-access`."""

    @endpoint(Permission.EMERGENCY_REVIEW, list_spec=emergency_access.LIST, returns=ACCESS)
    def get(self, query: ListQuery) -> Page[EmergencyAccess]:
        """List emergency accesses."""
        return emergency_access.find(current_actor(), query)


class EmergencyAccessItem(ApiResource):
    """Route `/emergency-access/<emergency_access_id>`."""

    @endpoint(Permission.EMERGENCY_REQUEST, load=emergency_access.get, returns=ACCESS)
    def get(self, row: EmergencyAccess) -> EmergencyAccess:
        """Show an emergency access. Other roles than admin: own only."""
        return row


class EmergencyAccessReview(ApiResource):
    """Route `/emergency-access/<emergency_access_id>/review`."""

    @endpoint(
        Permission.EMERGENCY_REVIEW,
        load=emergency_access.get,
        body=ReviewIn,
        returns=ACCESS,
        errors=("already_done",),
    )
    def post(self, row: EmergencyAccess, data: ReviewIn) -> EmergencyAccess:
        """Review the emergency access of another user, once."""
        return emergency_access.review(current_actor(), row, **data.model_dump())
