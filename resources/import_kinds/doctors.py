"""The import of doctors, without user accounts."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from functools import partial
from typing import Any

from sqlalchemy import select, union

from enums import AppointmentStatus, ImportSubject
from extensions import db
from models import Appointment, Billing, Doctor, ScheduleWindow, TimeOff, Treatment, Visit
from resources.import_kinds.members import stored_members, validated_changes, validated_values
from resources.import_kinds.shared_columns import EMAIL, IS_ACTIVE, LICENSE_NUMBER, PHONE
from schemas.doctor import DoctorCreate, DoctorPatch
from security.permissions import Actor
from services.imports.kinds import ImportKind, ImportRow, freed
from services.scheduling import doctors
from services.spreadsheets.columns import CellType, ImportColumn

COLUMNS = (
    ImportColumn(
        "name",
        CellType.TEXT,
        required=True,
        synonyms=(
            *("full name", "doctor", "doctor name", "physician", "jina", "daktari", "nom complet", "médecin"),
            *("nombre", "nombre completo", "nome", "nome completo", "médico", "الاسم", "الطبيب"),
        ),
    ),
    LICENSE_NUMBER,
    ImportColumn(
        "specialty",
        CellType.TEXT,
        required=True,
        synonyms=(
            *("speciality", "specialization", "department", "utaalamu", "spécialité"),
            *("especialidad", "especialidade", "التخصص"),
        ),
    ),
    ImportColumn("specialties", CellType.LIST, synonyms=("other specialties", "specialities")),
    EMAIL,
    PHONE,
    ImportColumn(
        "license_expires_on",
        CellType.DATE,
        synonyms=(
            *("licence expiry", "license expiry", "licence expires", "valid until", "expiry date"),
            *("mwisho wa leseni", "expiration de la licence", "vencimiento de la licencia"),
            *("validade da licença", "انتهاء الترخيص"),
        ),
    ),
    ImportColumn(
        "certifications", CellType.LIST, synonyms=("certificates", "vyeti", "certificaciones", "الشهادات")
    ),
    ImportColumn(
        "consultation_fee",
        CellType.MONEY,
        synonyms=(
            *("fee", "consultation", "price", "ada", "honoraires", "tarif", "tarifa", "honorarios"),
            *("honorários", "رسوم الاستشارة"),
        ),
    ),
    ImportColumn("slot_minutes", CellType.INTEGER, synonyms=("slot", "duration", "appointment length")),
    ImportColumn("buffer_minutes", CellType.INTEGER, synonyms=("buffer", "break")),
    IS_ACTIVE,
)


def _create(actor: Actor, row: ImportRow) -> Doctor:
    return doctors.create(actor, **row.values)


def _update(actor: Actor, doctor: Doctor, row: ImportRow) -> None:
    doctors.update(actor, doctor, **row.changes)


def _undo_create(actor: Actor, doctor: Doctor) -> None:
    number = freed(doctor, "license_number")
    doctors.deactivate(actor, doctor)
    doctors.update(actor, doctor, license_number=number)


def _undo_update(actor: Actor, doctor: Doctor, previous: Mapping[str, Any]) -> None:
    doctors.update(actor, doctor, **validated_changes(DoctorPatch, previous))


def _find_used(ids: Collection[int]) -> Iterable[int]:
    """Return the doctors with a visit, treatment, bill, time off, hours, or a valid appointment."""
    return db.session.scalars(
        union(
            select(Visit.doctor_id).where(Visit.doctor_id.in_(ids), Visit.voided_at.is_(None)),
            select(Treatment.doctor_id).where(Treatment.doctor_id.in_(ids)),
            select(Billing.doctor_id).where(Billing.doctor_id.in_(ids), Billing.voided_at.is_(None)),
            select(TimeOff.doctor_id).where(TimeOff.doctor_id.in_(ids)),
            select(ScheduleWindow.doctor_id).where(ScheduleWindow.doctor_id.in_(ids)),
            select(Appointment.doctor_id).where(
                Appointment.doctor_id.in_(ids), Appointment.status != AppointmentStatus.CANCELLED
            ),
        )
    )


DOCTORS = ImportKind(
    name=ImportSubject.DOCTORS,
    model=Doctor,
    columns=COLUMNS,
    validate=partial(validated_values, DoctorCreate),
    create=_create,
    undo_create=_undo_create,
    unique={"license_number": Doctor.license_number_key},
    update=_update,
    snapshot=partial(stored_members, names=[column.name for column in COLUMNS]),
    undo_update=_undo_update,
    find_used=_find_used,
)
