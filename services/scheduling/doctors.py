"""Doctors: profiles, their user accounts, and deactivation."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any, TypedDict, Unpack

from sqlalchemy import ColumnElement, bindparam, func, or_, select, union

from database.functions import contains_text, json_text
from enums import AppointmentStatus, Role
from errors import ClinicError, invalid
from extensions import db
from models import Appointment, Base, Doctor, User, Visit
from security.permissions import Actor
from services import clock
from services.audit import audit_log
from services.listing import paging
from services.listing.conditions import words_in
from services.listing.spec import Filter, Kind, ListColumn, ListQuery, ListSpec, Page
from services.rows import (
    assign,
    changed_members,
    forbid_members,
    get_or_404,
    get_referenced,
    lock_rows,
    mapping,
)
from services.scheduling import availability
from services.scheduling.availability import OCCUPYING
from services.scheduling.booked_appointments import ConflictChoice, resolve_conflicts
from services.search_key import search_key
from services.users import accounts

LOOK_AHEAD = 30  # days in which `next_available` is searched
# Members that a doctor may not change in their own profile: the clinic decides licence, fee and account.
CLINIC_ONLY = ("license_number", "license_expires_on", "consultation_fee", "user_id", "user", "is_active")

# Members that the booking rules read: a change may affect booked appointments.
CALENDAR_MEMBERS = frozenset({"is_active", "license_expires_on", "buffer_minutes"})


class DoctorFields(TypedDict, total=False):
    """Members of a doctor's profile that are stored as they are given."""

    email: str | None
    phone: str | None
    specialty: str
    specialties: list[str]
    license_number: str
    license_expires_on: date | None
    certifications: list[str]
    consultation_fee: Decimal
    slot_minutes: int
    buffer_minutes: int
    is_active: bool


class DoctorChanges(DoctorFields, total=False):
    """Members of a change of a doctor; absent ones stay as they are."""

    name: str
    user: Mapping[str, str] | None
    user_id: int | None


def get(_actor: Actor, doctor_id: int, *, lock: bool = False, others: Iterable[int] = ()) -> Doctor:
    """Return the doctor, also a deactivated one, or raise 404. `lock` also locks `others`, in order of id."""
    if lock:
        lock_rows(Doctor, {doctor_id, *others})
    return get_or_404(Doctor, doctor_id)


def _matches_specialty(text: str) -> ColumnElement[bool]:
    in_json = json.dumps(text, ensure_ascii=False)[1:-1]  # quotes have a backslash
    return or_(contains_text(Doctor.specialty, text), contains_text(json_text(Doctor.specialties), in_json))


def matches(text: str) -> ColumnElement[bool]:
    """Return the condition of `q`: name parts in any order, specialty, licence number, e-mail, phone."""
    columns = (Doctor.license_number, Doctor.email, Doctor.phone)
    return or_(
        words_in(Doctor.name_fold, text),
        _matches_specialty(text),
        *(contains_text(column, text) for column in columns),
    )


_PATIENT_COUNT = (
    select(func.count())
    .select_from(
        union(
            select(Visit.patient_id)
            .where(Visit.doctor_id == Doctor.id, Visit.voided_at.is_(None))
            .correlate(Doctor),
            select(Appointment.patient_id)
            .where(Appointment.doctor_id == Doctor.id, Appointment.status != AppointmentStatus.CANCELLED)
            .correlate(Doctor),
        ).subquery()
    )
    .correlate(Doctor)
    .scalar_subquery()
)
LIST: ListSpec[Doctor] = ListSpec(
    name="doctors",
    model=Doctor,
    area="doctor",
    main_date="created_at",
    text=matches,
    filters={
        "name": Filter(Kind.TEXT, lambda text: words_in(Doctor.name_fold, text), "Parts of the name."),
        "specialty": Filter(Kind.TEXT, _matches_specialty, "Part of one of the specialties."),
    },
    computed={"patient_count": ListColumn(Kind.INTEGER, _PATIENT_COUNT, nullable=False)},
    excluded={"next_available": "the database does not compute free slots"},
    omit=frozenset({"version"}),
)


def find(actor: Actor, query: ListQuery) -> Page[Doctor]:
    """Return one page of doctors."""
    return paging.page(actor, LIST, query)


def add_computed_fields(_actor: Actor, rows: Sequence[Doctor]) -> None:
    """Set `next_available` and `patient_count` of the doctors, with two queries for any number of them.

    `next_available` is the start of the first free slot of `slot_minutes` within `LOOK_AHEAD` days, or None.
    `patient_count` is the number of patients with a visit, or with an appointment that is not cancelled.
    """
    ids, now = [doctor.id for doctor in rows], clock.now()
    doctor_patients = union(
        select(Visit.doctor_id, Visit.patient_id).where(Visit.doctor_id.in_(ids), Visit.voided_at.is_(None)),
        select(Appointment.doctor_id, Appointment.patient_id).where(
            Appointment.doctor_id.in_(ids), Appointment.status != AppointmentStatus.CANCELLED
        ),
    ).subquery()
    counts = mapping(select(doctor_patients.c.doctor_id, func.count()).group_by(doctor_patients.c.doctor_id))
    calendars = availability.load_calendars(rows, now, now + timedelta(days=LOOK_AHEAD + 1))
    for doctor in rows:
        doctor.patient_count = counts.get(doctor.id, 0)
        doctor.next_available = availability.find_first_start(calendars[doctor.id], now, LOOK_AHEAD)


