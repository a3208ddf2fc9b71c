"""A made-up clinic of any size, row by row: `flask demo grow` writes what comes out of here.

Twenty doctors see up to 480 patients on a working day, for as many years as it takes to see all of them.
Everybody comes five times, a month apart; who is made does not depend on how many there are.
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
from services import clock
from services.audit.audit_log import CHAINS, canonical_json, compute_mac
from services.search_key import search_key

APPOINTMENTS = 5  # of every patient
NEWCOMERS = 96  # patients who come for the first time on a working day
APART = 20  # working days between two appointments of one patient
DOCTORS = 20
SLOT = timedelta(minutes=20)
OPENS, CLOSES = time(8), time(18)
ITEMS = 20  # kinds of stock
OPERATION = "flask demo grow"
BATCH = 2_000  # patients made at once

OPEN_DAYS = timedelta(days=45)  # in which every fourth bill waits to be paid
NEVER_PAID = 1_000  # of so many older bills one does
MONDAY = date(1900, 1, 1)
STREETS = ("Harbour Lane", "Mill Road", "Station Street", "Orchard Way", "Castle Hill", "Church Walk")
INSURERS = ("Harbour Mutual", "Northern Health", "Red Kite Insurance", "United Care")
GIVEN = (
    "Ada Amara Anton Astrid Boris Carla Chidi Dana Diego Elif Emeka Farah Felix Grace Hanna Hugo Ines Ivan "
    "Jamal Joana Kaito Karin Lars Leila Lucia Malik Marta Mina Nadia Nils Noor Olga Omar Paula Pedro Petra "
    "Rafael Rosa Samir Selma Simon Tara Thomas Uma Vera Viktor Yara Zoe"
).split()
FIRST = (
    "Al Bar Bel Ber Bo Bran Cal Car Dal Dor El Fal Fen Gar Gil Hal Har Hol Jan Kal Kar Kel Kol Lan Lin Mar "
    "Mel Mor Nor Ol Pel Ran Ros Sal San Sel Tal Tor Val Wal"
).split()
MIDDLE = "a ber co da de di en er ga go i ka ki la le ma me mo na ne".split()
LAST = "berg bos dal der dez fors gard ham kis land lin mann nen ric rov sen ska son ton witz".split()
PROBLEMS = (
    ("I10", "Essential (primary) hypertension"),
    ("E11.9", "Type 2 diabetes mellitus without complications"),
    ("J45.909", "Unspecified asthma, uncomplicated"),
    ("M54.50", "Low back pain, unspecified"),
    ("J06.9", "Acute upper respiratory infection, unspecified"),
)
METHODS = (PaymentMethod.CARD, PaymentMethod.CASH, PaymentMethod.INSURANCE, PaymentMethod.MOBILE_MONEY)
TREATMENT_COST = Decimal("40.00")
FIELDS = {
    "patient": ["file_number", "gender", "name", "phone"],
    "appointment": ["date", "doctor_id", "patient_id"],
    "visit": ["appointment_id", "date", "doctor_id", "patient_id"],
    "billing": ["billing_items", "ledger_entries", "patient_id"],
}

# The order in which they are written, parents first, and the columns of their rows; the others are NULL.
COLUMNS: dict[type[Base], tuple[str, ...]] = {
    model: tuple(columns.split())
    for model, columns in {
        Patient: "id file_number name name_fold gender date_of_birth phone phone_e164 phone_digits email "
        "address insurance_provider insurance_id needs_review is_active version created_at updated_at",
        MedicalHistory: "id patient_id version created_at updated_at",
        Condition: "id medical_history_id name name_fold icd10 status",
        Appointment: "id patient_id doctor_id start end blocked_until status type reason cancellation_reason "
        "cancelled_by overbooked checked_in_at version created_at updated_at",
        Visit: "id patient_id doctor_id appointment_id date visit_type chief_complaint summary signed_at "
        "version created_at updated_at",
        Diagnosis: "id visit_id icd10 description",
        Billing: "id invoice_number patient_id visit_id doctor_id tax_rate due_date version created_at "
        "updated_at",
        Treatment: "id visit_id patient_id doctor_id name cost status stock_taken_at billing_id version "
        "created_at updated_at",
        BillingItem: "id billing_id treatment_id description quantity unit_price",
        LedgerEntry: "id patient_id billing_id kind amount method occurred_at item_id created_at doctor_id",
        InventoryUsage: "id treatment_id item_id quantity",
        StockMovement: "id item_id lot_id type quantity treatment_id created_at",
        AuditLog: "id chain number at user_id user_name role action entity entity_id entity_ids patient_ids "
        "fields outcome detail operation address request_id mac",
        AuditSubject: "patient_id audit_id",
    }.items()
}

Row = tuple[Any, ...]


@dataclass
class Batch:
    """Rows of some patients with everything that hangs on them, and what they move besides."""

    rows: dict[type[Base], list[Row]] = field(default_factory=lambda: {model: [] for model in COLUMNS})
    patients: int = 0
    chain: int = 0
    head: tuple[int, str] = (0, "")  # number and MAC of the chain's last entry
    invoices: Counter[int] = field(default_factory=Counter)  # by year
    stock: Counter[int] = field(default_factory=Counter)  # what is left over, by item's place


@dataclass(frozen=True)
class Ground:
    """What the population stands on: the rows that were there before, and the clinic's doctors and stock.

    `last_ids` are the greatest ids by table, `heads` the ends of the audit's chains, `invoices` the last
    number by year; of doctors, items and their lots the ids.
    """

    last_ids: Mapping[type[Base], int]
    heads: Mapping[int, tuple[int, str]]
    invoices: Mapping[int, int]
    doctors: list[int]
    items: list[int]
    lots: list[int]


class Population:
    """Patients 0 to `count` - 1 of the population that `seed` names, as of `now`."""

    def __init__(self, ground: Ground, count: int, seed: int, now: datetime) -> None:
        self.ground, self.count, self.seed, self.now = ground, count, seed, now
        self.ids = Counter(ground.last_ids)
        self.heads, self.invoices = dict(ground.heads), Counter(ground.invoices)
        self.year_of = lru_cache(maxsize=4096)(lambda instant: clock.local(instant).year)
        self.times = lru_cache(maxsize=65_536)(self._times)
        self.first_day = _workday(clock.local(now).date()) - max(count // NEWCOMERS - APART, 3 * APART)
        self.batch = Batch()

    def batches(self) -> Iterator[Batch]:
        """All of them, in the order in which they must be committed."""
        for number, first in enumerate(range(0, self.count, BATCH)):
            self.batch = Batch(chain=number % CHAINS)
            self.batch.head = self.heads[self.batch.chain]
            self.random = Random(f"{self.seed}/{first}")  # noqa: S311 - made-up people are no secret
            reserved = self.ids[StockMovement]
            self.ids[StockMovement] += ITEMS
            for place in range(first, min(first + BATCH, self.count)):
                self._patient(place)
            self._restock(first, reserved)
            self.heads[self.batch.chain] = self.batch.head
            yield self.batch

    def _times(self, day: int, turn: int) -> tuple[datetime, datetime]:
        """Beginning and end of one of the doctors' 24 turns; every eighty minutes twenty stay free."""
        start = clock.at(_day(self.first_day + day), OPENS) + (turn + turn // 4) * SLOT
        return start, start + SLOT

    def _add(self, model: type[Base], *values: Any) -> int:
        """A row under the next id, which is answered."""
        row_id = self.ids[model] + 1
        self.ids[model] = row_id
        self.batch.rows[model].append((row_id, *values))
        return row_id

    # --- People ---

    def _patient(self, place: int) -> None:
        random = self.random.random
        start, _end = self.times(place // NEWCOMERS, place % NEWCOMERS // DOCTORS)
        at = min(start - timedelta(days=7), self.now)
        number = self.ids[Patient] + 1
        given, family = GIVEN[int(random() * 48)], _family(random)
        name = f"{given} {family}"
        line = f"{201 + number // 10_000_000 % 799}{2_000_000 + number % 8_000_000:07d}"
        insured = random() < 0.6
        patient_id = self._add(
            Patient,
            f"P-{number:06d}",
            name,
            search_key(name),
            (Gender.FEMALE, Gender.MALE, Gender.OTHER)[int(random() * 2.02)],
            at.date() - timedelta(days=int(random() * 27_000) + 1),
            f"+1 ({line[:3]}) {line[3:6]}-{line[6:]}",
            f"+1{line}",
            f"1{line} 1{line}",
            f"{given}.{family}{number}@mail.example".lower() if random() < 0.5 else None,
            f"{int(random() * 200) + 1} {STREETS[int(random() * 6)]}",
            INSURERS[number % 4] if insured else None,
            f"N{number:08d}" if insured else None,
            False,
            True,
            1,
            at,
            at,
        )
        history_id = self._add(MedicalHistory, patient_id, 1, at, at)
        if place % 5 == 0:
            icd10, problem = PROBLEMS[int(random() * 5)]
            self._add(Condition, history_id, problem, search_key(problem), icd10, ConditionStatus.ACTIVE)
        self._tell("patient", patient_id, patient_id, at)
        for time_ in range(APPOINTMENTS):
            self._appointment(place, time_, patient_id)
        self.batch.patients += 1

    # --- Encounters ---

    def _appointment(self, place: int, time_: int, patient_id: int) -> None:
        seat = time_ * NEWCOMERS + place % NEWCOMERS
        doctor = seat % DOCTORS
        start, end = self.times(place // NEWCOMERS + time_ * APART, seat // DOCTORS)
        status, reason, by = AppointmentStatus.SCHEDULED, None, None
        if end <= self.now:
            status = AppointmentStatus.COMPLETED
            if (place + time_) % APPOINTMENTS == 0:  # one of the five does not take place
                status = AppointmentStatus.CANCELLED if place % 2 else AppointmentStatus.NO_SHOW
                if status is AppointmentStatus.CANCELLED:
                    reason, by = "called in sick", CancelledBy.PATIENT
        came = status is AppointmentStatus.COMPLETED
        doctor_id, at = self.ground.doctors[doctor], min(start - timedelta(days=14), self.now)
        appointment_id = self._add(
            Appointment,
            patient_id,
            doctor_id,
            start,
            end,
            end,
            status,
            "follow-up" if time_ else "first visit",
            "control",
            reason,
            by,
            False,
            start if came else None,
            1,
            at,
            at,
        )
        self._tell("appointment", appointment_id, patient_id, at)
        if came:
            self._visit(place, time_, patient_id, doctor, appointment_id, start, end)

    def _visit(
        self,
        place: int,
        time_: int,
        patient_id: int,
        doctor: int,
        appointment_id: int,
        start: datetime,
        end: datetime,
    ) -> None:
        doctor_id = self.ground.doctors[doctor]
        icd10, problem = PROBLEMS[(place + time_) % 5]
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
        self._tell("visit", visit_id, patient_id, start)
        if (place + time_) % 2:
            self._add(Diagnosis, visit_id, icd10, problem)
        self._bill(place, time_, patient_id, doctor, visit_id, end)

    # --- Money ---

    def _bill(
        self, place: int, time_: int, patient_id: int, doctor: int, visit_id: int, at: datetime
    ) -> None:
        doctor_id, year = self.ground.doctors[doctor], self.year_of(at)
        self.invoices[year] += 1
        self.batch.invoices[year] += 1
        number = f"INV-{year}-{self.invoices[year]:06d}"
        due = at.date() + timedelta(days=30)
        bill = self._add(Billing, number, patient_id, visit_id, doctor_id, 0, due, 1, at, at)
        fee = Decimal(60 + 5 * doctor)
        lines: list[tuple[int | None, str, Decimal]] = [(None, "Consultation", fee)]
        if time_ == 0:
            treatment_id = self._treatment(place, patient_id, doctor_id, visit_id, bill, at)
            lines.append((treatment_id, "Wound dressing", TREATMENT_COST))
        for charged, described, price in lines:
            item_id = self._add(BillingItem, bill, charged, described, 1, price)
            posted = (LedgerKind.CHARGE, price, None, at, item_id, at, doctor_id)
            self._add(LedgerEntry, patient_id, bill, *posted)
        waiting = self.now - at < OPEN_DAYS and (place + time_) % 4 == 0
        if not waiting and (place * APPOINTMENTS + time_) % NEVER_PAID:
            method = METHODS[(place + time_) % 4]
            insured = method is PaymentMethod.INSURANCE
            kind = LedgerKind.INSURANCE_PAYMENT if insured else LedgerKind.PAYMENT
            total = sum((price for _treatment, _told, price in lines), Decimal(0))
            self._add(LedgerEntry, patient_id, bill, kind, -total, method, at, None, at, doctor_id)
        self._tell("billing", bill, patient_id, at)

    # --- Stock ---

    def _treatment(
        self, place: int, patient_id: int, doctor_id: int, visit_id: int, bill: int, at: datetime
    ) -> int:
        status, cost = TreatmentStatus.COMPLETED, TREATMENT_COST
        made = (visit_id, patient_id, doctor_id, "Wound dressing", cost, status, at, bill, 1, at, at)
        treatment_id = self._add(Treatment, *made)
        item, quantity = place % ITEMS, 1 + place % 3
        item_id, lot_id = self.ground.items[item], self.ground.lots[item]
        self._add(InventoryUsage, treatment_id, item_id, quantity)
        self._add(StockMovement, item_id, lot_id, MovementType.USAGE, -quantity, treatment_id, at)
        self.batch.stock[item] -= quantity
        return treatment_id

    def _restock(self, first: int, reserved: int) -> None:
        """What the batch uses and one of everything, delivered before its first patient comes."""
        start, _end = self.times(first // NEWCOMERS, 0)
        at = min(start, self.now) - timedelta(days=1)
        delivered: list[Row] = []
        for item, (item_id, lot_id) in enumerate(zip(self.ground.items, self.ground.lots, strict=True)):
            quantity = 1 - self.batch.stock[item]
            row_id = reserved + item + 1
            delivered.append((row_id, item_id, lot_id, MovementType.RESTOCK, quantity, None, at))
            self.batch.stock[item] += quantity
        self.batch.rows[StockMovement][:0] = delivered

    # --- Trust ---

    def _tell(self, entity: str, entity_id: int, patient_id: int, at: datetime) -> None:
        """The entry of the audit for a row that was made."""
        batch, audit_id = self.batch, self.ids[AuditLog] + 1
        number, previous = batch.head
        told: dict[str, Any] = {
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
            "fields": FIELDS[entity],
            "outcome": AuditOutcome.SUCCESS,
            "detail": None,
            "operation": OPERATION,
            "address": None,
            "request_id": None,
        }
        mac = compute_mac(previous, canonical_json(told))
        batch.head = (number + 1, mac)
        self.ids[AuditLog] = audit_id
        batch.rows[AuditLog].append((audit_id, *told.values(), mac))
        batch.rows[AuditSubject].append((patient_id, audit_id))


def _family(random: Callable[[], float]) -> str:
    return FIRST[int(random() * 40)] + MIDDLE[int(random() * 20)] + LAST[int(random() * 20)]


def _workday(day: date) -> int:
    """Working days from `MONDAY` to the day, or to the Friday before it."""
    days = (day - MONDAY).days
    return days // 7 * 5 + min(days % 7, 4)


def _day(workday: int) -> date:
    return MONDAY + timedelta(days=workday // 5 * 7 + workday % 5)
