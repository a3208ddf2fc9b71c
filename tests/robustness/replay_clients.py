"""Clients that send random requests to one application and record requests and responses.

`Scenario` holds the rows and the recorded history. Each `Client` runs on its own thread with its own random
numbers. `replay_checker` compares the history with the reference model.
"""

from __future__ import annotations

import itertools
import random
import secrets
import time
from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import Any, NamedTuple

import requests

from enums import AppointmentStatus
from models import Appointment as AppointmentRow
from tests.robustness.cluster import Cluster
from tests.robustness.reference_model import (
    OPEN,
    AnomalyError,
    Appointment,
    Bill,
    BookingAttempt,
    Operation,
    Refused,
    Rule,
    Session,
    StateVersion,
    Stock,
    Visit,
)
from tests.support.clinic import PASSWORD, Caller

BUFFERS = (0, 0, 5, 10, 15)  # minutes, one doctor each
PATIENTS = 20
NO_SHOWS = 40  # appointments that can be booked again, once each
OPERATIONS_PER_DAY = 400  # then the clients book the next day, so that contention stays the same
REPEAT_INTERVAL = 10  # one in ten acknowledged POST requests is sent again
REFUSAL_MEMBERS = {"overpayment": "balance", "excessive_refund": "refundable"}

Row = dict[str, Any]


class Exchange(NamedTuple):
    """A request with its response. Times are seconds of the monotonic clock."""

    sent: float
    answered: float
    response: requests.Response

    @property
    def row(self) -> Row:
        row: Row = self.response.json()
        return row

    @property
    def number(self) -> int:
        """The version in the ETag."""
        return int(self.response.headers["ETag"].strip('"'))

    @property
    def refused(self) -> Refused:
        """The refusal. Raise AnomalyError for a status other than 401 and 409."""
        if self.response.status_code not in (401, 409):
            raise AnomalyError(f"{self.response.request.method} {self.response.url}: {self.response.text}")
        code = self.row["error"]
        fact = self.row.get(REFUSAL_MEMBERS[code]) if code in REFUSAL_MEMBERS else None
        return Refused(code, None if fact is None else Decimal(fact))


class StockChange(NamedTuple):
    """An acknowledged change of stock, before its number is known."""

    operation: Operation[Stock]
    item: int


