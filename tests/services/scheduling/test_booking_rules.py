"""Booking rules and availability, compared with a simple model that checks every minute."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, time, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
import time_machine
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

import config
from enums import AppointmentStatus, Role
from errors import ClinicError
from models import Appointment, Doctor
from security.permissions import Actor
from services.scheduling import appointments, availability
from services.scheduling.availability import Calendar, merge_intervals, subtract_intervals
from services.scheduling.booking_rules import find_calendar_conflicts
from tests.conftest import settings_for
from tests.support.clinic import Clinic

MONDAY = datetime(2027, 3, 1, tzinfo=UTC)
DAYS = 3  # Monday to Wednesday; the tests check Tuesday
MINUTES = DAYS * 24 * 60
QUARTER = 15


@pytest.fixture(autouse=True, scope="module")
def utc() -> None:
    """Configure the time zone UTC without an application."""
    config.use(settings_for("sqlite:///booking_rules.db"))


# --- Model of minutes ----------------------------------------------------------------------------------

quarters = st.integers(0, 24 * 4 - 1).map(lambda n: n * QUARTER)


@st.composite
def periods(draw: st.DrawFn, most: int) -> list[tuple[int, int]]:
    """Generate periods in minutes within the three days."""
    starts = draw(st.lists(st.integers(0, MINUTES // QUARTER - 1), max_size=most, unique=True))
    return [(n * QUARTER, n * QUARTER + QUARTER * draw(st.integers(1, 12))) for n in starts]


@st.composite
def weeks(draw: st.DrawFn) -> dict[int, list[tuple[time, time]]]:
    """Generate weekly hours without overlap. Without windows the doctor works at all hours."""
    windows: dict[int, list[tuple[time, time]]] = {}
    for weekday in draw(st.sets(st.integers(0, 2))):
        edges = sorted(draw(st.sets(quarters, min_size=2, max_size=6)))
        pairs = [(edges[n], edges[n + 1]) for n in range(0, len(edges) - 1, draw(st.sampled_from([1, 2])))]
        windows[weekday] = [(time(a // 60, a % 60), time(b // 60, b % 60)) for a, b in pairs]
    return windows


@st.composite
def situations(draw: st.DrawFn) -> SimpleNamespace:
    """Generate a doctor with hours, time off and appointments, and a patient with other appointments."""
    buffer = draw(st.sampled_from([0, 5, 15, 40]))
    booked = [(start, end, end + buffer) for start, end in draw(periods(8))]
    return SimpleNamespace(
        windows=draw(weeks()),
        time_off=draw(periods(2)),
        booked=booked,
        patient_busy=draw(periods(2)),
        buffer=buffer,
        slot=draw(st.sampled_from([10, 15, 30, 45])),
    )


def instant(minute: int) -> datetime:
    return MONDAY + timedelta(minutes=minute)


def build_calendar(situation: SimpleNamespace) -> Calendar:
    doctor = Doctor(slot_minutes=situation.slot, buffer_minutes=situation.buffer, is_active=True)
    return Calendar(
        doctor,
        situation.windows,
        [(instant(a), instant(b)) for a, b in situation.time_off],
        [(instant(a), instant(b), instant(c)) for a, b, c in situation.booked],
        [(instant(a), instant(b)) for a, b in situation.patient_busy],
    )


def works_at(situation: SimpleNamespace, minute: int) -> bool:
    day, minute_of_day = divmod(minute, 24 * 60)
    if not situation.windows:
        return True
    clock_time = time(minute_of_day // 60, minute_of_day % 60)
    return any(a <= clock_time < b for a, b in situation.windows.get(day % 7, []))


def expected_conflicts(situation: SimpleNamespace, start: int, end: int) -> set[str]:
    """Return all conflict codes that a check of every minute finds."""
    inside = set(range(start, end))
    blocked = set(range(start, end + situation.buffer))
    codes = set()
    if any(inside & set(range(a, b)) for a, b in situation.time_off):
        codes.add("time_off")
    if not all(works_at(situation, minute) for minute in inside):
        codes.add("outside_hours")
    if any(inside & set(range(a, b)) for a, b, _ in situation.booked):
        codes.add("doctor_busy")
    if any(blocked & set(range(a, c)) and not inside & set(range(a, b)) for a, b, c in situation.booked):
        codes.add("buffer")
    if any(inside & set(range(a, b)) for a, b in situation.patient_busy):
        codes.add("patient_busy")
    return codes


@given(situations(), st.integers(0, 24 * 12 - 1), st.integers(1, 40))
@hypothesis_settings(max_examples=300, deadline=None)
def test_conflicts_are_those_that_a_check_of_every_minute_finds(
    situation: SimpleNamespace, start: int, length: int
) -> None:
    first = 24 * 60 + start * 5

    codes = find_calendar_conflicts(build_calendar(situation), instant(first), instant(first + length * 5))

    assert codes == expected_conflicts(situation, first, first + length * 5)


@given(situations(), st.sampled_from([5, 15, 30, 60, 240]), st.integers(0, 24 * 4))
@hypothesis_settings(max_examples=150, deadline=None)
def test_all_slots_of_a_day_are_bookable_and_a_day_without_slots_is_not(
    situation: SimpleNamespace, duration: int, now: int
) -> None:
    tuesday, midnight = 24 * 60, 48 * 60
    calendar, not_before = build_calendar(situation), tuesday + now * QUARTER

    day = calendar.day(instant(tuesday).date(), duration, instant(not_before))

    for start, end in day.slots:
        minute = int((start - MONDAY).total_seconds()) // 60
        assert max(not_before, tuesday) <= minute < midnight
        assert end - start == timedelta(minutes=duration)
        assert find_calendar_conflicts(calendar, start, end) == set()
    possible = any(
        not expected_conflicts(situation, minute, minute + duration)
        for minute in range(not_before, midnight, 5)
    )
    assert day.available == possible
    assert (day.reason is None) == possible


@given(
    st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50))),
    st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50))),
)
@hypothesis_settings(deadline=None)
def test_subtracted_intervals_contain_exactly_the_remaining_minutes(
    intervals: list[tuple[int, int]], removed: list[tuple[int, int]]
) -> None:
    remaining = subtract_intervals(merge_intervals(_instants(intervals)), _instants(removed))

    minutes = _covered(_instants(intervals)) - _covered(_instants(removed))
    assert _covered(remaining) == minutes
    assert all(before[1] <= after[0] for before, after in itertools.pairwise(remaining))


def _instants(pairs: Any) -> list[Any]:
    return [(instant(a), instant(b)) for a, b in pairs if a < b]


def _covered(intervals: Any) -> set[datetime]:
    return {
        start + timedelta(minutes=n)
        for start, end in intervals
        for n in range(int((end - start).total_seconds()) // 60)
    }


# --- Sequences of steps on the database ----------------------------------------------------------------

ADMIN = Actor(None, "Clinic", Role.ADMIN)
steps = st.lists(
    st.tuples(
        st.sampled_from(["book", "move", "cancel", "overbook"]),
        st.integers(0, 1),  # doctor
        st.integers(0, 2),  # patient
        st.integers(0, 15),  # start in quarters of an hour
        st.integers(1, 4),  # length in quarters
        st.integers(0, 9),  # which appointment
    ),
    min_size=5,
    max_size=25,
)


def test_a_sequence_of_bookings_moves_and_cancellations_never_creates_an_overlap(clinic: Clinic) -> None:
    doctors = [clinic.doctor_row(buffer_minutes=buffer)["id"] for buffer in (0, 15)]
    patients = [clinic.patient()["id"] for _ in range(3)]
    weeks_apart = itertools.count(1)

    @given(steps)
    @hypothesis_settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
    def run(history: list[Any]) -> None:
        base = datetime.now(UTC).replace(second=0, microsecond=0) + timedelta(weeks=next(weeks_apart))
        with clinic.inside() as session:
            model: list[SimpleNamespace] = []
            for step in history:
                _apply_step(session, model, step, base, doctors, patients)

    run()


def _apply_step(
    session: Any,
    model: list[SimpleNamespace],
    step: Any,
    base: datetime,
    doctors: list[int],
    patients: list[int],
) -> None:
    """Apply one step to the clinic and to the model. Both must agree whether it is possible."""
    action, doctor, patient, quarter, length, index = step
    buffer = timedelta(minutes=(0, 15)[doctor])
    start = base + timedelta(minutes=QUARTER * quarter)
    requested = SimpleNamespace(
        doctor=doctor, patient=patient, start=start, end=start + timedelta(minutes=QUARTER * length)
    )
    if action in ("move", "cancel") and not model:
        return
    old = model[index % len(model)] if action in ("move", "cancel") else None
    if action == "cancel":
        model.remove(old)  # type: ignore[arg-type]
        appointments.cancel(ADMIN, session.get(Appointment, old.id))  # type: ignore[union-attr]
        return
    if old is not None and requested.end == old.end:  # an equal end counts as absent: the duration is kept
        requested.end = requested.start + (old.end - old.start)
    if old is not None and vars(old) == vars(requested) | {"id": old.id}:
        return  # a move to the same time is not checked
    other_rows = [row for row in model if row is not old]
    free_patient = not any(
        row.patient == patient and row.start < requested.end and requested.start < row.end
        for row in other_rows
    )
    free_doctor = not any(
        row.doctor == doctor and row.start < requested.end + buffer and requested.start < row.end + buffer
        for row in other_rows
    )
    possible = free_patient and (free_doctor or action == "overbook")
    values = {
        "doctor_id": doctors[doctor],
        "patient_id": patients[patient],
        "start": requested.start,
        "end": requested.end,
    }
    if action == "overbook":
        values |= {"overbook": True, "overbook_reason": "an emergency"}
    try:
        if old is not None:
            row = appointments.update(ADMIN, session.get(Appointment, old.id), **values)
            model.remove(old)
        else:
            row = appointments.book(ADMIN, **values)
    except ClinicError as error:
        if possible or error.code != "appointment_conflict":
            raise
    else:
        assert possible, step
        assert row.overbooked == (not free_doctor)
        requested.id = row.id
        model.append(requested)


# --- Imports -------------------------------------------------------------------------------------------


def test_an_import_may_create_past_appointments_and_all_other_rules_apply(clinic: Clinic) -> None:
    doctor, patient = clinic.doctor_row(buffer_minutes=10)["id"], clinic.patient()["id"]
    other = clinic.patient()["id"]
    past = datetime(2020, 5, 4, 9, tzinfo=UTC)

    def import_appointment(status: AppointmentStatus, minutes: int, patient_id: int = patient) -> Appointment:
        return appointments.book(
            ADMIN,
            doctor_id=doctor,
            patient_id=patient_id,
            start=past + timedelta(minutes=minutes),
            duration=30,
            status=status,
            importing=True,
        )

    with clinic.inside():
        row = import_appointment(AppointmentStatus.COMPLETED, 0)
        assert (row.status, row.duration, row.created_by_id) == (AppointmentStatus.COMPLETED, 30, None)
        with pytest.raises(ClinicError) as error:
            import_appointment(AppointmentStatus.COMPLETED, 15)
        assert [c["code"] for c in error.value.members["conflicts"]] == ["doctor_busy", "patient_busy"]
        assert "next_available" not in error.value.members
        with pytest.raises(ClinicError) as error:
            import_appointment(AppointmentStatus.COMPLETED, 30, other)
        assert [c["code"] for c in error.value.members["conflicts"]] == ["buffer"]

        missed = import_appointment(AppointmentStatus.NO_SHOW, 15)  # does not block its time
        import_appointment(AppointmentStatus.CANCELLED, 15, other)
        import_appointment(AppointmentStatus.COMPLETED, 40, other)

        assert missed.status is AppointmentStatus.NO_SHOW
        with pytest.raises(ClinicError) as error:
            import_appointment(AppointmentStatus.SCHEDULED, 120)
        assert [c["code"] for c in error.value.members["conflicts"]] == ["in_past"]


def test_an_import_conflicts_with_booked_and_with_imported_appointments(clinic: Clinic) -> None:
    doctor, patients = clinic.doctor_row()["id"], [clinic.patient()["id"] for _ in range(2)]
    start = datetime.now(UTC).replace(second=0, microsecond=0) + timedelta(days=3)
    clinic.appointment(doctor_id=doctor, patient_id=patients[0], date=start.isoformat())

    for hours, possible in ((0, False), (2, True), (2, False), (4, True)):
        with clinic.inside():
            values = {"doctor_id": doctor, "patient_id": patients[1], "start": start + timedelta(hours=hours)}
            if possible:
                appointments.book(ADMIN, importing=True, **values)
            else:
                with pytest.raises(ClinicError):
                    appointments.book(ADMIN, importing=True, **values)


def test_only_an_import_may_create_a_completed_appointment(clinic: Clinic) -> None:
    doctor, patient = clinic.doctor_row()["id"], clinic.patient()["id"]
    values = {"doctor_id": doctor, "patient_id": patient, "start": datetime(2020, 5, 4, 9, tzinfo=UTC)}

    with clinic.inside(), pytest.raises(ClinicError) as error:
        appointments.book(ADMIN, status=AppointmentStatus.COMPLETED, **values)

    assert error.value.code == "validation_failed"


def test_the_search_for_a_free_slot_ends_after_a_year(clinic: Clinic) -> None:
    row = clinic.doctor_row()
    clinic.admin.put(
        f"/doctors/{row['id']}/schedule", {"windows": [{"weekday": 2, "start": "09:00", "end": "09:20"}]}
    )

    with time_machine.travel(MONDAY), clinic.inside() as session:
        doctor = session.get(Doctor, row["id"])
        too_long = availability.find_next_slots(doctor, 30, MONDAY, 3)
        slots = availability.find_next_slots(doctor, 20, MONDAY, 3)

    assert too_long == []
    assert [slot.start.isoformat() for slot in slots] == [
        "2027-03-03T09:00:00+00:00",
        "2027-03-10T09:00:00+00:00",
        "2027-03-17T09:00:00+00:00",
    ]
