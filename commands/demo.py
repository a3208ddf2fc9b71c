"""`flask demo load`: the synthetic clinic, brought in through the services that judge everybody else.

What a rule refuses is counted by its reason and not forced. The population is `data/demo`; see
`data/NOTICE.md` for where it comes from.
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
OPEN_BILLS = 10  # every tenth bill is left open, so that there is something to collect

Row = dict[str, str]


def rows(name: str) -> list[Row]:
    """One table of the population."""
    with gzip.open(FOLDER / f"{name}.csv.gz", "rt", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def by(name: str, key: str) -> dict[str, list[Row]]:
    """One table, grouped by a column."""
    found: dict[str, list[Row]] = defaultdict(list)
    for row in rows(name):
        found[row[key]].append(row)
    return found


def instant(text: str) -> datetime:
    """The population's instants are UTC without saying so."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def number_of(row: Row) -> str:
    """The file number of a patient of the population."""
    return f"DEMO-{int(row['id']):06d}"


@dataclass
class Tally:
    """What was loaded, and what was refused for which reason."""

    loaded: Counter[str] = field(default_factory=Counter)
    refused: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))

    def attempt(self, what: str, action: Callable[[], Any]) -> Any:
        """Do it, all or nothing, and count it; None where a rule refuses it."""
        try:
            with db.session.begin_nested():
                made = action()
        except ClinicError as refusal:
            for reason in reasons(refusal):
                self.refused[what][reason] += 1
            return None
        self.loaded[what] += 1
        return made


def reasons(refusal: ClinicError) -> list[str]:
    """Every clash of a refused booking by its code, else what is wrong with which field, else the code."""
    clashes = [clash["code"] for clash in refusal.members.get("conflicts", ())]
    return clashes or [f"{field}: {told}" for field, told in (refusal.errors or {}).items()] or [refusal.code]


