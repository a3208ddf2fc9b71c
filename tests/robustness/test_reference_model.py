"""The reference model itself: impossible histories raise AnomalyError, possible ones pass."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from tests.robustness.reference_model import (
    AnomalyError,
    Appointment,
    Bill,
    BookingAttempt,
    Occupancy,
    Operation,
    Refused,
    Session,
    StateHistory,
    StateVersion,
    Stock,
    Visit,
    check_calendar,
    occupancies,
    replay,
)

NINE = datetime(2030, 3, 4, 9, tzinfo=UTC)
BUFFERS = {1: timedelta(minutes=10), 2: timedelta(0)}
BILL = Bill(Decimal(100))
SIXTY, FORTY = Decimal(60), Decimal(40)


def paid(at: float, number: int, amount: Decimal, total: Decimal, lasts: float = 1.0) -> Operation[Bill]:
    """Return an acknowledged payment. `total` is the paid amount in the response."""
    result = Bill(Decimal(100), paid=total)
    return Operation(at, at + lasts, lambda bill: bill.pay(amount), result, number)


def refused(at: float, amount: Decimal, balance: Decimal) -> Operation[Bill]:
    result = Refused("overpayment", balance)
    return Operation(at, at + 1, lambda bill: bill.pay(amount), result)


def replay_bill(*operations: Operation[Bill]) -> StateHistory[Bill]:
    return replay("bill", StateVersion(BILL, -1.0, -1.0), 1, operations)


def test_a_possible_history_passes() -> None:
    history = replay_bill(
        paid(1, 2, SIXTY, SIXTY), refused(1.5, SIXTY, FORTY), paid(5, 4, FORTY, Decimal(100))
    )

    assert history.last.balance == 0


def test_concurrent_writes_may_have_either_order() -> None:
    replay_bill(paid(1, 3, FORTY, Decimal(100), lasts=3), paid(2, 2, SIXTY, SIXTY))
    replay_bill(paid(1, 2, FORTY, FORTY, lasts=3), paid(2, 3, SIXTY, Decimal(100)))


@pytest.mark.parametrize(
    "operations",
    [
        pytest.param([paid(1, 2, SIXTY, SIXTY), paid(2, 3, SIXTY, Decimal(120))], id="overpaid"),
        pytest.param([paid(1, 2, SIXTY, SIXTY), paid(3, 3, FORTY, FORTY)], id="lost payment"),
        pytest.param([paid(1, 2, SIXTY, SIXTY), paid(3, 2, FORTY, Decimal(100))], id="version used twice"),
        pytest.param(
            [paid(5, 2, SIXTY, SIXTY), paid(1, 3, FORTY, Decimal(100))], id="order against the clock"
        ),
        pytest.param([refused(1, FORTY, Decimal(0))], id="refused without reason"),
        pytest.param([paid(1, 2, SIXTY, SIXTY), refused(3, FORTY + 1, Decimal(100))], id="stale balance"),
        pytest.param([refused(1, SIXTY, FORTY), paid(3, 2, SIXTY, SIXTY)], id="refusal too early"),
    ],
)
def test_an_impossible_bill_history_is_an_anomaly(operations: Iterable[Operation[Bill]]) -> None:
    with pytest.raises(AnomalyError):
        replay_bill(*operations)


def test_stock_below_zero_is_an_anomaly() -> None:
    used = [Operation(n, n + 1, lambda stock: stock.change(-6), None, n) for n in (1, 2)]

    with pytest.raises(AnomalyError):
        replay("item", StateVersion(Stock(10), 0.0, 0.0), 0, used)


def test_a_change_after_the_signature_is_an_anomaly() -> None:
    signed = Operation(1.0, 2.0, Visit.sign, Visit("seen", signed=True), 2)
    changed = Operation(3.0, 4.0, lambda visit: visit.write("more"), Visit("more", signed=True), 3)

    with pytest.raises(AnomalyError):
        replay("visit", StateVersion(Visit("seen"), 0.0, 0.0), 1, [signed, changed])


@pytest.mark.parametrize(("sent_at", "result"), [(3.0, Session()), (-3.0, Refused("token_revoked"))])
def test_a_session_that_ends_too_late_or_too_early_is_an_anomaly(
    sent_at: float, result: Session | Refused
) -> None:
    ended = Operation(1.0, 2.0, Session.end, Session(alive=False), 1)
    use = Operation(sent_at, sent_at + 0.5, Session.use, result)

    with pytest.raises(AnomalyError):
        replay("session", StateVersion(Session(), -9.0, -9.0), 0, [ended, use])


# --- The calendar --------------------------------------------------------------------------------------


def occupancy(name: str, slot: Appointment, since: float, until: float = 100.0) -> Occupancy:
    """Return an appointment that was booked within the second before `since`, and cancelled after `until`."""
    return Occupancy(name, slot, since - 1, since, until, until + 1)


def appointment_at(minutes: int, doctor: int = 1, patient: int = 1) -> Appointment:
    return Appointment(doctor, patient, NINE + timedelta(minutes=minutes), 30)


FIRST = occupancy("first", appointment_at(0), 10.0, 20.0)


@pytest.mark.parametrize(
    "second",
    [
        appointment_at(15),
        appointment_at(35, patient=2),
        appointment_at(0, doctor=2),
        appointment_at(-35, patient=2),
    ],
)
def test_conflicting_appointments_at_the_same_time_are_an_anomaly(second: Appointment) -> None:
    check_calendar([FIRST, occupancy("second", second, 21.0)], [], BUFFERS)

    with pytest.raises(AnomalyError):
        check_calendar([FIRST, occupancy("second", second, 15.0)], [], BUFFERS)


@pytest.mark.parametrize(
    "second",
    [appointment_at(40, patient=2), appointment_at(30, doctor=2), appointment_at(0, doctor=2, patient=2)],
)
def test_appointments_without_conflict_pass(second: Appointment) -> None:
    check_calendar([FIRST, occupancy("second", second, 15.0)], [], BUFFERS)


@pytest.mark.parametrize(
    ("sent", "codes"),
    [
        (12.0, set()),  # accepted although a conflict existed all the time
        (12.0, {"patient_busy"}),  # a conflict is missing
        (12.0, {"doctor_busy", "patient_busy", "buffer"}),  # a reported conflict does not exist
        (30.0, {"doctor_busy", "patient_busy"}),  # refused for an appointment that was cancelled before
        (5.0, {"doctor_busy", "patient_busy"}),  # refused for an appointment that was booked later
    ],
)
def test_wrong_conflicts_are_an_anomaly(sent: float, codes: set[str]) -> None:
    with pytest.raises(AnomalyError):
        check_calendar(
            [FIRST], [BookingAttempt(sent, sent + 1, appointment_at(15), frozenset(codes))], BUFFERS
        )


@pytest.mark.parametrize("codes", [set(), {"doctor_busy", "patient_busy"}])
def test_an_attempt_during_a_booking_or_cancellation_may_have_either_result(codes: set[str]) -> None:
    check_calendar([FIRST], [BookingAttempt(19.5, 21.5, appointment_at(15), frozenset(codes))], BUFFERS)


def test_a_no_show_occupies_no_time_until_it_is_booked_again() -> None:
    no_show = Appointment(1, 1, NINE, 30, "no_show")
    later = NINE + timedelta(hours=1)
    result = Appointment(1, 1, later, 30, "scheduled", "again")
    reopened = Operation(1.0, 2.0, lambda row: row.move(1, later, 30, "again", reopen=True), result, 2)

    history = replay("appointment", StateVersion(no_show, 0.0, 0.0), 1, [reopened])

    assert [occupied.slot.start for occupied in occupancies("appointment", history)] == [later]
