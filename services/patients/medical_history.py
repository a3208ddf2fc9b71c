"""Medical histories: what a patient brings along."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import selectinload

from errors import ClinicError, invalid, not_found
from extensions import db
from models import Allergy, Base, Condition, HomeMedication, MedicalHistory
from security.permissions import Actor
from services import clock
from services.clinical import icd10
from services.patients import patients
from services.rows import assign, changed_members, for_update
from services.search_key import search_key

Entry = Mapping[str, Any]


def get(actor: Actor, patient_id: int, *, lock: bool = False) -> MedicalHistory:
    """The patient's medical history, or 404.

    `lock` holds the patient too, as prescribing does: an allergy is either seen by it or recorded after it.
    """
    patients.get(actor, patient_id, lock=lock)
    statement = (
        select(MedicalHistory)
        .where(MedicalHistory.patient_id == patient_id)
        .options(
            selectinload(MedicalHistory.patient),
            selectinload(MedicalHistory.allergies),
            selectinload(MedicalHistory.conditions),
            selectinload(MedicalHistory.medications),
        )
    )
    if lock:
        statement = for_update(statement)
    history = db.session.execute(statement).scalar_one_or_none()
    if history is None:
        raise not_found("medical history")
    return history


def update(actor: Actor, history: MedicalHistory, **values: Any) -> MedicalHistory:
    """Change the members given; a list is replaced as a whole, None empties it.

    Raises 409 `already_exists` for an allergen named twice, 422 for an ICD-10-CM code that does not exist
    and for a `since` that lies ahead.
    """
    lists = {name: values.pop(name) or [] for name in READERS if name in values}
    rows = {name: READERS[name](entries) for name, entries in lists.items()}
    rows = {name: new for name, new in rows.items() if not _same(getattr(history, name), new)}
    scalars = changed_members(history, values)
    if rows or scalars:
        _replace(history, rows)
        assign(history, scalars)
        history.updated_at = clock.now()  # the history's version rises although only a list changed
    return history


def _replace(history: MedicalHistory, rows: Mapping[str, Sequence[Base]]) -> None:
    old = [row for name in rows for row in getattr(history, name)]
    for row in old:
        db.session.delete(row)
    if old:
        db.session.flush()  # first out, then in: an allergen may be in both
        db.session.expire(history, list(rows))
    for name, new in rows.items():
        setattr(history, name, list(new))


def _same(stored: Sequence[Any], new: Sequence[Any]) -> bool:
    def told(row: Any) -> list[Any]:
        links = ("id", "medical_history_id")
        return [getattr(row, c.key) for c in row.__mapper__.column_attrs if c.key not in links]

    return [told(row) for row in stored] == [told(row) for row in new]


# --- Reading entries -----------------------------------------------------------------------------------


def _allergies(entries: Sequence[Entry]) -> list[Allergy]:
    rows: dict[str, Allergy] = {}
    for number, entry in enumerate(entries):
        row = Allergy(**entry, substance_fold=search_key(entry["substance"]))
        if row.substance_fold in rows:
            field = f"allergies.{number}.substance"
            problem = "this allergen is already recorded"
            raise ClinicError("already_exists", f"{field}: {problem}.", errors={field: problem})
        rows[row.substance_fold] = row
    return list(rows.values())


def _conditions(entries: Sequence[Entry]) -> list[Condition]:
    rows = []
    for number, entry in enumerate(entries):
        _check_since(entry, f"conditions.{number}.since")
        code = entry["icd10"]
        if code is not None and not icd10.is_valid(code):
            raise invalid(f"conditions.{number}.icd10", "is not an ICD-10-CM code such as E11.9")
        told = {**entry, "icd10": icd10.normalize(code) if code is not None else None}
        rows.append(Condition(**told, name_fold=search_key(entry["name"])))
    return rows


def _medications(entries: Sequence[Entry]) -> list[HomeMedication]:
    for number, entry in enumerate(entries):
        _check_since(entry, f"medications.{number}.since")
    return [HomeMedication(**entry) for entry in entries]


def _check_since(entry: Entry, field: str) -> None:
    if entry["since"] is not None and entry["since"] > clock.today():
        raise invalid(field, "must not be in the future")


READERS: dict[str, Callable[[Sequence[Entry]], Sequence[Base]]] = {
    "allergies": _allergies,
    "conditions": _conditions,
    "medications": _medications,
}
