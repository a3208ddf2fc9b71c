"""Endpoints of a doctor's working hours, free slots and time off."""

from __future__ import annotations

from api.endpoint import endpoint
from api.request_context import current_actor
from api.resource import ApiResource
from api.serialization import Serializer
from models import Doctor, TimeOff
from resources.doctor import load_with_replacement
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
    """Route `/doctors/<doctor_id>/schedule`."""

    @endpoint(Permission.DOCTORS_READ, load=doctors.get, query=ScheduleQuery, returns=ScheduleOut, etag=True)
    def get(self, row: Doctor, query: ScheduleQuery) -> Schedule:
        """Show a doctor's weekly working hours and the schedule of a period.

        The default period is today and the next 7 days. The maximum is 62 days. The `ETag` is the version
        of the doctor, which a change of the working hours raises.
        """
        return schedules.show(current_actor(), row, query.start_date, query.end_date)

    @endpoint(
        Permission.DOCTORS_WRITE,
        load=load_with_replacement,
        body=ScheduleIn,
        returns=ScheduleOut,
        etag=True,
        errors=("booked_appointments", "appointment_conflict"),
    )
    def put(self, row: Doctor, data: ScheduleIn) -> Schedule:
        """Replace a doctor's weekly working hours. Doctors: own only.

        A doctor without working hours can be booked at any time. A window may end on the next day. If booked
        appointments no longer fit, the change needs `on_conflict`, which keeps, cancels or reassigns them.
        """
        return schedules.replace_windows(current_actor(), row, **data.model_dump())


class DoctorAvailability(ApiResource):
    """Route `/doctors/<doctor_id>/availability`."""

    @endpoint(Permission.DOCTORS_READ, load=doctors.get, query=AvailabilityQuery, returns=AvailabilityOut)
    def get(self, row: Doctor, query: AvailabilityQuery) -> Availability:
        """Show a doctor's free slots of one day, or of a period of at most 62 days.

        Slots start every `slot_minutes` of the doctor. A gap that is long enough, but contains no such start,
        has one slot at its beginning.
        """
        return schedules.get_availability(
            current_actor(),
            row,
            day=query.date,
            first=query.start_date,
            last=query.end_date,
            duration=query.duration,
        )


class TimeOffList(ApiResource):
    """Route `/doctors/<doctor_id>/time-off`."""

    @endpoint(Permission.DOCTORS_READ, load=doctors.get, list_spec=time_off.LIST, returns=TIME_OFF)
    def get(self, row: Doctor, query: ListQuery) -> Page[TimeOff]:
        """List a doctor's time off."""
        return time_off.find(current_actor(), row, query)

    @endpoint(
        Permission.DOCTORS_WRITE,
        load=load_with_replacement,
        body=TimeOffIn,
        returns=TIME_OFF,
        status=201,
        errors=("booked_appointments", "appointment_conflict"),
    )
    def post(self, row: Doctor, data: TimeOffIn) -> TimeOff:
        """Add time off for a doctor. Doctors: own only.

        `on_conflict` or `reassign_to` cancels or reassigns the booked appointments.
        """
        return time_off.create(current_actor(), row, **data.model_dump())


class TimeOffItem(ApiResource):
    """Route `/doctors/<doctor_id>/time-off/<time_off_id>`."""

    @endpoint(Permission.DOCTORS_READ, load=time_off.get, returns=TIME_OFF)
    def get(self, row: TimeOff) -> TimeOff:
        """Show a doctor's time off."""
        return row

    @endpoint(Permission.DOCTORS_WRITE, load=time_off.get, returns=TIME_OFF)
    def delete(self, row: TimeOff) -> TimeOff:
        """Delete a doctor's time off. Doctors: own only."""
        return time_off.delete(current_actor(), row)
