"""The migrations: upgrade and downgrade on both engines, in one transaction, and equal to the models."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from io import StringIO
from pathlib import Path

import pytest
from alembic import command
from alembic.script import ScriptDirectory
from sqlalchemy import inspect, text
from sqlalchemy.exc import DBAPIError

from models import Base
from tests.support.clinic import Clinic
from tests.support.database import (
    alembic_config,
    connected,
    migrate,
    objects_at,
)
from tests.support.keys import new_secrets
from tests.support.servers import ROOT, PostgresServer

APPEND_ONLY = {
    "addenda",
    "audit_heads",
    "audit_logs",
    "audit_subjects",
    "credit_notes",
    "dispensings",
    "ledger_entries",
    "stock_movements",
}
EXCLUSIONS = {"ex_appointments_doctor", "ex_appointments_patient", "ex_schedule_windows_overlap"}
TRIGRAMS = {
    "ix_allergies_substance_fold_trgm",
    "ix_conditions_name_fold_trgm",
    "ix_doctors_name_fold_trgm",
    "ix_inventory_items_name_fold_trgm",
    "ix_letters_number_trgm",
    "ix_patients_search_fold_trgm",
    "ix_prescribed_medications_name_fold_trgm",
    "ix_prescriptions_details_trgm",
    "ix_appointments_reason_trgm",
    "ix_billings_insurer_reference_trgm",
    "ix_billings_invoice_number_trgm",
    "ix_treatments_name_fold_trgm",
    "ix_treatments_procedure_code_trgm",
}
# Constraints, triggers, indexes and functions that only the migrations define, by engine.
MIGRATION_ONLY = {
    "sqlite": {f"{name}_{event}" for name in EXCLUSIONS for event in ("insert", "update")}
    | {f"append_only_{table}_{event}" for table in APPEND_ONLY for event in ("update", "delete")}
    | {"settle_billings"},
    "postgresql": {
        f"append_only_{table}_{event}" for table in APPEND_ONLY for event in ("update", "delete", "truncate")
    }
    | EXCLUSIONS
    | TRIGRAMS
    | {"refuse_change", "settle_billings"},
}
# An object with the name of the last one that migration 0002 creates.
OBSTACLES = {
    "sqlite": "CREATE TRIGGER append_only_audit_heads_delete AFTER INSERT ON ward BEGIN SELECT 1; END",
    "postgresql": "CREATE INDEX ix_allergies_substance_fold_trgm ON ward (bed)",
}


@pytest.fixture
def empty_url(engine_name: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Yield the URL of an empty database."""
    if engine_name == "sqlite":
        yield f"sqlite:///{tmp_path / 'empty.db'}"
        return
    server: PostgresServer = request.getfixturevalue("postgres")
    url = server.create()
    yield url
    server.drop(url)


def test_the_migrations_have_one_head(tmp_path: Path) -> None:
    scripts = ScriptDirectory.from_config(alembic_config(f"sqlite:///{tmp_path / 'none.db'}"))

    assert len(scripts.get_heads()) == 1
    assert [script.revision for script in scripts.walk_revisions()][-1] == "0001"


def test_a_downgrade_removes_everything_and_an_upgrade_restores_it(empty_url: str) -> None:
    before = objects_at(empty_url)
    migrate(empty_url)
    first = objects_at(empty_url)

    command.downgrade(alembic_config(empty_url), "base")
    after = objects_at(empty_url)
    migrate(empty_url)

    assert after == before
    assert objects_at(empty_url) == first


def test_a_downgrade_to_0001_restores_its_schema(database_url: str, empty_url: str) -> None:
    migrate(empty_url, "0001")

    command.downgrade(alembic_config(database_url), "0001")

    assert objects_at(database_url) == objects_at(empty_url)


def test_the_migrated_schema_has_the_models_and_the_migration_only_objects(
    database_url: str, empty_url: str, engine_name: str
) -> None:
    with connected(empty_url) as engine:
        Base.metadata.create_all(engine)

    migrated, modelled = objects_at(database_url), objects_at(empty_url)

    assert modelled - migrated == set()
    assert {row[2] for row in migrated - modelled} == MIGRATION_ONLY[engine_name]


def test_autogenerate_finds_no_difference(database_url: str) -> None:
    command.check(alembic_config(database_url))


