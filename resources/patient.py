"""Patients over HTTP."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from api.endpoint import endpoint
from api.pagination import list_headers
from api.request_context import current_actor
from api.resource import ApiResource
from api.serialization import Answer, Serializer, shown
from models import AuditLog, MedicalHistory, Patient
from resources.audit import ENTRY
from schemas.base import DoctorRef, Out
from schemas.patient import (
    AccountOut,
    AppointmentDetails,
    BillingDetails,
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
from services.billing import account_statement
from services.listing.spec import ListQuery, Page
from services.patients import (
    medical_history,
    patient_search,
    patients,
    timeline,
)
from services.rows import Record

PATIENT = Serializer(PatientOut, computed_fields=patients.add_computed_fields, entity="patient")
HISTORY = Serializer(MedicalHistoryOut, entity="medical_history")
DETAILS: dict[str, type[Out]] = {
    "appointment": AppointmentDetails,
    "visit": VisitDetails,
    "treatment": TreatmentDetails,
    "prescription": PrescriptionDetails,
    "billing": BillingDetails,
}


class PatientList(ApiResource):
    """/patients"""

    @endpoint(Permission.PATIENTS_READ, lists=patient_search.LIST, returns=PATIENT)
    def get(self, listed: ListQuery) -> Page[Patient]:
        """List patients."""
        return patient_search.find(current_actor(), listed)

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
    """/patients/search"""

    @endpoint(Permission.PATIENTS_READ, lists=patient_search.LIST, search=True, returns=PATIENT)
    def get(self, listed: ListQuery) -> Page[Patient]:
        """Search patients by name, number, phone, insurance, age and history.

        `q` looks in name, file number, phone digits and e-mail; accents and case do not matter, parts of
        words match, and one typo in a name or e-mail address is forgiven where nothing else is found.
        """
        return patient_search.find(current_actor(), listed)


class PatientItem(ApiResource):
    """/patients/<patient_id>"""

    @endpoint(Permission.PATIENTS_READ, loads=patients.read, returns=PATIENT)
    def get(self, row: Record) -> Record:
        """Show a patient."""
        return row

    @endpoint(
        Permission.PATIENTS_WRITE,
        loads=patients.get,
        body=PatientPatch,
        returns=PATIENT,
        errors=("possible_duplicate", "already_exists", "in_use"),
    )
    def patch(self, row: Patient, data: BaseModel) -> Patient:
        """Change a patient."""
        return patients.update(current_actor(), row, **data.model_dump(exclude_unset=True))

    @endpoint(Permission.PATIENTS_ARCHIVE, loads=patients.get, returns=PATIENT, errors=("in_use",))
    def delete(self, row: Patient) -> Patient:
        """Archive a patient without future appointments and open balance."""
        return patients.archive(current_actor(), row)


class PatientHistory(ApiResource):
    """/patients/<patient_id>/medical-history"""

    @endpoint(Permission.HISTORY_READ, loads=medical_history.get, returns=HISTORY)
    def get(self, row: MedicalHistory) -> MedicalHistory:
        """Show a patient's medical history."""
        return row

    @endpoint(
        Permission.HISTORY_WRITE,
        loads=medical_history.get,
        body=MedicalHistoryPatch,
        returns=HISTORY,
        errors=("already_exists",),
    )
    def patch(self, row: MedicalHistory, data: BaseModel) -> MedicalHistory:
        """Change a patient's medical history.

        A list is replaced as a whole; a plain text for a list, or in it, is read as one entry.
        """
        return medical_history.update(current_actor(), row, **data.model_dump())


class PatientAccount(ApiResource):
    """/patients/<patient_id>/account"""

    @endpoint(Permission.BILLINGS_READ, params=PageQuery, returns=AccountOut)
    def get(self, patient_id: int, params: PageQuery) -> account_statement.AccountStatement:
        """Show what a patient owes: balance, open bills, and the ledger, newest first."""
        return account_statement.of_patient(current_actor(), patient_id, **params.model_dump())


class PatientTimeline(ApiResource):
    """/patients/<patient_id>/timeline"""

    @endpoint(Permission.PATIENTS_READ, params=TimelineQuery, many=True, returns=TimelineEventOut)
    def get(self, patient_id: int, params: TimelineQuery) -> Answer:
        """Show what happened to a patient, and what is to come, newest first, as the role may see it."""
        actor = current_actor()
        page = timeline.of_patient(actor, patient_id, **params.model_dump())
        return Answer([_event(actor, event) for event in page.rows], headers=list_headers(page, "timeline"))


def _event(actor: Actor, event: timeline.Event) -> dict[str, Any]:
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
        "details": shown(Serializer(DETAILS[event.type]), actor, event.row),
    }


class PatientAccessLog(ApiResource):
    """/patients/<patient_id>/access-log"""

    @endpoint(Permission.AUDIT_READ, loads=patients.get, lists=audit_search.LIST, returns=ENTRY)
    def get(self, row: Patient, listed: ListQuery) -> Page[AuditLog]:
        """Show who looked at a patient's record or changed it, and when."""
        return audit_search.access_log(current_actor(), row, listed)
