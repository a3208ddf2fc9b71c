"""The import of patients, with allergies, conditions and medications as lists of texts."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, get_args

from sqlalchemy import func, select, union

from enums import AppointmentStatus, Gender, ImportSubject
from errors import ClinicError
from extensions import db
from models import Appointment, Billing, LedgerEntry, MedicalHistory, Patient, Visit
from resources.import_kinds.members import stored_members, validated, validated_changes
from resources.import_kinds.shared_columns import EMAIL, FILE_NUMBER, IS_ACTIVE, PHONE
from schemas.patient import BloodType, MedicalHistoryIn, PatientCreate, PatientPatch
from security.permissions import Actor
from services.imports.kinds import ImportKind, ImportRow, freed
from services.imports.undone_rows import undone_ids
from services.patients import birth_dates, duplicates, medical_history, patients
from services.rows import mapping
from services.spreadsheets.columns import CellType, ImportColumn

HISTORY = ("allergies", "conditions", "medications", "surgical_history", "family_history", "medical_notes")
COLUMNS = (
    FILE_NUMBER,
    ImportColumn(
        "name",
        CellType.TEXT,
        required=True,
        synonyms=(
            *("full name", "patient name", "patient", "names", "client name", "jina", "jina kamili"),
            *("nom complet", "nom et prénom", "nombre", "nombre completo", "nome", "nome completo", "الاسم"),
        ),
    ),
    ImportColumn(
        "gender",
        CellType.ENUM,
        values=tuple(Gender),
        synonyms=("sex", "jinsia", "sexe", "genre", "sexo", "género", "gênero", "الجنس"),
    ),
    ImportColumn(
        "date_of_birth",
        CellType.DATE,
        synonyms=(
            *("dob", "birth date", "birthdate", "birthday", "born", "d.o.b.", "tarehe ya kuzaliwa"),
            *("date de naissance", "né le", "fecha de nacimiento", "data de nascimento", "تاريخ الميلاد"),
        ),
    ),
    ImportColumn(
        "estimated_age",
        CellType.INTEGER,
        synonyms=("age", "age in years", "umri", "âge", "edad", "idade", "العمر"),
    ),
    ImportColumn(
        "deceased_on",
        CellType.DATE,
        synonyms=(
            *("date of death", "deceased", "died on", "tarehe ya kifo", "date de décès"),
            *("fecha de defunción", "data do óbito", "تاريخ الوفاة"),
        ),
    ),
    PHONE,
    EMAIL,
    ImportColumn(
        "address",
        CellType.TEXT,
        synonyms=(
            *("home address", "residence", "location", "village", "anwani", "makazi", "adresse"),
            *("dirección", "domicilio", "endereço", "morada", "العنوان"),
        ),
    ),
    ImportColumn(
        "blood_type",
        CellType.ENUM,
        values=get_args(BloodType),
        synonyms=(
            *("blood group", "blood", "kundi la damu", "groupe sanguin", "grupo sanguíneo"),
            *("tipo sanguíneo", "فصيلة الدم"),
        ),
    ),
    ImportColumn(
        "insurance_provider",
        CellType.TEXT,
        synonyms=(
            *("insurance", "insurer", "insurance company", "scheme", "bima", "kampuni ya bima", "assurance"),
            *("assureur", "aseguradora", "seguro", "seguradora", "convênio", "التأمين", "شركة التأمين"),
        ),
    ),
    ImportColumn(
        "insurance_id",
        CellType.CODE,
        synonyms=(
            *("insurance number", "insurance no", "policy number", "member number", "membership number"),
            *(
                "namba ya bima",
                "numéro d'assuré",
                "numéro d'assurance",
                "número de póliza",
                "número de afiliado",
            ),
            *("número do seguro", "رقم التأمين"),
        ),
    ),
    ImportColumn(
        "emergency_contact_name",
        CellType.TEXT,
        synonyms=(
            *("emergency contact", "next of kin", "kin", "guardian", "mtu wa dharura", "ndugu wa karibu"),
            *("contact d'urgence", "personne à prévenir", "contacto de emergencia", "contato de emergência"),
            *("جهة اتصال الطوارئ",),
        ),
    ),
    ImportColumn(
        "emergency_contact_phone",
        CellType.PHONE,
        synonyms=(
            *("emergency phone", "emergency number", "next of kin phone", "guardian phone"),
            *("simu ya dharura", "téléphone d'urgence", "teléfono de emergencia", "telefone de emergência"),
            *("هاتف الطوارئ",),
        ),
    ),
    ImportColumn(
        "language",
        CellType.CODE,
        synonyms=("preferred language", "lugha", "langue", "idioma", "língua", "اللغة"),
    ),
    IS_ACTIVE,
    ImportColumn(
        "allergies",
        CellType.LIST,
        synonyms=("allergy", "mzio", "allergie", "alergias", "alergia", "الحساسية"),
    ),
    ImportColumn(
        "conditions",
        CellType.LIST,
        synonyms=(
            *("chronic conditions", "chronic diseases", "diagnoses", "problems", "past medical history"),
            *("magonjwa", "maladies", "antécédents", "enfermedades", "antecedentes", "doenças", "الأمراض"),
        ),
    ),
    ImportColumn(
        "medications",
        CellType.LIST,
        synonyms=(
            *(
                "medication",
                "current medications",
                "medicines",
                "drugs",
                "dawa",
                "médicaments",
                "traitements",
            ),
            *("medicamentos", "medicación", "الأدوية"),
        ),
    ),
    ImportColumn(
        "surgical_history",
        CellType.TEXT,
        synonyms=("surgeries", "operations", "upasuaji", "chirurgies", "cirugías", "cirurgias", "العمليات"),
    ),
    ImportColumn("family_history", CellType.TEXT, synonyms=("historia ya familia", "antécédents familiaux")),
    ImportColumn(
        "medical_notes",
        CellType.TEXT,
        synonyms=("notes", "remarks", "comments", "maelezo", "remarques", "notas", "observações", "ملاحظات"),
    ),
)


def _validate(members: Mapping[str, Any]) -> dict[str, Any]:
    """Return the members of the patient, with those of the medical history as `history`."""
    person = {name: value for name, value in members.items() if name not in HISTORY}
    if person.get("date_of_birth") is not None:
        person.pop("estimated_age", None)  # an age beside a date of birth adds nothing
    history = {name: members[name] for name in HISTORY if members.get(name) is not None}
    if "medical_notes" in history:
        history["notes"] = history.pop("medical_notes")
    values = validated(PatientCreate, person).model_dump(exclude={"allow_duplicate"})
    entries = validated(MedicalHistoryIn, history).model_dump()
    values["history"] = {name: entries[name] for name in history}
    return values


def _create(actor: Actor, row: ImportRow) -> Patient:
    values = dict(row.values)
    history = values.pop("history")
    notes = [*row.notes, *_gaps(values)]
    if notes:
        values |= {"needs_review": True, "review_notes": "Import: " + "; ".join(notes)}
    patient = patients.register(
        actor, allow_duplicate=row.allow_duplicate, find_ignored=_taken_back, **values
    )
    if history:
        stored = medical_history.get(actor, patient.id, lock=True)
        medical_history.update(actor, stored, **history)
        db.session.flush()
    return patient


def _gaps(values: Mapping[str, Any]) -> list[str]:
    """Return the missing values that would identify the patient, or serve to reach them."""
    contacts = ("phone", "email", "emergency_contact_phone")
    missing = {
        "no date of birth": values["date_of_birth"] is None and values["estimated_age"] is None,
        "no gender": values["gender"] is None,
        "no phone or e-mail": all(values[name] is None for name in contacts),
    }
    return [gap for gap, is_missing in missing.items() if is_missing]


def _taken_back(ids: Collection[int]) -> Collection[int]:
    """Return the archived patients of imports that were undone: they are no duplicates.

    A user may have restored one of them. That one counts.
    """
    archived = select(Patient.id).where(Patient.id.in_(ids), ~Patient.is_active)
    return undone_ids(ImportSubject.PATIENTS, set(db.session.scalars(archived)))


def _update(actor: Actor, patient: Patient, row: ImportRow) -> None:
    changes = row.changes
    if patient.date_of_birth is not None:
        changes.pop("estimated_age", None)
    if row.notes:
        notes = [patient.review_notes, "Import: " + "; ".join(row.notes)]
        changes |= {"needs_review": True, "review_notes": "\n".join(filter(None, notes))}
    patients.update(actor, patient, **changes)
    if row.values["history"]:
        _check_history(patient.id, row.values["history"])


def _check_history(patient_id: int, history: Mapping[str, Any]) -> None:
    """Raise 409 unless the medical history has the entries: an import does not replace clinical data."""
    stored = db.session.execute(
        select(MedicalHistory).where(MedicalHistory.patient_id == patient_id)
    ).scalar_one()
    for name, given in history.items():
        value = getattr(stored, name)
        if isinstance(given, list):
            key = "substance" if name == "allergies" else "name"
            missing = {entry[key] for entry in given} - {getattr(entry, key) for entry in value}
        else:
            missing = {given} - {value}
        if missing:
            problem = "an import does not change the medical history of a patient on file"
            raise ClinicError("conflict", f"{name}: {problem}.", errors={name: problem})


def _undo_create(actor: Actor, patient: Patient) -> None:
    patients.archive(actor, patient)
    patients.update(actor, patient, file_number=freed(patient, "file_number"))


_RESTORED = tuple(
    name
    for name in PatientPatch.model_fields
    if name not in ("allow_duplicate", "on_conflict", "estimated_age")
)


def _snapshot(patient: Patient) -> dict[str, Any]:
    known = birth_dates.format_known(patient.date_of_birth, patient.birth_date_precision)
    return stored_members(patient, _RESTORED) | {"date_of_birth": known}


def _undo_update(actor: Actor, patient: Patient, previous: Mapping[str, Any]) -> None:
    members = dict(previous)
    if members.get("date_of_birth") is not None:  # otherwise the default precision would replace it
        members.setdefault("birth_date_precision", patient.birth_date_precision)
    changes = validated_changes(PatientPatch, members)
    patients.update(actor, patient, allow_duplicate=True, **changes)


_IDENTITY = (
    "name",
    "phone",
    "email",
    "insurance_id",
    "date_of_birth",
    "birth_date_precision",
    "estimated_age",
)


def _identity(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values that the search for duplicates compares."""
    return patients.identifying_values({name: values[name] for name in _IDENTITY})


