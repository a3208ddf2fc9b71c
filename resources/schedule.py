"""A doctor's hours, free times and time off over HTTP."""

from __future__ import annotations

from api.endpoint import endpoint
from api.request_context import current_actor
from api.resource import ApiResource
from api.serialization import Serializer
from models import Doctor, TimeOff
from resources.doctor import held
from schemas.doctor import (
    AvailabilityOut,
    AvailabilityQuery,
    ScheduleIn,
    ScheduleOut,
    ScheduleQuery,
    TimeOffIn,
    TimeOffOut,
)
from security.permissions import Permission
from services.listing.spec import ListQuery, Page
from services.scheduling import doctors, schedules, time_off
from services.scheduling.availability import Availability
from services.scheduling.schedules import Schedule

TIME_OFF = Serializer(TimeOffOut)


class DoctorSchedule(ApiResource):
    """/doctors/<doctor_id>/schedule"""

    @endpoint(Permission.DOCTORS_READ, loads=doctors.get, params=ScheduleQuery, returns=ScheduleOut)
    def get(self, row: Doctor, params: ScheduleQuery) -> Schedule:
        """Show a doctor's weekly hours and a stretch of days: today to a week ahead, or at most 62 days."""
        return schedules.show(current_actor(), row, params.start_date, params.end_date)

    @endpoint(Permission.DOCTORS_WRITE, loads=doctors.get, body=ScheduleIn, returns=ScheduleOut)
    def put(self, row: Doctor, data: ScheduleIn) -> Schedule:
        """Set a doctor's weekly hours, all of them; a doctor the own ones.

        Without windows the doctor is bookable at any hour. What is booked stays booked.
        """
        return schedules.replace_windows(current_actor(), row, data.model_dump()["windows"])


class DoctorAvailability(ApiResource):
    """/doctors/<doctor_id>/availability"""

    @endpoint(Permission.DOCTORS_READ, loads=doctors.get, params=AvailabilityQuery, returns=AvailabilityOut)
    def get(self, row: Doctor, params: AvailabilityQuery) -> Availability:
        """Show a doctor's free times of one day or of at most 62.

        They lie on the doctor's grid of `slot_minutes`; a gap that holds the duration but no time of the grid
        offers its beginning.
        """
        return schedules.get_availability(
            current_actor(),
            row,
            day=params.date,
            first=params.start_date,
            last=params.end_date,
            duration=params.duration,
        )


class TimeOffList(ApiResource):
    """/doctors/<doctor_id>/time-off"""

    @endpoint(Permission.DOCTORS_READ, loads=doctors.get, lists=time_off.LIST, returns=TIME_OFF)
    def get(self, row: Doctor, listed: ListQuery) -> Page[TimeOff]:
        """List a doctor's time off."""
        return time_off.find(current_actor(), row, listed)

    @endpoint(
        Permission.DOCTORS_WRITE,
        loads=held,
        body=TimeOffIn,
        returns=TIME_OFF,
        status=201,
        errors=("booked_appointments", "appointment_conflict"),
    )
    def post(self, row: Doctor, data: TimeOffIn) -> TimeOff:
        """Take time off, settling what is booked as `on_conflict` or `reassign_to` say; a doctor the own."""
        return time_off.create(current_actor(), row, **data.model_dump())


class TimeOffItem(ApiResource):
    """/doctors/<doctor_id>/time-off/<time_off_id>"""

    @endpoint(Permission.DOCTORS_READ, loads=time_off.get, returns=TIME_OFF)
    def get(self, row: TimeOff) -> TimeOff:
        """Show a time off."""
        return row

    @endpoint(Permission.DOCTORS_WRITE, loads=time_off.get, returns=TIME_OFF)
    def delete(self, row: TimeOff) -> TimeOff:
        """Take a time off back."""
        return time_off.delete(current_actor(), row)