@dataclass
class Scenario:
    """The rows of the test and the recorded operations on them."""

    cluster: Cluster
    doctors: list[int] = field(default_factory=list)
    patients: list[int] = field(default_factory=list)
    appointments: list[int] = field(default_factory=list)
    bills: list[int] = field(default_factory=list)
    items: list[int] = field(default_factory=list)
    visits: list[int] = field(default_factory=list)
    treatments: list[tuple[int, list[Row]]] = field(default_factory=list)  # that can be deleted
    sessions: list[tuple[Hashable, Caller]] = field(default_factory=list)
    signed_in: list[tuple[Hashable, Caller]] = field(default_factory=list)  # sessions that can sign out
    users: list[str] = field(default_factory=list)

    initial: dict[Hashable, tuple[StateVersion[Any], int]] = field(default_factory=dict)
    operations: dict[Hashable, list[Operation[Any]]] = field(default_factory=lambda: defaultdict(list))
    attempts: list[BookingAttempt] = field(default_factory=list)
    stock_changes: dict[Hashable, StockChange] = field(default_factory=dict)
    numbers: itertools.count[int] = field(default_factory=itertools.count)
    done: int = 0

    def create_rows(self) -> None:
        """Create doctors, patients and no-show appointments."""
        clinic = self.cluster.clinic
        self.doctors += [clinic.doctor_row(buffer_minutes=minutes)["id"] for minutes in BUFFERS]
        self.patients += [clinic.patient()["id"] for _ in range(PATIENTS)]
        past = datetime.now(UTC).replace(microsecond=0) - timedelta(days=2)
        with clinic.inside() as session:
            rows = [
                AppointmentRow(
                    doctor_id=self.doctors[n % len(self.doctors)],
                    patient_id=self.patients[n % PATIENTS],
                    start=past,
                    end=past + timedelta(minutes=30),
                    blocked_until=past + timedelta(minutes=30),
                    status=AppointmentStatus.NO_SHOW,
                )
                for n in range(NO_SHOWS)
            ]
            session.add_all(rows)
            session.flush()
            for row in rows:
                no_show = Appointment(row.doctor_id, row.patient_id, row.start, 30, "no_show")
                self.add_object(("appointment", row.id), no_show, number=1)
                self.appointments.append(row.id)

    def create_other_rows(self) -> None:
        """Create the rows for billing, stock and visits."""
        clinic = self.cluster.clinic
        for _ in range(6):
            item = clinic.item()
            self.add_object(("item", item["id"]), Stock(0))
            self.items.append(item["id"])
        for number in range(3):
            email = f"robust{next(clinic.numbers)}@clinic.example"
            member = {"name": f"Desk {number}", "email": email, "password": PASSWORD, "role": "receptionist"}
            clinic.admin.make("/users", **member)
            self.users.append(email)

    def add_object(
        self,
        name: Hashable,
        first: Any,
        number: int = 0,
        sent: float = float("-inf"),
        answered: float = float("-inf"),
    ) -> None:
        """Record the first version of an object."""
        self.initial[name] = (StateVersion(first, sent, answered), number)

    def day(self) -> datetime:
        """Return the day on which the clients book now."""
        today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        return today + timedelta(days=1 + self.done // OPERATIONS_PER_DAY)


def appointment_shown(row: Row) -> Appointment:
    start = datetime.fromisoformat(row["date"])
    return Appointment(
        row["doctor_id"], row["patient_id"], start, row["duration"], row["status"], row["notes"]
    )


def bill_shown(row: Row) -> Bill:
    if row["status"] == "void":
        return Bill(Decimal(0), void=True)
    return Bill(Decimal(row["amount"]), Decimal(row["amount_paid"]), Decimal(row["written_off"]))


def visit_shown(row: Row) -> Visit:
    return Visit(row["summary"], row["status"] == "signed")


class Client:
    """A client that sends one request after the other."""

    def __init__(self, scenario: Scenario, seed: int, weights: Mapping[str, int]) -> None:
        self.scenario, self.rng = scenario, random.Random(seed)
        self.kinds: list[Callable[[], None]] = [getattr(self, name) for name in weights]
        self.weights = list(weights.values())

    def run(self, operations: int) -> None:
        """Run random operations."""
        for _ in range(operations):
            self.rng.choices(self.kinds, self.weights)[0]()
            self.scenario.done += 1

    def send(self, method: str, path: str, body: Any = None, by: Caller | None = None) -> Exchange:
        """Send a request. A POST has an idempotency key. A repeated POST must give the same response."""
        has_key = method == "POST" and not path.startswith("/auth")
        key = {"Idempotency-Key": secrets.token_hex(16)} if has_key else {}
        request = partial(self.scenario.cluster.send, method, path, body, by=by, **key)
        sent = time.monotonic()
        response = request()
        exchange = Exchange(sent, time.monotonic(), response)
        if has_key and response.ok and self.rng.randrange(REPEAT_INTERVAL) == 0:
            again = request()
            if again.content != response.content or "Idempotency-Replayed" not in again.headers:
                raise AnomalyError(f"{path}: {again.text} differs from the first response {response.text}")
        return exchange

    def record(
        self, name: Hashable, exchange: Exchange, rule: Rule[Any], shown: Callable[[Row], Any], label: str
    ) -> None:
        """Record an operation. Its response shows the object with its version."""
        succeeded = exchange.response.ok
        result = shown(exchange.row) if succeeded else exchange.refused
        number = exchange.number if succeeded else None
        self.scenario.operations[name].append(
            Operation(exchange.sent, exchange.answered, rule, result, number, label)
        )

    # --- The calendar ---

    def random_appointment(self, patient: int, marker: str) -> Appointment:
        rng = self.rng
        start = self.scenario.day() + timedelta(hours=8, minutes=5 * rng.randrange(120))
        minutes = rng.choice((15, 30, 45, 60))
        return Appointment(rng.choice(self.scenario.doctors), patient, start, minutes, marker=marker)

    def record_attempt(
        self, exchange: Exchange, requested: Appointment, appointment: Hashable = None
    ) -> None:
        """Record the conflicts in the response to a booking."""
        if exchange.response.ok:
            codes: frozenset[str] = frozenset()
        elif "conflicts" not in exchange.row:
            raise AnomalyError(
                f"{requested} was refused by a constraint and not by the booking check: {exchange.row}"
            )
        else:
            codes = frozenset(conflict["code"] for conflict in exchange.row["conflicts"])
        self.scenario.attempts.append(
            BookingAttempt(exchange.sent, exchange.answered, requested, codes, appointment)
        )

    def book(self) -> None:
        requested = self.random_appointment(
            self.rng.choice(self.scenario.patients), f"book {next(self.scenario.numbers)}"
        )
        body = {"patient_id": requested.patient} | self.time_members(requested)
        exchange = self.send("POST", "/appointments", body)
        if exchange.response.ok:
            if appointment_shown(exchange.row) != requested:
                raise AnomalyError(f"{requested} was booked as {exchange.row}")
            name = ("appointment", exchange.row["id"])
            self.scenario.add_object(name, requested, exchange.number, exchange.sent, exchange.answered)
            self.scenario.appointments.append(exchange.row["id"])
        elif exchange.refused.code != "appointment_conflict":
            raise AnomalyError(f"{requested}: {exchange.row}")
        self.record_attempt(exchange, requested)

    @staticmethod
    def time_members(requested: Appointment) -> Row:
        date = requested.start.isoformat()
        return {
            "doctor_id": requested.doctor,
            "date": date,
            "duration": requested.minutes,
            "notes": requested.marker,
        }

    def reschedule(self) -> None:
        self.move(self.some_appointment(), reopen=False)

    def reopen(self) -> None:
        # the first rows are the no-shows
        self.move(self.rng.choice(self.scenario.appointments[:NO_SHOWS]), reopen=True)

    def move(self, row_id: int, *, reopen: bool) -> None:
        name = ("appointment", row_id)
        patient = self.scenario.initial[name][0].state.patient
        requested = self.random_appointment(patient, f"move {next(self.scenario.numbers)}")
        status = {"status": "scheduled", "status_reason": "Came after all"} if reopen else {}
        exchange = self.send("PATCH", f"/appointments/{row_id}", self.time_members(requested) | status)

        def rule(state: Appointment) -> Appointment | Refused:
            return state.move(
                requested.doctor, requested.start, requested.minutes, requested.marker or "", reopen=reopen
            )

        def refused_for_conflict(state: Appointment) -> Refused:
            outcome = rule(state)
            return outcome if isinstance(outcome, Refused) else Refused("appointment_conflict")

        conflicted = not exchange.response.ok and exchange.refused.code == "appointment_conflict"
        if exchange.response.ok or conflicted:
            self.record_attempt(exchange, requested, name)
        self.record(name, exchange, refused_for_conflict if conflicted else rule, appointment_shown, "move")

    def cancel(self) -> None:
        row_id = self.some_appointment()
        exchange = self.send("DELETE", f"/appointments/{row_id}", {"cancellation_reason": "Ill"})
        self.record(("appointment", row_id), exchange, Appointment.cancel, appointment_shown, "cancel")

    def some_appointment(self) -> int:
        """Return an appointment, mostly one of the last: many clients use these."""
        rows = self.scenario.appointments
        return self.rng.choice(rows[-30:] if self.rng.randrange(5) else rows)

    def create(self, kind: str, path: str, body: Row, shown: Callable[[Row], Any]) -> int:
        """Create a row that nothing can refuse. Return its id."""
        exchange = self.send("POST", path, body)
        if not exchange.response.ok:
            raise AnomalyError(f"{body}: {exchange.row}")
        row_id: int = exchange.row["id"]
        self.scenario.add_object(
            (kind, row_id), shown(exchange.row), exchange.number, exchange.sent, exchange.answered
        )
        return row_id

    # --- Billing ---

    def bill(self) -> None:
        items = [{"description": "X-ray", "quantity": 1, "unit_price": f"{self.rng.randint(20, 200)}.00"}]
        body = {"patient_id": self.rng.choice(self.scenario.patients), "items": items}
        self.scenario.bills.append(self.create("bill", "/billings", body, bill_shown))

    def post_entry(self, path: str, members: Row, rule: Callable[[Bill, Decimal], Bill | Refused]) -> None:
        if not self.scenario.bills:
            return self.bill()
        bill = self.rng.choice(self.scenario.bills[-8:])
        amount = Decimal(self.rng.randint(1, 6_000)).scaleb(-2)
        exchange = self.send("POST", f"/billings/{bill}/{path}", {"amount": str(amount)} | members)
        self.record(
            ("bill", bill), exchange, lambda state: rule(state, amount), bill_shown, f"{path} {amount}"
        )
        return None

    def pay(self) -> None:
        self.post_entry("payments", {"method": "cash"}, Bill.pay)

    def refund(self) -> None:
        self.post_entry("refunds", {"reason": "Came too early"}, Bill.refund)

    def write_off(self) -> None:
        self.post_entry("write-off", {"reason": "Hardship"}, Bill.write_off)

    def make_void(self) -> None:
        if not self.scenario.bills:
            return self.bill()
        bill = self.rng.choice(self.scenario.bills[-8:])
        exchange = self.send("POST", f"/billings/{bill}/void", {"reason": "Wrong patient"})
        self.record(("bill", bill), exchange, Bill.make_void, bill_shown, "void")
        return None

    # --- Stock ---

    def use(self) -> None:
        self.move_stock("usage", -self.rng.randint(1, 12))

    def restock(self) -> None:
        self.move_stock("restock", self.rng.randint(1, 10))

    def move_stock(self, kind: str, units: int) -> None:
        item = self.rng.choice(self.scenario.items)
        exchange = self.send("POST", f"/inventory/{item}/movements", {"type": kind, "quantity": abs(units)})
        if exchange.response.ok:
            for movement in exchange.row["movements"]:
                self.record_movement(
                    ("movement", movement["id"]), item, exchange, units, Stock(exchange.row["item_quantity"])
                )
        else:
            self.record_shortage(exchange, {item: -units})

    def record_movement(
        self, key: Hashable, item: int, exchange: Exchange, units: int, result: Stock | None = None
    ) -> None:
        """Record a change of stock. `key` finds its movement in the database."""
        operation = Operation(
            exchange.sent, exchange.answered, lambda stock: stock.change(units), result, None, f"{units:+d}"
        )
        self.scenario.stock_changes[key] = StockChange(operation, item)

    def record_shortage(self, exchange: Exchange, needed: Mapping[int, int]) -> None:
        """Record the refusal for the items that it names."""
        if exchange.refused.code != "insufficient_stock":
            raise AnomalyError(f"{needed}: {exchange.row}")
        for item in exchange.row["items"]:
            units = needed[item["item_id"]]
            result = Refused("insufficient_stock", item["available"])
            self.scenario.operations[("item", item["item_id"])].append(
                Operation(exchange.sent, exchange.answered, lambda stock, n=units: stock.change(-n), result)
            )

    def treat(self) -> None:
        if not self.scenario.visits:
            return self.visit()
        visit = self.rng.choice(self.scenario.visits[-8:])
        items = self.rng.sample(self.scenario.items, 2)
        usages = [{"item_id": item, "quantity": self.rng.randint(1, 4)} for item in items]
        body = {"visit_id": visit, "name": "Dressing", "cost": "1.00", "inventory_items": usages}
        exchange = self.send("POST", "/treatments", body)
        result: Visit | Refused = OPEN
        if exchange.response.ok:
            treatment = exchange.row["id"]
            for usage in usages:
                key = ("usage", treatment, usage["item_id"])
                self.record_movement(key, usage["item_id"], exchange, -usage["quantity"])
            self.scenario.treatments.append((treatment, usages))
        elif exchange.refused.code == "read_only":
            result = exchange.refused
        else:
            self.record_shortage(exchange, {usage["item_id"]: usage["quantity"] for usage in usages})
        self.scenario.operations[("visit", visit)].append(
            Operation(exchange.sent, exchange.answered, Visit.treat, result, None, "treat")
        )
        return None

    def cancel_treatment(self) -> None:
        try:  # popped, so that no other client deletes it
            treatment, usages = self.scenario.treatments.pop()
        except IndexError:
            return
        exchange = self.send("DELETE", f"/treatments/{treatment}", {"reason": "Entered twice"})
        if exchange.response.ok:
            for usage in usages:
                key = ("return", treatment, usage["item_id"])
                self.record_movement(key, usage["item_id"], exchange, usage["quantity"])
        elif exchange.refused.code != "read_only":  # the visit was signed meanwhile
            raise AnomalyError(f"treatment {treatment}: {exchange.row}")

    # --- Visits and sessions ---

    def visit(self) -> None:
        body = {
            "patient_id": self.rng.choice(self.scenario.patients),
            "doctor_id": self.rng.choice(self.scenario.doctors),
            "summary": f"seen {next(self.scenario.numbers)}",
        }
        self.scenario.visits.append(self.create("visit", "/visits", body, visit_shown))

    def document(self) -> None:
        if not self.scenario.visits:
            return self.visit()
        visit, text = self.rng.choice(self.scenario.visits[-8:]), f"found {next(self.scenario.numbers)}"
        exchange = self.send("PATCH", f"/visits/{visit}", {"summary": text})
        self.record(("visit", visit), exchange, lambda state: state.write(text), visit_shown, "document")
        return None

    def sign(self) -> None:
        if not self.scenario.visits:
            return self.visit()
        visit = self.rng.choice(self.scenario.visits[-8:])
        exchange = self.send("POST", f"/visits/{visit}/sign")
        self.record(("visit", visit), exchange, Visit.sign, visit_shown, "sign")
        return None

    def sign_in(self) -> None:
        body = {"email": self.rng.choice(self.scenario.users), "password": PASSWORD}
        exchange = self.send("POST", "/auth/login", body)
        if not exchange.response.ok:
            raise AnomalyError(f"{body['email']}: {exchange.row}")
        name = ("session", next(self.scenario.numbers))
        session = (name, Caller(self.scenario.cluster.clinic, exchange.row["access_token"]))
        self.scenario.add_object(name, Session(), 0, exchange.sent, exchange.answered)
        self.scenario.sessions.append(session)
        self.scenario.signed_in.append(session)

    def read_profile(self) -> None:
        if not self.scenario.sessions:
            return self.sign_in()
        name, caller = self.rng.choice(self.scenario.sessions[-10:])
        exchange = self.send("GET", "/auth/me", by=caller)
        result = Session() if exchange.response.ok else exchange.refused
        self.scenario.operations[name].append(
            Operation(exchange.sent, exchange.answered, Session.use, result)
        )
        return None

    def sign_out(self) -> None:
        try:  # popped, so that no other client ends it
            name, caller = self.scenario.signed_in.pop()
        except IndexError:
            return self.sign_in()
        exchange = self.send("POST", "/auth/logout", by=caller)
        if not exchange.response.ok:
            raise AnomalyError(f"{name}: {exchange.row}")
        ended = Session(alive=False)
        self.scenario.operations[name].append(
            Operation(exchange.sent, exchange.answered, Session.end, ended, 1, "sign out")
        )
        return None
