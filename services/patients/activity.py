"""Archived and deceased patients, whose record gets no new entries."""

from __future__ import annotations

from datetime import date, datetime

from errors import ClinicError
from models import Patient
from services import clock


def is_inactive(patient: Patient, imported_at: datetime | None = None) -> bool:
    """Return True for an archived or deceased patient. The caller holds the lock on the patient.

    `imported_at` is the time of an imported record. A record from before the archiving or death is possible.
    """
    ends = [patient.deceased_on, None if patient.is_active else patient.archived_on or date.min]
    end = min((day for day in ends if day is not None), default=None)
    if end is None:
        return False
    return imported_at is None or clock.local(imported_at).date() > end


def require_active(patient: Patient, imported_at: datetime | None = None) -> None:
    """Raise 409 `patient_inactive` as `is_inactive` decides."""
    if is_inactive(patient, imported_at):
        state = "deceased" if patient.deceased_on is not None else "archived"
        hint = "Correct deceased_on" if patient.deceased_on is not None else "Restore the patient"
        message = f"The patient is {state}. {hint} first if this is wrong."
        raise ClinicError("patient_inactive", message).about("patient", patient.id, patient.id)
