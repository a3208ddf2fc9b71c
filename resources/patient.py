"""Endpoints of patients."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from api import request_body
from api.endpoint import endpoint
from api.pagination import list_headers
from api.request_context import current_actor
from api.resource import ApiResource
from api.serialization import EndpointResult, Serializer, dump_dict
from models import AuditLog, MedicalHistory, Patient, Refund
from resources.audit import ENTRY
from resources.billings import REFUND
from schemas.base import DoctorRef, Out
from schemas.billing import AccountRefundIn, RefundPatch
from schemas.patient import (
    AccountOut,
    AppointmentDetails,
    BillingDetails,
    LetterDetails,
    MedicalHistoryOut,
    MedicalHistoryPatch,
    PageQuery,
    PatientCreate,
    PatientOut,
    PatientPatch,
    PrescriptionDetails,
    TimelineEventOut,
    TimelineQuery,
    TreatmentDetails,
    VisitDetails,
)
from security.permissions import Actor, Permission
from services.audit import audit_search
from services.billing import account_statement, refunds
from services.listing.spec import ListQuery, Page
from services.patients import (
    medical_history,
    patient_search,
    patients,
    timeline,
)
from services.rows import Record

PATIENT = Serializer(PatientOut, computed_fields=patients.add_computed_fields, entity="patient")
HISTORY = Serializer(
    MedicalHistoryOut, computed_fields=medical_history.add_computed_fields, entity="medical_history"
)
DETAILS: dict[str, type[Out]] = {
    "appointment": AppointmentDetails,
    "visit": VisitDetails,
    "treatment": TreatmentDetails,
    "prescription": PrescriptionDetails,
    "letter": LetterDetails,
    "billing": BillingDetails,
}


def _load(actor: Actor, patient_id: int, *, lock: bool = False) -> Patient:
    """Return a patient, for a death that cancels appointments locked after their doctors."""
    members = request_body.body_members() if lock else {}
    cancels = members.get("deceased_on") is not None and members.get("on_conflict") == "cancel"
    return patients.get(actor, patient_id, lock=lock, with_booked_doctors=cancels)


class PatientList(ApiResource):
    """Route `/patients`."""

    @endpoint(Permission.PATIENTS_READ, list_spec=patient_search.LIST, returns=PATIENT)
    def get(self, query: ListQuery) -> Page[Patient]:
        """List patients."""
        return patient_search.find(current_actor(), query)

    @endpoint(
        Permission.PATIENTS_WRITE,
        body=PatientCreate,
        returns=PATIENT,
        status=201,
        errors=("possible_duplicate", "already_exists"),
    )
    def post(self, data: PatientCreate) -> Patient:
        """Register a patient."""
        return patients.register(current_actor(), **data.model_dump())


class PatientSearch(ApiResource):
    """Route `/patients/search`."""

    @endpoint(Permission.PATIENTS_READ, list_spec=patient_search.LIST, search=True, returns=PATIENT)
    def get(self, query: ListQuery) -> Page[Patient]:
        """Search patients by name, file number, phone, insurance, age and medical history.

        `q` searches name, file number, phone digits and e-mail. Accents and case are ignored, and parts of
        words match. If nothing matches, names and e-mail addresses may differ by one typo.
        """
        return patient_search.find(current_actor(), query)


class PatientItem(ApiResource):
    """Route `/patients/<patient_id>`."""

    @endpoint(Permission.PATIENTS_READ, load=patients.read, returns=PATIENT)
    def get(self, row: Record) -> Record:
        """Show a patient."""
        return row

    @endpoint(
        Permission.PATIENTS_WRITE,
        load=_load,
        body=PatientPatch,
        returns=PATIENT,
        errors=("possible_duplicate", "already_exists", "in_use", "booked_appointments", "conflict"),
    )
    def patch(self, row: Patient, data: BaseModel) -> Patient:
        """Change a patient.

        `deceased_on` with future appointments needs `"on_conflict": "cancel"`, which cancels them.
        """
        return patients.update(current_actor(), row, **data.model_dump(exclude_unset=True))

    @endpoint(Permission.PATIENTS_ARCHIVE, load=patients.get, returns=PATIENT, errors=("in_use",))
    def delete(self, row: Patient) -> Patient:
        """Archive a patient without future appointments and without an open balance."""
        return patients.archive(current_actor(), row)


class PatientMedicalHistory(ApiResource):
    """Route `/patients/<patient_id>/medical-history`."""

    @endpoint(Permission.HISTORY_READ, load=medical_history.get, returns=HISTORY)
    def get(self, row: MedicalHistory) -> MedicalHistory:
        """Show a patient's medical history."""
        return row

    @endpoint(
        Permission.HISTORY_WRITE,
        load=medical_history.get,
        body=MedicalHistoryPatch,
        returns=HISTORY,
        errors=("already_exists",),
    )
    def patch(self, row: MedicalHistory, data: BaseModel) -> MedicalHistory:
        """Change a patient's medical history.

        A list is replaced as a whole. A plain text in place of a list, or in a list, is one entry.
        """
        return medical_history.update(current_actor(), row, **data.model_dump())


