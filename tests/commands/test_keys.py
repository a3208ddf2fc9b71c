"""`flask keys`: list, rotate in two steps, and remove keys that nothing needs."""

from __future__ import annotations

import re
import stat
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from sqlalchemy import select

import commands.env_file
import config
from config import load
from models import AuditLog, IdempotencyKey
from security.key_rings import Key
from tests.conftest import settings_for
from tests.services.audit.test_audit_chain import remove_key_ids
from tests.support.clinic import Clinic
from tests.support.keys import secrets_of
from tests.support.second_factors import Clock, Member

MakeClinic = Callable[..., Clinic]
NEW, OLD, UNUSED = (f"{word}-key-" * 6 for word in ("new", "old", "unused"))


def flask(clinic: Clinic, *arguments: object) -> Result:
    words = ["keys", *map(str, arguments)]
    return clinic.app.test_cli_runner().invoke(args=words, catch_exceptions=False)


@pytest.fixture
def env_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the `.env` of the application. It has a comment and other variables."""
    file = tmp_path / ".env"
    monkeypatch.setattr(config, "ENV_FILE", file)
    for name in config.SECRETS:
        monkeypatch.delenv(name, raising=False)
    return file


def write_env(file: Path, secrets: dict[str, str]) -> None:
    lines = "".join(f"{name}={value}\n" for name, value in secrets.items())
    file.write_text(f"# the clinic\nPORT=6000\n{lines}\n# the end")
    file.chmod(0o640)


def reloaded(make_clinic: MakeClinic, file: Path, **options: Any) -> Clinic:
    """Create the clinic with the settings in the file."""
    stored = load(file)
    names = [name.lower() for name in config.SECRETS]
    rings = {name: getattr(stored, name) for name in [*names, *(f"{name}s_previous" for name in names)]}
    return make_clinic(**rings, **options)


@pytest.mark.parametrize("name", config.SECRETS)
def test_a_rotation_in_two_steps_changes_only_the_key(
    name: str, make_clinic: MakeClinic, env_file: Path
) -> None:
    secrets = secrets_of(settings_for("sqlite:////nowhere"))
    write_env(env_file, secrets)
    before, old = env_file.read_text(), secrets[name]

    clinic = reloaded(make_clinic, env_file)
    dry = flask(clinic, "rotate", name, "--dry-run")
    assert (dry.exit_code, env_file.read_text()) == (0, before)
    first = flask(clinic, "rotate", name)
    prepared = load(env_file)
    (new,) = getattr(prepared, f"{name.lower()}s_previous")
    assert getattr(prepared, name.lower()) == old
    assert f"flask keys rotate {name} --to {Key.of(new).id}" in first.output
    assert new not in first.output

    second = flask(reloaded(make_clinic, env_file), "rotate", name, "--to", Key.of(new).id)

    switched = load(env_file)
    assert (getattr(switched, name.lower()), getattr(switched, f"{name.lower()}s_previous")) == (new, (old,))
    assert (first.exit_code, second.exit_code) == (0, 0), second.output
    assert {old, new} & set(re.split(r"\s", first.output + second.output)) == set()
    others = [line for line in before.splitlines() if not line.startswith(f"{name}=")]
    assert [line for line in env_file.read_text().splitlines() if not line.startswith(name)] == others
    assert stat.S_IMODE(env_file.stat().st_mode) == 0o640
    assert [path.name for path in env_file.parent.iterdir()] == [".env"]
    with clinic.inside() as session:
        entries = session.execute(select(AuditLog).order_by(AuditLog.at)).scalars().all()
        assert [(e.action, e.entity, e.fields, e.detail) for e in entries] == [
            ("rotate", "key", [name], Key.of(new).id)
        ] * 2


def test_keys_of_the_environment_are_printed(clinic: Clinic, env_file: Path) -> None:
    """A variable of the environment hides the file, so a change of the file has no effect."""
    write_env(env_file, secrets_of(clinic.settings) | {"AUDIT_KEY": OLD})
    before = env_file.read_text()

    result = flask(clinic, "rotate", "AUDIT_KEY")

    lines = dict(line.split("=", 1) for line in result.stdout.splitlines())
    assert (result.exit_code, env_file.read_text()) == (0, before)
    assert lines["AUDIT_KEY"] == clinic.settings.audit_key
    assert (
        len(
            config.Settings(
                **(clinic.settings.model_dump() | {"audit_keys_previous": lines["AUDIT_KEYS_PREVIOUS"]})
            ).audit_keys_previous
        )
        == 1
    )


def test_wrong_ids_are_refused(make_clinic: MakeClinic, env_file: Path) -> None:
    clinic = make_clinic(audit_key=NEW, audit_keys_previous=[OLD])

    for arguments in (
        ("rotate", "AUDIT_KEY", "--to", Key.of(NEW).id),
        ("rotate", "AUDIT_KEY", "--to", Key.of(UNUSED).id),
        ("remove", "AUDIT_KEY", Key.of(NEW).id),
        ("remove", "AUDIT_KEY", Key.of(UNUSED).id),
        ("remove", "BACKUP_KEY", Key.of(OLD).id),
    ):
        assert flask(clinic, *arguments).exit_code == 1, arguments
    with clinic.inside() as session:
        assert session.query(AuditLog).count() == 0


def test_a_change_of_the_file_meanwhile_is_kept(
    clinic: Clinic, env_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_env(env_file, secrets_of(clinic.settings))
    read_file = commands.env_file.read

    def read_and_change(*arguments: Any) -> dict[str, str]:
        values = read_file(*arguments)
        write_env(env_file, secrets_of(clinic.settings) | {"AUDIT_KEY": OLD})
        return values

    monkeypatch.setattr(commands.env_file, "read", read_and_change)

    result = flask(clinic, "rotate", "AUDIT_KEY")

    assert result.exit_code == 1
    assert "was changed meanwhile" in result.output
    assert f"AUDIT_KEY={OLD}\n" in env_file.read_text()
    with clinic.inside() as session:
        assert session.query(AuditLog).count() == 0


# --- Removal -------------------------------------------------------------------------------------------


def test_a_key_with_audit_entries_stays(make_clinic: MakeClinic) -> None:
    before = make_clinic(audit_key=OLD)
    for _ in range(3):
        before.patient()
    clinic = make_clinic(audit_key=NEW, audit_keys_previous=[OLD, UNUSED])
    with clinic.inside() as session:
        number = session.query(AuditLog).count()

    listed = flask(clinic, "list").output
    refused = flask(clinic, "remove", "AUDIT_KEY", Key.of(OLD).id)
    removed = flask(clinic, "remove", "AUDIT_KEY", Key.of(UNUSED).id)

    assert f"AUDIT_KEY\t{Key.of(OLD).id}\tearlier\t{number} audit entries" in listed
    assert f"AUDIT_KEY\t{Key.of(NEW).id}\tcurrent\t-" in listed
    assert (refused.exit_code, removed.exit_code) == (1, 0)
    assert f"is needed by {number} audit entries. Nothing was changed." in refused.output
    assert f'AUDIT_KEYS_PREVIOUS=["{OLD}"]' in removed.stdout


def test_entries_without_key_id_count_for_the_key_that_verifies_them(make_clinic: MakeClinic) -> None:
    before = make_clinic(audit_key=OLD)
    before.patient()
    remove_key_ids(before, OLD)
    clinic = make_clinic(audit_key=NEW, audit_keys_previous=[OLD, UNUSED])
    with clinic.inside() as session:
        number = session.query(AuditLog).count()

    results = [flask(clinic, "remove", "AUDIT_KEY", Key.of(key).id) for key in (OLD, UNUSED)]

    assert [result.exit_code for result in results] == [1, 0], results[1].output
    assert f"{number} audit entries" in results[0].output
    assert f"AUDIT_KEY\tno id\ttried with every key\t{number} audit entries" in flask(clinic, "list").output


def test_the_key_of_the_exported_heads_stays(make_clinic: MakeClinic, tmp_path: Path) -> None:
    heads = tmp_path / "heads.json"
    make_clinic(audit_key=OLD, audit_heads_file=heads).app.test_cli_runner().invoke(args=["audit", "heads"])
    clinic = make_clinic(audit_key=NEW, audit_keys_previous=[OLD], audit_heads_file=heads)

    refused = flask(clinic, "remove", "AUDIT_KEY", Key.of(OLD).id)
    exported = clinic.app.test_cli_runner().invoke(args=["audit", "heads"])
    removed = flask(clinic, "remove", "AUDIT_KEY", Key.of(OLD).id)

    assert (refused.exit_code, exported.exit_code, removed.exit_code) == (1, 0, 0)
    assert "1 files of exported heads" in refused.output


def test_a_key_with_stored_responses_stays_until_they_expire(make_clinic: MakeClinic) -> None:
    before = make_clinic(data_key=OLD)
    before.admin.post("/patients", {"name": "Ada"}, headers={"Idempotency-Key": "client-1"})
    clinic = make_clinic(data_key=NEW, data_keys_previous=[OLD])
    arguments = ("remove", "DATA_KEY", Key.of(OLD).id)

    refused = flask(clinic, *arguments)
    with clinic.inside() as session:
        session.query(IdempotencyKey).one().created_at = datetime.now(UTC) - timedelta(hours=25)
    dry = flask(clinic, *arguments, "--dry-run")
    with clinic.inside() as session:
        assert session.query(IdempotencyKey).count() == 1
    removed = flask(clinic, *arguments)

    assert (refused.exit_code, dry.exit_code, removed.exit_code) == (1, 0, 0)
    assert "needed by 1 values in idempotency_keys" in refused.output


def test_a_secret_of_a_second_factor_moves_to_the_current_key_when_it_is_used(
    make_clinic: MakeClinic, monkeypatch: pytest.MonkeyPatch
) -> None:
    member = Member(make_clinic(data_key=OLD), Clock(monkeypatch))
    member.enrol(member.caller())
    member.clinic = make_clinic(data_key=NEW, data_keys_previous=[OLD])
    arguments = ("remove", "DATA_KEY", Key.of(OLD).id)

    refused = flask(member.clinic, *arguments)
    member.signed_in()
    removed = flask(member.clinic, *arguments)
    member.clinic = make_clinic(data_key=NEW)
    member.signed_in()
    member.clinic = make_clinic(data_key=UNUSED)
    unreadable = member.prove()

    assert (refused.exit_code, removed.exit_code) == (1, 0)
    assert "needed by 1 values in totp_secrets" in refused.output
    assert 400 <= unreadable.status_code < 500
    assert member.prove(code=member.recovery_codes[0]).status_code == 200


def test_a_key_with_backups_stays(make_clinic: MakeClinic, tmp_path: Path) -> None:
    folder = tmp_path / "backups"
    folder.mkdir()
    before = make_clinic(backup_key=OLD)
    result = before.app.test_cli_runner().invoke(args=["backup", "create", str(folder / "1.backup")])
    assert result.exit_code == 0
    (folder / "notes.txt").write_text("not a backup")
    clinic = make_clinic(backup_key=NEW, backup_keys_previous=[OLD])
    arguments = ("remove", "BACKUP_KEY", Key.of(OLD).id, "--backups", folder)

    refused, listed = flask(clinic, *arguments), flask(clinic, "list", "--backups", folder).output
    (folder / "1.backup").unlink()
    removed = flask(clinic, *arguments)

    assert (refused.exit_code, removed.exit_code) == (1, 0)
    assert "is needed by 1 backups" in refused.output
    assert f"BACKUP_KEY\t{Key.of(OLD).id}\tearlier\t1 backups" in listed