def test_a_failed_migration_leaves_no_changes_and_can_run_again(empty_url: str, engine_name: str) -> None:
    with connected(empty_url) as engine, engine.begin() as connection:
        connection.execute(text("CREATE TABLE ward (bed INTEGER)"))
        connection.execute(text(OBSTACLES[engine_name]))

    with pytest.raises(DBAPIError, match="already exists"):
        migrate(empty_url)

    with connected(empty_url) as engine:
        assert inspect(engine).get_table_names() == ["ward"]
        with engine.begin() as connection:
            connection.execute(text("DROP TABLE ward"))
    migrate(empty_url)


def test_concurrent_migrations_wait_for_each_other(empty_url: str) -> None:
    script = "import sys; from tests.support.database import migrate; migrate(sys.argv[1])"
    command_line = [sys.executable, "-c", script, empty_url]

    processes = [
        subprocess.Popen(command_line, cwd=ROOT, stderr=subprocess.PIPE, text=True) for _ in range(2)
    ]

    for server in processes:
        _, errors = server.communicate(timeout=300)
        assert server.returncode == 0, errors
    with connected(empty_url) as engine, engine.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM audit_heads")) == 16


def test_the_flask_command_migrates_the_database_of_the_application(empty_url: str, tmp_path: Path) -> None:
    environment = {
        "PATH": os.defpath,
        "DATABASE_URI": empty_url,
        **new_secrets(),
        "AUDIT_HEADS_FILE": str(tmp_path / "heads.jsonl"),
    }
    flask = [sys.executable, "-m", "flask", "--app", "app", "db"]

    for arguments in (["upgrade"], ["check"]):
        result = subprocess.run(
            flask + arguments, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
        )
        assert result.returncode == 0, result.stderr

    with connected(empty_url) as engine, engine.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM audit_heads")) == 16


def test_squawk_reports_no_risk_in_the_migrations(tmp_path: Path) -> None:
    output = StringIO()
    config = alembic_config("postgresql://nobody@nowhere/clinic")
    config.output_buffer = output
    command.upgrade(config, "head", sql=True)
    script = tmp_path / "migrations.sql"
    script.write_text(output.getvalue())
    accepted = {
        "adding-foreign-key-constraint": "the server is stopped during a migration",
        "adding-not-nullable-field": "the server is stopped during a migration",
        "ban-drop-column": "0023: the columns have responses without encryption",
        "ban-drop-constraint": "0004 explains what replaces the constraint",
        "ban-drop-not-null": "0011: refunds of credit have no bill",
        "changing-column-type": "the server is stopped during a migration",
        "constraint-missing-not-valid": "the server is stopped during a migration",
        "prefer-bigint-over-int": "counts and minutes only; each id is a bigint",
        "prefer-identity": "SQLAlchemy creates the keys of the models as serials",
        "prefer-text-field": "texts have a maximum length, and raising it rewrites no table",
        "require-concurrent-index-deletion": "the server is stopped during a migration",
        "require-lock-timeout": "the server is stopped during a migration",
        "require-statement-timeout": "the server is stopped during a migration",
    }

    squawk = str(Path(sys.executable).with_name("squawk"))
    options = ["--pg-version", "14", "--exclude", ",".join(accepted)]
    result = subprocess.run([squawk, *options, str(script)], capture_output=True, text=True, check=False)

    assert result.returncode == 0, result.stdout
    assert "Found 0 issues" in result.stdout


def test_a_new_migration_gets_the_next_number(clinic: Clinic, tmp_path: Path) -> None:
    folder = tmp_path / "migrations"
    shutil.copytree(ROOT / "migrations", folder, ignore=shutil.ignore_patterns("__pycache__"))
    before = sorted(path.name for path in (folder / "versions").glob("*.py"))
    head, runner = int(before[-1][:4]), clinic.app.test_cli_runner()

    written = runner.invoke(args=["db", "revision", "-d", str(folder), "-m", "Add a ward"])
    with clinic.inside() as session:
        session.execute(text(f"UPDATE alembic_version SET version_num = '{head + 1:04}'"))
    migrated = runner.invoke(args=["db", "migrate", "-d", str(folder), "-m", "Add beds"])

    assert (written.exit_code, migrated.exit_code) == (0, 0), written.output + migrated.output
    added = sorted(path.name for path in (folder / "versions").glob("*.py"))[len(before) :]
    assert added == [f"{head + 1:04}_add_a_ward.py", f"{head + 2:04}_add_beds.py"]
    second = (folder / "versions" / added[1]).read_text()
    assert f'revision = "{head + 2:04}"\ndown_revision = "{head + 1:04}"' in second.replace("'", '"')
    assert "op." not in second  # the models equal the migrated schema
