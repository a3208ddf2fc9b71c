"""Patients over HTTP."""

from __future__ import annotations

from pydantic import BaseModel

from models import Patient
from resources.answers import View
from resources.base import ApiResource, current_actor, endpoint
from schemas.patient import PatientCreate, PatientOut, PatientPatch
from security.permissions import Permission
from services import patients
from services.listing import ListQuery, Page

PATIENT = View(PatientOut, figures=patients.figures, entity="patient")


class PatientList(ApiResource):
    """/patients"""

    @endpoint(Permission.PATIENTS_READ, lists=patients.LIST, returns=PATIENT)
    def get(self, listed: ListQuery) -> Page[Patient]:
        """List patients."""
        return patients.find(current_actor(), listed)

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

    @endpoint(Permission.PATIENTS_READ, lists=patients.LIST, search=True, returns=PATIENT)
    def get(self, listed: ListQuery) -> Page[Patient]:
        """Search patients by name, number, phone, insurance, age and history."""
        return patients.find(current_actor(), listed)


class PatientItem(ApiResource):
    """/patients/<patient_id>"""

    @endpoint(Permission.PATIENTS_READ, loads=patients.get, returns=PATIENT)
    def get(self, row: Patient) -> Patient:
        """Show a patient."""
        return row

    @endpoint(Permission.PATIENTS_WRITE, loads=patients.get, body=PatientPatch, returns=PATIENT)
    def patch(self, row: Patient, data: BaseModel) -> Patient:
        """Change a patient."""
        return patients.update(current_actor(), row, **data.model_dump(exclude_unset=True))

    @endpoint(Permission.PATIENTS_ARCHIVE, loads=patients.get, returns=PATIENT, errors=("in_use",))
    def delete(self, row: Patient) -> Patient:
        """Archive a patient without future appointments and open balance."""
        return patients.archive(current_actor(), row)