class Loader:
    """Brings the population in; each encounter with all that hangs on it is one transaction."""

    def __init__(self) -> None:
        self.tally = Tally()
        self.doctors: dict[str, int] = {}
        self.encounters = by("encounters", "patient_id")
        self.allergies = by("allergies", "patient_id")
        self.conditions = by("conditions", "patient_id")
        self.found = by("conditions", "encounter_id")
        self.procedures = by("procedures", "encounter_id")
        self.requests = by("medication_requests", "encounter_id")
        self.bills = 0

    def load_doctors(self) -> None:
        """The practitioners, those that are there already by their licence number."""
        for row in rows("practitioners"):
            licence = f"NPI-{row['npi']}"
            found = db.session.scalar(select(Doctor.id).where(Doctor.license_number == licence))
            if found is None:
                doctor = self.tally.attempt(
                    "doctors",
                    partial(
                        doctors.create,
                        CLERK,
                        name=f"Dr. {row['given']} {row['family']}",
                        specialty="general practice",
                        license_number=licence,
                    ),
                )
                found = doctor.id
            self.doctors[row["id"]] = found
        self._commit()

    def load_patient(self, row: Row) -> Iterator[None]:
        """A patient with everything; yields after each encounter. What is there already is left as it is."""
        patient_id = db.session.scalar(select(Patient.id).where(Patient.file_number == number_of(row)))
        resumed = patient_id is not None
        if patient_id is None:
            patient = self.tally.attempt("patients", partial(self._register, row))
            if patient is not None:
                patient_id = patient.id
                self.tally.attempt("medical histories", partial(self._history, row, patient_id))
            self._commit()
        for encounter in sorted(self.encounters[row["id"]], key=lambda one: one["start"]):
            if patient_id is not None and not (resumed and self._is_there(encounter, patient_id)):
                self._encounter(encounter, patient_id, row["insurance"])
                self._commit()
            yield

    def _is_there(self, row: Row, patient_id: int) -> bool:
        known = select(Visit.id).where(Visit.patient_id == patient_id, Visit.date == instant(row["start"]))
        return db.session.scalar(known.limit(1)) is not None

    def _register(self, row: Row) -> Patient:
        return patients.register(
            CLERK,
            file_number=number_of(row),
            name=f"{row['given']} {row['family']}",
            gender=Gender(row["gender"]),
            date_of_birth=date.fromisoformat(row["birth_date"]),
            phone=row["phone"] or None,
            address=f"{row['line']}, {row['city']}, {row['state']} {row['postal']}".strip(),
            insurance_provider=row["insurance"].replace("_", " ") or None,
        )

    def _history(self, row: Row, patient_id: int) -> None:
        severity = {"low": AllergySeverity.MILD, "high": AllergySeverity.SEVERE}
        allergies = [
            {
                "substance": one["display"],
                "reaction": None,
                "severity": severity.get(one["criticality"], AllergySeverity.UNKNOWN),
            }
            for one in self.allergies[row["id"]]
        ]
        conditions = [
            {
                "name": one["display"],
                "icd10": None,
                "since": date.fromisoformat(one["onset"][:10]) if one["onset"] else None,
                "status": ConditionStatus(one["status"]),
            }
            for one in self.conditions[row["id"]]
        ]
        history = medical_history.get(CLERK, patient_id, lock=True)
        medical_history.update(CLERK, history, allergies=allergies, conditions=conditions)

    def _encounter(self, row: Row, patient_id: int, insurance: str) -> None:
        if not row["practitioner_id"]:
            self.tally.refused["encounters"]["no practitioner"] += 1
            return
        visit = self.tally.attempt("encounters", partial(self._visit, row, patient_id))
        if visit is None:
            return
        self.tally.loaded["procedures"] += len(self.procedures[row["id"]])
        if any(one["price"] for one in self.procedures[row["id"]]):
            self.tally.attempt("bills", partial(self._bill, visit, insurance))
        for request in self.requests[row["id"]]:
            self.tally.attempt("prescriptions", partial(self._prescribe, visit, request))

    def _visit(self, row: Row, patient_id: int) -> Visit:
        start, end = instant(row["start"]), instant(row["end"])
        doctor_id = self.doctors[row["practitioner_id"]]
        booked = appointments.book(
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
                "name": one["display"][:200],
                "procedure_code": one["code"],
                "cost": Decimal(one["price"] or 0).quantize(Decimal("0.01")),
                "status": TreatmentStatus.COMPLETED if one["price"] else TreatmentStatus.PLANNED,
            }
            for one in self.procedures[row["id"]]
        ]
        return visits.create(
            CLERK,
            patient_id=patient_id,
            doctor_id=doctor_id,
            appointment_id=booked.id,
            date=start,
            visit_type=row["type"][:100] or None,
            chief_complaint=row["reason"] or None,
            diagnoses=[{"icd10": None, "description": one["display"]} for one in self.found[row["id"]]],
            treatments=treatments,
        )

    def _bill(self, visit: Visit, insurance: str) -> None:
        bill = bills.create(CLERK, visit_id=visit.id, billed_at=visit.date)
        self.bills += 1
        if self.bills % OPEN_BILLS == 0:
            return
        cash = insurance in ("", "no_insurance")
        payments.pay(
            CLERK,
            bill,
            amount=sum((item.unit_price * item.quantity for item in bill.items), Decimal(0)),
            method=PaymentMethod.CASH if cash else PaymentMethod.INSURANCE,
            received_at=visit.date,
        )

    def _prescribe(self, visit: Visit, row: Row) -> None:
        stopped = row["status"] != "active"
        prescriptions.prescribe(
            CLERK,
            visit_id=visit.id,
            importing=True,
            medications=[{"name": row["display"][:200], "instructions": row["dosage"] or None}],
            status=PrescriptionStatus.COMPLETED if stopped else PrescriptionStatus.ACTIVE,
            issued_at=instant(row["authored"]),
        )

    def archive_the_dead(self) -> None:
        """Last of all, since nobody books for an archived patient; an open bill keeps the file open."""
        for row in rows("patients"):
            if row["death"]:
                found = db.session.scalar(
                    select(Patient).where(Patient.file_number == number_of(row), Patient.is_active)
                )
                if found is not None:
                    self.tally.attempt("archived", partial(patients.archive, CLERK, found))
        self._commit()

    def _commit(self) -> None:
        audit_log.append_pending(CLERK, OPERATION)
        db.session.commit()
        db.session.remove()


@click.group("demo")
def demo() -> None:
    """A made-up clinic to look at."""


@demo.command("load")
@click.option("--patients", "wanted", type=click.IntRange(1, 615), default=615, show_default=True)
@with_appcontext
def load(wanted: int) -> None:
    """Fill the database with the synthetic clinic, through the rules.

    615 patients with their practitioners, encounters, procedures, conditions, allergies and prescriptions.
    Prints what was loaded, and what was refused by reason. May be stopped and run again: patients who are
    there already are left as they are.
    """
    loader = Loader()
    loader.load_doctors()
    chosen = rows("patients")[:wanted]
    total = sum(len(loader.encounters[row["id"]]) for row in chosen)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("encounters", total=total)
        for row in chosen:
            for _ in loader.load_patient(row):
                progress.advance(task)
    loader.archive_the_dead()
    report(loader.tally)


def report(tally: Tally) -> None:
    """What was loaded and what was refused, as a table."""
    there = db.session.scalar(
        select(func.count()).select_from(Patient).where(Patient.file_number.like("DEMO-%"))
    )
    table = Table(title=f"The synthetic clinic: {there} patients", title_justify="left")
    for heading in ("what", "loaded", "refused", "because of"):
        table.add_column(heading, justify="right" if heading in ("loaded", "refused") else "left")
    for what in dict.fromkeys([*tally.loaded, *tally.refused]):
        refused = tally.refused.get(what, Counter())
        because = ", ".join(f"{reason}: {count}" for reason, count in refused.most_common())
        table.add_row(what, str(tally.loaded[what]), str(refused.total()), because)
    Console(width=160).print(table)
