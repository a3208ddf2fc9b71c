"""The audit's chains: whatever is edited, removed, swapped, put in or cut off is found and named."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from sqlalchemy import Connection, select, text

from extensions import db
from models import AuditHead, AuditLog
from services.audit import audit_chain, audit_log
from services.audit.audit_chain import Break, HeadsFileError
from services.audit.audit_log import PendingEntry
from tests.support.clinic import Clinic

TABLES = ("audit_subjects", "audit_logs", "audit_heads")


@pytest.fixture
def clinic(make_clinic: Any, tmp_path: Path) -> Clinic:
    """A clinic that exports its heads to a file of the test's own."""
    made: Clinic = make_clinic(audit_heads_file=tmp_path / "outside" / "heads.json")
    return made


def write(clinic: Clinic, entries: int) -> int:
    """Append that many entries to one chain; which."""
    with clinic.inside() as session:
        deeds = [
            PendingEntry("read", "patient", number, patient_ids={number, 100 + number})
            for number in range(entries)
        ]
        audit_log.append(None, "a test", deeds)
        newest = select(AuditLog.chain).order_by(AuditLog.id.desc()).limit(1)
        return int(session.execute(newest).scalar_one())


def verify(clinic: Clinic, exported: audit_chain.Heads | None = None) -> Break | None:
    with clinic.app.app_context():
        return audit_chain.verify(db.engine, exported)


def heads_of(clinic: Clinic) -> audit_chain.Heads | None:
    return audit_chain.read_heads(clinic.settings.heads_file, clinic.settings.audit_key)


def export(clinic: Clinic, **options: Any) -> list[Break]:
    with clinic.app.app_context():
        return audit_chain.export(db.engine, clinic.settings, **options)


def flask(clinic: Clinic, *arguments: str) -> Result:
    return clinic.app.test_cli_runner().invoke(args=["audit", *arguments])


# --- Tampering -----------------------------------------------------------------------------------------


@contextmanager
def tampering(clinic: Clinic) -> Iterator[Connection]:
    """A connection of somebody who owns the database and has no scruples: no trigger, no foreign key."""
    with clinic.app.app_context():
        engine = db.engine
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        if engine.dialect.name == "sqlite":
            connection.exec_driver_sql("PRAGMA foreign_keys=OFF")
            triggers = "SELECT name FROM sqlite_master WHERE type = 'trigger' AND name LIKE '%audit%'"
            for name in connection.exec_driver_sql(triggers).scalars().all():
                connection.exec_driver_sql(f"DROP TRIGGER {name}")
        else:
            connection.exec_driver_sql("SET session_replication_role = replica")
        yield connection
        if engine.dialect.name == "sqlite":
            connection.exec_driver_sql("PRAGMA foreign_keys=ON")
        else:
            connection.exec_driver_sql("SET session_replication_role = DEFAULT")


def copies(connection: Connection) -> dict[str, list[dict[str, Any]]]:
    return {
        table: [dict(row) for row in connection.execute(text(f"SELECT * FROM {table}")).mappings()]
        for table in TABLES
    }


def put_back(connection: Connection, kept: dict[str, list[dict[str, Any]]]) -> None:
    for table, rows in kept.items():
        connection.execute(text(f"DELETE FROM {table}"))
        for row in rows:
            told = {
                name: json.dumps(value) if isinstance(value, list) else value for name, value in row.items()
            }
            names = ", ".join(f":{name}" for name in told)
            connection.execute(text(f"INSERT INTO {table} ({', '.join(told)}) VALUES ({names})"), told)


def sql(*statements: str) -> Any:
    def run(connection: Connection, chain: int) -> None:
        for statement in statements:
            connection.execute(text(statement.replace(":c", str(chain))))

    return run