class PatientAccount(ApiResource):
    """Route `/patients/<patient_id>/account`."""

    @endpoint(Permission.BILLINGS_READ, query=PageQuery, returns=AccountOut)
    def get(self, patient_id: int, query: PageQuery) -> account_statement.AccountStatement:
        """Show the account of a patient: balance, open bills, and ledger entries, newest first."""
        return account_statement.of_patient(current_actor(), patient_id, **query.model_dump())


class AccountRefundList(ApiResource):
    """Route `/patients/<patient_id>/account/refunds`."""

    @endpoint(
        Permission.REFUNDS_ASK,
        load=patients.get,
        body=AccountRefundIn,
        returns=REFUND,
        status=201,
        errors=("excessive_refund",),
    )
    def post(self, row: Patient, data: AccountRefundIn) -> EndpointResult:
        """Request a refund of credit.

        A caller who may decide refunds pays it out at once. The account of the patient lists all refunds.
        """
        refund = refunds.request_from_account(current_actor(), row, **data.model_dump())
        return EndpointResult(refund, headers={"Location": f"/patients/{row.id}/account"})


class AccountRefundItem(ApiResource):
    """Route `/patients/<patient_id>/account/refunds/<refund_id>`."""

    @endpoint(
        Permission.BILLINGS_SETTLE,
        load=refunds.get_from_account,
        body=RefundPatch,
        returns=REFUND,
        errors=("excessive_refund", "invalid_transition"),
    )
    def patch(self, row: Refund, data: BaseModel) -> Refund:
        """Approve or reject a refund of credit that another user requested."""
        return refunds.decide(current_actor(), row, **data.model_dump(exclude_unset=True))


class PatientTimeline(ApiResource):
    """Route `/patients/<patient_id>/timeline`."""

    @endpoint(Permission.PATIENTS_READ, query=TimelineQuery, many=True, returns=TimelineEventOut)
    def get(self, patient_id: int, query: TimelineQuery) -> EndpointResult:
        """Show past and future events of a patient, newest first, as far as the role may read them."""
        actor = current_actor()
        page = timeline.of_patient(actor, patient_id, **query.model_dump())
        return EndpointResult(
            [_event_members(actor, event) for event in page.rows], headers=list_headers(page, "timeline")
        )


def _event_members(actor: Actor, event: timeline.Event) -> dict[str, Any]:
    doctor = event.doctor
    return {
        "type": event.type,
        "id": event.id,
        "at": event.at,
        "title": event.title,
        "status": event.status,
        "doctor_id": doctor.id if doctor else None,
        "doctor_name": doctor.name if doctor else None,
        "doctor": DoctorRef.model_validate(doctor) if doctor else None,
        "details": dump_dict(Serializer(DETAILS[event.type]), actor, event.row),
    }


class PatientAccessLog(ApiResource):
    """Route `/patients/<patient_id>/access-log`."""

    @endpoint(Permission.AUDIT_READ, load=patients.get, list_spec=audit_search.LIST, returns=ENTRY)
    def get(self, row: Patient, query: ListQuery) -> Page[AuditLog]:
        """List the reads and changes of a patient's record, with user and time."""
        return audit_search.access_log(current_actor(), row, query)
