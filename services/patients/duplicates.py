"""Likely duplicates: a similar name together with something that only one person should have.

Families share telephones and addresses, so that none of these counts without the name. Patients on file
twice are how allergies get lost: ONC, "Patient Identification SAFER Guide" (2016), asks for a warning at
registration that can be overridden.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from datetime import date
from functools import cache
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Select, bindparam, or_, select, true

from database.engine import PREPARED, tell
from extensions import db
from models import Patient
from services.patients.name_matching import similar_names
from services.rows import execute_core, next_id

NAMING = ("name_fold", "date_of_birth", "phone_e164", "phone_digits", "email", "insurance_id")
SHOWN = 10  # candidates an answer names at most


def traits(values: Mapping[str, Any]) -> dict[str, str | date]:
    """What tells a person apart, in the form in which it is compared; without what is not known.

    `values` holds the fields of `NAMING`.
    """
    found: dict[str, str | date | None] = {
        "date_of_birth": values.get("date_of_birth"),
        "phone": values.get("phone_e164") or values.get("phone_digits"),
        "email": (values.get("email") or "").lower(),
        "insurance_id": (values.get("insurance_id") or "").strip(),
    }
    return {name: value for name, value in found.items() if value}


def hold(values: Mapping[str, Any]) -> None:
    """Make two registrations of one person wait for each other until the end of the transaction.

    SQLite lets one writer in at a time anyway.
    """
    session = db.session()
    if session.get_bind().dialect.name != "postgresql":
        return
    keys = sorted(
        int.from_bytes(hashlib.blake2b(f"{name}={value}".encode(), digest_size=8).digest(), signed=True)
        for name, value in traits(values).items()
    )
    if keys:  # in one order, so that two never wait for each other in a circle
        tell(session.connection(), _HOLD, {"keys": keys})


_HOLD = "SELECT pg_advisory_xact_lock(key) FROM unnest(CAST(%(keys)s AS bigint[])) AS key"


class Likely(NamedTuple):
    """Patients who may be the person told of, each with what both have in common; for a new one, its id."""

    patients: Sequence[tuple[Patient, list[str]]] = ()
    new_id: int | None = None


def likely(values: Mapping[str, Any], *, but: int | None = None) -> Likely:
    """The likely duplicates, archived ones included, but for the patient with the id `but`.

    Of somebody new, the same round trip brings the id to come, where the database gives ids before a row.
    """
    told = traits(values)
    if not told:
        return Likely()
    asked: dict[str, Any] = dict(told)
    if insured := asked.get("insurance_id"):
        asked["insurance_id"] = sorted({insured, insured.upper(), insured.lower()})
    dialect = db.session.get_bind().dialect.name
    statement = _sharing(tuple(told), bool(values.get("phone_e164")), dialect if but is None else "")
    rows = execute_core(statement, but=but or 0, **asked).all()
    new_id = rows[0].new_id if rows else None
    similar = [row.id for row in rows if row.id and similar_names(values["name_fold"], row.name_fold)]
    if not similar:
        return Likely(new_id=new_id)
    patients = db.session.execute(
        select(Patient).where(Patient.id.in_(similar[:SHOWN])).order_by(Patient.id)
    ).scalars()
    return Likely([(patient, _common(told, patient)) for patient in patients], new_id)


def _common(told: Mapping[str, Any], patient: Patient) -> list[str]:
    theirs = traits({field: getattr(patient, field) for field in NAMING})
    return [field for field, value in told.items() if _same(field, value, theirs.get(field))]


@cache
def _sharing(names: tuple[str, ...], international: bool, new_in: str) -> Select[Any]:
    """Other patients with one of these traits; beside them the id of a new one in this kind of database."""
    phone = Patient.phone_e164 if international else Patient.phone_digits
    places = {"phone": phone, "date_of_birth": Patient.date_of_birth, "email": Patient.email}
    equal: list[ColumnElement[bool]] = [
        places[name] == bindparam(name)
        if name in places
        else Patient.insurance_id.in_(bindparam(name, expanding=True))
        for name in names
    ]
    other = or_(*equal), Patient.id != bindparam("but")
    sharing = select(Patient.id, Patient.name_fold).where(*other).subquery()
    new = select(next_id(Patient, new_in).label("new_id")).subquery()
    return (
        select(new.c.new_id, sharing.c.id, sharing.c.name_fold)
        .prefix_with(PREPARED)
        .select_from(new.outerjoin(sharing, true()))
        .order_by(sharing.c.id)
    )


def _same(name: str, one: Any, other: Any) -> bool:
    if name == "insurance_id" and other is not None:
        return bool(one.casefold() == other.casefold())
    return bool(one == other)