def rewrite(connection: Connection, chain: int) -> None:
    """Change entry 4, then everything after it, as somebody would who knows the code but not the key."""
    connection.execute(text(f"UPDATE audit_logs SET user_name = 'X' WHERE chain = {chain} AND number = 4"))
    rows = connection.execute(
        text(f"SELECT id, number, action, mac FROM audit_logs WHERE chain = {chain} ORDER BY number")
    ).all()
    mac = rows[2].mac
    for row in rows[3:]:
        mac = hashlib.sha256(f"{mac}\n{row.number}{row.action}".encode()).hexdigest()
        connection.execute(text(f"UPDATE audit_logs SET mac = '{mac}' WHERE id = {row.id}"))
    connection.execute(text(f"UPDATE audit_heads SET mac = '{mac}' WHERE chain = {chain}"))


def put_in(number: int, chain: str = ":c") -> str:
    columns = "at, action, entity_ids, patient_ids, fields, outcome, operation, mac"
    return (
        f"INSERT INTO audit_logs (id, chain, number, {columns}) SELECT 900 + number, {chain}, {number}, "
        f"{columns} FROM audit_logs WHERE chain = :c AND number = 2"
    )


ENTRY = "WHERE chain = :c AND number ="
# what was done -> (how, the entry that is named, what is said of it)
TAMPERINGS: dict[str, tuple[Any, int, str]] = {
    "a name": (sql(f"UPDATE audit_logs SET user_name = 'X' {ENTRY} 3"), 3, "was changed"),
    "a time": (sql(f"UPDATE audit_logs SET at = '2020-01-01 00:00:00.000000' {ENTRY} 3"), 3, "was changed"),
    "an outcome": (sql(f"UPDATE audit_logs SET outcome = 'refused' {ENTRY} 1"), 1, "was changed"),
    "a list": (sql(f"UPDATE audit_logs SET fields = '[\"phone\"]' {ENTRY} 6"), 6, "was changed"),
    "a list's kind": (sql(f"UPDATE audit_logs SET fields = '{{}}' {ENTRY} 2"), 2, "was changed"),
    "a seal": (sql(f"UPDATE audit_logs SET mac = '{'0' * 64}' {ENTRY} 2"), 2, "was changed"),
    "first removed": (sql(f"DELETE FROM audit_logs {ENTRY} 1"), 1, "is missing"),
    "middle removed": (sql(f"DELETE FROM audit_logs {ENTRY} 3"), 3, "is missing"),
    "last removed": (sql(f"DELETE FROM audit_logs {ENTRY} 6"), 6, "is missing: the head counts 6"),
    "all removed": (sql("DELETE FROM audit_logs WHERE chain = :c"), 1, "is missing: the head counts 6"),
    "removed and closed up": (
        sql(
            f"DELETE FROM audit_logs {ENTRY} 3", "UPDATE audit_logs SET number = number - 1 WHERE number > 3"
        ),
        3,
        "was changed, put in, or is not the one that followed",
    ),
    "two swapped": (
        sql(
            f"UPDATE audit_logs SET number = 99 {ENTRY} 2",
            f"UPDATE audit_logs SET number = 2 {ENTRY} 4",
            f"UPDATE audit_logs SET number = 4 {ENTRY} 99",
        ),
        2,
        "is not the one that followed",
    ),
    "put in behind": (sql(put_in(7)), 7, "put in"),
    "put in before": (sql(put_in(0)), 0, "was put in"),
    "put in and counted": (
        sql(put_in(7), "UPDATE audit_heads SET number = 7 WHERE chain = :c"),
        7,
        "was changed, put in",
    ),
    "head moved on": (sql("UPDATE audit_heads SET number = 9 WHERE chain = :c"), 7, "is missing"),
    "head set back": (sql("UPDATE audit_heads SET number = 5 WHERE chain = :c"), 6, "was put in"),
    "head renamed": (sql("UPDATE audit_heads SET mac = 'x' WHERE chain = :c"), 6, "the head names"),
    "head removed": (sql("DELETE FROM audit_heads WHERE chain = :c"), 7, "the head of the chain is missing"),
    "tail rewritten without the key": (rewrite, 4, "was changed"),
    "a patient hidden": (
        sql(f"DELETE FROM audit_subjects WHERE audit_id = (SELECT id FROM audit_logs {ENTRY} 5)"),
        5,
        "concerns other patients",
    ),
    "a patient added": (
        sql(f"INSERT INTO audit_subjects SELECT 77, id FROM audit_logs {ENTRY} 5"),
        5,
        "concerns other patients",
    ),
    "an index entry of nothing": (sql("INSERT INTO audit_subjects VALUES (1, 999999)"), 0, "the index"),
}


