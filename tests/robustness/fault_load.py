"""Writers who send every write with an Idempotency-Key, and send it again until it is acknowledged.

Whatever happens to the servers meanwhile: afterwards each acknowledged write is there once, whole, with its
entry in the audit (`assert_kept`).
"""

from __future__ import annotations

import itertools
import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import requests
from sqlalchemy import func, select

from enums import AuditOutcome, LedgerKind
from extensions import db
from models import Appointment, AuditLog, Billing, LedgerEntry, Patient, StockMovement, Treatment
from tests.robustness.fleet import Fleet, slot

PAUSE_S = 0.05  # before a write that was not acknowledged is sent again
GIVEN_UP_S = 60.0  # after which a write that is not acknowledged is a wedged key


class Write(NamedTuple):
    """One acknowledged write: what was asked for, under which marker, and the row that the audit names."""

    kind: str
    marker: str
    entity_id: int


@dataclass(frozen=True)
class Kind:
    """A kind of write: its route as the audit names it, what it is about, and where its marker is stored."""

    operation: str
    entity: str
    column: Any


KINDS = {
    "patient": Kind("POST /patients", "patient", Patient.insurance_id),
    "appointment": Kind("POST /appointments", "appointment", Appointment.reason),
    "bill": Kind("POST /billings", "billing", Billing.insurer_reference),
    "payment": Kind("POST /billings/<int:billing_id>/payments", "billing", LedgerEntry.reference),
    "movement": Kind("POST /inventory/<int:item_id>/movements", "inventory_item", StockMovement.reason),
    "treatment": Kind("POST /treatments", "treatment", Treatment.name),
}


class Writer:
    """One of the writers, with a patient, a doctor, a visit, a bill and an item of its own."""

    def __init__(self, fleet: Fleet) -> None:
        clinic = fleet.clinic
        self.patient = clinic.patient()["id"]
        self.doctor = clinic.doctor_row()["id"]
        self.visit = clinic.visit(patient_id=self.patient, doctor_id=self.doctor)["id"]
        self.bill = clinic.bill("1000000.00", patient_id=self.patient)["id"]
        self.item = clinic.item(1_000_000)["id"]
        self.slots = itertools.count()

    def write(self, kind: str, marker: str) -> tuple[str, dict[str, Any]]:
        """Path and body of a write that nothing but a fault can hinder."""
        item = {"description": "X-ray", "quantity": 1, "unit_price": "2.00"}
        usage = {"item_id": self.item, "quantity": 1}
        if kind == "patient":
            return "/patients", {"name": f"Writ {marker}", "insurance_id": marker, "allow_duplicate": True}
        if kind == "appointment":
            date = slot(next(self.slots))
            return "/appointments", {
                "patient_id": self.patient,
                "doctor_id": self.doctor,
                "date": date,
                "reason": marker,
            }
        if kind == "bill":
            paid = {"amount_paid": "1.00", "insurer_reference": marker}
            return "/billings", {"patient_id": self.patient, "items": [item]} | paid
        if kind == "payment":
            return f"/billings/{self.bill}/payments", {
                "amount": "0.01",
                "method": "cash",
                "reference": marker,
            }
        if kind == "movement":
            return f"/inventory/{self.item}/movements", {"type": "usage", "quantity": 1, "reason": marker}
        return "/treatments", {
            "visit_id": self.visit,
            "name": marker,
            "cost": "1.00",
            "inventory_items": [usage],
        }

    def entity_id(self, kind: str, row: dict[str, Any]) -> int:
        """The row that the audit names for an acknowledged write."""
        return {"payment": self.bill, "movement": self.item}.get(kind, row["id"])


