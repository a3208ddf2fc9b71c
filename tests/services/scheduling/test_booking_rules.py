"""The one judge against a model that knows nothing but minutes: what it allows is exactly what is free."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from datetime import UTC, datetime, time, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
import time_machine
from hypothesis import HealthCheck, given
from hypothesis import settings as effort
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
DAYS = 3  # Monday to Wednesday, of which Tuesday is asked about
MINUTES = DAYS * 24 * 60
QUARTER = 15


@pytest.fixture(autouse=True, scope="module")
def utc() -> Iterator[None]:
    """The clinic's zone without the application."""
    config.use(settings_for("sqlite:///judge.db"))
    yield


# --- A model of minutes --------------------------------------------------------------------------------

quarters = st.integers(0, 24 * 4 - 1).map(lambda n: n * QUARTER)


@st.composite
def stretches(draw: st.DrawFn, most: int) -> list[tuple[int, int]]:
    """Some stretches of minutes within the three days."""
    starts = draw(st.lists(st.integers(0, MINUTES // QUARTER - 1), max_size=most, unique=True))
    return [(n * QUARTER, n * QUARTER + QUARTER * draw(st.integers(1, 12))) for n in starts]


@st.composite
def weeks(draw: st.DrawFn) -> dict[int, list[tuple[time, time]]]:
    """Weekly hours without overlap; none at all for a doctor who works at any hour."""
    found: dict[int, list[tuple[time, time]]] = {}
    for weekday in draw(st.sets(st.integers(0, 2))):
        edges = sorted(draw(st.sets(quarters, min_size=2, max_size=6)))
        pairs = [(edges[n], edges[n + 1]) for n in range(0, len(edges) - 1, draw(st.sampled_from([1, 2])))]
        found[weekday] = [(time(a // 60, a % 60), time(b // 60, b % 60)) for a, b in pairs]
    return found


@st.composite
def worlds(draw: st.DrawFn) -> SimpleNamespace:
    """A doctor with hours, time off and bookings, and a patient with other appointments."""
    buffer = draw(st.sampled_from([0, 5, 15, 40]))
    booked = [(start, end, end + buffer) for start, end in draw(stretches(8))]
    return SimpleNamespace(
        windows=draw(weeks()),
        time_off=draw(stretches(2)),
        booked=booked,
        others=draw(stretches(2)),
        buffer=buffer,
        slot=draw(st.sampled_from([10, 15, 30, 45])),
    )


def instant(minute: int) -> datetime:
    return MONDAY + timedelta(minutes=minute)


def calendar_of(world: SimpleNamespace) -> Calendar:
    doctor = Doctor(slot_minutes=world.slot, buffer_minutes=world.buffer, is_active=True)
    return Calendar(
        doctor,
        world.windows,
        [(instant(a), instant(b)) for a, b in world.time_off],
        [(instant(a), instant(b), instant(c)) for a, b, c in world.booked],
        [(instant(a), instant(b)) for a, b in world.others],
    )


def works_at(world: SimpleNamespace, minute: int) -> bool:
    day, of_day = divmod(minute, 24 * 60)
    if not world.windows:
        return True
    clock_time = time(of_day // 60, of_day % 60)
    return any(a <= clock_time < b for a, b in world.windows.get(day % 7, []))


def expected(world: SimpleNamespace, start: int, end: int) -> set[str]:
    """Every clash, minute by minute."""
    inside = set(range(start, end))
    blocked = set(range(start, end + world.buffer))
    found = set()
    if any(inside & set(range(a, b)) for a, b in world.time_off):
        found.add("time_off")
    if not all(works_at(world, minute) for minute in inside):
        found.add("outside_hours")
    if any(inside & set(range(a, b)) for a, b, _ in world.booked):
        found.add("doctor_busy")
    if any(blocked & set(range(a, c)) and not inside & set(range(a, b)) for a, b, c in world.booked):
        found.add("buffer")
    if any(inside & set(range(a, b)) for a, b in world.others):
        found.add("patient_busy")
    return found


@given(worlds(), st.integers(0, 24 * 12 - 1), st.integers(1, 40))
@effort(max_examples=300, deadline=None)
def test_the_judge_names_exactly_the_clashes_that_a_look_at_every_minute_finds(
    world: SimpleNamespace, start: int, length: int
) -> None:
    first = 24 * 60 + start * 5

    found = find_calendar_conflicts(calendar_of(world), instant(first), instant(first + length * 5))

    assert found == expected(world, first, first + length * 5)


@given(worlds(), st.sampled_from([5, 15, 30, 60, 240]), st.integers(0, 24 * 4))
@effort(max_examples=150, deadline=None)
def test_a_day_offers_what_can_be_booked_and_nothing_only_where_nothing_can(
    world: SimpleNamespace, duration: int, now: int
) -> None:
    tuesday, midnight = 24 * 60, 48 * 60
    calendar, not_before = calendar_of(world), tuesday + now * QUARTER

    day = calendar.day(instant(tuesday).date(), duration, instant(not_before))

    for start, end in day.slots:
        minute = int((start - MONDAY).total_seconds()) // 60
        assert max(not_before, tuesday) <= minute < midnight
        assert end - start == timedelta(minutes=duration)
        assert find_calendar_conflicts(calendar, start, end) == set()
    possible = any(
        not expected(world, minute, minute + duration) for minute in range(not_before, midnight, 5)
    )
    assert day.available == possible
    assert (day.reason is None) == possible


@given(
    st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50))),
    st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50))),
)
@effort(deadline=None)
def test_time_less_time_is_what_neither_covers(
    whole: list[tuple[int, int]], holes: list[tuple[int, int]]
) -> None:
    left = subtract_intervals(merge_intervals(_instants(whole)), _instants(holes))

    minutes = _covered(_instants(whole)) - _covered(_instants(holes))
    assert _covered(left) == minutes
    assert all(before[1] <= after[0] for before, after in itertools.pairwise(left))


def _instants(pairs: Any) -> list[Any]:
    return [(instant(a), instant(b)) for a, b in pairs if a < b]


def _covered(intervals: Any) -> set[datetime]:
    return {
        start + timedelta(minutes=n)
        for start, end in intervals
        for n in range(int((end - start).total_seconds()) // 60)
    }


# --- Whole histories on the database -------------------------------------------------------------------

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


def test_whatever_is_booked_moved_and_cancelled_nothing_ever_overlaps(clinic: Clinic) -> None:
    doctors = [clinic.doctor_row(buffer_minutes=buffer)["id"] for buffer in (0, 15)]
    patients = [clinic.patient()["id"] for _ in range(3)]
    weeks_apart = itertools.count(1)

    @given(steps)
    @effort(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
    def run(history: list[Any]) -> None:
        base = datetime.now(UTC).replace(second=0, microsecond=0) + timedelta(weeks=next(weeks_apart))
        with clinic.inside() as session:
            model: list[SimpleNamespace] = []
            for step in history:
                _take(session, model, step, base, doctors, patients)

    run()


def _take(
    session: Any,
    model: list[SimpleNamespace],
    step: Any,
    base: datetime,
    doctors: list[int],
    patients: list[int],
) -> None:
    """One step on the clinic and on the model; they must agree whether it is possible."""
    what, doctor, patient, quarter, length, which = step
    buffer = timedelta(minutes=(0, 15)[doctor])
    start = base + timedelta(minutes=QUARTER * quarter)
    wanted = SimpleNamespace(
        doctor=doctor, patient=patient, start=start, end=start + timedelta(minutes=QUARTER * length)
    )
    if what in ("move", "cancel") and not model:
        return
    old = model[which % len(model)] if what in ("move", "cancel") else None
    if what == "cancel":
        model.remove(old)  # type: ignore[arg-type]
        appointments.cancel(ADMIN, session.get(Appointment, old.id))  # type: ignore[union-attr]
        return
    if old is not None and wanted.end == old.end:  # counts as absent, and a start alone keeps the duration
        wanted.end = wanted.start + (old.end - old.start)
    if old is not None and vars(old) == vars(wanted) | {"id": old.id}:
        return  # who stays where they are is not judged again
    others = [row for row in model if row is not old]
    free_patient = not any(
        row.patient == patient and row.start < wanted.end and wanted.start < row.end for row in others
    )
    free_doctor = not any(
        row.doctor == doctor and row.start < wanted.end + buffer and wanted.start < row.end + buffer
        for row in others
    )
    possible = free_patient and (free_doctor or what == "overbook")
    values = {
        "doctor_id": doctors[doctor],
        "patient_id": patients[patient],
        "start": wanted.start,
        "end": wanted.end,
    }
    if what == "overbook":
        values |= {"overbook": True, "overbook_reason": "an emergency"}
    try:
        if old is not None:
            row = appointments.update(ADMIN, session.get(Appointment, old.id), **values)
            model.remove(old)
        else:
            row = appointments.book(ADMIN, **values)
    except ClinicError as refusal:
        assert refusal.code == "appointment_conflict"
        assert not possible, (step, refusal.members)
    else:
        assert possible, step
        assert row.overbooked == (not free_doctor)
        wanted.id = row.id
        model.append(wanted)


# --- Imports -------------------------------------------------------------------------------------------


def test_an_import_brings_past_appointments_in_and_is_judged_by_the_other_rules(clinic: Clinic) -> None:
    doctor, patient = clinic.doctor_row(buffer_minutes=10)["id"], clinic.patient()["id"]
    other = clinic.patient()["id"]
    past = datetime(2020, 5, 4, 9, tzinfo=UTC)

    def bring(status: AppointmentStatus, minutes: int, patient_id: int = patient) -> Appointment:
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
        row = bring(AppointmentStatus.COMPLETED, 0)
        assert (row.status, row.duration, row.created_by_id) == (AppointmentStatus.COMPLETED, 30, None)
        with pytest.raises(ClinicError) as refusal:
            bring(AppointmentStatus.COMPLETED, 15)
        assert [c["code"] for c in refusal.value.members["conflicts"]] == ["doctor_busy", "patient_busy"]
        assert "next_available" not in refusal.value.members
        with pytest.raises(ClinicError) as refusal:
            bring(AppointmentStatus.COMPLETED, 30, other)
        assert [c["code"] for c in refusal.value.members["conflicts"]] == ["buffer"]

        missed = bring(AppointmentStatus.NO_SHOW, 15)  # takes nobody's time
        bring(AppointmentStatus.CANCELLED, 15, other)
        bring(AppointmentStatus.COMPLETED, 40, other)

        assert missed.status is AppointmentStatus.NO_SHOW
        with pytest.raises(ClinicError) as refusal:
            bring(AppointmentStatus.SCHEDULED, 120)
        assert [c["code"] for c in refusal.value.members["conflicts"]] == ["in_past"]


def test_an_import_sees_what_was_booked_before_it_and_what_another_import_brought(clinic: Clinic) -> None:
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


def test_only_an_import_may_bring_in_what_is_over(clinic: Clinic) -> None:
    doctor, patient = clinic.doctor_row()["id"], clinic.patient()["id"]
    values = {"doctor_id": doctor, "patient_id": patient, "start": datetime(2020, 5, 4, 9, tzinfo=UTC)}

    with clinic.inside(), pytest.raises(ClinicError) as refusal:
        appointments.book(ADMIN, status=AppointmentStatus.COMPLETED, **values)

    assert refusal.value.code == "validation_failed"


def test_the_search_for_a_free_time_ends_where_there_is_none(clinic: Clinic) -> None:
    row = clinic.doctor_row()
    clinic.admin.put(
        f"/doctors/{row['id']}/schedule", {"windows": [{"weekday": 2, "start": "09:00", "end": "09:20"}]}
    )

    with time_machine.travel(MONDAY), clinic.inside() as session:
        doctor = session.get(Doctor, row["id"])
        none = availability.find_next_slots(doctor, 30, MONDAY, 3)
        found = availability.find_next_slots(doctor, 20, MONDAY, 3)

    assert none == []
    assert [slot.start.isoformat() for slot in found] == [
        "2027-03-03T09:00:00+00:00",
        "2027-03-10T09:00:00+00:00",
        "2027-03-17T09:00:00+00:00",
    ]
