"""Doctors: profiles, the users they sign in with, and taking them out of service."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, String, bindparam, cast, func, or_, select, union

from enums import AppointmentStatus, Role
from errors import ClinicError, invalid
from extensions import db
from models import Appointment, Base, Doctor, User, Visit
from security.permissions import Actor
from services import clock
from services.audit import audit_log
from services.listing import paging
from services.listing.paging import (
    Filter,
    Kind,
    ListQuery,
    ListSpec,
    Page,
    words_in,
)
from services.rows import (
    assign,
    changed_members,
    forbid_members,
    get_or_404,
    get_referenced,
    lock_rows,
    mapping,
)
from services.scheduling import absences, availability
from services.scheduling.availability import OCCUPYING
from services.search_key import search_key
from services.users import accounts

LOOK_AHEAD = 30  # days in which `next_available` is looked for
# What a doctor may not change of the own profile: licence, fee and account are the clinic's to settle.
CLINIC_ONLY = ("license_number", "license_expires_on", "consultation_fee", "user_id", "user", "is_active")
SETTLEMENT = ("on_conflict", "reassign_to")


def get(actor: Actor, doctor_id: int, *, lock: bool = False, others: Iterable[int] = ()) -> Doctor:
    """The doctor, deactivated ones included, or 404. `lock` holds `others` along, in the order of ids."""
    if lock:
        lock_rows(Doctor, {doctor_id, *others})
    return get_or_404(Doctor, doctor_id)


def _specialised(text: str) -> ColumnElement[bool]:
    stored = cast(Doctor.specialties, String)
    escaped = json.dumps(text)[1:-1]  # SQLite keeps letters beyond ASCII as escapes
    return or_(
        Doctor.specialty.icontains(text, autoescape=True),
        stored.icontains(text, autoescape=True),
        stored.icontains(escaped, autoescape=True),
    )


def matches(text: str) -> ColumnElement[bool]:
    """What `q` finds: parts of the name in any order, a specialty, the licence number, e-mail, phone."""
    columns = (Doctor.license_number, Doctor.email, Doctor.phone)
    return or_(
        words_in(Doctor.name_fold, text),
        _specialised(text),
        *(column.icontains(text, autoescape=True) for column in columns),
    )


LIST: ListSpec[Doctor] = ListSpec(
    name="doctors",
    model=Doctor,
    area="doctor",
    main_date="created_at",
    text=matches,
    filters={
        "name": Filter(Kind.TEXT, lambda text: words_in(Doctor.name_fold, text), "Parts of the name."),
        "specialty": Filter(Kind.TEXT, _specialised, "Part of one of the specialties."),
    },
)


def find(actor: Actor, query: ListQuery) -> Page[Doctor]:
    """One page of doctors."""
    return paging.page(actor, LIST, query)


def add_computed_fields(actor: Actor, rows: Sequence[Doctor]) -> None:
    """Compute what is not stored: the next free time and the number of patients; four queries for any number.

    `next_available` is the first time of the doctor's usual length in the next `LOOK_AHEAD` days, None where
    there is none; `patient_count` those with a visit, or an appointment that was not cancelled.
    """
    ids, now = [doctor.id for doctor in rows], clock.now()
    seen = union(
        select(Visit.doctor_id, Visit.patient_id).where(Visit.doctor_id.in_(ids), Visit.voided_at.is_(None)),
        select(Appointment.doctor_id, Appointment.patient_id).where(
            Appointment.doctor_id.in_(ids), Appointment.status != AppointmentStatus.CANCELLED
        ),
    ).subquery()
    counts = mapping(select(seen.c.doctor_id, func.count()).group_by(seen.c.doctor_id))
    calendars = availability.load(rows, now, now + timedelta(days=LOOK_AHEAD + 1))
    for doctor in rows:
        doctor.patient_count = counts.get(doctor.id, 0)
        doctor.next_available = availability.first_free(calendars[doctor.id], now, LOOK_AHEAD)


# --- Profile -------------------------------------------------------------------------------------------


def create(
    actor: Actor,
    *,
    name: str | None = None,
    user: Mapping[str, str] | None = None,
    user_id: int | None = None,
    **values: Any,
) -> Doctor:
    """A new doctor. `user_id` is an existing user of role doctor, `user` `{email, password}` one to be made.

    Raises 409 `already_exists` for a licence number or user that is taken.
    """
    if user is not None and user_id is not None:
        raise invalid("user", "give either user or user_id")
    if user_id is not None:
        owner = _free_user(user_id)
        name = name or owner.name
    if name is None:
        raise invalid("name", "is required")
    if user is not None:
        user_id = _new_user(actor, name, user).id
        values["email"] = values.get("email") or user["email"]
    doctor = Doctor(name=name, name_fold=search_key(name), user_id=user_id, **values)
    db.session.add(doctor)
    db.session.flush()
    return doctor


def _new_user(actor: Actor, name: str, user: Mapping[str, str]) -> User:
    return accounts.create_user(
        actor, name=name, email=user["email"], password=user["password"], role=Role.DOCTOR, is_active=True
    )


def _free_user(user_id: int) -> User:
    user = get_referenced(User, user_id, "user_id", lock=True)
    if user.role is not Role.DOCTOR:
        raise invalid("user_id", "must be a user of role doctor")
    if user.doctor is not None:
        message = "This user is already a doctor's."
        raise ClinicError("already_exists", message, errors={"user_id": message})
    return user


def update(actor: Actor, doctor: Doctor, **values: Any) -> Doctor:
    """Change the members given; a doctor the own profile, less `CLINIC_ONLY`.

    `is_active` false is `deactivate`, with the same `on_conflict` or `reassign_to`.
    """
    settlement = {member: values.pop(member, None) for member in SETTLEMENT}
    actor.require_own(doctor.id)
    values = changed_members(doctor, values)
    if actor.role is Role.DOCTOR:
        forbid_members(values, CLINIC_ONLY, "Licence, fee, account and activity are the clinic's to change.")
    user = values.pop("user", None)
    if user is not None:
        if doctor.user_id is not None or "user_id" in values:
            raise invalid("user", "the doctor has a user already; clear user_id first")
        values["user_id"] = _new_user(actor, values.get("name", doctor.name), user).id
    elif values.get("user_id") is not None:
        _free_user(values["user_id"])
    if "name" in values:
        values["name_fold"] = search_key(values["name"])
    if values.pop("is_active", doctor.is_active) is not doctor.is_active:
        if doctor.is_active:
            deactivate(actor, doctor, **settlement)
        else:
            doctor.is_active = True
            audit_log.set_action(doctor, "activate")
    assign(doctor, values)
    if "buffer_minutes" in values:
        _rebuffer(doctor)
    db.session.flush()
    return doctor


def _rebuffer(doctor: Doctor) -> None:
    """Block what is booked from now on by the new buffer, as far as the next appointment leaves room."""
    row = Appointment
    booked = db.session.execute(
        select(row.id, row.start, row.end)
        .where(row.doctor_id == doctor.id, row.status.in_(OCCUPYING), row.end > clock.now())
        .order_by(row.start, row.id)
    ).all()
    buffer = timedelta(minutes=doctor.buffer_minutes)
    blocks: list[dict[str, Any]] = []
    following: datetime | None = None
    for appointment_id, start, end in reversed(booked):
        until = end + buffer
        if following is not None:
            until = max(end, min(until, following))
        blocks.append({"which": appointment_id, "until": until})
        following = start
    if blocks:
        # bookkeeping that nobody reads: neither a new version of the appointment nor a change of the record
        table = Base.metadata.tables[row.__tablename__]
        statement = table.update().where(table.c.id == bindparam("which"))
        db.session.execute(statement.values(blocked_until=bindparam("until")), blocks)


def deactivate(
    actor: Actor,
    doctor: Doctor,
    *,
    on_conflict: str | Mapping[str, int] | None = None,
    reassign_to: int | None = None,
) -> Doctor:
    """Take the doctor out of service; the caller holds the row.

    Booked appointments are settled as `absences.settle` says, or refuse it with 409 `booked_appointments`.
    """
    if doctor.is_active:
        booked = absences.booked_with(doctor.id, clock.now())
        absences.resolve_booked_appointments(
            actor,
            booked,
            "The doctor is no longer available.",
            on_conflict=on_conflict,
            reassign_to=reassign_to,
        )
        doctor.is_active = False
        audit_log.set_action(doctor, "deactivate")
    return doctor
