"""Likely duplicates: a similar name together with something that only one person should have.

Families share telephones and addresses, so that none of these counts without the name. Patients on file
twice are how allergies get lost: ONC, "Patient Identification SAFER Guide" (2016), asks for a warning at
registration that can be overridden.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import date
from functools import cache
from typing import Any

from sqlalchemy import ColumnElement, Select, bindparam, or_, select

from database.functions import lock_keys
from extensions import db
from models import Patient
from services.patients.name_matching import similar_names
from services.rows import execute_core

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


def lock_traits(values: Mapping[str, Any]) -> None:
    """Serialize the registrations of patients who share a trait until the end of the transaction."""
    lock_keys(
        db.session.connection(),
        (
            int.from_bytes(hashlib.blake2b(f"{name}={value}".encode(), digest_size=8).digest(), signed=True)
            for name, value in traits(values).items()
        ),
    )


def find_likely(values: Mapping[str, Any], *, except_id: int = 0) -> list[tuple[Patient, list[str]]]:
    """Return likely duplicates, archived patients included, each with the names of the shared traits.

    `values` holds the fields of `NAMING`. At most `SHOWN` patients, ordered by id, without `except_id`.
    """
    own = traits(values)
    if not own:
        return []
    parameters: dict[str, Any] = dict(own)
    if insurance_id := parameters.get("insurance_id"):
        parameters["insurance_id"] = sorted({insurance_id, insurance_id.upper(), insurance_id.lower()})
    statement = _sharing(tuple(own), bool(values.get("phone_e164")))
    rows = execute_core(statement, except_id=except_id, **parameters).all()
    similar = [row.id for row in rows if similar_names(values["name_fold"], row.name_fold)]
    if not similar:
        return []
    patients = db.session.execute(
        select(Patient).where(Patient.id.in_(similar[:SHOWN])).order_by(Patient.id)
    ).scalars()
    return [(patient, _common(own, patient)) for patient in patients]


def _common(told: Mapping[str, Any], patient: Patient) -> list[str]:
    theirs = traits({field: getattr(patient, field) for field in NAMING})
    return [field for field, value in told.items() if _same(field, value, theirs.get(field))]


@cache
def _sharing(names: tuple[str, ...], international: bool) -> Select[Any]:
    """Return the statement that selects other patients with one of the named traits."""
    phone = Patient.phone_e164 if international else Patient.phone_digits
    columns = {"phone": phone, "date_of_birth": Patient.date_of_birth, "email": Patient.email}
    equal: list[ColumnElement[bool]] = [
        columns[name] == bindparam(name)
        if name in columns
        else Patient.insurance_id.in_(bindparam(name, expanding=True))
        for name in names
    ]
    return (
        select(Patient.id, Patient.name_fold)
        .where(or_(*equal), Patient.id != bindparam("except_id"))
        .order_by(Patient.id)
        .execution_options(prepare=True)
    )


def _same(name: str, one: Any, other: Any) -> bool:
    if name == "insurance_id" and other is not None:
        return bool(one.casefold() == other.casefold())
    return bool(one == other)
