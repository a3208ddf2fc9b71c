"""Medical histories: allergies, conditions and home medications of a patient."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypedDict, Unpack

from sqlalchemy import select
from sqlalchemy.orm import selectinload

from enums import AllergySeverity
from errors import ClinicError, invalid, not_found
from extensions import db
from models import Allergy, Base, Condition, HomeMedication, MedicalHistory, User
from security.permissions import Actor, Permission
from services import clock
from services.clinical import icd10
from services.patients import patients
from services.patients.allergy_denials import means_none_known
from services.rows import assign, changed_members, for_update
from services.search_key import search_key

Entry = Mapping[str, Any]


class MedicalHistoryChanges(TypedDict, total=False):
    """Members of a change of a medical history; absent ones stay as they are, None empties a list."""

    allergies: Sequence[Entry] | None
    no_known_allergies: bool | None
    conditions: Sequence[Entry] | None
    medications: Sequence[Entry] | None
    surgical_history: str | None
    family_history: str | None
    notes: str | None


def get(actor: Actor, patient_id: int, *, lock: bool = False) -> MedicalHistory:
    """Return the patient's medical history, or raise 404, or 403 without emergency access to the patient.

    `lock` also locks the patient, as prescribing does. So the safety check of a prescription either reads
    a new allergy, or the allergy is recorded after the prescription.
    """
    patients.get(actor, patient_id, lock=lock)
    actor.require(Permission.HISTORY_READ, patient_id=patient_id)
    statement = (
        select(MedicalHistory)
        .where(MedicalHistory.patient_id == patient_id)
        .options(
            selectinload(MedicalHistory.patient),
            selectinload(MedicalHistory.no_known_allergies_by),
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


def add_computed_fields(_actor: Actor, rows: Sequence[MedicalHistory]) -> None:
    """Set the warnings about ICD-10-CM codes that are not billable."""
    for history in rows:
        history.warnings = icd10.warnings(condition.icd10 for condition in history.conditions)


def update(actor: Actor, history: MedicalHistory, **changes: Unpack[MedicalHistoryChanges]) -> MedicalHistory:
    """Change the given members of a medical history. A list is replaced as a whole.

    An allergy such as NKDA becomes `no_known_allergies`. A new list of allergens clears that statement.
    Raises 409 `already_exists` for the same allergen twice. Raises 422 for an unknown ICD-10-CM code, a
    `since` in the future, and for `no_known_allergies` together with an allergen.
    """
    values: dict[str, Any] = dict(changes)
    is_none_known = _take_none_known(history, values)
    lists = {name: values.pop(name) or [] for name in ROW_BUILDERS if name in values}
    rows = {name: ROW_BUILDERS[name](entries) for name, entries in lists.items()}
    rows = {name: new for name, new in rows.items() if not _equal_rows(getattr(history, name), new)}
    scalars = changed_members(history, values)
    if is_none_known is not history.no_known_allergies:
        scalars["no_known_allergies_at"] = clock.now() if is_none_known else None
        scalars["no_known_allergies_by"] = db.session.get(User, actor.user_id) if is_none_known else None
    if rows or scalars:
        _replace_rows(history, rows)
        assign(history, scalars)
        history.updated_at = clock.now()  # raises the version, also if only a list changed
    return history


def _take_none_known(history: MedicalHistory, values: dict[str, Any]) -> bool:
    """Take `no_known_allergies` and the texts that mean it from the members. Return the new statement."""
    is_given = "no_known_allergies" in values
    statement = bool(values.pop("no_known_allergies", history.no_known_allergies))
    allergens: Sequence[Any] = history.allergies
    if "allergies" in values:
        entries = values["allergies"] or []
        allergens = values["allergies"] = [entry for entry in entries if not _means_none_known(entry)]
        if len(allergens) < len(entries):
            statement = True
        elif allergens and not is_given:
            statement = False
    if statement and allergens:
        raise invalid("no_known_allergies", "must not be true together with an allergen")
    return statement


def _means_none_known(entry: Entry) -> bool:
    has_details = entry.get("reaction") is not None or entry.get("severity") not in (
        None,
        AllergySeverity.UNKNOWN,
    )
    return not has_details and means_none_known(entry["substance"])


def _replace_rows(history: MedicalHistory, rows: Mapping[str, Sequence[Base]]) -> None:
    old = [row for name in rows for row in getattr(history, name)]
    for row in old:
        db.session.delete(row)
    if old:
        db.session.flush()  # delete before insert: the same allergen may be in the old and the new list
        db.session.expire(history, list(rows))
    for name, new in rows.items():
        setattr(history, name, list(new))


def _equal_rows(stored: Sequence[Base], new: Sequence[Base]) -> bool:
    return [_own_values(row) for row in stored] == [_own_values(row) for row in new]


def _own_values(row: Base) -> list[Any]:
    keys = ("id", "medical_history_id")
    return [getattr(row, column.key) for column in row.__mapper__.column_attrs if column.key not in keys]


# --- Rows of the lists ---------------------------------------------------------------------------------


def _build_allergies(entries: Sequence[Entry]) -> list[Allergy]:
    rows: dict[str, Allergy] = {}
    for number, entry in enumerate(entries):
        row = Allergy(**entry, substance_fold=search_key(entry["substance"]))
        if row.substance_fold in rows:
            field = f"allergies.{number}.substance"
            problem = "this allergen is already recorded"
            raise ClinicError("already_exists", f"{field}: {problem}.", errors={field: problem})
        rows[row.substance_fold] = row
    return list(rows.values())


def _build_conditions(entries: Sequence[Entry]) -> list[Condition]:
    rows = []
    for number, entry in enumerate(entries):
        _check_since(entry, f"conditions.{number}.since")
        code = entry["icd10"]
        if code is not None and not icd10.is_valid(code):
            raise invalid(f"conditions.{number}.icd10", "is not an ICD-10-CM code such as E11.9")
        values = {**entry, "icd10": icd10.normalize(code) if code is not None else None}
        rows.append(Condition(**values, name_fold=search_key(entry["name"])))
    return rows


def _build_medications(entries: Sequence[Entry]) -> list[HomeMedication]:
    for number, entry in enumerate(entries):
        _check_since(entry, f"medications.{number}.since")
    return [HomeMedication(**entry) for entry in entries]


def _check_since(entry: Entry, field: str) -> None:
    if entry["since"] is not None and entry["since"] > clock.today():
        raise invalid(field, "must not be in the future")


ROW_BUILDERS: dict[str, Callable[[Sequence[Entry]], Sequence[Base]]] = {
    "allergies": _build_allergies,
    "conditions": _build_conditions,
    "medications": _build_medications,
}
