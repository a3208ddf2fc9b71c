"""The judge judged: histories that no clinic with one desk could have are found, honest ones pass."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from tests.robustness.model import (
    Anomaly,
    Appointment,
    Bill,
    Operation,
    Proposal,
    Refused,
    Session,
    Stand,
    Step,
    Steps,
    Stock,
    Visit,
    judge_calendar,
    replay,
    stands,
)

NINE = datetime(2030, 3, 4, 9, tzinfo=UTC)
BUFFERS = {1: timedelta(minutes=10), 2: timedelta(0)}
BILL = Bill(Decimal(100))
SIXTY, FORTY = Decimal(60), Decimal(40)


def paid(at: float, number: int, amount: Decimal, total: Decimal, lasts: float = 1.0) -> Operation[Bill]:
    """A payment that was acknowledged, with what the answer showed as paid."""
    told = Bill(Decimal(100), paid=total)
    return Operation(at, at + lasts, lambda bill: bill.pay(amount), told, number)


def refused(at: float, amount: Decimal, balance: Decimal) -> Operation[Bill]:
    told = Refused("overpayment", balance)
    return Operation(at, at + 1, lambda bill: bill.pay(amount), told)


def of_bill(*operations: Operation[Bill]) -> Steps[Bill]:
    return replay("bill", Step(BILL, -1.0, -1.0), 1, operations)


def test_an_honest_history_passes() -> None:
    steps = of_bill(paid(1, 2, SIXTY, SIXTY), refused(1.5, SIXTY, FORTY), paid(5, 4, FORTY, Decimal(100)))

    assert steps.last.balance == 0


def test_two_at_once_may_come_in_either_order() -> None:
    of_bill(paid(1, 3, FORTY, Decimal(100), lasts=3), paid(2, 2, SIXTY, SIXTY))
    of_bill(paid(1, 2, FORTY, FORTY, lasts=3), paid(2, 3, SIXTY, Decimal(100)))


@pytest.mark.parametrize(
    "operations",
    [
        pytest.param([paid(1, 2, SIXTY, SIXTY), paid(2, 3, SIXTY, Decimal(120))], id="overpaid"),
        pytest.param([paid(1, 2, SIXTY, SIXTY), paid(3, 3, FORTY, FORTY)], id="a payment lost"),
        pytest.param([paid(1, 2, SIXTY, SIXTY), paid(3, 2, FORTY, Decimal(100))], id="one version twice"),
        pytest.param([paid(5, 2, SIXTY, SIXTY), paid(1, 3, FORTY, Decimal(100))], id="against the clock"),
        pytest.param([refused(1, FORTY, Decimal(0))], id="refused without reason"),
        pytest.param([paid(1, 2, SIXTY, SIXTY), refused(3, FORTY + 1, Decimal(100))], id="a stale balance"),
        pytest.param([refused(1, SIXTY, FORTY), paid(3, 2, SIXTY, SIXTY)], id="a refusal too early"),
    ],
)
def test_a_bill_that_cannot_be_is_found(operations: Iterable[Operation[Bill]]) -> None:
    with pytest.raises(Anomaly):
        of_bill(*operations)


def test_stock_below_zero_is_found() -> None:
    used = [Operation(n, n + 1, lambda stock: stock.change(-6), None, n) for n in (1, 2)]

    with pytest.raises(Anomaly):
        replay("item", Step(Stock(10), 0.0, 0.0), 0, used)


def test_a_change_after_the_signature_is_found() -> None:
    signed = Operation(1.0, 2.0, Visit.sign, Visit("seen", signed=True), 2)
    changed = Operation(3.0, 4.0, lambda visit: visit.write("more"), Visit("more", signed=True), 3)

    with pytest.raises(Anomaly):
        replay("visit", Step(Visit("seen"), 0.0, 0.0), 1, [signed, changed])


@pytest.mark.parametrize(("asked_at", "told"), [(3.0, Session()), (-3.0, Refused("token_revoked"))])
def test_a_session_that_lives_on_or_ends_too_early_is_found(asked_at: float, told: Session | Refused) -> None:
    ended = Operation(1.0, 2.0, Session.end, Session(alive=False), 1)
    asked = Operation(asked_at, asked_at + 0.5, Session.use, told)

    with pytest.raises(Anomaly):
        replay("session", Step(Session(), -9.0, -9.0), 0, [ended, asked])


# --- The calendar --------------------------------------------------------------------------------------


def standing(name: str, taken: Appointment, since: float, until: float = 100.0) -> Stand:
    """Booked by a request of one second before `since`, and cancelled by one of a second after `until`."""
    return Stand(name, taken, since - 1, since, until, until + 1)


def at(minutes: int, doctor: int = 1, patient: int = 1) -> Appointment:
    return Appointment(doctor, patient, NINE + timedelta(minutes=minutes), 30)


FIRST = standing("first", at(0), 10.0, 20.0)


@pytest.mark.parametrize("second", [at(15), at(35, patient=2), at(0, doctor=2), at(-35, patient=2)])
def test_two_that_stood_at_once_are_found(second: Appointment) -> None:
    judge_calendar([FIRST, standing("second", second, 21.0)], [], BUFFERS)

    with pytest.raises(Anomaly):
        judge_calendar([FIRST, standing("second", second, 15.0)], [], BUFFERS)


@pytest.mark.parametrize("second", [at(40, patient=2), at(30, doctor=2), at(0, doctor=2, patient=2)])
def test_what_does_not_clash_may_stand_beside(second: Appointment) -> None:
    judge_calendar([FIRST, standing("second", second, 15.0)], [], BUFFERS)


@pytest.mark.parametrize(
    ("sent", "codes"),
    [
        (12.0, set()),  # accepted beside one that stood all the while
        (12.0, {"patient_busy"}),  # not every clash is named
        (12.0, {"doctor_busy", "patient_busy", "buffer"}),  # one is named that is none
        (30.0, {"doctor_busy", "patient_busy"}),  # refused for one that was cancelled before
        (5.0, {"doctor_busy", "patient_busy"}),  # refused for one that nobody had asked for yet
    ],
)
def test_a_wrong_judgement_is_found(sent: float, codes: set[str]) -> None:
    with pytest.raises(Anomaly):
        judge_calendar([FIRST], [Proposal(sent, sent + 1, at(15), frozenset(codes))], BUFFERS)


@pytest.mark.parametrize("codes", [set(), {"doctor_busy", "patient_busy"}])
def test_what_is_asked_while_another_is_booked_or_cancelled_may_go_either_way(codes: set[str]) -> None:
    judge_calendar([FIRST], [Proposal(19.5, 21.5, at(15), frozenset(codes))], BUFFERS)


def test_a_missed_appointment_takes_no_time_until_it_is_booked_again() -> None:
    missed = Appointment(1, 1, NINE, 30, "no_show")
    later = NINE + timedelta(hours=1)
    told = Appointment(1, 1, later, 30, "scheduled", "again")
    reopened = Operation(1.0, 2.0, lambda row: row.move(1, later, 30, "again", reopen=True), told, 2)

    steps = replay("appointment", Step(missed, 0.0, 0.0), 1, [reopened])

    assert [stand.taken.start for stand in stands("appointment", steps)] == [later]