def test_every_way_of_tampering_is_found_and_named(clinic: Clinic, monkeypatch: pytest.MonkeyPatch) -> None:
    chain = write(clinic, 6)
    monkeypatch.setattr(audit_chain, "BATCH", 4)
    assert verify(clinic) is None

    with tampering(clinic) as connection:
        kept = copies(connection)
        for name, (tamper, number, what) in TAMPERINGS.items():
            tamper(connection, chain)

            found = verify(clinic)

            assert found is not None, name
            assert (name, found.number) == (name, number), found
            assert what in found.what, (name, found)
            assert found.chain == (chain if number else found.chain), name
            put_back(connection, kept)
            assert verify(clinic) is None, name


def test_an_entry_in_a_chain_that_does_not_exist_is_found(clinic: Clinic) -> None:
    chain = write(clinic, 2)

    with tampering(clinic) as connection:
        sql(put_in(1, "77"))(connection, chain)

        assert verify(clinic) == Break(77, 1, "there is no such chain; the entry was put in")


def test_an_entry_that_cannot_even_be_read_is_found(clinic: Clinic, engine_name: str) -> None:
    chain = write(clinic, 4)
    garbage = "garbage" if engine_name == "sqlite" else '"garbage"'

    with tampering(clinic) as connection:
        sql(f"UPDATE audit_logs SET fields = '{garbage}' {ENTRY} 3")(connection, chain)

        found = verify(clinic)

    assert found is not None
    assert (found.chain, found.number) == (chain, 3)
    assert "was changed" in found.what


def test_a_chain_under_another_key_does_not_pass(clinic: Clinic, make_clinic: Any) -> None:
    chain = write(clinic, 2)

    other = make_clinic(audit_key="another-" + "h3N7b5Rq" * 5)

    assert verify(other) == Break(chain, 1, "was changed, put in, or is not the one that followed")


# --- Honest work ---------------------------------------------------------------------------------------


def test_there_is_no_false_alarm_after_32_writers_at_once(clinic: Clinic) -> None:
    patient = clinic.patient()
    caller = clinic.receptionist
    clinic.technician.get("/doctors")
    answers: list[int] = []

    def work(number: int) -> None:
        for round_ in range(3):
            change = {"address": f"{number} Mill Lane, {round_}"}
            answers.append(caller.patch(f"/patients/{patient['id']}", change).status_code)
            answers.append(caller.get("/patients").status_code)
            answers.append(clinic.technician.patch(f"/patients/{patient['id']}", change).status_code)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(32)]
    for thread in threads:
        thread.start()
    during = [verify(clinic) for _ in range(5)]
    for thread in threads:
        thread.join()

    with clinic.inside() as session:
        entries = session.query(AuditLog).count()
        counted = sum(session.execute(select(AuditHead.number)).scalars())
    assert during == [None] * 5
    assert verify(clinic) is None
    assert counted == entries
    done = len([status for status in answers if status in (200, 403)])
    assert entries == done + 1  # each request left one, and the registration
    assert done >= 32 * 3


def test_verifying_takes_no_lock_that_a_writer_waits_for(clinic: Clinic) -> None:
    write(clinic, 3)
    with clinic.app.app_context():
        engine = db.engine

    with audit_chain._snapshot(engine) as connection:
        connection.execute(select(AuditLog.id)).all()
        started = time.monotonic()
        clinic.patient()

        assert time.monotonic() - started < 2
        assert len(connection.execute(select(AuditLog.id)).all()) == 3  # one state throughout


