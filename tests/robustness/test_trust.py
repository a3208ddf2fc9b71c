"""Tampering with the audit log in the database: every change is detected, without false alarms."""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, text

from models import AuditLog
from tests.robustness.cluster import Cluster
from tests.robustness.conftest import Figures
from tests.robustness.load_level import LoadLevel
from tests.services.audit.test_audit_chain import (
    TABLES,
    TAMPERINGS,
    copies,
    cut,
    export,
    flask,
    restore_rows,
    tampering,
    write,
)
from tests.support.clinic import Clinic

ENTRIES = 6  # of the changed chain
WRITERS = 64
FAULT = re.compile(r"chain (\d+), entry (\d+)")
# changed value by column
FALSIFIED = {
    "at": "'2020-01-01 00:00:00.000000'",
    "user_id": "987",
    "user_name": "'Somebody Else'",
    "role": "'technician'",
    "action": "'erase'",
    "entity": "'doctor'",
    "entity_id": "987",
    "entity_ids": "'[9]'",
    "patient_ids": "'[9]'",
    "fields": "'[\"nothing\"]'",
    "outcome": "'refused'",
    "detail": "'forbidden'",
    "operation": "'another test'",
    "address": "'203.0.113.7'",
    "request_id": "'another-request'",
    "key_id": "'0123456789abcdef'",
    "mac": f"'{'ab' * 32}'",
    "id": "id + 100000",
}


@dataclass(frozen=True)
class Tampering:
    """A change of a chain, and the entry that `flask audit verify` must report."""

    name: str
    run: Callable[[Connection, int], Any]
    entry: int


def entry_sql(number: int, statement: str) -> Callable[[Connection, int], Any]:
    """Return a change of one entry. `{where}` in the statement selects the entry."""

    def run(connection: Connection, chain: int) -> None:
        where = f"WHERE chain = {chain} AND number = {number}"
        connection.execute(text(statement.replace("{where}", where).replace("{chain}", str(chain))))

    return run


def sequence(*steps: Callable[[Connection, int], Any]) -> Callable[[Connection, int], Any]:
    """Combine changes: one after the other."""

    def run(connection: Connection, chain: int) -> None:
        for step in steps:
            step(connection, chain)

    return run


def renumber(first: int, by: int) -> Callable[[Connection, int], Any]:
    """Change the numbers from `first` on by `by`, in an order that keeps them unique."""
    numbers = range(ENTRIES, first - 1, -1) if by > 0 else range(first, ENTRIES + 1)
    return sequence(*(entry_sql(n, f"UPDATE audit_logs SET number = {n + by} {{where}}") for n in numbers))


def swap(one: int, other: int) -> Callable[[Connection, int], Any]:
    """Swap two entries."""
    return sequence(
        entry_sql(one, "UPDATE audit_logs SET number = 99 {where}"),
        entry_sql(other, f"UPDATE audit_logs SET number = {one} {{where}}"),
        entry_sql(99, f"UPDATE audit_logs SET number = {other} {{where}}"),
    )


def copy_entry(source: int, target: int) -> Callable[[Connection, int], Any]:
    """Copy the entry `source` to the number `target`."""
    columns = [column.name for column in AuditLog.__table__.columns if column.name not in ("id", "number")]
    names = ", ".join(columns)
    statement = f"INSERT INTO audit_logs (id, number, {names}) SELECT 5000 + number, {target}, {names}"
    return entry_sql(source, f"{statement} FROM audit_logs {{where}}")


def overwrite(target: int, source: int) -> Callable[[Connection, int], Any]:
    """Replace the entry `target` by the entry `source`, with its MAC."""
    return sequence(entry_sql(target, "DELETE FROM audit_logs {where}"), copy_entry(source, target))


def recompute_macs(first: int) -> Callable[[Connection, int], Any]:
    """Change entry `first` and compute new MACs, without the key: the attacker knows only the code."""

    def run(connection: Connection, chain: int) -> None:
        where = f"chain = {chain} AND number >= {first}"
        connection.execute(
            text(f"UPDATE audit_logs SET user_name = 'X' WHERE chain = {chain} AND number = {first}")
        )
        mac = ""
        rows = connection.execute(text(f"SELECT * FROM audit_logs WHERE {where} ORDER BY number")).all()
        for row in rows:
            mac = hashlib.sha256(f"{mac}\n{tuple(row)}".encode()).hexdigest()
            connection.execute(text(f"UPDATE audit_logs SET mac = '{mac}' WHERE id = {row.id}"))
        connection.execute(text(f"UPDATE audit_heads SET mac = '{mac}' WHERE chain = {chain}"))

    return run


def head(number: int, statement: str) -> Tampering:
    """Change the head of the chain."""
    return Tampering(f"head: {statement}", entry_sql(0, statement), number)


