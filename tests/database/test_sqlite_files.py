"""Files with patient data are for their owner only, whatever the umask allows."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from config import SECRETS, load
from extensions import db
from services.audit import audit_chain
from tests.conftest import settings_for
from tests.support.clinic import Clinic


@pytest.fixture(autouse=True)
def usual_umask() -> Iterator[None]:
    """Set the umask of most systems, which lets everybody read new files."""
    before = os.umask(0o022)
    yield
    os.umask(before)


def modes(folder: Path) -> dict[str, int]:
    """Return the rights of the files in a folder."""
    return {file.name: stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()}


def write_rows(database: Path) -> dict[str, int]:
    """Write to the database, and return the rights of its files while they are in use."""
    clinic = Clinic(settings_for(f"sqlite:///{database}"))
    with clinic.inside() as session:
        session.execute(text("CREATE TABLE IF NOT EXISTS notes (text)"))
        session.execute(text("INSERT INTO notes VALUES ('private')"))
        session.commit()
        rights = modes(database.parent)
    clinic.close()
    return rights


def test_a_new_database_is_for_its_owner_only(tmp_path: Path) -> None:
    names = ("clinic.db", "clinic.db-wal", "clinic.db-shm")

    assert write_rows(tmp_path / "clinic.db") == dict.fromkeys(names, 0o600)


def test_an_existing_database_loses_the_rights_of_others_and_gets_none(tmp_path: Path) -> None:
    for before, after in ((0o644, 0o600), (0o660, 0o600), (0o600, 0o600)):
        folder = tmp_path / f"{before:o}"
        folder.mkdir()
        (folder / "clinic.db").touch()
        (folder / "clinic.db").chmod(before)

        assert set(write_rows(folder / "clinic.db").values()) == {after}


def test_exported_chain_heads_are_for_their_owner_only(clinic: Clinic) -> None:
    clinic.patient()
    with clinic.inside():
        audit_chain.export(db.engine, clinic.settings)
    file = clinic.settings.heads_file

    rights = {name: mode for name, mode in modes(file.parent).items() if name.startswith(file.name)}

    assert rights == {file.name: 0o600, file.name + ".lock": 0o600}


def test_generated_secrets_are_for_their_owner_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*SECRETS, "ENVIRONMENT", "FLASK_ENV"):
        monkeypatch.delenv(name, raising=False)

    load(tmp_path / ".env")

    assert modes(tmp_path) == {".env": 0o600}
