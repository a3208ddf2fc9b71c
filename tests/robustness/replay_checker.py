"""Linearizability check: compare a recorded history with the reference model and with the stored data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable
from dataclasses import replace
from datetime import timedelta
from typing import Any

from sqlalchemy import func, select

from models import Appointment as AppointmentRow
from models import Billing, StockMovement
from models import Visit as VisitRow
from tests.robustness.reference_model import (
    AnomalyError,
    Appointment,
    Session,
    StateHistory,
    Stock,
    check_calendar,
    occupancies,
    replay,
)
from tests.robustness.replay_clients import (
    BUFFERS,
    Scenario,
    bill_shown,
    visit_shown,
)


def check_history(scenario: Scenario) -> Counter[str]:
    """Check all operations. Return their number by kind of object. Raise AnomalyError."""
    _number_stock(scenario)
    if unknown := scenario.operations.keys() - scenario.initial.keys():
        raise AnomalyError(f"operations on unknown objects: {unknown}")
    counts: Counter[str] = Counter()
    histories: dict[Any, StateHistory[Any]] = {}
    for name, (first, number) in scenario.initial.items():
        operations = scenario.operations.get(name, [])
        histories[name] = replay(name, first, number, operations)
        counts[name[0]] += len(operations)
    occupied = [
        occupancy
        for name, history in histories.items()
        if name[0] == "appointment"
        for occupancy in occupancies(name, history)
    ]
    buffers = {
        doctor: timedelta(minutes=minutes) for doctor, minutes in zip(scenario.doctors, BUFFERS, strict=True)
    }
    check_calendar(occupied, scenario.attempts, buffers)
    counts["booking attempt"] = len(scenario.attempts)
    _compare(scenario, histories)
    return counts


def _number_stock(scenario: Scenario) -> None:
    """Give the stock changes the order of the stored movements."""
    clinic = scenario.cluster.clinic
    stock_changes = dict(scenario.stock_changes)
    with clinic.inside() as session:
        for item in scenario.items:
            ledger = session.scalars(
                select(StockMovement).where(StockMovement.item_id == item).order_by(StockMovement.id)
            )
            for number, movement in enumerate(ledger, start=1):
                by_treatment = (movement.type.value, movement.treatment_id, item)
                key: Hashable = by_treatment if movement.treatment_id else ("movement", movement.id)
                if key not in stock_changes:
                    raise AnomalyError(f"item {item}: movement {movement.id} was never acknowledged, {key}")
                operation = stock_changes.pop(key).operation
                scenario.operations[("item", item)].append(replace(operation, number=number))
    if stock_changes:
        raise AnomalyError(f"acknowledged movements are not stored: {stock_changes}")


def _compare(scenario: Scenario, histories: dict[Any, StateHistory[Any]]) -> None:
    """Check that the final state equals the model and that there are no other rows."""
    shown: dict[Any, Any] = {}
    for kind, path, read in (("bill", "billings", bill_shown), ("visit", "visits", visit_shown)):
        for row_id in scenario.bills if kind == "bill" else scenario.visits:
            shown[kind, row_id] = read(scenario.cluster.get(f"/{path}/{row_id}"))
    for item in scenario.items:
        shown["item", item] = Stock(scenario.cluster.get(f"/inventory/{item}")["quantity"])
    with scenario.cluster.clinic.inside() as session:
        rows = session.scalars(select(AppointmentRow).where(AppointmentRow.doctor_id.in_(scenario.doctors)))
        for row in rows:
            shown["appointment", row.id] = Appointment(
                row.doctor_id, row.patient_id, row.start, row.duration, row.status.value, row.notes
            )
        for name, kind in (("bill", Billing), ("visit", VisitRow)):
            of_scenario = select(func.count()).select_from(kind).where(kind.patient_id.in_(scenario.patients))
            if session.scalar(of_scenario) != sum(object_[0] == name for object_ in histories):
                raise AnomalyError(f"a {name} is stored that was never acknowledged")
    for name, caller in scenario.sessions:
        alive = scenario.cluster.send("GET", "/auth/me", by=caller).status_code == 200
        shown[name] = Session(alive)
    expected = {name: history.last for name, history in histories.items()}
    if shown != expected:
        wrong = {name for name in shown.keys() | expected.keys() if shown.get(name) != expected.get(name)}
        name = min(wrong, key=str)
        raise AnomalyError(f"{name} is {shown.get(name)} and should be {expected.get(name)}; so are {wrong}")
