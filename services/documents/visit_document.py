"""The summary of a visit as PDF. Its parts are those that the role may read in the JSON of the visit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import select

from enums import TreatmentStatus
from extensions import db
from models import Prescription, Treatment, Visit
from security.permissions import Actor, hidden
from services.audit import audit_log
from services.clinical import visits
from services.documents.blocks import Block, entries, fact_grid, paragraph, signature, table
from services.documents.language import DocumentLanguage
from services.documents.pages import DocumentOptions, birth_line, patient_lines, stationery
from services.documents.prescription_document import mark_of, medication_entries

# The vital signs with their units, and the names of their texts.
UNITS = {
    "heart_rate": "/min",
    "respiratory_rate": "/min",
    "temperature_c": "°C",
    "spo2": "%",
    "weight_kg": "kg",
    "height_cm": "cm",
}


def visit_document(actor: Actor, visit: Visit, options: DocumentOptions) -> bytes:
    """Return the summary of a visit as PDF. An unsigned visit prints DRAFT, a voided one VOID."""
    _load_related(visit)
    paper = stationery(actor, options, visit.patient)
    language = paper.language
    mark = {"open": "draft", "void": "void"}.get(visit.status)
    licence = f"{language.text('licence_number')} {visit.doctor.license_number}"
    document = paper.typeset(
        language.text("visit_summary"),
        [
            *_clinical_blocks(actor, visit, language),
            *signature(language.text("signature"), (visit.doctor.name, visit.doctor.specialty, licence)),
        ],
        facts_of=(
            (language.text("date"), language.local_day(visit.date)),
            (language.text("doctor"), visit.doctor.name),
            (language.text("visit_type"), visit.visit_type),
            (language.text("signed_on"), language.local_day(visit.signed_at) if visit.signed_at else None),
        ),
        addressee=patient_lines(visit.patient, language, birth_line(visit.patient, language)),
        mark=mark,
        banner=language.text(f"{mark}_visit") if mark else None,
    )
    audit_log.record_read("read", "visit", [visit.id], [visit.patient_id])
    return document


def _load_related(visit: Visit) -> None:
    """Load the related rows with one statement for each kind, not one for each row."""
    statement = select(Visit).where(Visit.id == visit.id).options(*visits.LIST.options)
    db.session.execute(statement).unique().scalar_one()


def _clinical_blocks(actor: Actor, visit: Visit, language: DocumentLanguage) -> list[Block]:
    own, emergency = actor.owns(visit.doctor_id), visit.patient_id in actor.emergency_patients
    hidden_members = hidden("visit", actor.role, own=own, emergency=emergency)
    hidden_notes = "notes" in hidden("treatment", actor.role, own=own, emergency=emergency)
    follow_up = language.day(visit.follow_up_date) if visit.follow_up_date else None

    def text(member: str) -> list[Block]:
        return paragraph(language.text(member), getattr(visit, member))

    blocks = {
        "chief_complaint": text("chief_complaint"),
        "vitals": fact_grid(language.text("vitals"), _vitals(visit.vitals or {}, language)),
        "diagnoses": entries(
            language.text("diagnoses"),
            [
                (f"{row.description} ({row.icd10})" if row.icd10 else row.description, ())
                for row in visit.diagnoses
            ],
        ),
        "summary": text("summary"),
        "procedure_details": text("procedure_details"),
        "treatments": entries(
            language.text("treatments"),
            [_treatment_entry(row, language, with_notes=not hidden_notes) for row in visit.treatments],
        ),
        "prescriptions": entries(
            language.text("prescriptions"),
            [entry for row in visit.prescriptions for entry in _prescribed(row, language)],
        ),
        "notes": text("notes"),
        "follow_up_date": paragraph(language.text("follow_up"), follow_up),
        "addenda": table(
            [language.text(name) for name in ("date", "addendum", "author")],
            [(language.local_day(row.created_at), row.text, row.author.name) for row in visit.addenda],
            heading=language.text("addenda"),
            wide=1,
        ),
    }
    return [block for member, part in blocks.items() if member not in hidden_members for block in part]


def _vitals(vitals: Mapping[str, Any], language: DocumentLanguage) -> list[tuple[str, str | None]]:
    """Return the measured vital signs with their units."""
    systolic, diastolic = (vitals.get(name) for name in ("systolic", "diastolic"))
    pressure = None
    if systolic is not None or diastolic is not None:
        pressure = f"{'–' if systolic is None else systolic}/{'–' if diastolic is None else diastolic} mmHg"
    measured = [(language.text("blood_pressure"), pressure)]
    for name, unit in UNITS.items():
        value = vitals.get(name)
        shown = None if value is None else f"{language.number(value)} {unit}"
        measured.append((language.text(name), shown))
    return measured


def _with_code(name: str, code: str | None) -> str:
    return f"{name} ({code})" if code else name


def _treatment_entry(
    row: Treatment, language: DocumentLanguage, *, with_notes: bool
) -> tuple[str, list[str]]:
    """Return a treatment. Its state is named if it is not completed."""
    title = _with_code(row.name, row.procedure_code)
    if row.status is not TreatmentStatus.COMPLETED:
        title = f"{title} – {language.text(f'treatment_{row.status.value}')}"
    return title, [line for line in (row.description, row.notes if with_notes else None) if line]


def _prescribed(row: Prescription, language: DocumentLanguage) -> list[tuple[str, list[str]]]:
    """Return the medications of a prescription, or its free text. Its state is named if it ended early."""
    items = medication_entries(row, language)
    if row.details:
        items.append((language.text("notes"), [row.details]) if items else (row.details, []))
    mark = mark_of(row)
    if mark not in ("cancelled", "stopped"):
        return items
    return [(f"{title} – {language.text(f'{mark}_word')}", lines) for title, lines in items]
