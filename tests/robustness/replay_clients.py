"""Clients who act at random on one clinic and write down what they asked and what they were told.

A `World` is what they act on and what was written down; `Client` is one of them, on a thread of its own, with
dice of its own. `replay_judge` holds it all against the sequential model.
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
from tests.robustness.fleet import Fleet
from tests.robustness.model import (
    OPEN,
    Anomaly,
    Appointment,
    Bill,
    Operation,
    Proposal,
    Refused,
    Rule,
    Session,
    Step,
    Stock,
    Visit,
)
from tests.support.clinic import PASSWORD, Caller

BUFFERS = (0, 0, 5, 10, 15)  # minutes, a doctor each
PATIENTS = 20
MISSED = 40  # appointments that can be booked again, once each
DAY_LASTS = 400  # operations after which the clients turn to the next day: contention stays as it is
ONE_IN_REPEATED = 10  # acknowledged posts that are sent again
FACTS = {"overpayment": "balance", "excessive_refund": "refundable"}

Row = dict[str, Any]


class Asked(NamedTuple):
    """A question with its answer, and when: seconds of the monotonic clock."""

    sent: float
    answered: float
    response: requests.Response

    @property
    def row(self) -> Row:
        found: Row = self.response.json()
        return found

    @property
    def number(self) -> int:
        """The version that the answer names."""
        return int(self.response.headers["ETag"].strip('"'))

    @property
    def refused(self) -> Refused:
        """The refusal; Anomaly for any other answer than one that tells of the state of things."""
        if self.response.status_code not in (401, 409):
            raise Anomaly(f"{self.response.request.method} {self.response.url}: {self.response.text}")
        code = self.row["error"]
        fact = self.row.get(FACTS[code]) if code in FACTS else None
        return Refused(code, None if fact is None else Decimal(fact))


class Moved(NamedTuple):
    """A change of one item's stock that was acknowledged, before its place in the ledger is known."""

    operation: Operation[Stock]
    item: int