# --- The exported heads --------------------------------------------------------------------------------


def cut(connection: Connection, chain: int, number: int) -> None:
    """Cut off what follows entry `number`, and set the head back: the chain is whole again."""
    later = f"SELECT id FROM audit_logs WHERE chain = {chain} AND number > {number}"
    connection.execute(text(f"DELETE FROM audit_subjects WHERE audit_id IN ({later})"))
    connection.execute(text(f"DELETE FROM audit_logs WHERE chain = {chain} AND number > {number}"))
    connection.execute(
        text(
            f"UPDATE audit_heads SET number = {number}, mac = (SELECT mac FROM audit_logs "
            f"WHERE chain = {chain} AND number = {number}) WHERE chain = {chain}"
        )
    )


def test_a_cut_tail_is_found_against_the_last_export(clinic: Clinic) -> None:
    chain = write(clinic, 6)
    assert export(clinic) == []

    with tampering(clinic) as connection:
        cut(connection, chain, 4)

    assert verify(clinic) is None  # the chains alone are whole
    assert verify(clinic, heads_of(clinic)) == Break(chain, 5, "is missing: 6 entries were exported")


def test_a_cut_tail_that_grew_again_is_found_against_the_last_export(clinic: Clinic) -> None:
    chain = write(clinic, 6)
    export(clinic)
    with tampering(clinic) as connection:
        cut(connection, chain, 4)

    while verify(clinic, heads_of(clinic)) == Break(chain, 5, "is missing: 6 entries were exported"):
        write(clinic, 2)

    found = verify(clinic, heads_of(clinic))
    assert found == Break(chain, 6, "is not the one that was exported: the chain was rewritten")


def test_an_export_does_not_wipe_out_the_evidence(clinic: Clinic) -> None:
    chain = write(clinic, 6)
    export(clinic)
    before = heads_of(clinic)
    with tampering(clinic) as connection:
        cut(connection, chain, 4)

    assert export(clinic) == [Break(chain, 5, "is missing: 6 entries were exported")]
    other = next(grown for grown in iter(lambda: write(clinic, 3), None) if grown != chain)
    export(clinic)

    after = heads_of(clinic)
    assert before is not None
    assert after is not None
    assert after[chain] == before[chain]
    assert after[other].number >= 3
    assert verify(clinic, after) is not None


def test_entries_after_an_export_are_no_alarm(clinic: Clinic) -> None:
    export(clinic)
    write(clinic, 3)

    assert verify(clinic, heads_of(clinic)) is None
    assert export(clinic) == []
    assert sum(head.number for head in (heads_of(clinic) or {}).values()) == 3


def test_a_file_of_heads_that_somebody_edited_is_refused(clinic: Clinic) -> None:
    chain = write(clinic, 6)
    export(clinic)
    path = clinic.settings.heads_file
    told = json.loads(path.read_text())
    told["heads"][str(chain)] = [4, "0" * 64]
    path.write_text(json.dumps(told))

    with pytest.raises(HeadsFileError, match="was changed"):
        heads_of(clinic)
    with pytest.raises(HeadsFileError):
        export(clinic)
    path.write_text("{}")
    with pytest.raises(HeadsFileError, match="not a file of exported heads"):
        heads_of(clinic)
    assert flask(clinic, "verify").exit_code == flask(clinic, "heads").exit_code == 1


