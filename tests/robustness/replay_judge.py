"""Holds what the clients wrote down against the sequential model, and against what the clinic stores."""

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
from tests.robustness.model import (
    Anomaly,
    Appointment,
    Session,
    Steps,
    Stock,
    judge_calendar,
    replay,
    stands,
)
from tests.robustness.replay_clients import (
    BUFFERS,
    World,
    bill_shown,
    visit_shown,
)


def judge(world: World) -> Counter[str]:
    """Replay everything; how many operations there were on each kind of object. Raises Anomaly."""
    _number_stock(world)
    if unknown := world.operations.keys() - world.begun.keys():
        raise Anomaly(f"something was done to {unknown}, which nobody made")
    counts: Counter[str] = Counter()
    judged: dict[Any, Steps[Any]] = {}
    for name, (first, number) in world.begun.items():
        operations = world.operations.get(name, [])
        judged[name] = replay(name, first, number, operations)
        counts[name[0]] += len(operations)
    taken = [
        stand for name, steps in judged.items() if name[0] == "appointment" for stand in stands(name, steps)
    ]
    buffers = {
        doctor: timedelta(minutes=minutes) for doctor, minutes in zip(world.doctors, BUFFERS, strict=True)
    }
    judge_calendar(taken, world.proposals, buffers)
    counts["proposal"] = len(world.proposals)
    _compare(world, judged)
    return counts


def _number_stock(world: World) -> None:
    """Give the changes of stock their places: those of their movements in the ledger."""
    clinic = world.fleet.clinic
    moved = dict(world.moved)
    with clinic.inside() as session:
        for item in world.items:
            ledger = session.scalars(
                select(StockMovement).where(StockMovement.item_id == item).order_by(StockMovement.id)
            )
            for place, movement in enumerate(ledger, start=1):
                by_treatment = (movement.type.value, movement.treatment_id, item)
                key: Hashable = by_treatment if movement.treatment_id else ("movement", movement.id)
                if key not in moved:
                    raise Anomaly(f"item {item}: nobody was told of movement {movement.id}, {key}")
                operation = moved.pop(key).operation
                world.operations[("item", item)].append(replace(operation, number=place))
    if moved:
        raise Anomaly(f"these movements were acknowledged and are not there: {moved}")


def _compare(world: World, judged: dict[Any, Steps[Any]]) -> None:
    """What the clinic shows in the end is what the model says, and there is nothing else."""
    shown: dict[Any, Any] = {}
    for kind, path, read in (("bill", "billings", bill_shown), ("visit", "visits", visit_shown)):
        for row_id in world.bills if kind == "bill" else world.visits:
            shown[kind, row_id] = read(world.fleet.get(f"/{path}/{row_id}"))
    for item in world.items:
        shown["item", item] = Stock(world.fleet.get(f"/inventory/{item}")["quantity"])
    with world.fleet.clinic.inside() as session:
        rows = session.scalars(select(AppointmentRow).where(AppointmentRow.doctor_id.in_(world.doctors)))
        for row in rows:
            shown["appointment", row.id] = Appointment(
                row.doctor_id, row.patient_id, row.start, row.duration, row.status.value, row.notes
            )
        for name, kind in (("bill", Billing), ("visit", VisitRow)):
            of_world = select(func.count()).select_from(kind).where(kind.patient_id.in_(world.patients))
            if session.scalar(of_world) != sum(found[0] == name for found in judged):
                raise Anomaly(f"there is a {name} that nobody was told of")
    for name, caller in world.sessions:
        alive = world.fleet.send("GET", "/auth/me", by=caller).status_code == 200
        shown[name] = Session(alive)
    expected = {name: steps.last for name, steps in judged.items()}
    if shown != expected:
        wrong = {name for name in shown.keys() | expected.keys() if shown.get(name) != expected.get(name)}
        name = min(wrong, key=str)
        raise Anomaly(f"{name} is {shown.get(name)} and should be {expected.get(name)}; so are {wrong}")
