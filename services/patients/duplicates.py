"""Likely duplicates: patients with a similar name and at least one equal identifying trait.

Traits are date of birth, phone, e-mail and insurance number. Families share phones and addresses, so a trait
alone is not enough. If one person has two records, an allergy in one of them can be missed: ONC, "Patient
Identification SAFER Guide" (2016), requires a warning at registration that a user can override.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping
from datetime import date
from functools import cache
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, bindparam, or_, select

from column_types import unique_key
from database.functions import lock_keys
from enums import BirthDatePrecision
from extensions import db
from models import Patient
from services.patients import birth_dates
from services.patients.name_matching import NameComparison
from services.rows import execute_core

IDENTIFYING_FIELDS = (
    *("name_fold", "date_of_birth", "birth_date_precision", "phone_e164", "phone_digits", "email"),
    "insurance_id",
)
MAX_CANDIDATES = 10  # patients in one response
# Returns those of the ids that are no duplicates.
FindIgnored = Callable[[Collection[int]], Collection[int]]


def get_traits(values: Mapping[str, Any]) -> dict[str, str]:
    """Return the identifying traits in the form in which they are compared, without unknown ones.

    `values` holds the `IDENTIFYING_FIELDS`.
    """
    traits: dict[str, str | None] = {
        "date_of_birth": birth_dates.format_known(
            values.get("date_of_birth"), values.get("birth_date_precision")
        ),
        "phone": values.get("phone_e164") or values.get("phone_digits"),
        "email": unique_key(values.get("email") or ""),
        "insurance_id": unique_key(values.get("insurance_id") or ""),
    }
    return {name: value for name, value in traits.items() if value}


def ignore_nobody(_ids: Collection[int]) -> Collection[int]:
    """Return no ids: each similar patient is a likely duplicate."""
    return ()


def lock_traits(*registrations: Mapping[str, Any]) -> None:
    """Make registrations of patients who share a trait wait for each other until the transaction ends.

    A date of birth counts by its year, because a date of which only the year is known may be the same.
    """
    traits = {
        f"{name}={value[:4] if name == 'date_of_birth' else value}"
        for values in registrations
        for name, value in get_traits(values).items()
    }
    lock_keys(
        db.session.connection(),
        (
            int.from_bytes(hashlib.blake2b(trait.encode(), digest_size=8).digest(), signed=True)
            for trait in traits
        ),
    )


def find_likely(
    values: Mapping[str, Any],
    *,
    except_id: int = 0,
    find_ignored: FindIgnored = ignore_nobody,
) -> list[tuple[Patient, list[str]]]:
    """Return likely duplicates, archived patients included, each with the names of the shared traits.

    `values` holds the `IDENTIFYING_FIELDS`. At most `MAX_CANDIDATES` patients, ordered by id, without
    `except_id` and those of the found ids that `find_ignored` returns.
    """
    traits = get_traits(values)
    if not traits:
        return []
    parameters: dict[str, Any] = dict(traits)
    if parameters.pop("date_of_birth", None) is not None:
        first: date = values["date_of_birth"]
        last = birth_dates.last_possible(first, values.get("birth_date_precision"))
        parameters |= {"first": first, "last": last, "month": first.replace(day=1)}
        parameters["year"] = first.replace(month=1, day=1)
    statement = _select_sharing(tuple(traits), bool(values.get("phone_e164")))
    rows = execute_core(statement, except_id=except_id, **parameters).all()
    name = NameComparison(values["name_fold"])
    similar = [row.id for row in rows if name.is_similar_to(row.name_fold)]
    ignored = find_ignored(similar) if similar else ()
    similar = [row_id for row_id in similar if row_id not in ignored]
    if not similar:
        return []
    patients = db.session.execute(
        select(Patient).where(Patient.id.in_(similar[:MAX_CANDIDATES])).order_by(Patient.id)
    ).scalars()
    return [(patient, _find_shared_traits(traits, patient)) for patient in patients]


def _find_shared_traits(traits: Mapping[str, Any], patient: Patient) -> list[str]:
    other_traits = get_traits({field: getattr(patient, field) for field in IDENTIFYING_FIELDS})
    return [name for name, value in traits.items() if _equal_traits(name, value, other_traits.get(name))]


def _equal_traits(name: str, value: str, other: str | None) -> bool:
    if name == "date_of_birth" and other is not None:
        return value.startswith(other) or other.startswith(value)  # 1990 and 1990-11-05
    return value == other


@cache
def _select_sharing(names: tuple[str, ...], international: bool) -> Select[Any]:
    """Return the statement that selects other patients with one of the named traits."""
    phone = Patient.phone_e164 if international else Patient.phone_digits
    equal: dict[str, ColumnElement[bool]] = {
        "date_of_birth": _may_be_born_on_same_day(),
        "phone": phone == bindparam("phone"),
        "email": Patient.email_key == bindparam("email"),
        "insurance_id": Patient.insurance_id_key == bindparam("insurance_id"),
    }
    return (
        select(Patient.id, Patient.name_fold)
        .where(or_(*(equal[name] for name in names)), Patient.id != bindparam("except_id"))
        .order_by(Patient.id)
        .execution_options(prepare=True)
    )


def _may_be_born_on_same_day() -> ColumnElement[bool]:
    """Return the condition: born in the known period, or in its month or year if only that is known."""
    precision = Patient.birth_date_precision
    year_only = (BirthDatePrecision.YEAR, BirthDatePrecision.ESTIMATED)
    return or_(
        Patient.date_of_birth.between(bindparam("first"), bindparam("last")),
        and_(Patient.date_of_birth == bindparam("month"), precision == BirthDatePrecision.MONTH),
        and_(Patient.date_of_birth == bindparam("year"), precision.in_(year_only)),
    )
