"""Backups: whole when taken under load, the same clinic when restored, refused when damaged."""

from __future__ import annotations

import random
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from sqlalchemy import text

import config
from tests.conftest import settings_for
from tests.robustness.abuse_targets import contents
from tests.robustness.conftest import Figures
from tests.robustness.fleet import Fleet, assert_well
from tests.robustness.scale import Scale
from tests.support.clinic import Clinic
from tests.support.database import objects_at
from tests.support.furnished import furnish
from tests.support.servers import PostgresServer

RESTORED_WITHIN_S = 60
MakeDatabase = Callable[[str], str]


@pytest.fixture
def make_empty(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[MakeDatabase]:
    """Makes databases without tables, of an engine."""
    made: list[tuple[PostgresServer, str]] = []

    def make(engine_name: str) -> str:
        if engine_name == "sqlite":
            return f"sqlite:///{tmp_path / f'restored-{len(list(tmp_path.iterdir()))}.db'}"
        server: PostgresServer = request.getfixturevalue("postgres")
        made.append((server, server.create()))
        return made[-1][1]

    yield make
    for server, url in made:
        server.drop(url)


@contextmanager
def clinic_on(url: str, **settings: Any) -> Iterator[Clinic]:
    """The clinic of a database, while the block lasts; then the one before again."""
    before = config.settings()
    made = Clinic(settings_for(url, **settings))
    try:
        yield made
    finally:
        made.close()
        config.use(before)


def backup(clinic: Clinic, *arguments: object, **options: Any) -> Result:
    """`flask backup ...` as the clinic's operator gives it."""
    words = ["backup", *map(str, arguments)]
    return clinic.app.test_cli_runner().invoke(args=words, catch_exceptions=False, **options)


def test_a_restored_clinic_is_the_same_clinic(
    clinic: Clinic, engine_name: str, make_empty: MakeDatabase, tmp_path: Path
) -> None:
    furnish(clinic)
    file, source, target = tmp_path / "clinic.backup", clinic.settings.database_url, make_empty(engine_name)

    made = backup(clinic, "create", file)
    checked = backup(clinic, "check", file)
    with clinic_on(target) as restored:
        answer = backup(restored, "restore", file)

        assert (made.exit_code, checked.exit_code, answer.exit_code) == (0, 0, 0), answer.output
        assert contents(target) == contents(source)
        assert objects_at(target) == objects_at(source)
        assert {name for name, rows in contents(target).items() if rows} >= {"patients", "ledger_entries"}
        assert_well(restored)
        restored.patient()  # ids go on where they were
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_backup_goes_through_a_pipe(clinic: Clinic, engine_name: str, make_empty: MakeDatabase) -> None:
    clinic.patient(name="Ada Quill")
    target = make_empty(engine_name)

    piped = backup(clinic, "create", "-").stdout_bytes
    with clinic_on(target) as restored:
        answer = backup(restored, "restore", "-", input=piped)

        assert answer.exit_code == 0, answer.output
        assert contents(target)["patients"] == contents(clinic.settings.database_url)["patients"]


def test_a_backup_replaces_no_file_and_leaves_no_part(clinic: Clinic, tmp_path: Path) -> None:
    file, folder = tmp_path / "clinic.backup", tmp_path / "nowhere" / "clinic.backup"
    file.write_text("kept")

    again, nowhere = backup(clinic, "create", file), backup(clinic, "create", folder)

    assert (again.exit_code, nowhere.exit_code) == (1, 1)
    assert file.read_text() == "kept"
    assert list(tmp_path.iterdir()) == [file]


# --- Damage --------------------------------------------------------------------------------------------


def damaged(whole: bytes, chance: random.Random) -> bytes:
    """The backup cut short, or with one bit the other way; now and then in its first lines."""
    place = chance.choice((chance.randrange(len(whole)), chance.randrange(200), len(whole) - 1))
    if chance.random() < 0.5:
        return whole[:place]
    return whole[:place] + bytes([whole[place] ^ (1 << chance.randrange(8))]) + whole[place + 1 :]


def test_a_damaged_backup_is_refused_and_nothing_is_touched(
    clinic: Clinic,
    engine_name: str,
    make_empty: MakeDatabase,
    tmp_path: Path,
    scale: Scale,
    figures: Figures,
) -> None:
    clinic.bill("12.00")
    file, target, chance = tmp_path / "clinic.backup", make_empty(engine_name), random.Random(7)
    backup(clinic, "create", file)
    whole = file.read_bytes()

    refused = 0
    with clinic_on(target) as restored:
        for _ in range(scale.damages // 2):
            file.write_bytes(damaged(whole, chance))
            answer = backup(restored, "restore", file)
            assert (answer.exit_code, contents(target)) == (1, {}), answer.output
            refused += "Nothing was changed." in answer.output

        file.write_bytes(whole)
        assert backup(restored, "restore", file).exit_code == 0
    figures["damaged backups refused"] = f"{refused} of {scale.damages // 2}"
    assert refused == scale.damages // 2


def test_a_backup_sealed_under_another_key_is_refused(
    clinic: Clinic, engine_name: str, make_empty: MakeDatabase, tmp_path: Path
) -> None:
    file, target = tmp_path / "clinic.backup", make_empty(engine_name)
    backup(clinic, "create", file)

    with clinic_on(target, audit_key="another-" + "h3N7b5Rq" * 5) as stranger:
        answer = backup(stranger, "restore", file)

        assert (answer.exit_code, contents(target)) == (1, {})
        assert backup(stranger, "check", file).exit_code == 1


def test_a_backup_is_not_restored_over_a_clinic(clinic: Clinic, tmp_path: Path) -> None:
    file = tmp_path / "clinic.backup"
    clinic.patient()
    backup(clinic, "create", file)
    clinic.patient()
    before = contents(clinic.settings.database_url)

    answer = backup(clinic, "restore", file)

    assert answer.exit_code == 1
    assert contents(clinic.settings.database_url) == before


def test_a_backup_of_the_other_engine_is_refused(
    clinic: Clinic, engine_name: str, make_empty: MakeDatabase, tmp_path: Path
) -> None:
    other = "postgresql" if engine_name == "sqlite" else "sqlite"
    file, target = tmp_path / "clinic.backup", make_empty(other)
    backup(clinic, "create", file)

    with clinic_on(target) as restored:
        answer = backup(restored, "restore", file)

        assert (answer.exit_code, contents(target)) == (1, {})
        assert f"a backup of {engine_name}" in answer.output


# --- Whole ---------------------------------------------------------------------------------------------


def test_what_was_written_after_the_backup_is_told_as_lost(
    clinic: Clinic, engine_name: str, make_empty: MakeDatabase, tmp_path: Path
) -> None:
    file = tmp_path / "clinic.backup"
    clinic.patient()
    backup(clinic, "create", file)
    for _ in range(3):
        clinic.patient()
    clinic.app.test_cli_runner().invoke(args=["audit", "heads"])

    with clinic_on(make_empty(engine_name), audit_heads_file=clinic.settings.heads_file) as restored:
        backup(restored, "restore", file)
        run = restored.app.test_cli_runner().invoke
        before = run(args=["audit", "verify"])
        recorded = run(args=["audit", "restored", "--reason", "backup of last night"])
        after = run(args=["audit", "verify"])

    assert (before.exit_code, recorded.exit_code, after.exit_code) == (1, 0, 0), recorded.output
    assert "is missing" in before.output
    assert "lost: chain" in recorded.output


def test_a_backup_taken_under_load_is_whole(
    fleet: Fleet, make_empty: MakeDatabase, tmp_path: Path, figures: Figures
) -> None:
    clinic, file = fleet.clinic, tmp_path / "clinic.backup"
    config.use(clinic.settings)
    doctor, stop, kept = clinic.doctor_row()["id"], threading.Event(), threading.Lock()
    acknowledged: list[tuple[float, float, int]] = []  # begun, answered, the patient's id

    def work() -> None:
        while not stop.is_set():
            began = time.monotonic()
            row = fleet.send("POST", "/patients", {"name": f"Written {began:.6f}"}).json()
            with kept:
                acknowledged.append((began, time.monotonic(), row["id"]))
            visit = {"patient_id": row["id"], "doctor_id": doctor, "amount_paid": "5.00"}
            assert fleet.send("POST", "/visits", visit).status_code == 201

    writers = [threading.Thread(target=work) for _ in range(8)]
    for writer in writers:
        writer.start()
    while len(acknowledged) < len(writers) and all(writer.is_alive() for writer in writers):
        time.sleep(0.05)
    began = time.monotonic()
    made = backup(clinic, "create", file)
    ended = time.monotonic()
    time.sleep(0.5)
    stop.set()
    for writer in writers:
        writer.join()

    assert made.exit_code == 0, made.output
    with clinic_on(make_empty(fleet.engine_name)) as restored:
        assert backup(restored, "restore", file).exit_code == 0
        assert_well(restored)
        with restored.inside() as session:
            there = set(session.execute(text("SELECT id FROM patients")).scalars())
    assert {one for _, answered, one in acknowledged if answered < began} <= there
    assert not {one for sent, _, one in acknowledged if sent > ended} & there
    assert [one for sent, answered, one in acknowledged if answered < began and sent < ended]
    figures["patients written meanwhile"] = len(acknowledged)


def test_the_demo_clinic_is_restored_and_verified_in_a_minute(
    clinic: Clinic,
    engine_name: str,
    make_empty: MakeDatabase,
    tmp_path: Path,
    scale: Scale,
    figures: Figures,
) -> None:
    file, load = tmp_path / "clinic.backup", ["demo", "load", "--patients", str(scale.demo_patients)]
    assert clinic.app.test_cli_runner().invoke(args=load).exit_code == 0
    assert backup(clinic, "create", file).exit_code == 0

    with clinic_on(make_empty(engine_name)) as restored:
        began = time.monotonic()
        assert backup(restored, "restore", file).exit_code == 0
        assert_well(restored)
        took = time.monotonic() - began

    figures["patients"] = scale.demo_patients
    figures["restored and verified, s"] = round(took, 2)
    assert took < RESTORED_WITHIN_S