def test_several_workers_export_at_once(clinic: Clinic) -> None:
    write(clinic, 3)
    problems: list[BaseException] = []

    def work() -> None:
        try:
            for _round in range(4):
                assert export(clinic) == []
                assert heads_of(clinic) is not None
        except BaseException as problem:
            problems.append(problem)

    threads = [threading.Thread(target=work) for _number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert problems == []
    left = sorted(path.name for path in clinic.settings.heads_file.parent.iterdir())
    assert left == ["heads.json", "heads.json.lock"]


def test_heads_are_exported_regularly_once_requests_are_served(
    clinic: Clinic, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_chain, "INTERVAL", 0.05)
    clinic.patient()
    thread = audit_chain._exporter
    clinic.patient()
    assert audit_chain._exporter is thread  # one in a process

    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and sum(h.number for h in (heads_of(clinic) or {}).values()) < 2:
        time.sleep(0.02)

    assert sum(head.number for head in (heads_of(clinic) or {}).values()) == 2
    assert thread is not None
    thread.replaced.set()
    thread.join(5)
    clinic.patient()  # a thread that ended, as after a fork, is started anew
    assert audit_chain._exporter is not thread
    assert audit_chain._exporter is not None
    audit_chain._exporter.replaced.set()
    audit_chain._exporter.join(5)


# --- The commands --------------------------------------------------------------------------------------


def test_the_command_says_ok_when_all_is_well(clinic: Clinic) -> None:
    write(clinic, 3)

    first = flask(clinic, "verify")
    exported = flask(clinic, "heads")
    second = flask(clinic, "verify")

    assert (first.exit_code, first.stdout) == (0, "ok\n")
    assert "no heads were exported" in first.stderr
    assert exported.exit_code == 0
    assert exported.stdout.strip() == str(clinic.settings.heads_file)
    assert (second.exit_code, second.output) == (0, "ok\n")


def test_the_command_names_the_first_broken_place(clinic: Clinic, tmp_path: Path) -> None:
    chain = write(clinic, 6)
    kept = tmp_path / "kept-elsewhere.json"
    assert flask(clinic, "heads", "--to", str(kept)).exit_code == 0
    with tampering(clinic) as connection:
        cut(connection, chain, 4)

    cut_off = flask(clinic, "verify", "--heads", str(kept))
    nowhere = flask(clinic, "verify", "--heads", str(tmp_path / "nowhere.json"))
    again = flask(clinic, "heads", "--to", str(kept))

    assert cut_off.exit_code == nowhere.exit_code == again.exit_code == 1
    assert cut_off.stdout == ""
    assert cut_off.stderr == f"audit: chain {chain}, entry 5: is missing: 6 entries were exported\n"
    assert "there is no such file" in nowhere.stderr
    assert f"chain {chain}, entry 5" in again.stderr


def test_a_restore_is_recorded_with_what_is_lost(clinic: Clinic) -> None:
    chain = write(clinic, 6)
    export(clinic)
    with tampering(clinic) as connection:
        cut(connection, chain, 4)
    assert flask(clinic, "verify").exit_code == 1

    answer = flask(clinic, "restored", "--reason", "disk failure, backup of last night")

    assert answer.exit_code == 0, answer.output
    assert f"lost: chain {chain} from entry 5 on" in answer.stdout
    assert flask(clinic, "verify").output == "ok\n"
    with clinic.inside() as session:
        entry = session.query(AuditLog).filter(AuditLog.action == "restore").one()
        assert entry.fields == [f"chain {chain} from entry 5"]
        assert (entry.entity, entry.detail) == ("audit_log", "disk failure, backup of last night")


def test_a_restore_does_not_explain_a_broken_chain(clinic: Clinic) -> None:
    chain = write(clinic, 6)
    with tampering(clinic) as connection:
        sql(f"UPDATE audit_logs SET user_name = 'X' {ENTRY} 3")(connection, chain)

    answer = flask(clinic, "restored", "--reason", "backup of last night")

    assert answer.exit_code == 1
    assert f"chain {chain}, entry 3" in answer.stderr
    assert not clinic.settings.heads_file.exists()


@pytest.mark.parametrize("reason", ["", "  ", "x" * 101])
def test_a_restore_needs_a_reason(clinic: Clinic, reason: str) -> None:
    answer = flask(clinic, "restored", "--reason", reason)

    assert answer.exit_code == 1
    assert "reason" in answer.stderr
    assert heads_of(clinic) is None
