"""What should be true after a history: a clinic with one desk, one book and no hurry.

Every object (an appointment, a bill, an item in stock, a visit, a session) is a small immutable value, and
every operation a rule: from the object as it was to the object as it becomes, or to the refusal that the
clinic owes. There is nothing concurrent in the rules. A history is judged against them in three ways.

1. *Writes of one object follow each other.* The server numbers them (the version in the ETag, the number of a
   movement), so their order is known, whichever workers did them. No number is given twice. Replayed in that
   order each write must have been allowed and must have made exactly what its answer showed, so that none is
   lost and none is there that nobody asked for. The order must agree with the clock: what was answered
   before another was sent came before it.
2. *What was refused, or only read, must have been true at some instant between question and answer*: `Steps`
   knows every value that the object may have had meanwhile.
3. *The calendar* (`judge_calendar`) joins appointments: no two that clash ever stood at once, a booking was
   refused only for a clash that may have stood while it was judged, and never accepted beside one that stood
   all the while.

Times are seconds of one monotonic clock that all clients read.
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


class Anomaly(AssertionError):
    """The clinic did what no clinic with one desk could have done."""


class Refused(NamedTuple):
    """A refusal by its code, with the fact it tells: the balance, what is available."""

    code: str
    fact: Any = None


Rule = Callable[[State], "State | Refused"]


@dataclass(frozen=True)
class Operation(Generic[State]):
    """One request about one object, and its answer.

    `number` is the place among the object's writes that the server gave it; None for what wrote nothing.
    `told` is what the answer showed of the object afterwards, or the refusal; None where it showed neither.
    `label` is for messages.
    """

    sent: float
    answered: float
    rule: Rule[State]
    told: State | Refused | None
    number: int | None = None
    label: str = ""


@dataclass(frozen=True)
class Step(Generic[State]):
    """A value of the object, and when the write that made it was sent and answered."""

    state: State
    sent: float
    answered: float


class Steps(Generic[State]):
    """The values of one object, in order."""

    def __init__(self, first: Step[State]) -> None:
        self.steps = [first]

    @property
    def last(self) -> State:
        """What the object is in the end."""
        return self.steps[-1].state

    def during(self, sent: float, answered: float) -> Iterator[State]:
        """Every value that the object may have had at an instant between the two."""
        first = max((n for n, step in enumerate(self.steps) if step.answered < sent), default=0)
        for step in itertools.takewhile(lambda step: step.sent <= answered, self.steps[first + 1 :]):
            yield step.state
        yield self.steps[first].state


def replay(
    name: Hashable, first: Step[State], number: int, operations: Iterable[Operation[State]]
) -> Steps[State]:
    """Judge all operations about one object that began as `first`, with `number`. Raises Anomaly."""
    writes = sorted((one for one in operations if one.number is not None), key=lambda one: one.number or 0)
    others = [one for one in operations if one.number is None]
    steps = Steps(first)
    latest = first.sent
    for write in writes:
        if (write.number or 0) <= number:
            raise Anomaly(f"{name}: {write} has the number of the write before it")
        outcome = write.rule(steps.last)
        if isinstance(outcome, Refused) or write.told not in (None, outcome):
            raise Anomaly(f"{name}: {write} should have given {outcome} after {steps.last}")
        if write.answered < latest:
            raise Anomaly(f"{name}: {write} was answered before the write before it was sent")
        latest, number = max(latest, write.sent), write.number or 0
        steps.steps.append(Step(outcome, write.sent, write.answered))
    for other in others:
        possible = [other.rule(state) for state in steps.during(other.sent, other.answered)]
        if other.told not in possible:
            raise Anomaly(f"{name}: {other} should have given one of {possible}")
    return steps


# --- Appointments --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Appointment:
    """A patient's time with a doctor; `marker` names the last write."""

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
        """Another time or doctor; a missed one is moved only by booking it again."""
        if self.status != "scheduled" and not (reopen and self.status == "no_show"):
            return Refused("invalid_transition")
        return Appointment(doctor, self.patient, start, minutes, "scheduled", marker)

    def cancel(self) -> Appointment | Refused:
        if self.status != "scheduled":
            return Refused("invalid_transition")
        return replace(self, status="cancelled")