@dataclass
class World:
    """One clinic, its rows, and the history of what was done to them."""

    fleet: Fleet
    doctors: list[int] = field(default_factory=list)
    patients: list[int] = field(default_factory=list)
    appointments: list[int] = field(default_factory=list)
    bills: list[int] = field(default_factory=list)
    items: list[int] = field(default_factory=list)
    visits: list[int] = field(default_factory=list)
    treatments: list[tuple[int, list[Row]]] = field(default_factory=list)  # that may be voided
    sessions: list[tuple[Hashable, Caller]] = field(default_factory=list)
    signed_in: list[tuple[Hashable, Caller]] = field(default_factory=list)  # those of them to sign out
    users: list[str] = field(default_factory=list)

    begun: dict[Hashable, tuple[Step[Any], int]] = field(default_factory=dict)
    operations: dict[Hashable, list[Operation[Any]]] = field(default_factory=lambda: defaultdict(list))
    proposals: list[Proposal] = field(default_factory=list)
    moved: dict[Hashable, Moved] = field(default_factory=dict)
    numbers: itertools.count[int] = field(default_factory=itertools.count)
    done: int = 0

    def open(self) -> None:
        """Doctors and patients, and appointments that were missed this week."""
        clinic = self.fleet.clinic
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
                for n in range(MISSED)
            ]
            session.add_all(rows)
            session.flush()
            for row in rows:
                missed = Appointment(row.doctor_id, row.patient_id, row.start, 30, "no_show")
                self.begin(("appointment", row.id), missed, number=1)
                self.appointments.append(row.id)

    def open_rest(self) -> None:
        """What money, stock and documentation need besides."""
        clinic = self.fleet.clinic
        for _ in range(6):
            item = clinic.item()
            self.begin(("item", item["id"]), Stock(0))
            self.items.append(item["id"])
        for number in range(3):
            email = f"fire{next(clinic.numbers)}@clinic.example"
            member = {"name": f"Desk {number}", "email": email, "password": PASSWORD, "role": "receptionist"}
            clinic.admin.make("/users", **member)
            self.users.append(email)

    def begin(
        self,
        name: Hashable,
        first: Any,
        number: int = 0,
        sent: float = float("-inf"),
        answered: float = float("-inf"),
    ) -> None:
        """An object is there from now on."""
        self.begun[name] = (Step(first, sent, answered), number)

    def day(self) -> datetime:
        """The day that is fought over now."""
        today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        return today + timedelta(days=1 + self.done // DAY_LASTS)


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
    """Somebody at a desk who asks for one thing after another."""

    def __init__(self, world: World, seed: int, weights: Mapping[str, int]) -> None:
        self.world, self.dice = world, random.Random(seed)
        self.kinds: list[Callable[[], None]] = [getattr(self, name) for name in weights]
        self.weights = list(weights.values())

    def run(self, operations: int) -> None:
        """So many operations."""
        for _ in range(operations):
            self.dice.choices(self.kinds, self.weights)[0]()
            self.world.done += 1

    def ask(self, method: str, path: str, body: Any = None, by: Caller | None = None) -> Asked:
        """One request; a post carries a key, and some are sent again to be answered the same."""
        keyed = method == "POST" and not path.startswith("/auth")
        key = {"Idempotency-Key": secrets.token_hex(16)} if keyed else {}
        send = partial(self.world.fleet.send, method, path, body, by=by, **key)
        sent = time.monotonic()
        response = send()
        asked = Asked(sent, time.monotonic(), response)
        if keyed and response.ok and self.dice.randrange(ONE_IN_REPEATED) == 0:
            again = send()
            if again.content != response.content or "Idempotency-Replayed" not in again.headers:
                raise Anomaly(f"{path}: {again.text} is not the first answer {response.text}")
        return asked

    def note(
        self, name: Hashable, asked: Asked, rule: Rule[Any], shown: Callable[[Row], Any], label: str
    ) -> None:
        """Write down an operation whose answer shows the object with its version."""
        done = asked.response.ok
        told = shown(asked.row) if done else asked.refused
        number = asked.number if done else None
        self.world.operations[name].append(Operation(asked.sent, asked.answered, rule, told, number, label))

    # --- The calendar ---

    def wanted(self, patient: int, marker: str) -> Appointment:
        dice = self.dice
        start = self.world.day() + timedelta(hours=8, minutes=5 * dice.randrange(120))
        minutes = dice.choice((15, 30, 45, 60))
        return Appointment(dice.choice(self.world.doctors), patient, start, minutes, marker=marker)

    def propose(self, asked: Asked, wanted: Appointment, appointment: Hashable = None) -> None:
        """Write down how a time was judged."""
        if asked.response.ok:
            found: frozenset[str] = frozenset()
        elif "conflicts" not in asked.row:
            raise Anomaly(f"{wanted} was refused by a constraint: nobody had judged it: {asked.row}")
        else:
            found = frozenset(clash["code"] for clash in asked.row["conflicts"])
        self.world.proposals.append(Proposal(asked.sent, asked.answered, wanted, found, appointment))

    def book(self) -> None:
        wanted = self.wanted(self.dice.choice(self.world.patients), f"book {next(self.world.numbers)}")
        body = {"patient_id": wanted.patient} | self.time(wanted)
        asked = self.ask("POST", "/appointments", body)
        if asked.response.ok:
            if appointment_shown(asked.row) != wanted:
                raise Anomaly(f"{wanted} was booked as {asked.row}")
            name = ("appointment", asked.row["id"])
            self.world.begin(name, wanted, asked.number, asked.sent, asked.answered)
            self.world.appointments.append(asked.row["id"])
        elif asked.refused.code != "appointment_conflict":
            raise Anomaly(f"{wanted}: {asked.row}")
        self.propose(asked, wanted)

    @staticmethod
    def time(wanted: Appointment) -> Row:
        date = wanted.start.isoformat()
        return {
            "doctor_id": wanted.doctor,
            "date": date,
            "duration": wanted.minutes,
            "notes": wanted.marker,
        }

    def reschedule(self) -> None:
        self.move(self.some_appointment(), reopen=False)

    def reopen(self) -> None:
        # the first ones are those that were missed
        self.move(self.dice.choice(self.world.appointments[:MISSED]), reopen=True)

    def move(self, row_id: int, *, reopen: bool) -> None:
        name = ("appointment", row_id)
        patient = self.world.begun[name][0].state.patient
        wanted = self.wanted(patient, f"move {next(self.world.numbers)}")
        again = {"status": "scheduled", "status_reason": "Came after all"} if reopen else {}
        asked = self.ask("PATCH", f"/appointments/{row_id}", self.time(wanted) | again)

        def rule(state: Appointment) -> Appointment | Refused:
            return state.move(wanted.doctor, wanted.start, wanted.minutes, wanted.marker or "", reopen=reopen)

        def refused_for_clash(state: Appointment) -> Refused:
            found = rule(state)
            return found if isinstance(found, Refused) else Refused("appointment_conflict")

        clashed = not asked.response.ok and asked.refused.code == "appointment_conflict"
        if asked.response.ok or clashed:
            self.propose(asked, wanted, name)
        self.note(name, asked, refused_for_clash if clashed else rule, appointment_shown, "move")

    def cancel(self) -> None:
        row_id = self.some_appointment()
        asked = self.ask("DELETE", f"/appointments/{row_id}", {"cancellation_reason": "Ill"})
        self.note(("appointment", row_id), asked, Appointment.cancel, appointment_shown, "cancel")

    def some_appointment(self) -> int:
        """Mostly one of the last: those are fought over."""
        rows = self.world.appointments
        return self.dice.choice(rows[-30:] if self.dice.randrange(5) else rows)

    def made(self, kind: str, path: str, body: Row, shown: Callable[[Row], Any]) -> int:
        """The id of a new row, which nothing stands against and whose history begins with the answer."""
        asked = self.ask("POST", path, body)
        if not asked.response.ok:
            raise Anomaly(f"{body}: {asked.row}")
        row_id: int = asked.row["id"]
        self.world.begin((kind, row_id), shown(asked.row), asked.number, asked.sent, asked.answered)
        return row_id

    # --- Money ---

    def bill(self) -> None:
        items = [{"description": "X-ray", "quantity": 1, "unit_price": f"{self.dice.randint(20, 200)}.00"}]
        body = {"patient_id": self.dice.choice(self.world.patients), "items": items}
        self.world.bills.append(self.made("bill", "/billings", body, bill_shown))

    def settle(self, path: str, members: Row, rule: Callable[[Bill, Decimal], Bill | Refused]) -> None:
        if not self.world.bills:
            return self.bill()
        bill = self.dice.choice(self.world.bills[-8:])
        amount = Decimal(self.dice.randint(1, 6_000)).scaleb(-2)
        asked = self.ask("POST", f"/billings/{bill}/{path}", {"amount": str(amount)} | members)
        self.note(("bill", bill), asked, lambda state: rule(state, amount), bill_shown, f"{path} {amount}")
        return None

    def pay(self) -> None:
        self.settle("payments", {"method": "cash"}, Bill.pay)

    def refund(self) -> None:
        self.settle("refunds", {"reason": "Came too early"}, Bill.refund)

    def write_off(self) -> None:
        self.settle("write-off", {"reason": "Hardship"}, Bill.write_off)

    def make_void(self) -> None:
        if not self.world.bills:
            return self.bill()
        bill = self.dice.choice(self.world.bills[-8:])
        asked = self.ask("POST", f"/billings/{bill}/void", {"reason": "Wrong patient"})
        self.note(("bill", bill), asked, Bill.make_void, bill_shown, "void")
        return None

    # --- Stock ---

    def use(self) -> None:
        self.by_hand("usage", -self.dice.randint(1, 12))

    def restock(self) -> None:
        self.by_hand("restock", self.dice.randint(1, 10))

    def by_hand(self, kind: str, units: int) -> None:
        item = self.dice.choice(self.world.items)
        asked = self.ask("POST", f"/inventory/{item}/movements", {"type": kind, "quantity": abs(units)})
        if asked.response.ok:
            for movement in asked.row["movements"]:
                self.moves(
                    ("movement", movement["id"]), item, asked, units, Stock(asked.row["item_quantity"])
                )
        else:
            self.short(asked, {item: -units})

    def moves(self, key: Hashable, item: int, asked: Asked, units: int, told: Stock | None = None) -> None:
        """Write down that the stock of an item moved; `key` finds the movement in its ledger."""
        operation = Operation(
            asked.sent, asked.answered, lambda stock: stock.change(units), told, None, f"{units:+d}"
        )
        self.world.moved[key] = Moved(operation, item)

    def short(self, asked: Asked, needed: Mapping[int, int]) -> None:
        """Write down that there was not enough of what the refusal names."""
        if asked.refused.code != "insufficient_stock":
            raise Anomaly(f"{needed}: {asked.row}")
        for named in asked.row["items"]:
            units = needed[named["item_id"]]
            told = Refused("insufficient_stock", named["available"])
            self.world.operations[("item", named["item_id"])].append(
                Operation(asked.sent, asked.answered, lambda stock, n=units: stock.change(-n), told)
            )

    def treat(self) -> None:
        if not self.world.visits:
            return self.visit()
        visit = self.dice.choice(self.world.visits[-8:])
        items = self.dice.sample(self.world.items, 2)
        usages = [{"item_id": item, "quantity": self.dice.randint(1, 4)} for item in items]
        body = {"visit_id": visit, "name": "Dressing", "cost": "1.00", "inventory_items": usages}
        asked = self.ask("POST", "/treatments", body)
        told: Visit | Refused = OPEN
        if asked.response.ok:
            treatment = asked.row["id"]
            for usage in usages:
                key = ("usage", treatment, usage["item_id"])
                self.moves(key, usage["item_id"], asked, -usage["quantity"])
            self.world.treatments.append((treatment, usages))
        elif asked.refused.code == "read_only":
            told = asked.refused
        else:
            self.short(asked, {usage["item_id"]: usage["quantity"] for usage in usages})
        self.world.operations[("visit", visit)].append(
            Operation(asked.sent, asked.answered, Visit.treat, told, None, "treat")
        )
        return None

    def untreat(self) -> None:
        try:  # nobody else takes this one back
            treatment, usages = self.world.treatments.pop()
        except IndexError:
            return
        asked = self.ask("DELETE", f"/treatments/{treatment}", {"reason": "Entered twice"})
        if asked.response.ok:
            for usage in usages:
                key = ("return", treatment, usage["item_id"])
                self.moves(key, usage["item_id"], asked, usage["quantity"])
        elif asked.refused.code != "read_only":  # of a visit that was signed meanwhile
            raise Anomaly(f"treatment {treatment}: {asked.row}")

    # --- Visits and sessions ---

    def visit(self) -> None:
        body = {
            "patient_id": self.dice.choice(self.world.patients),
            "doctor_id": self.dice.choice(self.world.doctors),
            "summary": f"seen {next(self.world.numbers)}",
        }
        self.world.visits.append(self.made("visit", "/visits", body, visit_shown))

    def document(self) -> None:
        if not self.world.visits:
            return self.visit()
        visit, text = self.dice.choice(self.world.visits[-8:]), f"found {next(self.world.numbers)}"
        asked = self.ask("PATCH", f"/visits/{visit}", {"summary": text})
        self.note(("visit", visit), asked, lambda state: state.write(text), visit_shown, "document")
        return None

    def sign(self) -> None:
        if not self.world.visits:
            return self.visit()
        visit = self.dice.choice(self.world.visits[-8:])
        asked = self.ask("POST", f"/visits/{visit}/sign")
        self.note(("visit", visit), asked, Visit.sign, visit_shown, "sign")
        return None

    def sign_in(self) -> None:
        body = {"email": self.dice.choice(self.world.users), "password": PASSWORD}
        asked = self.ask("POST", "/auth/login", body)
        if not asked.response.ok:
            raise Anomaly(f"{body['email']}: {asked.row}")
        name = ("session", next(self.world.numbers))
        session = (name, Caller(self.world.fleet.clinic, asked.row["access_token"]))
        self.world.begin(name, Session(), 0, asked.sent, asked.answered)
        self.world.sessions.append(session)
        self.world.signed_in.append(session)

    def look(self) -> None:
        if not self.world.sessions:
            return self.sign_in()
        name, caller = self.dice.choice(self.world.sessions[-10:])
        asked = self.ask("GET", "/auth/me", by=caller)
        told = Session() if asked.response.ok else asked.refused
        self.world.operations[name].append(Operation(asked.sent, asked.answered, Session.use, told))
        return None

    def sign_out(self) -> None:
        try:  # nobody else ends this one
            name, caller = self.world.signed_in.pop()
        except IndexError:
            return self.sign_in()
        asked = self.ask("POST", "/auth/logout", by=caller)
        if not asked.response.ok:
            raise Anomaly(f"{name}: {asked.row}")
        ended = Session(alive=False)
        self.world.operations[name].append(
            Operation(asked.sent, asked.answered, Session.end, ended, 1, "sign out")
        )
        return None
