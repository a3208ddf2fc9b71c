"""The reference model: what a sequential implementation would answer, for a linearizability check.

Every object (appointment, bill, stock item, visit, session) is a small immutable value. Every operation is a
rule: a function from the old value to the new value, or to the refusal. The rules have no concurrency. A
recorded history is checked in three ways.

1. *Writes of one object are ordered.* The server numbers them (the version in the ETag, the number of a
   movement). No number occurs twice. In that order each write must be allowed by its rule, and its response
   must show the result of the rule. So no write is lost, and no write is there that nobody sent. The order
   must agree with the clock: a write that was answered before another was sent comes first.
2. *A refusal or a read must be correct at some instant between request and response.* `StateHistory` knows
   every value that the object may have had then.
3. *The calendar* (`check_calendar`) compares appointments. No two conflicting appointments exist at the same
   time. A booking is refused only for a conflict that may have existed meanwhile. It is never accepted beside
   a conflicting appointment that existed all the time.

Times are seconds of one monotonic clock that all clients share.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Generic, NamedTuple, TypeVar

FOREVER = float("inf")
State = TypeVar("State")


class AnomalyError(AssertionError):
    """The application did what no sequential implementation could have done."""


class Refused(NamedTuple):
    """A refusal: the error code and the value in the response, such as the balance."""

    code: str
    fact: Any = None


Rule = Callable[[State], "State | Refused"]


@dataclass(frozen=True)
class Operation(Generic[State]):
    """A request for one object, and its response.

    `number` is the number of the write, from the server. It is None for a read or a refusal.
    `result` is the object in the response, or the refusal. It is None if the response shows neither.
    `label` is for messages.
    """

    sent: float
    answered: float
    rule: Rule[State]
    result: State | Refused | None
    number: int | None = None
    label: str = ""


@dataclass(frozen=True)
class StateVersion(Generic[State]):
    """A value of an object, with the times of request and response of its write."""

    state: State
    sent: float
    answered: float


class StateHistory(Generic[State]):
    """The values of one object, in order."""

    def __init__(self, first: StateVersion[State]) -> None:
        self.versions = [first]

    @property
    def last(self) -> State:
        """The last value."""
        return self.versions[-1].state

    def during(self, sent: float, answered: float) -> Iterator[State]:
        """Yield every value that the object may have had between request and response."""
        first = max((n for n, version in enumerate(self.versions) if version.answered < sent), default=0)
        for version in itertools.takewhile(
            lambda version: version.sent <= answered, self.versions[first + 1 :]
        ):
            yield version.state
        yield self.versions[first].state


def replay(
    name: Hashable, first: StateVersion[State], number: int, operations: Iterable[Operation[State]]
) -> StateHistory[State]:
    """Check all operations on one object. `first` and `number` are its first version. Raise AnomalyError."""
    operations = list(operations)
    writes = [operation for operation in operations if operation.number is not None]
    writes.sort(key=lambda operation: operation.number or 0)
    history = StateHistory(first)
    latest = first.sent
    for write in writes:
        if (write.number or 0) <= number:
            raise AnomalyError(f"{name}: {write} has the number of the write before it")
        outcome = write.rule(history.last)
        if isinstance(outcome, Refused) or write.result not in (None, outcome):
            raise AnomalyError(f"{name}: {write} should have given {outcome} after {history.last}")
        if write.answered < latest:
            raise AnomalyError(f"{name}: {write} was answered before the write before it was sent")
        latest, number = max(latest, write.sent), write.number or 0
        history.versions.append(StateVersion(outcome, write.sent, write.answered))
    for read in operations:
        if read.number is not None:
            continue
        possible = [read.rule(state) for state in history.during(read.sent, read.answered)]
        if read.result not in possible:
            raise AnomalyError(f"{name}: {read} should have given one of {possible}")
    return history


# --- Appointments --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Appointment:
    """An appointment. `marker` identifies the last write."""

    doctor: int
    patient: int
    start: datetime
    minutes: int
    status: str = "scheduled"
    marker: str | None = None

    @property
    def end(self) -> datetime:
        return self.start + timedelta(minutes=self.minutes)

    def move(
        self, doctor: int, start: datetime, minutes: int, marker: str, *, reopen: bool = False
    ) -> Appointment | Refused:
        """Move to another time or doctor. A no-show can only be moved if it is booked again."""
        if self.status != "scheduled" and not (reopen and self.status == "no_show"):
            return Refused("invalid_transition")
        return Appointment(doctor, self.patient, start, minutes, "scheduled", marker)

    def cancel(self) -> Appointment | Refused:
        if self.status != "scheduled":
            return Refused("invalid_transition")
        return replace(self, status="cancelled")


@dataclass(frozen=True)
class BookingAttempt:
    """A request for a time, and the conflicts in the response: none if it was booked."""

    sent: float
    answered: float
    requested: Appointment
    conflicts: frozenset[str]
    appointment: Hashable = None  # the moved one: no conflict with itself


@dataclass(frozen=True)
class Occupancy:
    """The time that an appointment occupies.

    It certainly existed from `since` to `until`, and possibly from `since_perhaps` to `until_perhaps`.
    """

    appointment: Hashable
    slot: Appointment
    since_perhaps: float
    since: float
    until: float
    until_perhaps: float


def occupancies(appointment: Hashable, history: StateHistory[Appointment]) -> Iterator[Occupancy]:
    """Yield the times that an appointment occupied."""
    for version, following in itertools.zip_longest(history.versions, history.versions[1:]):
        if version.state.status == "scheduled":
            until, until_perhaps = (following.sent, following.answered) if following else (FOREVER, FOREVER)
            yield Occupancy(appointment, version.state, version.sent, version.answered, until, until_perhaps)


def conflicts(requested: Appointment, existing: Appointment, buffers: dict[int, timedelta]) -> set[str]:
    """Return the codes of the conflicts. `buffers` is the time that each doctor needs afterwards."""
    codes = set()
    if requested.start < existing.end and existing.start < requested.end:
        if requested.patient == existing.patient:
            codes.add("patient_busy")
        if requested.doctor == existing.doctor:
            codes.add("doctor_busy")
    elif requested.doctor == existing.doctor:
        buffer = buffers[requested.doctor]
        if requested.start < existing.end + buffer and existing.start < requested.end + buffer:
            codes.add("buffer")
    return codes


def check_calendar(
    occupied: Sequence[Occupancy], attempts: Iterable[BookingAttempt], buffers: dict[int, timedelta]
) -> None:
    """Check that no appointments conflict and that every attempt got the right conflicts."""
    by_day: dict[Any, list[Occupancy]] = defaultdict(list)
    for occupancy in occupied:
        by_day[occupancy.slot.start.date()].append(occupancy)
    for day in by_day.values():
        for one, other in itertools.combinations(day, 2):
            together = one.since < other.until and other.since < one.until
            if one.appointment == other.appointment or not together:
                continue
            if codes := conflicts(one.slot, other.slot, buffers):
                raise AnomalyError(f"{one} and {other} existed at the same time: {codes}")
    for attempt in attempts:
        certain, possible = set(), set()
        for occupancy in by_day[attempt.requested.start.date()]:
            if occupancy.appointment == attempt.appointment:
                continue
            if occupancy.since_perhaps <= attempt.answered and attempt.sent <= occupancy.until_perhaps:
                codes = conflicts(attempt.requested, occupancy.slot, buffers)
                possible |= codes
                if occupancy.since <= attempt.sent and attempt.answered <= occupancy.until:
                    certain |= codes
        if not certain <= attempt.conflicts <= possible:
            raise AnomalyError(f"{attempt} should report at least {certain} and at most {possible}")


# --- Billing -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Bill:
    """A bill with its payments and its write-off."""

    amount: Decimal
    paid: Decimal = Decimal(0)
    written_off: Decimal = Decimal(0)
    void: bool = False

    @property
    def balance(self) -> Decimal:
        return Decimal(0) if self.void else self.amount - self.paid - self.written_off

    def pay(self, amount: Decimal) -> Bill | Refused:
        if self.void:
            return Refused("read_only")
        if amount > self.balance:
            return Refused("overpayment", self.balance)
        return replace(self, paid=self.paid + amount)

    def refund(self, amount: Decimal) -> Bill | Refused:
        if self.void:
            return Refused("read_only")
        if amount > self.paid:
            return Refused("excessive_refund", self.paid)
        return replace(self, paid=self.paid - amount)

    def write_off(self, amount: Decimal) -> Bill | Refused:
        if self.void:
            return Refused("read_only")
        if amount > self.balance:
            return Refused("overpayment", self.balance)
        return replace(self, written_off=self.written_off + amount)

    def make_void(self) -> Bill | Refused:
        """Void the bill. Its payments become credit of the patient, its charges are reversed."""
        if self.void:
            return Refused("read_only")
        return Bill(Decimal(0), void=True)


# --- Stock ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Stock:
    """The stock of one item."""

    quantity: int

    def change(self, units: int) -> Stock | Refused:
        """Change the stock: positive for a delivery or a return, negative for usage."""
        if self.quantity + units < 0:
            return Refused("insufficient_stock", self.quantity)
        return Stock(self.quantity + units)


# --- Visits and sessions -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Visit:
    """A visit. `summary` is the last written summary."""

    summary: str | None
    signed: bool = False

    def write(self, summary: str) -> Visit | Refused:
        return Refused("read_only") if self.signed else replace(self, summary=summary)

    def sign(self) -> Visit | Refused:
        return Refused("invalid_transition") if self.signed else replace(self, signed=True)

    def treat(self) -> Visit | Refused:
        """Add a treatment. Its response does not show the visit."""
        return Refused("read_only") if self.signed else OPEN


OPEN = Visit(None)


@dataclass(frozen=True)
class Session:
    """A session of a user."""

    alive: bool = True

    def use(self) -> Session | Refused:
        return self if self.alive else Refused("token_revoked")

    def end(self) -> Session:
        return Session(alive=False)
