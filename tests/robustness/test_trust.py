"""The audit under somebody who owns the database: every tampering is found and named, honest work never."""

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
from tests.robustness.conftest import Figures
from tests.robustness.fleet import Fleet
from tests.robustness.scale import Scale
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

ENTRIES = 6  # of the chain that is tampered with
WRITERS = 64
NAMED = re.compile(r"chain (\d+), entry (\d+)")
# what each column of an entry is changed to
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
    "mac": f"'{'ab' * 32}'",
    "id": "id + 100000",
}


@dataclass(frozen=True)
class Tampering:
    """What is done to a chain, and the entry that must be named."""

    what: str
    run: Callable[[Connection, int], Any]
    entry: int


def entry_sql(number: int, statement: str) -> Callable[[Connection, int], Any]:
    """The statement on one entry; `{where}` is the entry."""

    def run(connection: Connection, chain: int) -> None:
        where = f"WHERE chain = {chain} AND number = {number}"
        connection.execute(text(statement.replace("{where}", where).replace("{chain}", str(chain))))

    return run


def in_order(*steps: Callable[[Connection, int], Any]) -> Callable[[Connection, int], Any]:
    """One after the other."""

    def run(connection: Connection, chain: int) -> None:
        for step in steps:
            step(connection, chain)

    return run


def renumbered(first: int, by: int) -> Callable[[Connection, int], Any]:
    """All entries from `first` on one further, or one back, in an order that keeps numbers unique."""
    numbers = range(ENTRIES, first - 1, -1) if by > 0 else range(first, ENTRIES + 1)
    return in_order(*(entry_sql(n, f"UPDATE audit_logs SET number = {n + by} {{where}}") for n in numbers))


def swapped(one: int, other: int) -> Callable[[Connection, int], Any]:
    """Two entries in each other's place."""
    return in_order(
        entry_sql(one, "UPDATE audit_logs SET number = 99 {where}"),
        entry_sql(other, f"UPDATE audit_logs SET number = {one} {{where}}"),
        entry_sql(99, f"UPDATE audit_logs SET number = {other} {{where}}"),
    )


def copied(source: int, target: int) -> Callable[[Connection, int], Any]:
    """The entry `source` once more, as entry `target`."""
    columns = [column.name for column in AuditLog.__table__.columns if column.name not in ("id", "number")]
    names = ", ".join(columns)
    statement = f"INSERT INTO audit_logs (id, number, {names}) SELECT 5000 + number, {target}, {names}"
    return entry_sql(source, f"{statement} FROM audit_logs {{where}}")


def overwritten(target: int, source: int) -> Callable[[Connection, int], Any]:
    """The entry `target` with everything that the entry `source` says, its seal too."""
    return in_order(entry_sql(target, "DELETE FROM audit_logs {where}"), copied(source, target))


def resealed(first: int) -> Callable[[Connection, int], Any]:
    """Entry `first` changed and the tail sealed again, by somebody who knows the code but not the key."""

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
    """A tampering with the end of the chain."""
    return Tampering(f"head: {statement}", entry_sql(0, statement), number)


def tamperings() -> Iterator[Tampering]:
    """Every way, at every entry."""
    for name, (run, number, _told) in TAMPERINGS.items():
        if number:
            yield Tampering(name, run, number)
    for n in range(1, ENTRIES + 1):
        for column, value in FALSIFIED.items():
            change = entry_sql(n, f"UPDATE audit_logs SET {column} = {value} {{where}}")
            yield Tampering(f"{column} of {n}", change, n)
        yield Tampering(f"{n} removed", entry_sql(n, "DELETE FROM audit_logs {where}"), n)
        yield Tampering(f"{n} sealed again", resealed(n), n)
        yield Tampering(f"{n} doubled", in_order(renumbered(n + 1, 1), copied(n, n + 1)), n + 1)
        yield Tampering(
            f"{n} removed, the rest moved up",
            in_order(
                entry_sql(n, "DELETE FROM audit_logs {where}"),
                renumbered(n + 1, -1),
                entry_sql(0, f"UPDATE audit_heads SET number = {ENTRIES - 1} WHERE chain = {{chain}}"),
            ),
            n if n < ENTRIES else ENTRIES - 1,
        )
        for other in range(n + 1, ENTRIES + 1):
            yield Tampering(f"{n} and {other} swapped", swapped(n, other), n)
            yield Tampering(f"{n} overwritten with {other}", overwritten(n, other), n)
    nothing = "UPDATE audit_heads SET number = 0, mac = '' WHERE chain = {chain}"
    forgotten = in_order(entry_sql(0, "DELETE FROM audit_logs WHERE chain = {chain}"), entry_sql(0, nothing))
    yield Tampering("as if nothing had ever been done", forgotten, 1)
    for n in range(1, ENTRIES):
        yield Tampering(f"cut after {n}", lambda connection, chain, n=n: cut(connection, chain, n), n + 1)
        yield head(n + 1, f"UPDATE audit_heads SET number = {n} WHERE chain = {{chain}}")
    yield head(ENTRIES + 1, "UPDATE audit_heads SET number = 1000 WHERE chain = {chain}")
    yield head(ENTRIES, f"UPDATE audit_heads SET mac = '{'cd' * 32}' WHERE chain = {{chain}}")
    yield head(ENTRIES, "UPDATE audit_heads SET mac = '' WHERE chain = {chain}")


@pytest.fixture
def watched(make_clinic: Callable[..., Clinic], tmp_path: Path) -> Clinic:
    """A clinic whose heads are exported to where the tamperer does not get."""
    return make_clinic(audit_heads_file=tmp_path / "outside" / "heads.json")


def test_every_tampering_is_found_and_named(watched: Clinic, scale: Scale, figures: Figures) -> None:
    chain = write(watched, ENTRIES)
    assert export(watched) == []
    every = list(tamperings())
    chosen = random.Random(13).sample(every, min(len(every), scale.tamperings // 2))
    missed = []

    with tampering(watched) as connection:
        kept = copies(connection)
        for one in chosen:
            one.run(connection, chain)
            answer = flask(watched, "verify")
            named = NAMED.search(answer.stderr)
            if answer.exit_code != 1 or named is None or named.groups() != (str(chain), str(one.entry)):
                missed.append((one.what, one.entry, answer.output))
            restore_rows(connection, kept)
        assert copies(connection).keys() == set(TABLES)

    figures["tamperings found and named"] = f"{len(chosen) - len(missed)} of {len(chosen)}"
    assert missed == []
    assert flask(watched, "verify").exit_code == 0  # put back, all is well: no alarm was false


def test_64_writers_at_once_raise_no_false_alarm(fleet: Fleet, figures: Figures) -> None:
    patient = fleet.clinic.patient()["id"]
    receptionist = fleet.clinic.receptionist
    during = []

    for round_ in range(2):
        answers = fleet.at_once(
            [
                lambda number=number, round_=round_: fleet.send(
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
        during.append(flask(fleet.clinic, "verify"))
        assert {answer.status_code for answer in answers} == {200, 201, 403}

    figures["writers"] = WRITERS
    assert [answer.output for answer in during if answer.exit_code] == []