def tamperings() -> Iterator[Tampering]:
    """Yield every kind of tampering for every entry."""
    for name, (run, number, _message) in TAMPERINGS.items():
        if number:
            yield Tampering(name, run, number)
    for n in range(1, ENTRIES + 1):
        for column, value in FALSIFIED.items():
            change = entry_sql(n, f"UPDATE audit_logs SET {column} = {value} {{where}}")
            yield Tampering(f"{column} of {n}", change, n)
        yield Tampering(f"{n} removed", entry_sql(n, "DELETE FROM audit_logs {where}"), n)
        yield Tampering(f"{n} with new MACs", recompute_macs(n), n)
        yield Tampering(f"{n} doubled", sequence(renumber(n + 1, 1), copy_entry(n, n + 1)), n + 1)
        yield Tampering(
            f"{n} removed, the rest moved up",
            sequence(
                entry_sql(n, "DELETE FROM audit_logs {where}"),
                renumber(n + 1, -1),
                entry_sql(0, f"UPDATE audit_heads SET number = {ENTRIES - 1} WHERE chain = {{chain}}"),
            ),
            n if n < ENTRIES else ENTRIES - 1,
        )
        for other in range(n + 1, ENTRIES + 1):
            yield Tampering(f"{n} and {other} swapped", swap(n, other), n)
            yield Tampering(f"{n} overwritten with {other}", overwrite(n, other), n)
    empty_head = "UPDATE audit_heads SET number = 0, mac = '' WHERE chain = {chain}"
    emptied = sequence(entry_sql(0, "DELETE FROM audit_logs WHERE chain = {chain}"), entry_sql(0, empty_head))
    yield Tampering("all entries removed", emptied, 1)
    for n in range(1, ENTRIES):
        yield Tampering(f"cut after {n}", lambda connection, chain, n=n: cut(connection, chain, n), n + 1)
        yield head(n + 1, f"UPDATE audit_heads SET number = {n} WHERE chain = {{chain}}")
    yield head(ENTRIES + 1, "UPDATE audit_heads SET number = 1000 WHERE chain = {chain}")
    yield head(ENTRIES, f"UPDATE audit_heads SET mac = '{'cd' * 32}' WHERE chain = {{chain}}")
    yield head(ENTRIES, "UPDATE audit_heads SET mac = '' WHERE chain = {chain}")


@pytest.fixture
def exporting_clinic(make_clinic: Callable[..., Clinic], tmp_path: Path) -> Clinic:
    """Return a clinic that exports its heads to a file that the attacker cannot change."""
    return make_clinic(audit_heads_file=tmp_path / "outside" / "heads.json")


def test_every_tampering_is_detected_at_its_entry(
    exporting_clinic: Clinic, level: LoadLevel, figures: Figures
) -> None:
    chain = write(exporting_clinic, ENTRIES)
    assert export(exporting_clinic) == []
    candidates = list(tamperings())
    selected = random.Random(13).sample(candidates, min(len(candidates), level.tamperings // 2))
    missed = []

    with tampering(exporting_clinic) as connection:
        originals = copies(connection)
        for change in selected:
            change.run(connection, chain)
            response = flask(exporting_clinic, "verify")
            fault = FAULT.search(response.stderr)
            if response.exit_code != 1 or fault is None or fault.groups() != (str(chain), str(change.entry)):
                missed.append((change.name, change.entry, response.output))
            restore_rows(connection, originals)
        assert copies(connection).keys() == set(TABLES)

    figures["tamperings detected"] = f"{len(selected) - len(missed)} of {len(selected)}"
    assert missed == []
    assert flask(exporting_clinic, "verify").exit_code == 0  # no false alarm after the rows are restored


def test_64_concurrent_writers_cause_no_false_alarm(cluster: Cluster, figures: Figures) -> None:
    patient = cluster.clinic.patient()["id"]
    receptionist = cluster.clinic.receptionist
    results = []

    for round_ in range(2):
        responses = cluster.send_concurrently(
            [
                lambda number=number, round_=round_: cluster.send(
                    *(
                        ("PATCH", f"/patients/{patient}", {"address": f"{number} Mill Lane {round_}"}),
                        ("GET", f"/patients/{patient}"),
                        ("POST", "/patients", {"name": f"Person {round_} of {number}"}),
                        ("DELETE", f"/patients/{patient}"),
                    )[number % 4],
                    by=receptionist,
                )
                for number in range(WRITERS)
            ]
        )
        results.append(flask(cluster.clinic, "verify"))
        assert {response.status_code for response in responses} == {200, 201, 403}

    figures["writers"] = WRITERS
    assert [result.output for result in results if result.exit_code] == []