def _identify(values: Mapping[str, Any]) -> tuple[str, Collection[str]]:
    identity = _identity(values)
    traits = duplicates.get_traits(identity)
    return identity["name_fold"], [f"{name}={value}" for name, value in traits.items()]


def _lock(rows: Sequence[ImportRow]) -> None:
    duplicates.lock_traits(*(_identity(row.values) for row in rows))


def _versions(ids: Collection[int]) -> dict[int, int]:
    """Return the versions of the patients. A change of the medical history is a change too."""
    return mapping(
        select(Patient.id, Patient.version + MedicalHistory.version)
        .join(MedicalHistory, MedicalHistory.patient_id == Patient.id)
        .where(Patient.id.in_(ids))
    )


def _find_used(ids: Collection[int]) -> Iterable[int]:
    """Return the patients with a visit, a bill, credit, or an appointment that is not cancelled."""
    return db.session.scalars(
        union(
            select(Visit.patient_id).where(Visit.patient_id.in_(ids), Visit.voided_at.is_(None)),
            select(Billing.patient_id).where(Billing.patient_id.in_(ids), Billing.voided_at.is_(None)),
            select(LedgerEntry.patient_id)
            .where(LedgerEntry.patient_id.in_(ids), LedgerEntry.billing_id.is_(None))
            .group_by(LedgerEntry.patient_id)
            .having(func.sum(LedgerEntry.amount) != 0),
            select(Appointment.patient_id).where(
                Appointment.patient_id.in_(ids), Appointment.status != AppointmentStatus.CANCELLED
            ),
        )
    )


PATIENTS = ImportKind(
    name=ImportSubject.PATIENTS,
    model=Patient,
    columns=COLUMNS,
    validate=_validate,
    create=_create,
    undo_create=_undo_create,
    unique={"file_number": Patient.file_number_key},
    identify=_identify,
    update=_update,
    snapshot=_snapshot,
    undo_update=_undo_update,
    lock=_lock,
    versions=_versions,
    find_used=_find_used,
)
