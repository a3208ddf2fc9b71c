"""Endpoints of appointments."""

from __future__ import annotations

from flask import Response
from pydantic import BaseModel

from api import request_body, serialization
from api.cached_document import private_response
from api.endpoint import endpoint
from api.request_context import current_actor
from api.resource import ApiResource
from api.serialization import Serializer
from enums import AppointmentStatus
from models import Appointment
from resources.doctor import positive_ids
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
from services.audit import audit_log
from services.calendar_feeds import ical
from services.clinic.record import clinic_record
from services.listing.spec import ListQuery, Page
from services.scheduling import appointment_search, appointments
from services.scheduling.booking_rules import BookingCheck

APPOINTMENT = Serializer(
    AppointmentOut, computed_fields=appointment_search.add_computed_fields, entity="appointment"
)


def _load(actor: Actor, appointment_id: int, *, lock: bool = False) -> Appointment:
    """Return an appointment, for a change locked with the new doctor and the new patient in the body."""
    members = request_body.body_members() if lock else {}
    return appointments.get(
        actor,
        appointment_id,
        lock=lock,
        doctors=positive_ids(members, "doctor_id"),
        patients=positive_ids(members, "patient_id"),
    )


def _dry_run_response(check: BookingCheck | None) -> Response:
    """Return the response to a dry run: always 200. Without a check, the change has no booking rules."""
    refused = check is not None and not check.possible
    members = {
        "possible": not refused,
        "conflicts": check.conflicts if check is not None else [],
        "next_available": check.next_available() if check is not None and refused else [],
    }
    return serialization.json_response(serialization.dump_plain(BookingCheckOut, members))


class AppointmentList(ApiResource):
    """Route `/appointments`."""

    @endpoint(Permission.APPOINTMENTS_READ, list_spec=appointment_search.LIST, returns=APPOINTMENT)
    def get(self, query: ListQuery) -> Page[Appointment]:
        """List appointments.

        `start_date` and `end_date` limit the start of the appointments. FullCalendar's `start` and `end`
        select appointments that overlap the range, and return up to 1,000 rows. Values without an offset are
        in `timeZone`. A date as the end is included, a date-time is not.
        """
        return appointment_search.find(current_actor(), query)

    @endpoint(
        Permission.APPOINTMENTS_WRITE,
        body=AppointmentCreate,
        query=DryRunQuery,
        returns=APPOINTMENT,
        dry_run_returns=BookingCheckOut,
        status=201,
        errors=("appointment_conflict",),
    )
    def post(self, data: AppointmentCreate, query: DryRunQuery) -> Appointment | Response:
        """Book an appointment. Doctors: own only.

        A refusal has every conflict in `conflicts` and the next free times in `next_available`.
        `?dry_run=true` books nothing and answers 200 with `{possible, conflicts, next_available}`.
        """
        values = data.model_dump()
        if query.dry_run:
            return _dry_run_response(appointments.dry_run(current_actor(), **values))
        return appointments.book(current_actor(), **values)


class AppointmentSearch(ApiResource):
    """Route `/appointments/search`."""

    @endpoint(
        Permission.APPOINTMENTS_READ, list_spec=appointment_search.LIST, search=True, returns=APPOINTMENT
    )
    def get(self, query: ListQuery) -> Page[Appointment]:
        """Search appointments by patient, doctor and reason."""
        return appointment_search.find(current_actor(), query)


class AppointmentItem(ApiResource):
    """Route `/appointments/<appointment_id>`."""

    @endpoint(Permission.APPOINTMENTS_READ, load=appointments.get, returns=APPOINTMENT)
    def get(self, row: Appointment) -> Appointment:
        """Show an appointment with its allowed transitions."""
        return row

    @endpoint(
        Permission.APPOINTMENTS_WRITE,
        load=_load,
        body=AppointmentPatch,
        query=DryRunQuery,
        returns=APPOINTMENT,
        dry_run_returns=BookingCheckOut,
        errors=("appointment_conflict", "invalid_transition"),
    )
    def patch(self, row: Appointment, data: BaseModel, query: DryRunQuery) -> Appointment | Response:
        """Move, reassign or close an appointment. Doctors: own only.

        Only a scheduled appointment can move. A new start alone keeps the duration. To book a missed
        appointment again within 7 days, send `status` scheduled, a new `date` and a `status_reason`.
        `?dry_run=true` checks the change as for a booking and stores nothing.
        """
        values = data.model_dump(exclude_unset=True)
        if query.dry_run:
            return _dry_run_response(appointments.dry_run_update(current_actor(), row, **values))
        return appointments.update(current_actor(), row, **values)

    @endpoint(
        Permission.APPOINTMENTS_WRITE,
        load=_load,
        body=AppointmentCancel,
        query=CancelQuery,
        returns=APPOINTMENT,
        errors=("invalid_transition",),
    )
    def delete(self, row: Appointment, data: AppointmentCancel, query: CancelQuery) -> Appointment:
        """Cancel an appointment. Doctors: own only.

        Its time is free at once. The appointment stays visible. Send `cancellation_reason` and `cancelled_by`
        in the body or in the query string.
        """
        details = query.model_dump(exclude_none=True) | data.model_dump(exclude_none=True)
        return appointments.cancel(current_actor(), row, **details)


class AppointmentCheckIn(ApiResource):
    """Route `/appointments/<appointment_id>/check-in`."""

    @endpoint(
        Permission.APPOINTMENTS_WRITE,
        load=appointments.get,
        returns=APPOINTMENT,
        errors=("invalid_transition",),
    )
    def post(self, row: Appointment) -> Appointment:
        """Record the arrival of the patient. Doctors: own only.

        A second check-in does not change the time of the first.
        """
        return appointments.check_in(current_actor(), row)


class AppointmentCalendar(ApiResource):
    """Route `/appointments/<appointment_id>.ics`."""

    @endpoint(Permission.APPOINTMENTS_READ, load=appointments.get, media_types=(ical.MEDIA_TYPE,), etag=True)
    def get(self, row: Appointment) -> Response:
        """Download an appointment for a calendar program.

        The file shows the clinic and the time, and nothing about the patient.
        """
        audit_log.record_read("read", "appointment", [row.id], {row.patient_id})
        clinic = clinic_record()
        content = ical.appointment_calendar(
            row,
            clinic_name=clinic.name,
            cancelled=row.status is AppointmentStatus.CANCELLED,
            organizer=clinic.email,
        )
        return private_response(content, ical.MEDIA_TYPE, file_name=f"appointment-{row.id}.ics")
