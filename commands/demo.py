"""`flask demo load`: load the synthetic clinic of `data/demo` through the services.

The services apply the same rules as for a request. A refused row is counted by its reason and not stored.
`data/NOTICE.md` names the source of the data.
"""

from __future__ import annotations

import csv
import gzip
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import click
from flask.cli import with_appcontext
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from sqlalchemy import func, select

from commands import demo_examples
from enums import (
    AllergySeverity,
    AppointmentStatus,
    ConditionStatus,
    Gender,
    PaymentMethod,
    PrescriptionStatus,
    Role,
    TreatmentStatus,
)
from errors import ClinicError
from extensions import db
from models import Doctor, Patient, Visit
from security.permissions import Actor
from services.audit import audit_log
from services.billing import bills, payments
from services.clinical import prescriptions, visits
from services.patients import medical_history, patients
from services.scheduling import appointments, doctors

FOLDER = Path(__file__).resolve().parent.parent / "data" / "demo"
CLERK = Actor(None, "demo", Role.ADMIN)
OPERATION = "flask demo load"
OPEN_BILL_INTERVAL = 10  # every tenth bill stays unpaid, so that the demo has open bills

Row = dict[str, str]


def read_rows(name: str) -> list[Row]:
    """Return the rows of one table of `data/demo`."""
    with gzip.open(FOLDER / f"{name}.csv.gz", "rt", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def read_groups(name: str, key: str) -> dict[str, list[Row]]:
    """Return the rows of one table of `data/demo`, grouped by the column `key`."""
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in read_rows(name):
        groups[row[key]].append(row)
    return groups


def parse_instant(text: str) -> datetime:
    """Return a timestamp of `data/demo`. The files hold UTC without an offset."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def file_number(row: Row) -> str:
    """Return the file number of a patient of `data/demo`."""
    return f"DEMO-{int(row['id']):06d}"


@dataclass
class LoadCounts:
    """The number of loaded and refused rows by kind. Refused rows also by reason."""

    loaded: Counter[str] = field(default_factory=Counter)
    refused: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))

    def attempt(self, kind: str, action: Callable[[], Any]) -> Any:
        """Run the action in a savepoint, count it and return its result. Return None if a rule refuses it."""
        try:
            with db.session.begin_nested():
                result = action()
        except ClinicError as error:
            for reason in refusal_reasons(error):
                self.refused[kind][reason] += 1
            return None
        self.loaded[kind] += 1
        return result


def refusal_reasons(error: ClinicError) -> list[str]:
    """Return the codes of the booking conflicts, or the messages of the fields, or the error code."""
    conflicts = [conflict["code"] for conflict in error.members.get("conflicts", ())]
    messages = [f"{field}: {message}" for field, message in (error.errors or {}).items()]
    return conflicts or messages or [error.code]


class Loader:
    """A loader of the synthetic clinic. An encounter with bill and prescriptions is one transaction."""

    def __init__(self) -> None:
        self.counts = LoadCounts()
        self.doctors: dict[str, int] = {}
        self.encounters = read_groups("encounters", "patient_id")
        self.allergies = read_groups("allergies", "patient_id")
        self.conditions = read_groups("conditions", "patient_id")
        self.diagnoses = read_groups("conditions", "encounter_id")
        self.procedures = read_groups("procedures", "encounter_id")
        self.medication_requests = read_groups("medication_requests", "encounter_id")
        self.bill_count = 0

    def load_doctors(self) -> None:
        """Load the practitioners. Those with a known licence number exist already and are not changed."""
        for row in read_rows("practitioners"):
            licence = f"NPI-{row['npi']}"
            doctor_id = db.session.scalar(select(Doctor.id).where(Doctor.license_number == licence))
            if doctor_id is None:
                doctor = self.counts.attempt(
                    "doctors",
                    partial(
                        doctors.create,
                        CLERK,
                        name=f"Dr. {row['given']} {row['family']}",
                        specialty="general practice",
                        license_number=licence,
                    ),
                )
                doctor_id = doctor.id
            self.doctors[row["id"]] = doctor_id
        self._commit()

    def load_patient(self, row: Row) -> Iterator[None]:
        """Load a patient with all data. Yield after each encounter. Stored rows are not changed."""
        patient_id = db.session.scalar(select(Patient.id).where(Patient.file_number == file_number(row)))
        resumed = patient_id is not None
        if patient_id is None:
            patient = self.counts.attempt("patients", partial(self._register, row))
            if patient is not None:
                patient_id = patient.id
                self.counts.attempt("medical histories", partial(self._fill_history, row, patient_id))
            self._commit()
        for encounter in sorted(self.encounters[row["id"]], key=lambda encounter: encounter["start"]):
            if patient_id is not None and not (resumed and self._is_loaded(encounter, patient_id)):
                self._load_encounter(encounter, patient_id, row["insurance"])
                self._commit()
            yield

    def _is_loaded(self, row: Row, patient_id: int) -> bool:
        query = select(Visit.id).where(
            Visit.patient_id == patient_id, Visit.date == parse_instant(row["start"])
        )
        return db.session.scalar(query.limit(1)) is not None

    def _register(self, row: Row) -> Patient:
        patient = patients.register(
            CLERK,
            file_number=file_number(row),
            name=f"{row['given']} {row['family']}",
            gender=Gender(row["gender"]),
            date_of_birth=date.fromisoformat(row["birth_date"]),
            phone=row["phone"] or None,
            address=f"{row['line']}, {row['city']}, {row['state']} {row['postal']}".strip(),
            insurance_provider=row["insurance"].replace("_", " ") or None,
        )
        demo_examples.forbid_messages(CLERK, patient)
        return patient

    def _fill_history(self, row: Row, patient_id: int) -> None:
        severity = {"low": AllergySeverity.MILD, "high": AllergySeverity.SEVERE}
        allergies = [
            {
                "substance": allergy["display"],
                "reaction": None,
                "severity": severity.get(allergy["criticality"], AllergySeverity.UNKNOWN),
            }
            for allergy in self.allergies[row["id"]]
        ]
        conditions = [
            {
                "name": condition["display"],
                "icd10": None,
                "since": date.fromisoformat(condition["onset"][:10]) if condition["onset"] else None,
                "status": ConditionStatus(condition["status"]),
            }
            for condition in self.conditions[row["id"]]
        ]
        history = medical_history.get(CLERK, patient_id, lock=True)
        medical_history.update(CLERK, history, allergies=allergies, conditions=conditions)

    def _load_encounter(self, row: Row, patient_id: int, insurance: str) -> None:
        if not row["practitioner_id"]:
            self.counts.refused["encounters"]["no practitioner"] += 1
            return
        visit = self.counts.attempt("encounters", partial(self._create_visit, row, patient_id))
        if visit is None:
            return
        self.counts.loaded["procedures"] += len(self.procedures[row["id"]])
        if any(procedure["price"] for procedure in self.procedures[row["id"]]):
            self.counts.attempt("bills", partial(self._create_bill, visit, insurance))
        for request in self.medication_requests[row["id"]]:
            self.counts.attempt("prescriptions", partial(self._prescribe, visit, request))

    def _create_visit(self, row: Row, patient_id: int) -> Visit:
        start, end = parse_instant(row["start"]), parse_instant(row["end"])
        doctor_id = self.doctors[row["practitioner_id"]]
        appointment = appointments.book(
            CLERK,
            importing=True,
            patient_id=patient_id,
            doctor_id=doctor_id,
            date=start,
            end=end,
            type=row["class"],
            reason=row["reason"] or None,
            status=AppointmentStatus.COMPLETED,
        )
        treatments = [
            {
                "name": procedure["display"][:200],
                "procedure_code": procedure["code"],
                "cost": Decimal(procedure["price"] or 0).quantize(Decimal("0.01")),
                "status": TreatmentStatus.COMPLETED if procedure["price"] else TreatmentStatus.PLANNED,
            }
            for procedure in self.procedures[row["id"]]
        ]
        return visits.create(
            CLERK,
            importing=True,
            patient_id=patient_id,
            doctor_id=doctor_id,
            appointment_id=appointment.id,
            date=start,
            visit_type=row["type"][:100] or None,
            chief_complaint=row["reason"] or None,
            diagnoses=[
                {"icd10": None, "description": condition["display"]}
                for condition in self.diagnoses[row["id"]]
            ],
            treatments=treatments,
        )

    def _create_bill(self, visit: Visit, insurance: str) -> None:
        bill = bills.create(CLERK, visit_id=visit.id, billed_at=visit.date)
        self.bill_count += 1
        if self.bill_count % OPEN_BILL_INTERVAL == 0:
            return
        cash = insurance in ("", "no_insurance")
        payments.pay(
            CLERK,
            bill,
            amount=sum((item.unit_price * item.quantity for item in bill.items), Decimal(0)),
            method=PaymentMethod.CASH if cash else PaymentMethod.INSURANCE,
            received_at=visit.date,
            importing=True,
        )

    def _prescribe(self, visit: Visit, row: Row) -> None:
        ended = row["status"] != "active"
        issued_at = parse_instant(row["authored"])
        prescriptions.prescribe(
            CLERK,
            visit_id=visit.id,
            importing=True,
            medications=[{"name": row["display"][:200], "instructions": row["dosage"] or None}],
            status=PrescriptionStatus.COMPLETED if ended else PrescriptionStatus.ACTIVE,
            issued_at=issued_at,
            # The data has no end of a therapy that is over.
            stopped=(issued_at, "stopped in the imported record") if ended else None,
        )

    def record_deaths(self) -> None:
        """Record the deaths. Run last: some encounters of the data are after the death of the patient."""
        for row in read_rows("patients"):
            if row["death"]:
                patient = db.session.scalar(
                    select(Patient).where(
                        Patient.file_number == file_number(row), Patient.deceased_on.is_(None)
                    )
                )
                if patient is not None:
                    died = date.fromisoformat(row["death"][:10])
                    self.counts.attempt("deaths", partial(patients.update, CLERK, patient, deceased_on=died))
        self._commit()

    def _commit(self) -> None:
        audit_log.append_pending(CLERK, OPERATION)
        db.session.commit()
        db.session.remove()


@click.group("demo")
def demo() -> None:
    """Load or generate the data of a fictitious clinic."""


@demo.command("load")
@click.option("--patients", "count", type=click.IntRange(1, 615), default=615, show_default=True)
@with_appcontext
def load(count: int) -> None:
    """Load the synthetic clinic through the rules of the services.

    615 patients with practitioners, encounters, procedures, conditions, allergies and prescriptions. A clinic
    without doctors and patients first gets the rows that the examples of the API documentation refer to.
    Prints the number of loaded rows, and of refused rows by reason. A second run continues: it does not
    change loaded rows.
    """
    if demo_examples.create(CLERK):
        audit_log.append_pending(CLERK, OPERATION)
        db.session.commit()
        db.session.remove()
    loader = Loader()
    loader.load_doctors()
    patient_rows = read_rows("patients")[:count]
    total = sum(len(loader.encounters[row["id"]]) for row in patient_rows)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("encounters", total=total)
        for row in patient_rows:
            for _ in loader.load_patient(row):
                progress.advance(task)
    loader.record_deaths()
    report(loader.counts)


def report(counts: LoadCounts) -> None:
    """Print the loaded and refused rows as a table."""
    patient_count = db.session.scalar(
        select(func.count()).select_from(Patient).where(Patient.file_number.like("DEMO-%"))
    )
    table = Table(title=f"The synthetic clinic: {patient_count} patients", title_justify="left")
    for heading in ("kind", "loaded", "refused", "reasons"):
        table.add_column(heading, justify="right" if heading in ("loaded", "refused") else "left")
    for kind in dict.fromkeys([*counts.loaded, *counts.refused]):
        refused = counts.refused.get(kind, Counter())
        reasons = ", ".join(f"{reason}: {count}" for reason, count in refused.most_common())
        table.add_row(kind, str(counts.loaded[kind]), str(refused.total()), reasons)
    Console(width=160).print(table)
