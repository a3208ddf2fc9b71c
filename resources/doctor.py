"""Endpoints of doctors."""

from __future__ import annotations

from typing import Any

from flask import request
from pydantic import BaseModel

from api import request_body
from api.body_format import Upload
from api.endpoint import StepUp, endpoint
from api.request_context import current_actor
from api.resource import ApiResource
from api.serialization import Serializer
from models import Doctor
from resources.users import hash_password_of
from schemas.doctor import ConflictResolution, ConflictResolutionQuery, DoctorCreate, DoctorOut, DoctorPatch
from schemas.fields import MAX_ID
from security.permissions import Actor, Permission
from services.listing.spec import ListQuery, Page
from services.scheduling import doctors

DOCTOR = Serializer(DoctorOut, computed_fields=doctors.add_computed_fields)


def positive_ids(members: dict[str, Any], name: str) -> list[int]:
    """Return the member of a body as a list of at most one id. A member that is not an id is left out.

    Loaders use it before the body is validated: all rows must be locked together, in one order.
    """
    value = members.get(name)
    return [value] if type(value) is int and 0 < value <= MAX_ID else []


def load_with_replacement(actor: Actor, doctor_id: int, *, lock: bool = False) -> Doctor:
    """Return a doctor, for a change locked with the doctor who takes over the appointments.

    `reassign_to` is a member of the body, of its `on_conflict`, or a query parameter.
    """
    if not lock:
        return doctors.get(actor, doctor_id)
    members = request_body.body_members()
    replacements = positive_ids(members, "reassign_to")
    on_conflict = members.get("on_conflict")
    if isinstance(on_conflict, dict):
        replacements += positive_ids(on_conflict, "reassign_to")
    parameter = request.args.get("reassign_to", "")
    if parameter.isascii() and parameter.isdigit():
        replacements += positive_ids({"reassign_to": int(parameter[:20])}, "reassign_to")
    return doctors.get(actor, doctor_id, lock=True, others=replacements)


def _hash_password(_path: dict[str, Any], members: dict[str, Any], _upload: Upload | None) -> str | None:
    return hash_password_of(members.get("user"))


class DoctorList(ApiResource):
    """Route `/doctors`."""

    @endpoint(Permission.DOCTORS_READ, list_spec=doctors.LIST, returns=DOCTOR)
    def get(self, query: ListQuery) -> Page[Doctor]:
        """List doctors."""
        return doctors.find(current_actor(), query)

    @endpoint(
        Permission.DOCTORS_MANAGE,
        body=DoctorCreate,
        prepare=_hash_password,
        returns=DOCTOR,
        status=201,
        errors=("already_exists",),
        step_up=StepUp.ACCOUNTS,
    )
    def post(self, data: DoctorCreate, prepared: str | None) -> Doctor:
        """Add a doctor.

        `user` creates a user account for the doctor, `user_id` links an existing one.
        """
        return doctors.create(current_actor(), password_hash=prepared, **data.model_dump())


class DoctorSearch(ApiResource):
    """Route `/doctors/search`."""

    @endpoint(Permission.DOCTORS_READ, list_spec=doctors.LIST, search=True, returns=DOCTOR)
    def get(self, query: ListQuery) -> Page[Doctor]:
        """Search doctors by name, specialty, licence number, e-mail or phone."""
        return doctors.find(current_actor(), query)


class DoctorItem(ApiResource):
    """Route `/doctors/<doctor_id>`."""

    @endpoint(Permission.DOCTORS_READ, load=doctors.get, returns=DOCTOR)
    def get(self, row: Doctor) -> Doctor:
        """Show a doctor."""
        return row

    @endpoint(
        Permission.DOCTORS_WRITE,
        load=load_with_replacement,
        body=DoctorPatch,
        prepare=_hash_password,
        returns=DOCTOR,
        errors=("already_exists", "booked_appointments", "appointment_conflict"),
        step_up=StepUp.ACCOUNTS,
    )
    def patch(self, row: Doctor, data: BaseModel, prepared: str | None) -> Doctor:
        """Change a doctor. Doctors: own only.

        Only an administrator changes licence, fee, user and `is_active`. A longer buffer or an earlier end of
        the licence may affect booked appointments: `on_conflict` keeps, cancels or reassigns them. Those of a
        deactivated doctor are cancelled or reassigned.
        """
        changes = data.model_dump(exclude_unset=True)
        return doctors.update(current_actor(), row, password_hash=prepared, **changes)

    @endpoint(
        Permission.DOCTORS_MANAGE,
        load=load_with_replacement,
        body=ConflictResolution,
        query=ConflictResolutionQuery,
        returns=DOCTOR,
        errors=("booked_appointments", "appointment_conflict"),
    )
    def delete(self, row: Doctor, data: ConflictResolution, query: ConflictResolutionQuery) -> Doctor:
        """Deactivate a doctor.

        `on_conflict` or `reassign_to`, in the body or in the query string, cancels or reassigns the booked
        appointments.
        """
        choice = query.model_dump(exclude_none=True) | data.model_dump(exclude_none=True)
        return doctors.deactivate(current_actor(), row, **choice)
