"""Appointments over HTTP."""

from __future__ import annotations

from flask import Response
from pydantic import BaseModel

from api import request_body, serialization
from api.endpoint import endpoint
from api.request_context import current_actor
from api.resource import ApiResource
from api.serialization import Serializer
from models import Appointment
from resources.doctor import named_ids
from schemas.appointment import (
    AppointmentCancel,
    AppointmentCreate,
    AppointmentOut,
    AppointmentPatch,
    BookingCheckOut,
    CancelQuery,
    DryRunQuery,
)
from security.permissions import Actor, Permission
from services.listing.paging import ListQuery, Page
from services.scheduling import appointment_search, appointments
from services.scheduling.booking_rules import BookingCheck

APPOINTMENT = Serializer(
    AppointmentOut, computed_fields=appointment_search.add_computed_fields, entity="appointment"
)


def _held(actor: Actor, appointment_id: int, *, lock: bool = False) -> Appointment:
    """The appointment; for a change locked together with the doctor and the patient it is to move to."""
    members = request_body.json_object() if lock else {}
    return appointments.get(
        actor,
        appointment_id,
        lock=lock,
        doctors=named_ids(members, "doctor_id"),
        patients=named_ids(members, "patient_id"),
    )


def _judgement(verdict: BookingCheck | None) -> Response:
    """What a dry run answers: always 200, `possible` says the rest."""
    refused = verdict is not None and not verdict.possible
    told = {
        "possible": not refused,
        "conflicts": verdict.conflicts if verdict is not None else [],
        "next_available": verdict.next_available() if verdict is not None and refused else [],
    }
    return serialization.json_response(serialization.dump_plain(BookingCheckOut, told))


class AppointmentList(ApiResource):
    """/appointments"""

    @endpoint(Permission.APPOINTMENTS_READ, lists=appointment_search.LIST, returns=APPOINTMENT)
    def get(self, listed: ListQuery) -> Page[Appointment]:
        """List appointments.

        `start_date` and `end_date` (or FullCalendar's `start`, `end`, `timeZone`) are the range of their
        start: dates include the last day, date-times exclude the end.
        """
        return appointment_search.find(current_actor(), listed)

    @endpoint(
        Permission.APPOINTMENTS_WRITE,
        body=AppointmentCreate,
        params=DryRunQuery,
        returns=APPOINTMENT,
        dry_run_returns=BookingCheckOut,
        status=201,
        errors=("appointment_conflict",),
    )
    def post(self, data: AppointmentCreate, params: DryRunQuery) -> Appointment | Response:
        """Book a slot with a doctor; a doctor the own ones.

        A refusal names every clash in `conflicts` and offers `next_available`. `?dry_run=true` answers 200
        with the judgement `{possible, conflicts, next_available}` and books nothing.
        """
        values = data.model_dump()
        if params.dry_run:
            return _judgement(appointments.dry_run(current_actor(), **values))
        return appointments.book(current_actor(), **values)


class AppointmentSearch(ApiResource):
    """/appointments/search"""

    @endpoint(Permission.APPOINTMENTS_READ, lists=appointment_search.LIST, search=True, returns=APPOINTMENT)
    def get(self, listed: ListQuery) -> Page[Appointment]:
        """Search appointments by patient, doctor and reason."""
        return appointment_search.find(current_actor(), listed)


class AppointmentItem(ApiResource):
    """/appointments/<appointment_id>"""

    @endpoint(Permission.APPOINTMENTS_READ, loads=appointments.get, returns=APPOINTMENT)
    def get(self, row: Appointment) -> Appointment:
        """Show an appointment with the steps it allows."""
        return row

    @endpoint(
        Permission.APPOINTMENTS_WRITE,
        loads=_held,
        body=AppointmentPatch,
        params=DryRunQuery,
        returns=APPOINTMENT,
        dry_run_returns=BookingCheckOut,
        errors=("appointment_conflict", "invalid_transition"),
    )
    def patch(self, row: Appointment, data: BaseModel, params: DryRunQuery) -> Appointment | Response:
        """Move an appointment, hand it over, or say how it ended; a doctor the own ones.

        Only a scheduled one moves; a new start alone keeps the duration. A missed one is booked again with
        `status` scheduled, a new `date` and a `status_reason` within 7 days. `?dry_run=true` as for booking.
        """
        values = data.model_dump(exclude_unset=True)
        if params.dry_run:
            return _judgement(appointments.dry_run_update(current_actor(), row, **values))
        return appointments.update(current_actor(), row, **values)

    @endpoint(
        Permission.APPOINTMENTS_WRITE,
        loads=_held,
        body=AppointmentCancel,
        params=CancelQuery,
        returns=APPOINTMENT,
        errors=("invalid_transition",),
    )
    def delete(self, row: Appointment, data: AppointmentCancel, params: CancelQuery) -> Appointment:
        """Cancel an appointment: its time is free at once, and it stays visible.

        `cancellation_reason` and `cancelled_by` come in the body or the query string.
        """
        told = params.model_dump(exclude_none=True) | data.model_dump(exclude_none=True)
        return appointments.cancel(current_actor(), row, **told)


class AppointmentCheckIn(ApiResource):
    """/appointments/<appointment_id>/check-in"""

    @endpoint(Permission.APPOINTMENTS_WRITE, loads=_held, returns=APPOINTMENT, errors=("invalid_transition",))
    def post(self, row: Appointment) -> Appointment:
        """Note that the patient has arrived; the first time counts."""
        return appointments.check_in(current_actor(), row)
