"""The audit chains: every edit, removal, insertion and truncation is detected and named."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from sqlalchemy import Connection, select, text

from database.engine import snapshot
from extensions import db
from models import AuditHead, AuditLog
from security.key_rings import Key, ring
from services.audit import audit_chain, audit_log
from services.audit.audit_chain import Fault, HeadsFileError
from services.audit.audit_log import PendingEntry
from tests.support.clinic import Clinic

TABLES = ("audit_subjects", "audit_logs", "audit_heads")


@pytest.fixture
def clinic(make_clinic: Any, tmp_path: Path) -> Clinic:
    """Return a clinic that exports its heads to a temporary file."""
    clinic: Clinic = make_clinic(audit_heads_file=tmp_path / "outside" / "heads.json")
    return clinic


def write(clinic: Clinic, entries: int) -> int:
    """Append entries to one chain, and return its number."""
    with clinic.inside() as session:
        pending = [
            PendingEntry("read", "patient", number, patient_ids={number, 100 + number})
            for number in range(entries)
        ]
        audit_log.append(None, "a test", pending)
        newest = select(AuditLog.chain).order_by(AuditLog.id.desc()).limit(1)
        return int(session.execute(newest).scalar_one())


def verify(clinic: Clinic, exported: audit_chain.Heads | None = None) -> Fault | None:
    with clinic.app.app_context():
        return audit_chain.verify(db.engine, exported)


def heads_of(clinic: Clinic) -> audit_chain.Heads | None:
    return audit_chain.read_heads(clinic.settings.heads_file, ring("AUDIT_KEY", clinic.settings))


def export(clinic: Clinic, **options: Any) -> list[Fault]:
    with clinic.app.app_context():
        return audit_chain.export(db.engine, clinic.settings, **options)


def flask(clinic: Clinic, *arguments: str) -> Result:
    return clinic.app.test_cli_runner().invoke(args=["audit", *arguments])


# --- Tampering -----------------------------------------------------------------------------------------


@contextmanager
def tampering(clinic: Clinic) -> Iterator[Connection]:
    """Yield a connection of the database owner, without triggers and foreign keys."""
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


def restore_rows(connection: Connection, saved: dict[str, list[dict[str, Any]]]) -> None:
    for table, rows in saved.items():
        connection.execute(text(f"DELETE FROM {table}"))
        for row in rows:
            columns = {
                name: json.dumps(value) if isinstance(value, list) else value for name, value in row.items()
            }
            names = ", ".join(f":{name}" for name in columns)
            connection.execute(text(f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({names})"), columns)


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


def inserted(number: int, chain: str = ":c") -> str:
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
    "a key id": (sql(f"UPDATE audit_logs SET key_id = '{'0' * 16}' {ENTRY} 3"), 3, "was changed"),
    "a key id removed": (sql(f"UPDATE audit_logs SET key_id = NULL {ENTRY} 3"), 3, "was changed"),
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
        "was changed or inserted, or does not follow the entry before it",
    ),
    "two swapped": (
        sql(
            f"UPDATE audit_logs SET number = 99 {ENTRY} 2",
            f"UPDATE audit_logs SET number = 2 {ENTRY} 4",
            f"UPDATE audit_logs SET number = 4 {ENTRY} 99",
        ),
        2,
        "does not follow the entry before it",
    ),
    "put in behind": (sql(inserted(7)), 7, "inserted"),
    "put in before": (sql(inserted(0)), 0, "was inserted"),
    "put in and counted": (
        sql(inserted(7), "UPDATE audit_heads SET number = 7 WHERE chain = :c"),
        7,
        "was changed or inserted",
    ),
    "head moved on": (sql("UPDATE audit_heads SET number = 9 WHERE chain = :c"), 7, "is missing"),
    "head set back": (sql("UPDATE audit_heads SET number = 5 WHERE chain = :c"), 6, "was inserted"),
    "head renamed": (
        sql("UPDATE audit_heads SET mac = 'x' WHERE chain = :c"),
        6,
        "entry of the head",
    ),
    "head removed": (sql("DELETE FROM audit_heads WHERE chain = :c"), 7, "the head of the chain is missing"),
    "tail rewritten without the key": (rewrite, 4, "was changed"),
    "a patient hidden": (
        sql(f"DELETE FROM audit_subjects WHERE audit_id = (SELECT id FROM audit_logs {ENTRY} 5)"),
        5,
        "is about other patients",
    ),
    "a patient added": (
        sql(f"INSERT INTO audit_subjects SELECT 77, id FROM audit_logs {ENTRY} 5"),
        5,
        "is about other patients",
    ),
    "an index entry of nothing": (sql("INSERT INTO audit_subjects VALUES (1, 999999)"), 0, "the index"),
}


def test_every_kind_of_tampering_is_detected(clinic: Clinic, monkeypatch: pytest.MonkeyPatch) -> None:
    chain = write(clinic, 6)
    monkeypatch.setattr(audit_chain, "BATCH", 4)
    assert verify(clinic) is None

    with tampering(clinic) as connection:
        saved = copies(connection)
        for name, (tamper, number, what) in TAMPERINGS.items():
            tamper(connection, chain)

            fault = verify(clinic)

            assert fault is not None, name
            assert (name, fault.number) == (name, number), fault
            assert what in fault.problem, (name, fault)
            assert fault.chain == (chain if number else fault.chain), name
            restore_rows(connection, saved)
            assert verify(clinic) is None, name


def test_an_entry_of_an_unknown_chain_is_detected(clinic: Clinic) -> None:
    chain = write(clinic, 2)

    with tampering(clinic) as connection:
        sql(inserted(1, "77"))(connection, chain)

        assert verify(clinic) == Fault(77, 1, "the chain does not exist; the entry was inserted")


def test_an_unreadable_entry_is_detected(clinic: Clinic, engine_name: str) -> None:
    chain = write(clinic, 4)
    garbage = "garbage" if engine_name == "sqlite" else '"garbage"'

    with tampering(clinic) as connection:
        sql(f"UPDATE audit_logs SET fields = '{garbage}' {ENTRY} 3")(connection, chain)

        fault = verify(clinic)

    assert fault is not None
    assert (fault.chain, fault.number) == (chain, 3)
    assert "was changed" in fault.problem


def test_a_chain_with_another_key_is_refused(clinic: Clinic, make_clinic: Any) -> None:
    chain = write(clinic, 2)

    other = make_clinic(audit_key=OTHER_KEY)

    fault = verify(other)
    assert fault is not None
    assert (fault.chain, fault.number) == (chain, 1)
    assert "is not in AUDIT_KEY or AUDIT_KEYS_PREVIOUS" in fault.problem


# --- Several keys --------------------------------------------------------------------------------------

KEYS = [f"{word}-audit-key-" * 4 for word in ("first", "second", "third")]
OTHER_KEY = "another-" + "h3N7b5Rq" * 5


def test_a_chain_under_three_keys_is_verified_with_all_of_them(make_clinic: Any, tmp_path: Path) -> None:
    heads = tmp_path / "heads.json"
    for count in (1, 2, 3):
        *previous, current = KEYS[:count]
        clinic = make_clinic(audit_key=current, audit_keys_previous=previous, audit_heads_file=heads)
        for _ in range(12):
            write(clinic, 2)
        assert export(clinic) == []

    whole = flask(clinic, "verify")
    with clinic.inside() as session:
        keys = set(session.execute(select(AuditLog.key_id)).scalars())
    lacking = make_clinic(audit_key=KEYS[2], audit_keys_previous=KEYS[:1], audit_heads_file=heads)
    missing = flask(lacking, "verify")

    assert (whole.exit_code, whole.output) == (0, "ok\n")
    assert keys == {Key.of(key).id for key in KEYS}
    assert missing.exit_code == 1
    assert f"its key {Key.of(KEYS[1]).id} is not in AUDIT_KEY" in missing.output


def remove_key_ids(clinic: Clinic, key: str) -> None:
    """Rewrite all chains as an earlier version wrote them: without key ids."""
    with tampering(clinic) as connection:
        macs: dict[int, str] = {}
        for row in connection.execute(select(AuditLog.__table__).order_by(AuditLog.number)).mappings():
            entry = {str(name): value for name, value in row.items()} | {"key_id": None}
            mac = audit_log.compute_mac(
                Key.of(key), macs.get(row["chain"], ""), audit_log.canonical_json(entry)
            )
            macs[row["chain"]] = mac
            connection.execute(
                text(f"UPDATE audit_logs SET key_id = NULL, mac = '{mac}' WHERE id = {row['id']}")
            )
        for chain, mac in macs.items():
            connection.execute(text(f"UPDATE audit_heads SET mac = '{mac}' WHERE chain = {chain}"))


def test_entries_without_key_id_are_tried_with_every_key(make_clinic: Any) -> None:
    write(make_clinic(audit_key=KEYS[0]), 6)
    remove_key_ids(make_clinic(audit_key=KEYS[0]), KEYS[0])

    same = make_clinic(audit_key=KEYS[0])
    assert verify(same) is None
    later = make_clinic(audit_key=KEYS[1], audit_keys_previous=[KEYS[2], KEYS[0]])
    for _ in range(12):
        write(later, 2)
    assert verify(later) is None
    other = make_clinic(audit_key=KEYS[1], audit_keys_previous=[KEYS[2]])
    fault = verify(other)
    assert fault is not None
    assert "was changed" in fault.problem


def test_the_canonical_form_of_earlier_entries_is_unchanged() -> None:
    """The value was computed with the version before the key rings."""
    entry = {"id": 7, "chain": 3, "number": 1, "at": datetime(2026, 3, 2, 9, tzinfo=UTC), "fields": ["name"]}
    covered = '{"at":1772442000.0,"chain":3,"fields":["name"],"number":1}'

    assert audit_log.canonical_json(entry | {"key_id": None, "mac": ""}) == covered
    assert audit_log.canonical_json(entry | {"key_id": "ab", "mac": ""}) == covered.replace(
        '"number"', '"key_id":"ab","number"'
    )


# --- Honest work ---------------------------------------------------------------------------------------


def test_32_concurrent_writers_leave_no_fault(clinic: Clinic) -> None:
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


def test_verification_blocks_no_writer(clinic: Clinic) -> None:
    write(clinic, 3)
    with clinic.app.app_context():
        engine = db.engine

    with snapshot(engine) as connection:
        connection.execute(select(AuditLog.id)).all()
        clinic.patient()  # a writer that waits is refused after some seconds

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


def test_a_truncated_chain_is_detected_by_the_last_export(clinic: Clinic) -> None:
    chain = write(clinic, 6)
    assert export(clinic) == []

    with tampering(clinic) as connection:
        cut(connection, chain, 4)

    assert verify(clinic) is None  # the chains alone are whole
    assert verify(clinic, heads_of(clinic)) == Fault(chain, 5, "is missing: 6 entries were exported")


def test_a_truncated_chain_that_grew_again_is_detected_by_the_last_export(clinic: Clinic) -> None:
    chain = write(clinic, 6)
    export(clinic)
    with tampering(clinic) as connection:
        cut(connection, chain, 4)

    while verify(clinic, heads_of(clinic)) == Fault(chain, 5, "is missing: 6 entries were exported"):
        write(clinic, 2)

    fault = verify(clinic, heads_of(clinic))
    assert fault == Fault(chain, 6, "is not the exported one: the chain was rewritten")


def test_an_export_keeps_the_head_of_a_truncated_chain(clinic: Clinic) -> None:
    chain = write(clinic, 6)
    export(clinic)
    before = heads_of(clinic)
    with tampering(clinic) as connection:
        cut(connection, chain, 4)

    assert export(clinic) == [Fault(chain, 5, "is missing: 6 entries were exported")]
    other = next(grown for grown in iter(lambda: write(clinic, 3), None) if grown != chain)
    export(clinic)

    after = heads_of(clinic)
    assert before is not None
    assert after is not None
    assert after[chain] == before[chain]
    assert after[other].number >= 3
    assert verify(clinic, after) is not None


def test_entries_after_an_export_are_no_fault(clinic: Clinic) -> None:
    export(clinic)
    write(clinic, 3)

    assert verify(clinic, heads_of(clinic)) is None
    assert export(clinic) == []
    assert sum(head.number for head in (heads_of(clinic) or {}).values()) == 3


def test_an_edited_file_of_heads_is_refused(clinic: Clinic) -> None:
    chain = write(clinic, 6)
    export(clinic)
    path = clinic.settings.heads_file
    content = json.loads(path.read_text())
    content["heads"][str(chain)] = [4, "0" * 64]
    path.write_text(json.dumps(content))

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


def test_heads_are_exported_regularly_after_the_first_request(
    clinic: Clinic, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_chain, "INTERVAL", 0.05)
    clinic.patient()
    thread = audit_chain._exporter
    clinic.patient()
    assert audit_chain._exporter is thread  # one in a process

    deadline = time.monotonic() + 120
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


def test_the_command_prints_ok_without_a_fault(clinic: Clinic) -> None:
    write(clinic, 3)

    first = flask(clinic, "verify")
    exported = flask(clinic, "heads")
    second = flask(clinic, "verify")

    assert (first.exit_code, first.stdout) == (0, "ok\n")
    assert "no heads were exported" in first.stderr
    assert exported.exit_code == 0
    assert exported.stdout.strip() == str(clinic.settings.heads_file)
    assert (second.exit_code, second.output) == (0, "ok\n")


def test_the_command_names_the_first_fault(clinic: Clinic, tmp_path: Path) -> None:
    chain = write(clinic, 6)
    saved = tmp_path / "saved-elsewhere.json"
    assert flask(clinic, "heads", "--to", str(saved)).exit_code == 0
    with tampering(clinic) as connection:
        cut(connection, chain, 4)

    cut_off = flask(clinic, "verify", "--heads", str(saved))
    nowhere = flask(clinic, "verify", "--heads", str(tmp_path / "nowhere.json"))
    again = flask(clinic, "heads", "--to", str(saved))

    assert cut_off.exit_code == nowhere.exit_code == again.exit_code == 1
    assert cut_off.stdout == ""
    assert cut_off.stderr == f"audit: chain {chain}, entry 5: is missing: 6 entries were exported\n"
    assert "there is no such file" in nowhere.stderr
    assert f"chain {chain}, entry 5" in again.stderr


def test_a_restore_is_recorded_with_the_lost_entries(clinic: Clinic) -> None:
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
