"""The two roles of PostgreSQL: the owner of the tables, who migrates, and the role of the server.

The server reads and writes rows, and nothing else: it cannot drop or alter a table, or disable a trigger.
`flask db upgrade` connects as `MIGRATION_DATABASE_URI` and grants `PRIVILEGES` to the role of `DATABASE_URI`.
Without `MIGRATION_DATABASE_URI` one role does both.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, Engine, create_engine, inspect, text

from config import settings
from database.engine import engine_options, register

READ = "SELECT"
APPEND = "SELECT, INSERT"  # triggers refuse updates and deletes for the owner too
ADVANCE = "SELECT, UPDATE"  # a migration inserts the rows
CHANGE = "SELECT, INSERT, UPDATE"
REMOVE = "SELECT, INSERT, UPDATE, DELETE"

# The privileges of the server on each table. A test requires an entry for each new table.
PRIVILEGES: dict[str, str] = {
    "addenda": APPEND,
    "alembic_version": READ,
    "allergies": REMOVE,
    "appointments": CHANGE,
    "audit_heads": ADVANCE,
    "audit_logs": APPEND,
    "audit_subjects": APPEND,
    "billing_items": CHANGE,
    "billing_standings": CHANGE,
    "billings": CHANGE,
    "calendar_feeds": CHANGE,
    "claims": CHANGE,
    "clinic_record": ADVANCE,
    "clinic_record_versions": APPEND,
    "conditions": REMOVE,
    "contact_preferences": CHANGE,
    "contact_stops": REMOVE,
    "credit_notes": APPEND,
    "diagnoses": REMOVE,
    "dispensings": APPEND,
    "doctors": CHANGE,
    "document_counters": CHANGE,
    "emergency_accesses": CHANGE,
    "events": REMOVE,
    "export_chunks": REMOVE,
    "exports": REMOVE,
    "factor_challenges": REMOVE,
    "home_medications": REMOVE,
    "idempotency_keys": REMOVE,
    "import_files": REMOVE,
    "import_rows": REMOVE,
    "import_sources": REMOVE,
    "imports": REMOVE,
    "inventory_items": REMOVE,
    "inventory_lots": CHANGE,
    "inventory_usages": REMOVE,
    "jobs": REMOVE,
    "ledger_currency": CHANGE,
    "ledger_entries": APPEND,
    "letters": CHANGE,
    "medical_histories": CHANGE,
    "message_settings": ADVANCE,
    "message_templates": REMOVE,
    "messages": CHANGE,
    "passkeys": REMOVE,
    "password_resets": CHANGE,
    "patients": CHANGE,
    "prescribed_medications": REMOVE,
    "prescriptions": CHANGE,
    "price_list_items": CHANGE,
    "recovery_codes": REMOVE,
    "refunds": CHANGE,
    "schedule_windows": REMOVE,
    "stock_movements": APPEND,
    "time_off": REMOVE,
    "totp_secrets": REMOVE,
    "treatments": CHANGE,
    "user_sessions": REMOVE,
    "users": CHANGE,
    "visits": CHANGE,
}


@contextmanager
def owner_engine(server: Engine) -> Iterator[Engine]:
    """Yield an engine of the owner of the tables: that of the server without `MIGRATION_DATABASE_URI`."""
    url = settings().migration_url
    if url is None:
        yield server
        return
    engine = create_engine(url, **engine_options(url, echo=settings().sqlalchemy_echo))
    register(engine)
    try:
        yield engine
    finally:
        engine.dispose()


def server_role(server: Engine) -> str | None:
    """Return the role to which migrations grant the privileges, or None if one role does everything.

    The database names it: a pooler may need another user name in the URL.
    """
    if settings().migration_url is None:
        return None
    with server.connect() as connection:
        return str(connection.execute(text("SELECT current_user")).scalar_one())


def grant_privileges(connection: Connection, role: str) -> None:
    """Grant exactly `PRIVILEGES` to the role of the server, in the transaction of a migration.

    A table that is not in `PRIVILEGES` gets none. Temporary tables are refused too: one with the name of a
    table would hide it from the functions of triggers.
    """
    if connection.execute(text("SELECT pg_has_role(:role, current_user, 'MEMBER')"), {"role": role}).scalar():
        raise RuntimeError(
            f"The role {role} of DATABASE_URI has the rights of the owner in MIGRATION_DATABASE_URI: "
            "use two roles, of which it is neither a member of the owner nor a superuser"
        )
    quote = connection.dialect.identifier_preparer.quote
    schema, database = connection.execute(text("SELECT current_schema(), current_database()")).one()
    name = quote(role)
    statements = [
        f"REVOKE CREATE ON SCHEMA {quote(schema)} FROM PUBLIC, {name}",
        f"GRANT USAGE ON SCHEMA {quote(schema)} TO {name}",
        f"REVOKE CREATE, TEMPORARY ON DATABASE {quote(database)} FROM PUBLIC, {name}",
    ]
    for table in sorted(PRIVILEGES.keys() & set(inspect(connection).get_table_names())):
        statements.append(f"REVOKE ALL ON TABLE {quote(table)} FROM {name}")
        statements.append(f"GRANT {PRIVILEGES[table]} ON TABLE {quote(table)} TO {name}")
        sequence = connection.execute(_SEQUENCE, {"table": f"{quote(schema)}.{quote(table)}"}).scalar()
        if sequence is not None:
            statements.append(f"REVOKE ALL ON SEQUENCE {sequence} FROM {name}")
            if "INSERT" in PRIVILEGES[table]:
                statements.append(f"GRANT USAGE ON SEQUENCE {sequence} TO {name}")
    for statement in statements:
        connection.exec_driver_sql(statement.replace("%", "%%"))


_SEQUENCE = text(
    "SELECT pg_get_serial_sequence(:table, attname) FROM pg_attribute "
    "WHERE attrelid = CAST(:table AS regclass) AND attname = 'id' AND NOT attisdropped"
)


def owns_tables(connection: Connection) -> bool:
    """Return True if the role of the connection may alter the tables, disable triggers, or drop tables.

    These are the owners of the tables, of their schema and of the database, and the members of these roles:
    `SET ROLE` gives their rights to members that do not inherit them.
    """
    if connection.dialect.name != "postgresql":
        return False
    statement = (
        "SELECT bool_or(pg_has_role(current_user, owner, 'MEMBER')) FROM pg_class "
        "JOIN pg_namespace ON pg_namespace.oid = relnamespace "
        "JOIN pg_database ON datname = current_database() "
        "CROSS JOIN LATERAL (VALUES (relowner), (nspowner), (datdba)) AS owners (owner) "
        "WHERE pg_class.oid = to_regclass('audit_logs')"
    )
    return bool(connection.execute(text(statement)).scalar())
