"""What an import has seen of the calendars, so that thousands of bookings do not ask for them one by one."""

from __future__ import annotations

from bisect import bisect_left, insort
from datetime import UTC, datetime
from typing import Any

from extensions import db
from models import Appointment, Doctor, Patient
from services import availability
from services.availability import OCCUPYING, REACH, Calendar
from services.records import fetch_named

BEGINNING, END = datetime(1900, 1, 1, tzinfo=UTC), datetime(2199, 12, 31, tzinfo=UTC)


class Desk:
    """Whole calendars of the doctors and patients of one transaction, kept up with what it books.

    A doctor's row is held from the first booking on, so nobody else books there meanwhile. What the
    transaction books or frees by other ways is unknown here: the database's constraints judge that.
    """

    def __init__(self, transaction: Any) -> None:
        self.transaction = transaction
        self.doctors: dict[int, Calendar] = {}
        self.patients: dict[int, tuple[Patient, list[availability.Interval]]] = {}

    def doctor(self, doctor_id: int) -> Doctor:
        """The doctor, or 422."""
        if doctor_id not in self.doctors:
            doctor = fetch_named(Doctor, doctor_id, "doctor_id", lock=True)
            calendar = availability.load([doctor], BEGINNING, END)[doctor_id]
            calendar.booked.sort()
            self.doctors[doctor_id] = calendar
        return self.doctors[doctor_id].doctor

    def patient(self, patient_id: int) -> Patient:
        """The patient, or 422."""
        if patient_id not in self.patients:
            patient = fetch_named(Patient, patient_id, "patient_id")
            self.patients[patient_id] = (patient, sorted(availability.times_of_patient(patient_id)))
        return self.patients[patient_id][0]

    def calendar(self, doctor_id: int, patient_id: int, start: datetime, end: datetime) -> Calendar:
        """The doctor's calendar around a time, with what the patient has then; both were asked for before."""
        whole, (_patient, times) = self.doctors[doctor_id], self.patients[patient_id]
        low, high = start - REACH, end + REACH
        booked = whole.booked[bisect_left(whole.booked, (low,)) : bisect_left(whole.booked, (high,))]
        others = times[bisect_left(times, (low,)) : bisect_left(times, (high,))]
        return Calendar(whole.doctor, whole.windows, whole.time_off, booked, others)

    def note(self, row: Appointment) -> None:
        """Keep up with what was booked."""
        if row.status in OCCUPYING:
            insort(self.doctors[row.doctor_id].booked, (row.start, row.end, row.blocked_until))
            insort(self.patients[row.patient_id][1], (row.start, row.end))


def current() -> Desk:
    """The desk of the current transaction."""
    session = db.session()
    desk: Desk | None = session.info.get("import_desk")
    if desk is None or desk.transaction is not session.get_transaction():
        session.connection()  # there is a transaction from here on
        desk = session.info["import_desk"] = Desk(session.get_transaction())
    return desk
