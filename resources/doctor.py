"""Doctors over HTTP."""

from __future__ import annotations

from typing import Any

from flask import request
from pydantic import BaseModel

from api import request_body
from api.endpoint import endpoint
from api.request_context import current_actor
from api.resource import ApiResource
from api.serialization import Serializer
from models import Doctor
from schemas.doctor import ConflictResolution, ConflictResolutionQuery, DoctorCreate, DoctorOut, DoctorPatch
from schemas.fields import MAX_ID
from security.permissions import Actor, Permission
from services.listing.paging import ListQuery, Page
from services.scheduling import doctors

DOCTOR = Serializer(DoctorOut, computed_fields=doctors.add_computed_fields)


def named_ids(members: dict[str, Any], *names: str) -> list[int]:
    """The ids that a body names and the service will lock, so that all are locked in one order."""
    values = [members.get(name) for name in names]
    return [value for value in values if type(value) is int and 0 < value <= MAX_ID]


def held(actor: Actor, doctor_id: int, *, lock: bool = False) -> Doctor:
    """The doctor of the path; for a change locked together with the one who is to take the appointments."""
    if not lock:
        return doctors.get(actor, doctor_id)
    members = request_body.json_object()
    handover = members.get("on_conflict")
    others = named_ids(members, "reassign_to")
    if isinstance(handover, dict):
        others += named_ids(handover, "reassign_to")
    asked = request.args.get("reassign_to", "")
    if asked.isascii() and asked.isdigit():
        others += named_ids({"reassign_to": int(asked[:20])}, "reassign_to")
    return doctors.get(actor, doctor_id, lock=True, others=others)


class DoctorList(ApiResource):
    """/doctors"""

    @endpoint(Permission.DOCTORS_READ, lists=doctors.LIST, returns=DOCTOR)
    def get(self, listed: ListQuery) -> Page[Doctor]:
        """List doctors."""
        return doctors.find(current_actor(), listed)

    @endpoint(
        Permission.DOCTORS_MANAGE, body=DoctorCreate, returns=DOCTOR, status=201, errors=("already_exists",)
    )
    def post(self, data: DoctorCreate) -> Doctor:
        """Add a doctor, with a user to sign in where `user` or `user_id` says so."""
        return doctors.create(current_actor(), **data.model_dump())


class DoctorSearch(ApiResource):
    """/doctors/search"""

    @endpoint(Permission.DOCTORS_READ, lists=doctors.LIST, search=True, returns=DOCTOR)
    def get(self, listed: ListQuery) -> Page[Doctor]:
        """Search doctors by name, specialty, licence number, e-mail or phone."""
        return doctors.find(current_actor(), listed)


class DoctorItem(ApiResource):
    """/doctors/<doctor_id>"""

    @endpoint(Permission.DOCTORS_READ, loads=doctors.get, returns=DOCTOR)
    def get(self, row: Doctor) -> Doctor:
        """Show a doctor."""
        return row

    @endpoint(
        Permission.DOCTORS_WRITE,
        loads=held,
        body=DoctorPatch,
        returns=DOCTOR,
        errors=("already_exists", "booked_appointments", "appointment_conflict"),
    )
    def patch(self, row: Doctor, data: BaseModel) -> Doctor:
        """Change a doctor; a doctor the own profile.

        Licence, fee, user and activity are an administrator's to change. `is_active` false over booked
        appointments needs `on_conflict` or `reassign_to`.
        """
        return doctors.update(current_actor(), row, **data.model_dump(exclude_unset=True))

    @endpoint(
        Permission.DOCTORS_MANAGE,
        loads=held,
        body=ConflictResolution,
        params=ConflictResolutionQuery,
        returns=DOCTOR,
        errors=("booked_appointments", "appointment_conflict"),
    )
    def delete(self, row: Doctor, data: ConflictResolution, params: ConflictResolutionQuery) -> Doctor:
        """Deactivate a doctor.

        What is booked is settled as `on_conflict` or `reassign_to` say, in the body or the query string.
        """
        chosen = params.model_dump(exclude_none=True) | data.model_dump(exclude_none=True)
        return doctors.deactivate(current_actor(), row, **chosen)