class Load:
    """Writers at work. `problems` holds every answer that no fault excuses."""

    def __init__(self, fleet: Fleet, writers: int) -> None:
        self.fleet = fleet
        self.prefix = f"load-{secrets.token_hex(4)}"
        self.writers = [Writer(fleet) for _ in range(writers)]
        self.acknowledged: list[Write] = []
        self.last: dict[int, float] = {}
        self.statuses: Counter[int | str] = Counter()
        self.problems: list[str] = []
        self.slowest_s = 0.0
        self._over = threading.Event()
        self._threads = [
            threading.Thread(target=self._work, args=(number, writer), daemon=True)
            for number, writer in enumerate(self.writers)
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Let every writer finish what it is about."""
        self._over.set()
        for thread in self._threads:
            thread.join(GIVEN_UP_S + 10)

    def wait(self, writes: int) -> None:
        """Until so many more writes are acknowledged."""
        goal = len(self.acknowledged) + writes
        self._until(lambda: len(self.acknowledged) >= goal)

    def wait_for_answers(self, status: int, count: int) -> None:
        """Until so many more answers had the status."""
        goal = self.statuses[status] + count
        self._until(lambda: self.statuses[status] >= goal)

    def wait_for_all(self) -> float:
        """Until every writer has had another write acknowledged; seconds that took."""
        since = time.monotonic()
        self._until(lambda: all(self.last.get(n, 0.0) > since for n in range(len(self.writers))))
        return time.monotonic() - since

    def _until(self, reached: Callable[[], bool]) -> None:
        deadline = time.monotonic() + GIVEN_UP_S
        while not reached():
            assert not self.problems, self.problems[:3]
            assert time.monotonic() < deadline, self.statuses
            time.sleep(0.01)

    def _work(self, number: int, writer: Writer) -> None:
        kinds = list(KINDS)
        for turn in itertools.count(number):  # not all of them the same at once
            if self._over.is_set():
                return
            kind = kinds[turn % len(kinds)]
            marker = f"{self.prefix}-{number}-{turn}"
            path, body = writer.write(kind, marker)
            began, key = time.monotonic(), secrets.token_hex(16)
            while True:
                row = self._send(path, body, key)
                if row is not None:
                    break
                if time.monotonic() - began > GIVEN_UP_S:
                    self.problems.append(f"{path} was never acknowledged: its key is wedged")
                    return
                time.sleep(PAUSE_S)
            self.acknowledged.append(Write(kind, marker, writer.entity_id(kind, row)))
            self.last[number] = time.monotonic()

    def _send(self, path: str, body: dict[str, Any], key: str) -> dict[str, Any] | None:
        """The row if it is acknowledged."""
        began = time.monotonic()
        try:
            answer = self.fleet.send("POST", path, body, **{"Idempotency-Key": key})
        except requests.RequestException as failure:
            self.statuses[type(failure).__name__] += 1
            return None
        self.slowest_s = max(self.slowest_s, time.monotonic() - began)
        self.statuses[answer.status_code] += 1
        if answer.status_code == 201:
            row: dict[str, Any] = answer.json()
            return row
        waits = answer.status_code == 503 or answer.json()["error"] == "request_in_progress"
        if not waits or "Retry-After" not in answer.headers:
            self.problems.append(f"{path}: {answer.status_code} {answer.headers} {answer.text}")
        return None


@contextmanager
def under_load(fleet: Fleet, writers: int) -> Iterator[Load]:
    """Writers at work meanwhile; afterwards nothing may be lost, doubled or half done."""
    load = Load(fleet, writers)
    load.start()
    try:
        yield load
    finally:
        load.stop()
    assert_kept(load)


def assert_kept(load: Load) -> None:
    """Each acknowledged write is stored once with one audit entry, and there is nothing else."""
    assert not load.problems, load.problems[:3]
    clinic = load.fleet.clinic
    with clinic.app.app_context():
        db.engine.dispose()  # the database may have been away since
    with clinic.inside() as session:
        for name, kind in KINDS.items():
            written = [write for write in load.acknowledged if write.kind == name]
            markers = select(kind.column).where(kind.column.startswith(load.prefix))
            if name == "payment":
                markers = markers.where(LedgerEntry.kind == LedgerKind.PAYMENT)
            assert Counter(session.scalars(markers)) == Counter(write.marker for write in written), name
            told = (
                select(AuditLog.entity_id, func.count())
                .where(
                    AuditLog.operation == kind.operation,
                    AuditLog.entity == kind.entity,
                    AuditLog.outcome == AuditOutcome.SUCCESS,
                    AuditLog.entity_id.in_({write.entity_id for write in written}),
                )
                .group_by(AuditLog.entity_id)
            )
            expected = Counter(write.entity_id for write in written)
            assert dict(session.execute(told).tuples().all()) == dict(expected), name
