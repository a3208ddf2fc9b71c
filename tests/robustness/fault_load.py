"""Clients that send every write with an Idempotency-Key and repeat it until it is acknowledged.

After any fault of the servers each acknowledged write is stored exactly once, complete, and with its audit
entry (`assert_stored_once`).
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
from tests.robustness.cluster import Cluster, slot

PAUSE_S = 0.05  # before a write is repeated
WRITE_TIMEOUT_S = 60.0  # a write that is not acknowledged by then is a test failure


class Write(NamedTuple):
    """An acknowledged write. `marker` identifies it, `entity_id` is the row in the audit entry."""

    kind: str
    marker: str
    entity_id: int


@dataclass(frozen=True)
class WriteKind:
    """A kind of write: route and entity in the audit log, and the column of the marker."""

    operation: str
    entity: str
    column: Any


WRITE_KINDS = {
    "patient": WriteKind("POST /patients", "patient", Patient.insurance_id),
    "appointment": WriteKind("POST /appointments", "appointment", Appointment.reason),
    "bill": WriteKind("POST /billings", "billing", Billing.insurer_reference),
    "payment": WriteKind("POST /billings/<int:billing_id>/payments", "billing", LedgerEntry.reference),
    "movement": WriteKind("POST /inventory/<int:item_id>/movements", "inventory_item", StockMovement.reason),
    "treatment": WriteKind("POST /treatments", "treatment", Treatment.name),
}


class Writer:
    """A client with its own patient, doctor, visit, bill and stock item."""

    def __init__(self, cluster: Cluster) -> None:
        clinic = cluster.clinic
        self.patient = clinic.patient()["id"]
        self.doctor = clinic.doctor_row()["id"]
        self.visit = clinic.visit(patient_id=self.patient, doctor_id=self.doctor)["id"]
        self.bill = clinic.bill("1000000.00", patient_id=self.patient)["id"]
        self.item = clinic.item(1_000_000)["id"]
        self.slots = itertools.count()

    def write(self, kind: str, marker: str) -> tuple[str, dict[str, Any]]:
        """Return path and body of a write that only a fault can refuse."""
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
        """Return the id in the audit entry of a write."""
        return {"payment": self.bill, "movement": self.item}.get(kind, row["id"])


class Load:
    """Concurrent writers. `problems` holds the responses that are wrong even during a fault."""

    def __init__(self, cluster: Cluster, writers: int) -> None:
        self.cluster = cluster
        self.prefix = f"load-{secrets.token_hex(4)}"
        self.writers = [Writer(cluster) for _ in range(writers)]
        self.acknowledged: list[Write] = []
        self.last: dict[int, float] = {}
        self.statuses: Counter[int | str] = Counter()
        self.problems: list[str] = []
        self.slowest_s = 0.0
        self._stopped = threading.Event()
        self._threads = [
            threading.Thread(target=self._work, args=(number, writer), daemon=True)
            for number, writer in enumerate(self.writers)
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Stop after the current write of every writer."""
        self._stopped.set()
        for thread in self._threads:
            thread.join(WRITE_TIMEOUT_S + 10)

    def wait(self, writes: int) -> None:
        """Wait for more acknowledged writes."""
        goal = len(self.acknowledged) + writes
        self._wait_until(lambda: len(self.acknowledged) >= goal)

    def wait_for_responses(self, status: int, count: int) -> None:
        """Wait for more responses with the status."""
        goal = self.statuses[status] + count
        self._wait_until(lambda: self.statuses[status] >= goal)

    def wait_for_all(self) -> float:
        """Wait until every writer has one more acknowledged write. Return the seconds."""
        since = time.monotonic()
        self._wait_until(lambda: all(self.last.get(n, 0.0) > since for n in range(len(self.writers))))
        return time.monotonic() - since

    def _wait_until(self, reached: Callable[[], bool]) -> None:
        deadline = time.monotonic() + WRITE_TIMEOUT_S
        while not reached():
            assert not self.problems, self.problems[:3]
            assert time.monotonic() < deadline, self.statuses
            time.sleep(0.01)

    def _work(self, number: int, writer: Writer) -> None:
        kinds = list(WRITE_KINDS)
        for turn in itertools.count(number):  # writers start with different kinds
            if self._stopped.is_set():
                return
            kind = kinds[turn % len(kinds)]
            marker = f"{self.prefix}-{number}-{turn}"
            path, body = writer.write(kind, marker)
            started, key = time.monotonic(), secrets.token_hex(16)
            while True:
                row = self._send(path, body, key)
                if row is not None:
                    break
                if time.monotonic() - started > WRITE_TIMEOUT_S:
                    self.problems.append(f"{path} was never acknowledged")
                    return
                time.sleep(PAUSE_S)
            self.acknowledged.append(Write(kind, marker, writer.entity_id(kind, row)))
            self.last[number] = time.monotonic()

    def _send(self, path: str, body: dict[str, Any], key: str) -> dict[str, Any] | None:
        """Return the row of the response, or None if the write must be repeated."""
        started = time.monotonic()
        try:
            response = self.cluster.send("POST", path, body, **{"Idempotency-Key": key})
        except requests.RequestException as error:
            self.statuses[type(error).__name__] += 1
            return None
        self.slowest_s = max(self.slowest_s, time.monotonic() - started)
        self.statuses[response.status_code] += 1
        if response.status_code == 201:
            row: dict[str, Any] = response.json()
            return row
        is_retryable = response.status_code == 503 or response.json()["error"] == "request_in_progress"
        if not is_retryable or "Retry-After" not in response.headers:
            self.problems.append(f"{path}: {response.status_code} {response.headers} {response.text}")
        return None


@contextmanager
def under_load(cluster: Cluster, writers: int) -> Iterator[Load]:
    """Run writers during the block. Afterwards no write may be lost, repeated or incomplete."""
    load = Load(cluster, writers)
    load.start()
    try:
        yield load
    finally:
        load.stop()
    assert_stored_once(load)


def assert_stored_once(load: Load) -> None:
    """Assert that exactly the acknowledged writes are stored, each with one audit entry."""
    assert not load.problems, load.problems[:3]
    clinic = load.cluster.clinic
    with clinic.app.app_context():
        db.engine.dispose()  # connections may be broken after a fault
    with clinic.inside() as session:
        for name, kind in WRITE_KINDS.items():
            writes = [write for write in load.acknowledged if write.kind == name]
            markers = select(kind.column).where(kind.column.startswith(load.prefix))
            if name == "payment":
                markers = markers.where(LedgerEntry.kind == LedgerKind.PAYMENT)
            assert Counter(session.scalars(markers)) == Counter(write.marker for write in writes), name
            entries = (
                select(AuditLog.entity_id, func.count())
                .where(
                    AuditLog.operation == kind.operation,
                    AuditLog.entity == kind.entity,
                    AuditLog.outcome == AuditOutcome.SUCCESS,
                    AuditLog.action != "read",  # a repeated request that is answered with the first response
                    AuditLog.entity_id.in_({write.entity_id for write in writes}),
                )
                .group_by(AuditLog.entity_id)
            )
            expected = Counter(write.entity_id for write in writes)
            assert dict(session.execute(entries).tuples().all()) == dict(expected), name