@dataclass(frozen=True)
class Proposal:
    """A time asked for, and the clashes named in the answer: none if it was given."""

    sent: float
    answered: float
    wanted: Appointment
    clashes: frozenset[str]
    appointment: Hashable = None  # the one that would move: it does not stand in its own way


@dataclass(frozen=True)
class Stand:
    """An appointment that takes its time. It did so for sure from `since` to `until`, and may have done so
    from `since_perhaps` to `until_perhaps`."""

    appointment: Hashable
    taken: Appointment
    since_perhaps: float
    since: float
    until: float
    until_perhaps: float


def stands(appointment: Hashable, steps: Steps[Appointment]) -> Iterator[Stand]:
    """When and where an appointment took its time."""
    for step, after in itertools.zip_longest(steps.steps, steps.steps[1:]):
        if step.state.status == "scheduled":
            until, until_perhaps = (after.sent, after.answered) if after else (FOREVER, FOREVER)
            yield Stand(appointment, step.state, step.sent, step.answered, until, until_perhaps)


def clashes(wanted: Appointment, stand: Appointment, buffers: dict[int, timedelta]) -> set[str]:
    """What `stand` has against `wanted`, by code. `buffers`: the time each doctor needs afterwards."""
    found = set()
    if wanted.start < stand.end and stand.start < wanted.end:
        if wanted.patient == stand.patient:
            found.add("patient_busy")
        if wanted.doctor == stand.doctor:
            found.add("doctor_busy")
    elif wanted.doctor == stand.doctor:
        buffer = buffers[wanted.doctor]
        if wanted.start < stand.end + buffer and stand.start < wanted.end + buffer:
            found.add("buffer")
    return found


def judge_calendar(
    taken: Sequence[Stand], proposals: Iterable[Proposal], buffers: dict[int, timedelta]
) -> None:
    """No two stood at once that clash, and every proposal was judged by what stood. Raises Anomaly."""
    by_day: dict[Any, list[Stand]] = defaultdict(list)
    for stand in taken:
        by_day[stand.taken.start.date()].append(stand)
    for day in by_day.values():
        for one, other in itertools.combinations(day, 2):
            together = one.since < other.until and other.since < one.until
            if one.appointment == other.appointment or not together:
                continue
            if found := clashes(one.taken, other.taken, buffers):
                raise Anomaly(f"{one} and {other} stood at once: {found}")
    for asked in proposals:
        certain, possible = set(), set()
        for stand in by_day[asked.wanted.start.date()]:
            if stand.appointment == asked.appointment:
                continue
            if stand.since_perhaps <= asked.answered and asked.sent <= stand.until_perhaps:
                found = clashes(asked.wanted, stand.taken, buffers)
                possible |= found
                if stand.since <= asked.sent and asked.answered <= stand.until:
                    certain |= found
        if not certain <= asked.clashes <= possible:
            raise Anomaly(f"{asked} should name at least {certain} and at most {possible}")


# --- Money ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Bill:
    """A bill and what became of it."""

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
        """What was paid becomes the patient's credit, what was posted is undone."""
        if self.void:
            return Refused("read_only")
        return Bill(Decimal(0), void=True)


# --- Stock ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Stock:
    """Units of one item."""

    quantity: int

    def change(self, units: int) -> Stock | Refused:
        """Restocked or returned (positive), used (negative)."""
        if self.quantity + units < 0:
            return Refused("insufficient_stock", self.quantity)
        return Stock(self.quantity + units)


# --- Visits and sessions -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Visit:
    """The documentation of a visit; `summary` is the last that was written."""

    summary: str | None
    signed: bool = False

    def write(self, summary: str) -> Visit | Refused:
        return Refused("read_only") if self.signed else replace(self, summary=summary)

    def sign(self) -> Visit | Refused:
        return Refused("invalid_transition") if self.signed else replace(self, signed=True)

    def treat(self) -> Visit | Refused:
        """A treatment is recorded with it, whose answer does not show the visit."""
        return Refused("read_only") if self.signed else OPEN


OPEN = Visit(None)


@dataclass(frozen=True)
class Session:
    """A sign-in."""

    alive: bool = True

    def use(self) -> Session | Refused:
        return self if self.alive else Refused("token_revoked")

    def end(self) -> Session:
        return Session(alive=False)
