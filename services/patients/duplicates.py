"""Likely duplicates: patients with a similar name and at least one equal identifying trait.

Traits are date of birth, phone, e-mail and insurance number. Families share phones and addresses, so a trait
alone is not enough. If one person has two records, an allergy in one of them can be missed: ONC, "Patient
Identification SAFER Guide" (2016), requires a warning at registration that a user can override.
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

IDENTIFYING_FIELDS = ("name_fold", "date_of_birth", "phone_e164", "phone_digits", "email", "insurance_id")
MAX_CANDIDATES = 10  # patients in one response


def get_traits(values: Mapping[str, Any]) -> dict[str, str | date]:
    """Return the identifying traits in the form in which they are compared, without unknown ones.

    `values` holds the `IDENTIFYING_FIELDS`.
    """
    traits: dict[str, str | date | None] = {
        "date_of_birth": values.get("date_of_birth"),
        "phone": values.get("phone_e164") or values.get("phone_digits"),
        "email": (values.get("email") or "").lower(),
        "insurance_id": (values.get("insurance_id") or "").strip(),
    }
    return {name: value for name, value in traits.items() if value}


def lock_traits(values: Mapping[str, Any]) -> None:
    """Make registrations of patients who share a trait wait for each other until the transaction ends."""
    lock_keys(
        db.session.connection(),
        (
            int.from_bytes(hashlib.blake2b(trait.encode(), digest_size=8).digest(), signed=True)
            for trait in (f"{name}={value}".casefold() for name, value in get_traits(values).items())
        ),
    )


def find_likely(values: Mapping[str, Any], *, except_id: int = 0) -> list[tuple[Patient, list[str]]]:
    """Return likely duplicates, archived patients included, each with the names of the shared traits.

    `values` holds the `IDENTIFYING_FIELDS`. At most `MAX_CANDIDATES` patients, ordered by id, without
    `except_id`.
    """
    traits = get_traits(values)
    if not traits:
        return []
    parameters: dict[str, Any] = dict(traits)
    if insurance_id := parameters.get("insurance_id"):
        parameters["insurance_id"] = sorted({insurance_id, insurance_id.upper(), insurance_id.lower()})
    statement = _select_sharing(tuple(traits), bool(values.get("phone_e164")))
    rows = execute_core(statement, except_id=except_id, **parameters).all()
    similar = [row.id for row in rows if similar_names(values["name_fold"], row.name_fold)]
    if not similar:
        return []
    patients = db.session.execute(
        select(Patient).where(Patient.id.in_(similar[:MAX_CANDIDATES])).order_by(Patient.id)
    ).scalars()
    return [(patient, _find_shared_traits(traits, patient)) for patient in patients]


def _find_shared_traits(traits: Mapping[str, Any], patient: Patient) -> list[str]:
    other_traits = get_traits({field: getattr(patient, field) for field in IDENTIFYING_FIELDS})
    return [name for name, value in traits.items() if _equal_traits(name, value, other_traits.get(name))]


def _equal_traits(name: str, value: Any, other: Any) -> bool:
    if name == "insurance_id" and other is not None:
        return bool(value.casefold() == other.casefold())
    return bool(value == other)


@cache
def _select_sharing(names: tuple[str, ...], international: bool) -> Select[Any]:
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
