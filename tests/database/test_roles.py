"""The role of the server on PostgreSQL: it reads and writes rows. The database refuses everything else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import flask_migrate
import psycopg2
import pytest
from sqlalchemy import make_url

from app import create_app
from config import Settings, SettingsError
from database import roles
from models import Base, Patient
from tests.conftest import settings_for
from tests.support.clinic import Clinic
from tests.support.database import objects_at
from tests.support.furnished import furnish
from tests.support.servers import PostgresServer

APPEND_ONLY = [name for name, rights in roles.PRIVILEGES.items() if rights == roles.APPEND]
INSUFFICIENT_PRIVILEGE = "42501"
REFUSED = [
    "DROP TABLE audit_logs",
    "DROP TRIGGER append_only_audit_logs_update ON audit_logs",
    "DROP FUNCTION refuse_change CASCADE",
    "ALTER TABLE audit_logs DISABLE TRIGGER ALL",
    "ALTER TABLE ledger_entries DISABLE TRIGGER append_only_ledger_entries_update",
    "ALTER TABLE users ADD COLUMN x integer",
    "ALTER TABLE audit_logs OWNER TO CURRENT_USER",
    "ALTER FUNCTION refuse_change() OWNER TO CURRENT_USER",
    "CREATE OR REPLACE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'",
    "CREATE TRIGGER x BEFORE INSERT ON audit_logs FOR EACH ROW EXECUTE FUNCTION refuse_change('x')",
    "CREATE TABLE x (id integer)",
    "CREATE TEMP TABLE ledger_entries (id integer)",
    "CREATE SCHEMA x",
    "CREATE ROLE x SUPERUSER",
    "CREATE EXTENSION pg_stat_statements",
    "SET session_replication_role = replica",
    "SET SESSION AUTHORIZATION postgres",
    "SET ROLE {owner}",
    "TRUNCATE audit_logs",
    "TRUNCATE patients CASCADE",
    "INSERT INTO audit_heads VALUES (99, 0, '')",
    "DELETE FROM audit_heads",
    "DELETE FROM users",
    "DELETE FROM billings",
    "UPDATE alembic_version SET version_num = '0001'",
    "SELECT setval('audit_logs_id_seq', 1)",
    "COPY audit_logs TO PROGRAM 'true'",
    "LOCK TABLE audit_logs IN ACCESS EXCLUSIVE MODE",
    *(f"DELETE FROM {table}" for table in APPEND_ONLY),
    *(
        f"UPDATE {table} SET {'audit_id = 1' if table == 'audit_subjects' else 'id = id'}"
        for table in APPEND_ONLY
    ),
]


class Roles:
    """A new database that belongs to one role, and the role of the server."""

    def __init__(self, server: PostgresServer) -> None:
        self.server = server
        url = make_url(server.create())
        self.database = url.database or ""
        self.owner, self.runtime = f"{self.database}_owner", f"{self.database}_server"
        for role in (self.owner, self.runtime):
            server._run(f'CREATE ROLE "{role}" LOGIN')
        server._run(f'ALTER DATABASE "{self.database}" OWNER TO "{self.owner}"')
        self.owner_url = url.set(username=self.owner).render_as_string(hide_password=False)
        self.runtime_url = url.set(username=self.runtime).render_as_string(hide_password=False)

    def settings(self, **overrides: object) -> Settings:
        return settings_for(self.runtime_url, migration_database_uri=self.owner_url, **overrides)

    def close(self) -> None:
        self.server.drop(self.owner_url)
        for role in (self.owner, self.runtime):
            self.server._run(f'DROP ROLE "{role}"')


@pytest.fixture(scope="module")
def two_roles(postgres: PostgresServer) -> Iterator[Roles]:
    """Yield a database that the owner has migrated."""
    created = Roles(postgres)
    with create_app(created.settings()).app_context():
        flask_migrate.upgrade()
    yield created
    created.close()


def test_every_table_has_an_entry_in_the_table_of_privileges() -> None:
    assert set(roles.PRIVILEGES) == {*Base.metadata.tables, "alembic_version"}


def test_the_server_can_change_no_table_trigger_or_entry(two_roles: Roles) -> None:
    refused = {}
    with closing(psycopg2.connect(two_roles.runtime_url)) as connection:
        for statement in REFUSED:
            try:
                connection.cursor().execute(statement.format(owner=f'"{two_roles.owner}"'))
            except psycopg2.Error as error:
                refused[statement] = error.pgcode
            else:
                refused[statement] = "done"
            connection.rollback()

    assert {statement: code for statement, code in refused.items() if code != INSUFFICIENT_PRIVILEGE} == {}


def test_the_server_has_exactly_the_privileges_of_the_table(two_roles: Roles) -> None:
    query = (
        "SELECT table_name, string_agg(privilege_type, ', ') FROM information_schema.role_table_grants "
        "WHERE grantee = current_user GROUP BY table_name"
    )
    with closing(psycopg2.connect(two_roles.runtime_url)) as connection, connection.cursor() as cursor:
        cursor.execute(query)
        granted = {table: set(rights.split(", ")) for table, rights in cursor.fetchall()}

    assert granted == {table: set(rights.split(", ")) for table, rights in roles.PRIVILEGES.items()}


def test_the_requests_work_with_the_role_of_the_server(two_roles: Roles) -> None:
    clinic = Clinic(two_roles.settings())
    furnish(clinic)
    patient, doctor = clinic.patient()["id"], clinic.sign_in("doctor")

    removed = [
        clinic.admin.patch(f"/patients/{patient}/medical-history", {"allergies": names}).status_code
        for names in (["Latex"], [])
    ]
    windows = [{"weekday": 1, "start": "08:00", "end": "12:00"}]
    schedule = [
        clinic.admin.put(f"/doctors/{doctor.doctor_id}/schedule", {"windows": rows}).status_code
        for rows in (windows, [])
    ]
    item = clinic.item()["id"]
    bill = clinic.bill("10.00")["id"]
    refunds = clinic.admin.post(f"/billings/{bill}/void", {"reason": "typed twice"}).status_code
    key = {"Idempotency-Key": "roles-0001", "Authorization": f"Bearer {clinic.admin.token}"}
    keyed = [clinic.admin.post("/patients", {"name": "Ada"}, headers=key).status_code for _ in range(2)]
    verified = clinic.app.test_cli_runner().invoke(args=["verify"])
    audit = clinic.app.test_cli_runner().invoke(args=["audit", "verify"])

    assert removed == schedule == [200, 200]
    assert clinic.admin.delete(f"/inventory/{item}").status_code == 200
    assert refunds == 200
    assert keyed == [201, 201]
    assert (verified.exit_code, verified.output) == (0, "")
    assert audit.exit_code == 0
    clinic.close()


def test_a_backup_of_the_server_is_restored_by_the_owner(
    two_roles: Roles, postgres: PostgresServer, tmp_path: object
) -> None:
    file = f"{tmp_path}/clinic.backup"
    source, target = Clinic(two_roles.settings()), Roles(postgres)
    patient = source.patient()["id"]
    written = source.app.test_cli_runner().invoke(args=["backup", "create", file])
    source.close()

    restored = create_app(target.settings()).test_cli_runner().invoke(args=["backup", "restore", file])

    assert (written.exit_code, restored.exit_code) == (0, 0), (written.output, restored.output)
    clinic = Clinic(target.settings())
    with clinic.inside() as session:
        assert session.get(Patient, patient) is not None
    assert clinic.nobody.get("/health/ready").status_code == 200
    assert objects_at(target.owner_url) == objects_at(two_roles.owner_url)
    clinic.close()
    target.close()


def test_the_owner_updates_the_statistics_of_a_grown_clinic(postgres: PostgresServer) -> None:
    created = Roles(postgres)
    settings = created.settings()
    grow = ["demo", "grow", "--patients", "1"]
    with create_app(settings).app_context():
        flask_migrate.upgrade()

    server = create_app(settings_for(created.runtime_url)).test_cli_runner().invoke(args=grow)
    both = create_app(settings).test_cli_runner().invoke(args=grow)

    assert (server.exit_code, both.exit_code) == (1, 0), (server.output, both.output)
    assert "Set MIGRATION_DATABASE_URI" in server.output
    clinic = Clinic(settings)
    assert clinic.patient()["id"] == 2  # the sequences continue
    clinic.close()
    created.close()


def test_one_role_for_both_is_refused(two_roles: Roles, caplog: pytest.LogCaptureFixture) -> None:
    settings = settings_for(two_roles.owner_url, migration_database_uri=two_roles.owner_url)

    with create_app(settings).app_context(), pytest.raises(SystemExit):
        flask_migrate.upgrade()
    assert "has the rights of the owner" in caplog.text


@pytest.mark.parametrize("grant", ['GRANT "{owner}" TO "{server}"', 'ALTER ROLE "{server}" SUPERUSER'])
def test_a_server_that_can_become_the_owner_is_refused(
    two_roles: Roles, caplog: pytest.LogCaptureFixture, grant: str
) -> None:
    names = {"owner": two_roles.owner, "server": two_roles.runtime}
    two_roles.server._run('ALTER ROLE "{server}" NOINHERIT'.format(**names))
    two_roles.server._run(grant.format(**names))
    try:
        with create_app(two_roles.settings()).app_context(), pytest.raises(SystemExit):
            flask_migrate.upgrade()
        assert "has the rights of the owner" in caplog.text
        assert _warnings_of_verify(two_roles.runtime_url) == 1
    finally:
        two_roles.server._run('REVOKE "{owner}" FROM "{server}"'.format(**names))
        two_roles.server._run('ALTER ROLE "{server}" INHERIT NOSUPERUSER'.format(**names))


def test_verify_warns_in_production_if_the_server_owns_its_tables(two_roles: Roles) -> None:
    change = f'ALTER DATABASE "{two_roles.database}" OWNER TO '
    assert _warnings_of_verify(two_roles.owner_url) == 1
    assert _warnings_of_verify(two_roles.runtime_url) == 0
    two_roles.server._run(f'{change} "{two_roles.runtime}"')  # which also owns the schema `public`
    try:
        assert _warnings_of_verify(two_roles.runtime_url) == 1
    finally:
        two_roles.server._run(f'{change} "{two_roles.owner}"')


def _warnings_of_verify(url: str) -> int:
    app = create_app(settings_for(url, environment="production", allowed_origins="https://a.example"))
    result = app.test_cli_runner().invoke(args=["verify"])
    assert result.exit_code == 0
    return result.output.count("MIGRATION_DATABASE_URI")


def test_sqlite_has_no_roles() -> None:
    with pytest.raises(SettingsError, match="MIGRATION_DATABASE_URI"):
        settings_for("sqlite:///clinic.db", migration_database_uri="postgresql://a@b/c")
