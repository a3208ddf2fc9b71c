"""Integrity checks of the stored data, for `flask verify`.

Each check is a query for the rows that violate a rule. Locks and constraints enforce the rules. The checks
detect violations in spite of them, for example after manual changes in the database.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sqlalchemy import (
    Select,
    and_,
    func,
    or_,
    select,
)
from sqlalchemy.orm import aliased

from enums import AppointmentStatus, TreatmentStatus
from extensions import db
from models import (
    Appointment,
    Dispensing,
    InventoryItem,
    InventoryLot,
    MedicalHistory,
    Patient,
    PrescribedMedication,
    Prescription,
    StockMovement,
    Treatment,
    Visit,
)
from services import clock
from services.billing.integrity import billing_checks
from services.calendar_feeds.integrity import calendar_feed_checks
from services.clinic.integrity import clinic_checks
from services.clinical.integrity import letter_checks
from services.exports.integrity import export_checks
from services.imports.integrity import import_checks
from services.integrity_rule import IntegrityCheck, sum_of
from services.jobs.integrity import job_checks
from services.messages.integrity import message_checks
from services.users.integrity import user_checks

OCCUPYING = (AppointmentStatus.SCHEDULED, AppointmentStatus.COMPLETED)


def _overlaps(owner: Any, end: Any, *conditions: Any) -> Select[Any]:
    """Select the appointments that end after the start of a later one of the same owner.

    A window function scans each owner once, backwards in time. A self-join would take hours in a busy clinic.
    """
    order = (Appointment.start.desc(), Appointment.id.desc())
    following = func.min(Appointment.start).over(partition_by=owner, order_by=order, rows=(None, -1))
    scanned = (
        select(Appointment.id, end.label("end"), following.label("following"))
        .where(Appointment.status.in_(OCCUPYING), *conditions)
        .subquery()
    )
    return select(scanned.c.id).where(scanned.c.following < scanned.c.end)


def all_checks() -> list[IntegrityCheck]:
    """Return all checks, in the order in which they run."""
    return [
        *_patient_checks(),
        *_scheduling_checks(),
        *_clinical_checks(),
        *_medication_checks(),
        *billing_checks(),
        *_stock_checks(),
        *user_checks(),
        *job_checks(),
        *clinic_checks(),
        *export_checks(),
        *message_checks(),
        *calendar_feed_checks(),
        *import_checks(),
    ]


def _patient_checks() -> list[IntegrityCheck]:
    name_part = func.substr(Patient.search_fold, 1, func.length(Patient.name_fold))
    digits = func.coalesce(Patient.phone_digits, "")
    last_part = func.substr(Patient.search_fold, func.length(Patient.search_fold) - func.length(digits) + 1)
    return [
        IntegrityCheck(
            "The search column of a patient begins with the name and ends with the phone digits.",
            select(Patient.id).where(or_(name_part != Patient.name_fold, last_part != digits)),
        )
    ]


def _scheduling_checks() -> list[IntegrityCheck]:
    return [
        IntegrityCheck(
            "No doctor has two appointments at once.",
            _overlaps(Appointment.doctor_id, Appointment.blocked_until, Appointment.overbooked.is_(False)),
        ),
        IntegrityCheck(
            "No patient has two appointments at once.", _overlaps(Appointment.patient_id, Appointment.end)
        ),
        IntegrityCheck(
            "No archived or deceased patient has a future appointment.",
            select(Appointment.id)
            .join(Patient)
            .where(
                Appointment.status == AppointmentStatus.SCHEDULED,
                Appointment.end > clock.now(),
                or_(Patient.is_active.is_(False), Patient.deceased_on.is_not(None)),
            ),
        ),
        IntegrityCheck(
            "Only a cancelled appointment has a time of cancellation.",
            select(Appointment.id).where(
                Appointment.cancelled_at.is_not(None), Appointment.status != AppointmentStatus.CANCELLED
            ),
        ),
        IntegrityCheck(
            "A rescheduled appointment has the time of its last move.",
            select(Appointment.id).where(
                (Appointment.reschedule_count > 0) != Appointment.rescheduled_at.is_not(None)
            ),
        ),
    ]


def _clinical_checks() -> list[IntegrityCheck]:
    return [
        IntegrityCheck(
            "A visit has the patient and doctor of its appointment, which is completed.",
            select(Visit.id)
            .join(Appointment, Appointment.id == Visit.appointment_id)
            .where(
                Visit.voided_at.is_(None),
                or_(
                    Visit.patient_id != Appointment.patient_id,
                    Visit.doctor_id != Appointment.doctor_id,
                    Appointment.status != AppointmentStatus.COMPLETED,
                ),
            ),
        ),
        IntegrityCheck(
            "A treatment has the patient of its visit.",
            select(Treatment.id).join(Visit).where(Treatment.patient_id != Visit.patient_id),
        ),
        IntegrityCheck(
            "A prescription has the patient of its visit.",
            select(Prescription.id).join(Visit).where(Prescription.patient_id != Visit.patient_id),
        ),
        *letter_checks(),
    ]


def _medication_checks() -> list[IntegrityCheck]:
    return [
        IntegrityCheck(
            "A patient with no known allergies has no recorded allergy.",
            select(MedicalHistory.id).where(
                MedicalHistory.no_known_allergies_at.is_not(None), MedicalHistory.allergies.any()
            ),
        ),
        IntegrityCheck(
            "The dispensed quantity of a medication is the sum of its dispensings.",
            select(PrescribedMedication.id).where(
                PrescribedMedication.dispensed
                != sum_of(Dispensing.quantity, Dispensing.medication_id == PrescribedMedication.id)
            ),
        ),
        IntegrityCheck(
            "A stopped therapy has a reason, and no dispensing after the stop.",
            select(Prescription.id)
            .outerjoin(
                Dispensing,
                and_(
                    Dispensing.prescription_id == Prescription.id,
                    Dispensing.created_at > Prescription.stopped_at,
                ),
            )
            .where(
                or_(
                    Prescription.stopped_at.is_(None) != Prescription.stop_reason.is_(None),
                    Dispensing.id.is_not(None),
                )
            )
            .distinct(),
        ),
        IntegrityCheck(
            "A therapy has an end if it has a duration or expires_on, and never before expires_on.",
            select(PrescribedMedication.id)
            .join(Prescription, Prescription.id == PrescribedMedication.prescription_id)
            .where(
                or_(
                    PrescribedMedication.ends_on < Prescription.expires_on,
                    PrescribedMedication.ends_on.is_(None)
                    != and_(PrescribedMedication.duration_days.is_(None), Prescription.expires_on.is_(None)),
                )
            ),
        ),
    ]


def _stock_checks() -> list[IntegrityCheck]:
    item = aliased(InventoryItem)
    lot = aliased(InventoryLot)
    return [
        IntegrityCheck(
            "An item's quantity is the sum of its movements.",
            select(item.id).where(
                item.quantity != sum_of(StockMovement.quantity, StockMovement.item_id == item.id)
            ),
        ),
        IntegrityCheck(
            "A lot's quantity is the sum of its movements.",
            select(lot.id).where(
                lot.quantity != sum_of(StockMovement.quantity, StockMovement.lot_id == lot.id)
            ),
        ),
        IntegrityCheck(
            "A treatment that is not completed uses no stock.",
            select(Treatment.id).where(
                Treatment.status != TreatmentStatus.COMPLETED,
                sum_of(StockMovement.quantity, StockMovement.treatment_id == Treatment.id) != 0,
            ),
        ),
    ]


def violations(*, limit: int = 5) -> Iterator[tuple[str, list[int]]]:
    """Yield each violated rule with the ids of at most `limit` rows that violate it."""
    for check in all_checks():
        ids = list(db.session.execute(check.query.limit(limit)).scalars())
        if ids:
            yield check.rule, ids
