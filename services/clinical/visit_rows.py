"""The locked visit of a new treatment, prescription or letter."""

from __future__ import annotations

from sqlalchemy import select

from extensions import db
from models import Patient, Visit
from services.rows import get_or_404, get_referenced


def lock_patient_of(visit_id: int) -> None:
    """Lock the patient of a visit, before the visit itself. An unknown visit has none."""
    patient_id = db.session.execute(select(Visit.patient_id).where(Visit.id == visit_id)).scalar_one_or_none()
    if patient_id is not None:
        get_or_404(Patient, patient_id, lock=True)


def lock_with_patient(visit_id: int) -> Visit:
    """Lock and return the visit that a body names, or raise 422. The patient is locked first."""
    lock_patient_of(visit_id)
    return get_referenced(Visit, visit_id, "visit_id", lock=True)
