"""Generated data of a fictitious clinic of any size: the rows that `flask demo grow` writes.

Twenty doctors see up to 480 patients on a working day, for as many years as the patients need.
Every patient has five appointments, a month apart. The first n patients are the same for every size.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from functools import lru_cache
from random import Random
from typing import Any

from enums import (
    AppointmentStatus,
    AuditOutcome,
    BirthDatePrecision,
    CancelledBy,
    ConditionStatus,
    Gender,
    LedgerKind,
    MovementType,
    PaymentMethod,
    TreatmentStatus,
)
from models import (
    Appointment,
    AuditLog,
    AuditSubject,
    Base,
    Billing,
    BillingItem,
    Condition,
    Diagnosis,
    InventoryUsage,
    LedgerEntry,
    MedicalHistory,
    Patient,
    StockMovement,
    Treatment,
    Visit,
)
from security.key_rings import ring
from services import clock
from services.audit.audit_log import CHAINS, canonical_json, compute_mac
from services.document_numbers import INVOICE, format_number
from services.patients.search_column import search_fold
from services.search_key import search_key

APPOINTMENTS = 5  # per patient
NEW_PATIENTS = 96  # first appointments per working day
APPOINTMENT_INTERVAL = 20  # working days between two appointments of a patient
DOCTORS = 20
SLOT = timedelta(minutes=20)
OPENING_TIME, CLOSING_TIME = time(8), time(18)
ITEMS = 20  # stock items
OPERATION = "flask demo grow"
BATCH_SIZE = 2_000  # patients

UNPAID_PERIOD = timedelta(days=45)  # every fourth bill that is not older is unpaid
UNPAID_INTERVAL = 1_000  # of the older bills, one in a thousand is unpaid
MONDAY = date(1900, 1, 1)  # day 0 of the count of working days
STREETS = ("Harbour Lane", "Mill Road", "Station Street", "Orchard Way", "Castle Hill", "Church Walk")
INSURERS = ("Harbour Mutual", "Northern Health", "Red Kite Insurance", "United Care")
GIVEN_NAMES = (
    "Ada Amara Anton Astrid Boris Carla Chidi Dana Diego Elif Emeka Farah Felix Grace Hanna Hugo Ines Ivan "
    "Jamal Joana Kaito Karin Lars Leila Lucia Malik Marta Mina Nadia Nils Noor Olga Omar Paula Pedro Petra "
    "Rafael Rosa Samir Selma Simon Tara Thomas Uma Vera Viktor Yara Zoe"
).split()
FAMILY_STARTS = (
    "Al Bar Bel Ber Bo Bran Cal Car Dal Dor El Fal Fen Gar Gil Hal Har Hol Jan Kal Kar Kel Kol Lan Lin Mar "
    "Mel Mor Nor Ol Pel Ran Ros Sal San Sel Tal Tor Val Wal"
).split()
FAMILY_MIDDLES = "a ber co da de di en er ga go i ka ki la le ma me mo na ne".split()
FAMILY_ENDS = "berg bos dal der dez fors gard ham kis land lin mann nen ric rov sen ska son ton witz".split()
PROBLEMS = (
    ("I10", "Essential (primary) hypertension"),
    ("E11.9", "Type 2 diabetes mellitus without complications"),
    ("J45.909", "Unspecified asthma, uncomplicated"),
    ("M54.50", "Low back pain, unspecified"),
    ("J06.9", "Acute upper respiratory infection, unspecified"),
)
METHODS = (PaymentMethod.CARD, PaymentMethod.CASH, PaymentMethod.INSURANCE, PaymentMethod.MOBILE_MONEY)
TREATMENT = "Wound dressing"
TREATMENT_COST = Decimal("40.00")
AUDIT_FIELDS = {
    "patient": ["file_number", "gender", "name", "phone"],
    "appointment": ["date", "doctor_id", "patient_id"],
    "visit": ["appointment_id", "date", "doctor_id", "patient_id"],
    "billing": ["billing_items", "ledger_entries", "patient_id"],
}

# The written columns of each table, in insert order: referenced tables first. Other columns are NULL.
COLUMNS: dict[type[Base], tuple[str, ...]] = {
    model: tuple(columns.split())
    for model, columns in {
        Patient: "id file_number file_number_key name name_fold gender date_of_birth birth_date_precision "
        "phone phone_e164 phone_digits search_fold email email_key address insurance_provider insurance_id "
        "insurance_id_key needs_review is_active version created_at updated_at",
        MedicalHistory: "id patient_id version created_at updated_at",
        Condition: "id medical_history_id name name_fold icd10 status",
        Appointment: "id patient_id doctor_id start end blocked_until status type reason cancellation_reason "
        "cancelled_by overbooked checked_in_at version created_at updated_at",
        Visit: "id patient_id doctor_id appointment_id date visit_type chief_complaint summary signed_at "
        "version created_at updated_at",
        Diagnosis: "id visit_id icd10 description",
        Billing: "id invoice_number patient_id visit_id doctor_id tax_rate date due_date version created_at "
        "updated_at clinic_version_id",
        Treatment: "id visit_id patient_id doctor_id name name_fold cost status stock_taken_at billing_id "
        "version created_at updated_at",
        BillingItem: "id billing_id treatment_id description quantity unit_price",
        LedgerEntry: "id patient_id billing_id kind amount method occurred_at item_id created_at doctor_id",
        InventoryUsage: "id treatment_id item_id quantity",
        StockMovement: "id item_id lot_id type quantity treatment_id created_at",
        AuditLog: "id chain number at user_id user_name role action entity entity_id entity_ids patient_ids "
        "fields outcome detail operation address request_id key_id mac",
        AuditSubject: "patient_id audit_id",
    }.items()
}

Row = tuple[Any, ...]


@dataclass
class Batch:
    """The rows of some patients, and the changes of other tables that belong to them."""

    rows: dict[type[Base], list[Row]] = field(default_factory=lambda: {model: [] for model in COLUMNS})
    patients: int = 0
    chain: int = 0
    head: tuple[int, str] = (0, "")  # number and MAC of the last audit entry of the chain
    invoices: Counter[int] = field(default_factory=Counter)  # new invoices by year
    stock: Counter[int] = field(default_factory=Counter)  # change of the quantity by item index


@dataclass(frozen=True)
class InitialState:
    """The state of the database before the first batch."""

    last_ids: Mapping[type[Base], int]  # greatest id by table
    heads: Mapping[int, tuple[int, str]]  # number and MAC of the last audit entry by chain
    invoices: Mapping[int, int]  # last invoice number by year
    doctors: list[int]  # ids
    items: list[int]  # ids
    lots: list[int]  # ids; one lot per item, in the same order
    clinic_version_id: int


class DemoGenerator:
    """A generator of patients 0 to `count` - 1. The same `seed` gives the same patients; `now` is today."""

    def __init__(self, initial: InitialState, count: int, seed: int, now: datetime) -> None:
        self.initial, self.count, self.seed, self.now = initial, count, seed, now
        self.ids = Counter(initial.last_ids)
        self.heads, self.invoices = dict(initial.heads), Counter(initial.invoices)
        self.year_of = lru_cache(maxsize=4096)(lambda instant: clock.local(instant).year)
        self.slot = lru_cache(maxsize=65_536)(self._slot)
        self.first_day = _workday(clock.local(now).date()) - max(
            count // NEW_PATIENTS - APPOINTMENT_INTERVAL, 3 * APPOINTMENT_INTERVAL
        )
        self.batch = Batch()
        self.audit_key = ring("AUDIT_KEY").current

    def batches(self) -> Iterator[Batch]:
        """Yield all batches. They must be committed in this order: audit and invoice numbers have no gaps."""
        for number, first in enumerate(range(0, self.count, BATCH_SIZE)):
            self.batch = Batch(chain=number % CHAINS)
            self.batch.head = self.heads[self.batch.chain]
            self.random = Random(f"{self.seed}/{first}")  # noqa: S311 - generated data is not secret
            restock_id = self.ids[StockMovement]
            self.ids[StockMovement] += ITEMS
            for patient_index in range(first, min(first + BATCH_SIZE, self.count)):
                self._add_patient(patient_index)
            self._restock(first, restock_id)
            self.heads[self.batch.chain] = self.batch.head
            yield self.batch

    def _slot(self, day: int, index: int) -> tuple[datetime, datetime]:
        """Return start and end of one of the 24 appointments of a doctor a day. Every fifth slot is free."""
        start = clock.at(_date(self.first_day + day), OPENING_TIME) + (index + index // 4) * SLOT
        return start, start + SLOT

    def _add(self, model: type[Base], *values: Any) -> int:
        """Add a row with the next id and return the id."""
        row_id = self.ids[model] + 1
        self.ids[model] = row_id
        self.batch.rows[model].append((row_id, *values))
        return row_id

    # --- Patients ---

    def _add_patient(self, patient_index: int) -> None:
        random = self.random.random
        start, _end = self.slot(patient_index // NEW_PATIENTS, patient_index % NEW_PATIENTS // DOCTORS)
        at = min(start - timedelta(days=7), self.now)
        number = self.ids[Patient] + 1
        given, family = GIVEN_NAMES[int(random() * 48)], _family_name(random)
        name = f"{given} {family}"
        line = f"{201 + number // 10_000_000 % 799}{2_000_000 + number % 8_000_000:07d}"
        insured = random() < 0.6
        gender = (Gender.FEMALE, Gender.MALE, Gender.OTHER)[int(random() * 2.02)]
        birth_date = at.date() - timedelta(days=int(random() * 27_000) + 1)
        searched = {
            "name": name,
            "email": f"{given}.{family}{number}@mail.example".lower() if random() < 0.5 else None,
            "file_number": f"P-{number:06d}",
            "insurance_id": f"N{number:08d}" if insured else None,
            "phone_digits": f"1{line} 1{line}",
        }
        patient_id = self._add(
            Patient,
            searched["file_number"],
            f"p-{number:06d}",
            name,
            search_key(name),
            gender,
            birth_date,
            BirthDatePrecision.DAY,
            f"+1 ({line[:3]}) {line[3:6]}-{line[6:]}",
            f"+1{line}",
            searched["phone_digits"],
            search_fold(searched),
            searched["email"],
            searched["email"],
            f"{int(random() * 200) + 1} {STREETS[int(random() * 6)]}",
            INSURERS[number % 4] if insured else None,
            searched["insurance_id"],
            f"n{number:08d}" if insured else None,
            False,
            True,
            1,
            at,
            at,
        )
        history_id = self._add(MedicalHistory, patient_id, 1, at, at)
        if patient_index % 5 == 0:
            icd10, problem = PROBLEMS[int(random() * 5)]
            self._add(Condition, history_id, problem, search_key(problem), icd10, ConditionStatus.ACTIVE)
        self._add_audit_entry("patient", patient_id, patient_id, at)
        for visit_index in range(APPOINTMENTS):
            self._add_appointment(patient_index, visit_index, patient_id)
        self.batch.patients += 1

    # --- Encounters ---

    def _add_appointment(self, patient_index: int, visit_index: int, patient_id: int) -> None:
        slot_number = visit_index * NEW_PATIENTS + patient_index % NEW_PATIENTS
        doctor = slot_number % DOCTORS
        start, end = self.slot(
            patient_index // NEW_PATIENTS + visit_index * APPOINTMENT_INTERVAL, slot_number // DOCTORS
        )
        status, reason, cancelled_by = AppointmentStatus.SCHEDULED, None, None
        if end <= self.now:
            status = AppointmentStatus.COMPLETED
            if (
                patient_index + visit_index
            ) % APPOINTMENTS == 0:  # one of five appointments does not take place
                status = AppointmentStatus.CANCELLED if patient_index % 2 else AppointmentStatus.NO_SHOW
                if status is AppointmentStatus.CANCELLED:
                    reason, cancelled_by = "called in sick", CancelledBy.PATIENT
        completed = status is AppointmentStatus.COMPLETED
        doctor_id, at = self.initial.doctors[doctor], min(start - timedelta(days=14), self.now)
        appointment_id = self._add(
            Appointment,
            patient_id,
            doctor_id,
            start,
            end,
            end,
            status,
            "follow-up" if visit_index else "first visit",
            "control",
            reason,
            cancelled_by,
            False,
            start if completed else None,
            1,
            at,
            at,
        )
        self._add_audit_entry("appointment", appointment_id, patient_id, at)
        if completed:
            self._add_visit(patient_index, visit_index, patient_id, doctor, appointment_id, start, end)

    def _add_visit(
        self,
        patient_index: int,
        visit_index: int,
        patient_id: int,
        doctor: int,
        appointment_id: int,
        start: datetime,
        end: datetime,
    ) -> None:
        doctor_id = self.initial.doctors[doctor]
        icd10, problem = PROBLEMS[(patient_index + visit_index) % 5]
        visit_id = self._add(
            Visit,
            patient_id,
            doctor_id,
            appointment_id,
            start,
            "consultation",
            problem,
            "Seen and advised; to come again if it does not pass.",
            end,
            1,
            start,
            end,
        )
        self._add_audit_entry("visit", visit_id, patient_id, start)
        if (patient_index + visit_index) % 2:
            self._add(Diagnosis, visit_id, icd10, problem)
        self._add_bill(patient_index, visit_index, patient_id, doctor, visit_id, end)

    # --- Billing ---

    def _add_bill(
        self, patient_index: int, visit_index: int, patient_id: int, doctor: int, visit_id: int, at: datetime
    ) -> None:
        doctor_id, year = self.initial.doctors[doctor], self.year_of(at)
        self.invoices[year] += 1
        self.batch.invoices[year] += 1
        number = format_number(INVOICE, year, self.invoices[year])
        due = at.date() + timedelta(days=30)
        values = (number, patient_id, visit_id, doctor_id, 0, at.date(), due, 1, at, at)
        bill = self._add(Billing, *values, self.initial.clinic_version_id)
        fee = Decimal(60 + 5 * doctor)
        lines: list[tuple[int | None, str, Decimal]] = [(None, "Consultation", fee)]
        if visit_index == 0:
            treatment_id = self._add_treatment(patient_index, patient_id, doctor_id, visit_id, bill, at)
            lines.append((treatment_id, TREATMENT, TREATMENT_COST))
        for line_treatment_id, description, price in lines:
            item_id = self._add(BillingItem, bill, line_treatment_id, description, 1, price)
            charge = (LedgerKind.CHARGE, price, None, at, item_id, at, doctor_id)
            self._add(LedgerEntry, patient_id, bill, *charge)
        is_recent_unpaid = self.now - at < UNPAID_PERIOD and (patient_index + visit_index) % 4 == 0
        if not is_recent_unpaid and (patient_index * APPOINTMENTS + visit_index) % UNPAID_INTERVAL:
            method = METHODS[(patient_index + visit_index) % 4]
            insured = method is PaymentMethod.INSURANCE
            kind = LedgerKind.INSURANCE_PAYMENT if insured else LedgerKind.PAYMENT
            total = sum((price for _treatment_id, _description, price in lines), Decimal(0))
            self._add(LedgerEntry, patient_id, bill, kind, -total, method, at, None, at, doctor_id)
        self._add_audit_entry("billing", bill, patient_id, at)

    # --- Stock ---

    def _add_treatment(
        self, patient_index: int, patient_id: int, doctor_id: int, visit_id: int, bill: int, at: datetime
    ) -> int:
        status, cost = TreatmentStatus.COMPLETED, TREATMENT_COST
        name, key = TREATMENT, TREATMENT.lower()  # its search key
        values = (visit_id, patient_id, doctor_id, name, key, cost, status, at, bill, 1, at, at)
        treatment_id = self._add(Treatment, *values)
        item, quantity = patient_index % ITEMS, 1 + patient_index % 3
        item_id, lot_id = self.initial.items[item], self.initial.lots[item]
        self._add(InventoryUsage, treatment_id, item_id, quantity)
        self._add(StockMovement, item_id, lot_id, MovementType.USAGE, -quantity, treatment_id, at)
        self.batch.stock[item] -= quantity
        return treatment_id

    def _restock(self, first: int, last_id: int) -> None:
        """Add a delivery of each item before the first appointment: the used quantity plus one."""
        start, _end = self.slot(first // NEW_PATIENTS, 0)
        at = min(start, self.now) - timedelta(days=1)
        movements: list[Row] = []
        for item, (item_id, lot_id) in enumerate(zip(self.initial.items, self.initial.lots, strict=True)):
            quantity = 1 - self.batch.stock[item]
            row_id = last_id + item + 1
            movements.append((row_id, item_id, lot_id, MovementType.RESTOCK, quantity, None, at))
            self.batch.stock[item] += quantity
        self.batch.rows[StockMovement][:0] = movements

    # --- Audit ---

    def _add_audit_entry(self, entity: str, entity_id: int, patient_id: int, at: datetime) -> None:
        """Add the audit entry for a created row."""
        batch, audit_id = self.batch, self.ids[AuditLog] + 1
        number, previous = batch.head
        values: dict[str, Any] = {
            "chain": batch.chain,
            "number": number + 1,
            "at": at,
            "user_id": None,
            "user_name": "demo",
            "role": "admin",
            "action": "create",
            "entity": entity,
            "entity_id": entity_id,
            "entity_ids": [],
            "patient_ids": [patient_id],
            "fields": AUDIT_FIELDS[entity],
            "outcome": AuditOutcome.SUCCESS,
            "detail": None,
            "operation": OPERATION,
            "address": None,
            "request_id": None,
            "key_id": self.audit_key.id,
        }
        mac = compute_mac(self.audit_key, previous, canonical_json(values))
        batch.head = (number + 1, mac)
        self.ids[AuditLog] = audit_id
        batch.rows[AuditLog].append((audit_id, *values.values(), mac))
        batch.rows[AuditSubject].append((patient_id, audit_id))


def _family_name(random: Callable[[], float]) -> str:
    return (
        FAMILY_STARTS[int(random() * 40)]
        + FAMILY_MIDDLES[int(random() * 20)]
        + FAMILY_ENDS[int(random() * 20)]
    )


def _workday(day: date) -> int:
    """Return the number of working days from `MONDAY` to the day. A weekend counts as its Friday."""
    days = (day - MONDAY).days
    return days // 7 * 5 + min(days % 7, 4)


def _date(workday: int) -> date:
    return MONDAY + timedelta(days=workday // 5 * 7 + workday % 5)