# --- Profile -------------------------------------------------------------------------------------------


def create(
    actor: Actor,
    *,
    name: str | None = None,
    user: Mapping[str, str] | None = None,
    user_id: int | None = None,
    password_hash: str | None = None,
    **fields: Unpack[DoctorFields],
) -> Doctor:
    """Create a doctor, either with an existing user (`user_id`) or with a new one (`user`).

    The user of `user_id` must have the role doctor. `user` is `{email, password}`, and `password_hash` the
    hash of its password. Raises 409 `already_exists` if another doctor has the licence number or the user,
    and 422 if there is no name.
    """
    if user is not None and user_id is not None:
        raise invalid("user", "give either user or user_id")
    if user_id is not None:
        owner = _lock_free_user(user_id)
        name = name or owner.name
    if name is None:
        raise invalid("name", "is required")
    if user is not None:
        user_id = _create_user(actor, name, user, password_hash).id
        fields["email"] = fields.get("email") or user["email"]
    doctor = Doctor(name=name, name_fold=search_key(name), user_id=user_id, **fields)
    db.session.add(doctor)
    db.session.flush()
    return doctor


def _create_user(actor: Actor, name: str, user: Mapping[str, str], password_hash: str | None) -> User:
    return accounts.create_user(
        actor,
        name=name,
        email=user["email"],
        password=user["password"],
        role=Role.DOCTOR,
        password_hash=password_hash,
    )


def _lock_free_user(user_id: int) -> User:
    """Lock and return a user of role doctor that no doctor has yet; 422 or 409 for any other."""
    user = get_referenced(User, user_id, "user_id", lock=True)
    if user.role is not Role.DOCTOR:
        raise invalid("user_id", "must be a user of role doctor")
    if user.doctor is not None:
        message = "Another doctor already has this user."
        raise ClinicError("already_exists", message, errors={"user_id": message})
    return user


def update(
    actor: Actor,
    doctor: Doctor,
    *,
    on_conflict: str | Mapping[str, int] | None = None,
    reassign_to: int | None = None,
    password_hash: str | None = None,
    **changes: Unpack[DoctorChanges],
) -> Doctor:
    """Change the given members of a doctor. Doctors: own profile only, without `CLINIC_ONLY` (403).

    A change of `CALENDAR_MEMBERS` may affect booked appointments: see `resolve_conflicts` for `on_conflict`
    and `reassign_to`. Those of a deactivated doctor cannot be kept.
    """
    actor.require_own(doctor.id)
    values = changed_members(doctor, changes)
    if actor.role is Role.DOCTOR:
        forbid_members(
            values, CLINIC_ONLY, "Only an administrator may change licence, fee, user and activity."
        )
    user = values.pop("user", None)
    if user is not None:
        if doctor.user_id is not None or "user_id" in values:
            raise invalid("user", "the doctor has a user already; clear user_id first")
        name = values.get("name", doctor.name)
        values["user_id"] = _create_user(actor, name, user, password_hash).id
    elif values.get("user_id") is not None:
        _lock_free_user(values["user_id"])
    if "name" in values:
        values["name_fold"] = search_key(values["name"])
    deactivating = values.get("is_active") is False
    affects_appointments = not CALENDAR_MEMBERS.isdisjoint(values)
    reason = "The doctor is no longer available." if deactivating else "The hours of the doctor changed."
    with (
        resolve_conflicts(
            actor,
            doctor,
            reason,
            may_keep=not deactivating,
            on_conflict=on_conflict,
            reassign_to=reassign_to,
        )
        if affects_appointments
        else nullcontext()
    ):
        assign(doctor, values)
    if "is_active" in values:
        audit_log.set_action(doctor, "deactivate" if deactivating else "activate")
    if "buffer_minutes" in values:
        _update_blocked_times(doctor)
    db.session.flush()
    return doctor


def _update_blocked_times(doctor: Doctor) -> None:
    """Apply the new buffer to current and future appointments.

    Where the buffer would reach into the next appointment, the blocked time ends at the start of that one.
    """
    row = Appointment
    booked = db.session.execute(
        select(row.id, row.start, row.end)
        .where(row.doctor_id == doctor.id, row.status.in_(OCCUPYING), row.end > clock.now())
        .order_by(row.start, row.id)
    ).all()
    buffer = timedelta(minutes=doctor.buffer_minutes)
    updates: list[dict[str, Any]] = []
    next_start: datetime | None = None
    for appointment_id, start, end in reversed(booked):
        blocked_until = end + buffer
        if next_start is not None:
            blocked_until = max(end, min(blocked_until, next_start))
        updates.append({"appointment_id": appointment_id, "new_blocked_until": blocked_until})
        next_start = start
    if updates:
        # on the table, not the ORM: an internal column changes neither the version nor the audit log
        table = Base.metadata.tables[row.__tablename__]
        statement = table.update().where(table.c.id == bindparam("appointment_id"))
        db.session.execute(statement.values(blocked_until=bindparam("new_blocked_until")), updates)


def deactivate(actor: Actor, doctor: Doctor, **choice: Unpack[ConflictChoice]) -> Doctor:
    """Deactivate a doctor. The caller holds the lock on the doctor.

    `resolve_conflicts` cancels or reassigns booked appointments, or raises its errors.
    """
    return update(actor, doctor, is_active=False, **choice)
