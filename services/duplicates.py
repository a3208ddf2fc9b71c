"""Likely duplicates: a similar name together with something that only one person should have.

Families share telephones and addresses, so that none of these counts without the name. Patients on file
twice are how allergies get lost: ONC, "Patient Identification SAFER Guide" (2016), asks for a warning at
registration that can be overridden.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import date
from typing import Any

from sqlalchemy import ColumnElement, or_, select, text

from extensions import db
from models import Patient
from services import phones
from services.records import columns
from services.spelling import similar_names
from services.text import fold

NAMING = ("name", "date_of_birth", "phone", "email", "insurance_id")
SHOWN = 10  # candidates an answer names at most


def traits(values: Mapping[str, Any]) -> dict[str, str | date]:
    """What tells a person apart, in the form in which it is compared; without what is not known.

    `values` holds the fields of `NAMING`.
    """
    found: dict[str, str | date | None] = {
        "date_of_birth": values.get("date_of_birth"),
        "phone": phones.e164(values.get("phone")) or phones.searchable(values.get("phone")),
        "email": (values.get("email") or "").lower(),
        "insurance_id": (values.get("insurance_id") or "").strip(),
    }
    return {name: value for name, value in found.items() if value}


def hold(values: Mapping[str, Any]) -> None:
    """Make two registrations of one person wait for each other until the end of the transaction.

    SQLite lets one writer in at a time anyway.
    """
    if db.session.get_bind().dialect.name != "postgresql":
        return
    keys = sorted(
        int.from_bytes(hashlib.blake2b(f"{name}={value}".encode(), digest_size=8).digest(), signed=True)
        for name, value in traits(values).items()
    )
    if keys:  # in one order, so that two never wait for each other in a circle
        columns(_HOLD, keys=keys)


_HOLD = text("SELECT pg_advisory_xact_lock(key) FROM unnest(CAST(:keys AS bigint[])) AS key")


def likely(values: Mapping[str, Any], *, but: int | None = None) -> list[tuple[Patient, list[str]]]:
    """Patients who may be the person told of, archived ones included, with what both have in common."""
    told = traits(values)
    if not told:
        return []
    statement = (
        select(Patient.id, Patient.name_fold)
        .where(or_(*(_equals(name, value) for name, value in told.items())))
        .order_by(Patient.id)
    )
    if but is not None:
        statement = statement.where(Patient.id != but)
    name = fold(values["name"])
    similar = [row.id for row in db.session.execute(statement) if similar_names(name, row.name_fold)]
    if not similar:
        return []
    patients = db.session.execute(
        select(Patient).where(Patient.id.in_(similar[:SHOWN])).order_by(Patient.id)
    ).scalars()
    return [(patient, _common(told, patient)) for patient in patients]


def _common(told: Mapping[str, Any], patient: Patient) -> list[str]:
    theirs = traits({field: getattr(patient, field) for field in NAMING})
    return [field for field, value in told.items() if _same(field, value, theirs.get(field))]


def _equals(name: str, value: Any) -> ColumnElement[bool]:
    if name == "insurance_id":
        return Patient.insurance_id.in_({value, value.upper(), value.lower()})
    if name == "phone":
        name = "phone_e164" if value.startswith("+") else "phone_digits"
    found: ColumnElement[bool] = getattr(Patient, name) == value
    return found


def _same(name: str, one: Any, other: Any) -> bool:
    if name == "insurance_id" and other is not None:
        return bool(one.casefold() == other.casefold())
    return bool(one == other)
