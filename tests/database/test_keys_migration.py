"""Migration 0023 on a database with audit entries and stored responses."""

from __future__ import annotations

import pytest
from alembic import command
from sqlalchemy import Connection, text

from tests.conftest import NewDatabase
from tests.support.database import alembic_config, connected, migrate

OLDER = "0016"
ROWS = """
INSERT INTO users
(id, name, name_fold, email, email_key, password_hash, role, is_active, version, created_at, updated_at)
VALUES (1, 'A', 'a', 'a@b.example', 'a@b.example', '!', 'admin', {true}, 1, {now}, {now});
INSERT INTO idempotency_keys (id, user_id, key, fingerprint, status, headers, body, record, created_at) VALUES
(1, 1, 'with a record', 'f', 201, '{{}}', 'a name', '{{"reader": ["admin", null], "id": 7}}', {now}),
(2, 1, 'without a record', 'f', 201, '{{}}', 'a name', NULL, {now});
INSERT INTO audit_logs
(id, chain, number, at, action, entity_ids, patient_ids, fields, outcome, operation, mac) VALUES
(1, 0, 1, {now}, 'create', '[]', '[]', '[]', 'success', 'a test', 'ab')
"""


@pytest.fixture
def older_url(database_at: NewDatabase) -> str:
    """Return the URL of a database with the schema before the migration."""
    return database_at(OLDER)


def insert_rows(connection: Connection) -> None:
    sqlite = connection.dialect.name == "sqlite"
    now = "'2026-03-02 09:00:00.000000'" if sqlite else "'2026-03-02 09:00:00Z'"
    for statement in ROWS.format(now=now, true="1" if sqlite else "true").split(";"):
        connection.exec_driver_sql(statement)


def test_no_response_stays_without_encryption_and_no_request_is_repeated(older_url: str) -> None:
    with connected(older_url) as engine:
        with engine.begin() as connection:
            insert_rows(connection)

        migrate(older_url)

        with engine.connect() as connection:
            keys = connection.execute(
                text("SELECT status, response, record FROM idempotency_keys ORDER BY id")
            ).all()
            entries = connection.execute(text("SELECT key_id, mac FROM audit_logs")).all()
    assert [(key.status, key.response) for key in keys] == [(201, None), (201, None)]
    assert "7" in str(keys[0].record)
    assert entries == [(None, "ab")]


def test_after_a_downgrade_the_earlier_version_refuses_repeats(older_url: str) -> None:
    with connected(older_url) as engine:
        with engine.begin() as connection:
            insert_rows(connection)
        migrate(older_url)

        command.downgrade(alembic_config(older_url), OLDER)

        with engine.connect() as connection:
            records = connection.execute(text("SELECT record FROM idempotency_keys ORDER BY id")).scalars()
            readers = [str(record).replace(" ", "").replace("'", '"') for record in records]
    assert ['"reader":[]' in reader for reader in readers] == [True, True]
    assert '"id":7' in readers[0]


def test_a_downgrade_that_would_lose_key_ids_is_refused(older_url: str) -> None:
    with connected(older_url) as engine:
        with engine.begin() as connection:
            insert_rows(connection)
        migrate(older_url)
        with engine.begin() as connection:
            columns = "at, action, entity_ids, patient_ids, fields, outcome, operation, mac"
            connection.execute(
                text(
                    f"INSERT INTO audit_logs (id, chain, number, key_id, {columns}) "
                    f"SELECT 2, chain, 2, 'cd', {columns} FROM audit_logs"
                )
            )

        with pytest.raises(RuntimeError, match="cannot verify audit entries"):
            command.downgrade(alembic_config(older_url), OLDER)

        with engine.connect() as connection:
            assert connection.execute(text("SELECT max(key_id) FROM audit_logs")).scalar_one() == "cd"
