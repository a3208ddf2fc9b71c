"""The prescription as PDF."""

from __future__ import annotations

from enums import PrescriptionStatus
from models import Prescription
from security.permissions import Actor
from services.audit import audit_log
from services.clinical import prescriptions
from services.documents.blocks import entries, paragraph, signature
from services.documents.language import DocumentLanguage
from services.documents.pages import DocumentOptions, birth_line, patient_lines, stationery

Status = PrescriptionStatus


def prescription_document(actor: Actor, row: Prescription, options: DocumentOptions) -> bytes:
    """Return a prescription as PDF. One that must not be dispensed any more prints its state."""
    paper = stationery(actor, options, row.patient)
    language, doctor = paper.language, row.doctor
    mark = mark_of(row)
    licence = f"{language.text('licence_number')} {doctor.license_number}"
    document = paper.typeset(
        language.text("prescription"),
        [
            *entries(None, medication_entries(row, language)),
            *paragraph(language.text("notes"), row.details),
            *signature(language.text("signature"), (doctor.name, doctor.specialty, licence)),
        ],
        facts_of=(
            (language.text("number"), str(row.id)),
            (language.text("date"), language.local_day(row.issued_at)),
            (language.text("valid_until"), language.day(row.expires_on) if row.expires_on else None),
            (language.text("doctor"), doctor.name),
        ),
        addressee=patient_lines(row.patient, language, birth_line(row.patient, language)),
        mark=mark,
        banner=language.text(f"{mark}_prescription") if mark else None,
    )
    audit_log.record_read("read", "prescription", [row.id], [row.patient_id])
    return document


def mark_of(row: Prescription) -> str | None:
    """Return the name of the state in which nothing may be dispensed any more, or None."""
    status = prescriptions.current_status(row)
    if status is Status.CANCELLED:
        return "cancelled"
    if row.stopped_at is not None:
        return "stopped"
    return {Status.EXPIRED: "expired", Status.COMPLETED: "completed"}.get(status)


def medication_entries(row: Prescription, language: DocumentLanguage) -> list[tuple[str, list[str]]]:
    """Return the medications: name and dosage, then how to take them, then quantity and instructions."""
    items = []
    for medication in row.medications:
        duration = language.days(medication.duration_days) if medication.duration_days else None
        use = " · ".join(part for part in (medication.frequency, medication.route, duration) if part)
        quantity = None
        if medication.quantity is not None:
            number = f"{language.number(medication.quantity)} {medication.unit or ''}".rstrip()
            quantity = f"{language.text('quantity')}: {number}"
            if medication.refills:
                quantity += f" · {language.text('refills')}: {language.number(medication.refills)}"
        lines = (use, quantity, medication.instructions)
        title = f"{medication.name} {medication.dosage or ''}".rstrip()
        items.append((title, [line for line in lines if line]))
    return items
