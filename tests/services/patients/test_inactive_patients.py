"""Archived and deceased patients: nothing new is recorded, open business can be finished."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, text

from enums import AppointmentStatus, PrescriptionStatus, Role
from errors import ClinicError
from extensions import db
from models import Appointment, AuditLog
from security.permissions import Actor
from services.billing import bills
from services.clinical import prescriptions, treatments, visits
from services.scheduling import appointments
from tests.support.clinic import Clinic, soon
from tests.support.concurrency import run_concurrently

IMPORTER = Actor(user_id=None, name="import", role=Role.ADMIN)
ITEM = {"description": "Consultation", "quantity": 1, "unit_price": "5.00"}
MEDICINE = {"name": "Paracetamol", "quantity": 20}
REBOOKED = {"status": "scheduled", "status_reason": "came late"}


def today() -> str:
    return datetime.now(UTC).date().isoformat()


def die(clinic: Clinic, patient_id: int) -> None:
    assert clinic.admin.patch(f"/patients/{patient_id}", {"deceased_on": today()}).status_code == 200


def archive(clinic: Clinic, patient_id: int) -> None:
    assert clinic.admin.delete(f"/patients/{patient_id}").status_code == 200


class Record:
    """A patient with an open visit, an unbilled treatment, a prescription and a missed appointment."""

    def __init__(self, clinic: Clinic) -> None:
        self.patient = clinic.patient()["id"]
        self.doctor = clinic.doctor.doctor_id
        self.visit = clinic.visit(patient_id=self.patient)["id"]
        self.treatment = clinic.treatment(visit_id=self.visit)["id"]
        self.planned = clinic.treatment(visit_id=self.visit, status="planned")["id"]
        prescription = clinic.doctor.make("/prescriptions", visit_id=self.visit, medications=[MEDICINE])
        self.prescription, self.medication = prescription["id"], prescription["medications"][0]["id"]
        self.other = clinic.appointment()["id"]  # of another patient
        start = datetime.now(UTC).replace(microsecond=0) - timedelta(days=1)
        with clinic.inside() as session:
            missed = Appointment(
                patient_id=self.patient,
                doctor_id=self.doctor,
                start=start,
                end=start + timedelta(minutes=30),
                blocked_until=start + timedelta(minutes=30),
                status=AppointmentStatus.NO_SHOW,
            )
            session.add(missed)
            session.flush()
            self.missed: int = missed.id

    def new_entries(self) -> list[tuple[str, str, dict[str, Any]]]:
        """Return the requests that record something new for the patient."""
        visit = {"patient_id": self.patient, "doctor_id": self.doctor}
        return [
            ("POST", "/appointments", visit | {"date": soon(days=20)}),
            ("PATCH", f"/appointments/{self.other}", {"patient_id": self.patient}),
            (
                "PATCH",
                f"/appointments/{self.missed}",
                REBOOKED | {"date": soon(days=21)},
            ),
            ("POST", "/visits", visit),
            ("POST", "/visits", visit | {"treatments": [{"name": "Dressing", "cost": "9.00"}]}),
            ("POST", "/visits", visit | {"prescriptions": [{"details": "ORS"}]}),
            ("POST", "/visits", visit | {"appointment_id": self.missed}),
            ("POST", "/treatments", {"visit_id": self.visit, "name": "Dressing", "cost": "9.00"}),
            ("POST", "/prescriptions", {"visit_id": self.visit, "details": "ORS"}),
            ("PATCH", f"/prescriptions/{self.prescription}", {"medications": [MEDICINE, {"name": "Zinc"}]}),
            (
                "POST",
                f"/prescriptions/{self.prescription}/dispense",
                {"items": [{"medication": self.medication, "quantity": 1}]},
            ),
            ("POST", "/billings", {"patient_id": self.patient, "items": [ITEM]}),
            ("POST", "/billings", {"visit_id": self.visit}),
            ("POST", "/billings", {"treatment_id": self.treatment}),
        ]


@pytest.mark.parametrize("end", [die, archive])
def test_every_new_entry_is_refused(clinic: Clinic, end: Callable[[Clinic, int], None]) -> None:
    record = Record(clinic)
    end(clinic, record.patient)

    for method, path, body in record.new_entries():
        refused = clinic.admin.send(method, path, body)

        problem = refused.get_json()
        assert refused.status_code == 409, (method, path, body, problem)
        if "conflicts" in problem:
            codes = [conflict["code"] for conflict in problem["conflicts"]]
            assert (problem["error"], "patient_inactive" in codes) == ("appointment_conflict", True)
        else:
            assert problem["error"] == "patient_inactive", (path, problem)


def test_the_same_entries_are_possible_for_an_active_patient(clinic: Clinic) -> None:
    for number in range(len(Record(clinic).new_entries())):
        method, path, body = Record(clinic).new_entries()[number]

        answer = clinic.admin.send(method, path, body)

        assert answer.status_code in (200, 201), (method, path, body, answer.get_json())


def test_open_business_of_a_deceased_patient_can_be_finished(clinic: Clinic) -> None:
    record = Record(clinic)
    bill = clinic.bill("80.00", patient_id=record.patient)["id"]
    die(clinic, record.patient)

    for caller, method, path, body in (
        (clinic.doctor, "PATCH", f"/visits/{record.visit}", {"summary": "Found dead at home."}),
        (clinic.doctor, "PATCH", f"/treatments/{record.planned}", {"status": "cancelled"}),
        (clinic.doctor, "DELETE", f"/prescriptions/{record.prescription}", None),
        (clinic.doctor, "POST", f"/visits/{record.visit}/sign", None),
        (clinic.doctor, "POST", f"/visits/{record.visit}/addenda", {"text": "The family was informed."}),
        (clinic.admin, "POST", f"/billings/{bill}/payments", {"amount": "30.00", "method": "cash"}),
        (clinic.admin, "POST", f"/billings/{bill}/refunds", {"amount": "10.00", "reason": "too much"}),
        (
            clinic.admin,
            "POST",
            f"/billings/{bill}/claims",
            {"insurer": "Acme", "policy_number": "A-1"} | {"amount": "40.00"},
        ),
        (clinic.admin, "POST", f"/billings/{bill}/write-off", {"amount": "5.00", "reason": "deceased"}),
    ):
        answer = caller.send(method, path, body)

        assert answer.status_code in (200, 201), (path, answer.get_json())


@pytest.mark.parametrize("end", [die, archive])
def test_an_import_adds_records_from_before_the_end_only(
    clinic: Clinic, end: Callable[[Clinic, int], None]
) -> None:
    patient, doctor = clinic.patient()["id"], clinic.doctor.doctor_id
    early = datetime.now(UTC) - timedelta(days=9)
    with clinic.inside() as session:
        visit = visits.create(IMPORTER, patient_id=patient, doctor_id=doctor, date=early, importing=True)
        session.flush()
        visit_id = visit.id
    if end is die:
        died = (early + timedelta(days=1)).date().isoformat()
        assert clinic.admin.patch(f"/patients/{patient}", {"deceased_on": died}).status_code == 200
    else:
        end(clinic, patient)
        with clinic.inside() as session:
            session.get(visits.Patient, patient).archived_on = (early + timedelta(days=1)).date()

    def import_all(at: datetime) -> None:
        ids = {"patient_id": patient, "doctor_id": doctor}
        appointments.book(IMPORTER, importing=True, date=at, status=AppointmentStatus.COMPLETED, **ids)
        made = visits.create(
            IMPORTER, date=at, importing=True, prescriptions=[{"details": "ORS", "issued_at": at}], **ids
        )
        treatments.create(IMPORTER, visit_id=made.id, importing=True, name="Dressing", cost=5)
        prescriptions.prescribe(
            IMPORTER, visit_id=made.id, importing=True, details="ORS", status=PrescriptionStatus.COMPLETED
        )
        bills.create(IMPORTER, visit_id=made.id, billed_at=at)

    late = early + timedelta(days=3)
    with clinic.inside():
        import_all(early - timedelta(hours=3))
        for call in (
            lambda: appointments.book(
                IMPORTER,
                importing=True,
                patient_id=patient,
                doctor_id=doctor,
                date=late,
                status=AppointmentStatus.COMPLETED,
            ),
            lambda: visits.create(IMPORTER, patient_id=patient, doctor_id=doctor, date=late, importing=True),
            lambda: prescriptions.prescribe(
                IMPORTER, visit_id=visit_id, importing=True, details="ORS", issued_at=late
            ),
            lambda: bills.create(IMPORTER, visit_id=visit_id, billed_at=late),
            lambda: treatments.create(IMPORTER, visit_id=visit_id, name="Dressing", cost=5),
        ):
            with pytest.raises(ClinicError) as refused:
                call()
            assert refused.value.code in ("patient_inactive", "appointment_conflict")


# --- Death ---------------------------------------------------------------------------------------------


def test_a_death_with_future_appointments_needs_a_decision(clinic: Clinic) -> None:
    patient = clinic.patient()["id"]
    other_doctor = clinic.doctor_row()["id"]
    first = clinic.appointment(patient_id=patient, date=soon(days=2))["id"]
    second = clinic.appointment(patient_id=patient, doctor_id=other_doctor, date=soon(days=3))["id"]
    path = f"/patients/{patient}"

    refused = clinic.doctor.patch(path, {"deceased_on": today()})
    before = clinic.admin.get(path).get_json()
    accepted = clinic.doctor.patch(path, {"deceased_on": today(), "on_conflict": "cancel"})

    problem = refused.get_json()
    assert (refused.status_code, problem["error"]) == (409, "booked_appointments")
    assert [row["id"] for row in problem["appointments"]] == [first, second]
    assert before["deceased_on"] is None
    assert accepted.status_code == 200
    assert accepted.get_json()["deceased_on"] == today()
    assert accepted.get_json()["next_appointment"] is None
    for appointment in (first, second):
        row = clinic.admin.get(f"/appointments/{appointment}").get_json()
        assert (row["status"], row["cancelled_by"]) == ("cancelled", "clinic")
        assert row["cancellation_reason"] == "The patient has died."
    with clinic.inside() as session:
        entries = session.query(AuditLog).filter_by(action="cancel", entity="appointment")
        assert sorted(entry.entity_id for entry in entries) == [first, second]


def test_the_day_of_death_is_checked_and_can_be_corrected(clinic: Clinic) -> None:
    patient = clinic.patient(date_of_birth="1990-05-05")["id"]
    path = f"/patients/{patient}"
    tomorrow = (datetime.now(UTC).date() + timedelta(days=2)).isoformat()

    for body in ({"deceased_on": tomorrow}, {"deceased_on": "1990-05-04"}, {"deceased_on": "soon"}):
        assert list(clinic.admin.patch(path, body).get_json()["errors"]) == ["deceased_on"]
    assert clinic.admin.post("/patients", {"name": "Abel", "deceased_on": tomorrow}).status_code == 422
    assert clinic.admin.patch(path, {"deceased_on": "2020-05-04"}).get_json()["age"] == 29
    late_birth = clinic.admin.patch(path, {"date_of_birth": "2020-06-01"})
    assert list(late_birth.get_json()["errors"]) == ["deceased_on"]
    assert clinic.admin.patch(path, {"deceased_on": None}).get_json()["deceased_on"] is None
    assert clinic.bill(patient_id=patient)["patient_id"] == patient


def test_a_patient_can_be_registered_as_deceased(clinic: Clinic) -> None:
    row = clinic.patient(name="Abel Old", deceased_on="2001-02-03", date_of_birth="1930")

    assert (row["deceased_on"], row["age"], row["age_is_estimate"]) == ("2001-02-03", 71, True)
    assert clinic.admin.get("/patients?deceased_on=2001-02-03").get_json() == [row]


# --- Races ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_death", [True, False])
def test_a_booking_and_the_end_of_a_record_do_not_both_succeed(clinic: Clinic, is_death: bool) -> None:
    admin, doctor = clinic.admin, clinic.doctor.doctor_id
    for number in range(4):
        patient = clinic.patient()["id"]
        body = {"patient_id": patient, "doctor_id": doctor, "date": soon(days=5 + number)}
        end = {"deceased_on": today()} if is_death else {"is_active": False}

        booked, billed, ended = run_concurrently(
            [
                lambda body=body: admin.post("/appointments", body),
                lambda patient=patient: admin.post("/billings", {"patient_id": patient, "items": [ITEM]}),
                lambda patient=patient, end=end: admin.patch(f"/patients/{patient}", end),
            ]
        )

        assert {booked.status_code, billed.status_code} <= {201, 409}
        if ended.status_code == 200:
            assert booked.status_code == 409
            assert is_death or billed.status_code == 409
        else:
            assert ended.status_code == 409
            assert 201 in (booked.status_code, billed.status_code)


def test_a_death_cancels_appointments_that_are_booked_at_the_same_time(clinic: Clinic) -> None:
    admin = clinic.admin
    doctors = [clinic.doctor_row()["id"] for _ in range(3)]
    patient = clinic.patient()["id"]
    clinic.appointment(patient_id=patient, doctor_id=doctors[0], date=soon(days=1))
    bookings = [
        {"patient_id": patient, "doctor_id": doctor, "date": soon(days=2 + number)}
        for number, doctor in enumerate(doctors)
    ]

    *booked, died = run_concurrently(
        [
            *(lambda body=body: admin.post("/appointments", body) for body in bookings),
            lambda: admin.patch(f"/patients/{patient}", {"deceased_on": today(), "on_conflict": "cancel"}),
        ]
    )

    assert died.status_code == 200
    assert {answer.status_code for answer in booked} <= {201, 409}
    rows = admin.get(f"/appointments?patient_id={patient}").get_json()
    assert {row["status"] for row in rows} == {"cancelled"}


def wait_until_blocked(request: threading.Thread, observer: Connection) -> None:
    """Wait until the request waits for a lock, or has ended. SQLite has one writer: it waits in any case."""
    waiting = text("SELECT count(*) FROM pg_locks WHERE NOT granted")
    while observer.dialect.name == "postgresql" and request.is_alive():
        if observer.execute(waiting).scalar():
            return
        observer.rollback()


def test_every_new_entry_waits_for_an_uncommitted_archiving(clinic: Clinic) -> None:
    for number in range(len(Record(clinic).new_entries())):
        record = Record(clinic)
        method, path, body = record.new_entries()[number]
        answers: list[Any] = []
        with clinic.inside():
            engine = db.engine
        caller = clinic.admin
        request = threading.Thread(target=lambda: answers.append(caller.send(method, path, body)))  # noqa: B023

        with engine.connect() as connection, engine.connect() as observer:
            archived = text(
                "UPDATE patients SET is_active = false, archived_on = '2020-01-01' WHERE id = :id"
            )
            connection.execute(archived, {"id": record.patient})
            request.start()
            wait_until_blocked(request, observer)
            connection.commit()
        request.join()

        assert answers[0].status_code == 409, (method, path, body)
