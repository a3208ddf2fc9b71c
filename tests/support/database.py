"""Databases with the migrated schema, without the application."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import psycopg2
from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, Engine, create_engine, text

from commands.backup import SEEDED_TABLES
from database.engine import engine_options, register
from models import Base
from tests.support.servers import ROOT, PostgresServer

POSTGRESQL_OBJECTS = """
SELECT 'column', c.relname, a.attname, concat_ws(' ', format_type(a.atttypid, a.atttypmod),
       CASE WHEN a.attnotnull THEN 'NOT NULL' END, pg_get_expr(d.adbin, d.adrelid), a.attidentity)
  FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid AND c.relkind = 'r'
  LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
 WHERE a.attnum > 0 AND NOT a.attisdropped AND c.relnamespace = 'public'::regnamespace
UNION ALL SELECT 'constraint', conrelid::regclass::text, conname, pg_get_constraintdef(oid)
  FROM pg_constraint WHERE connamespace = 'public'::regnamespace AND contype <> 't'
UNION ALL SELECT 'index', tablename, indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'
UNION ALL SELECT 'trigger', tgrelid::regclass::text, tgname, pg_get_triggerdef(oid)
  FROM pg_trigger WHERE NOT tgisinternal
UNION ALL SELECT 'function', '', p.proname, pg_get_functiondef(p.oid)
  FROM pg_proc p WHERE p.pronamespace = 'public'::regnamespace
   AND NOT EXISTS (SELECT 1 FROM pg_depend WHERE objid = p.oid AND deptype = 'e')
UNION ALL SELECT 'sequence', '', sequencename, data_type::text FROM pg_sequences WHERE schemaname = 'public'
"""

SEEDED_SEQUENCE = "clinic_record_versions_id_seq"  # a migration inserts the row 1
# The state after the migrations: only the rows that they insert. Triggers and foreign keys are off.
EMPTY = f"""
SET lock_timeout = '5s'; SET session_replication_role = replica;
{"".join(f"DELETE FROM {table.name};" for table in Base.metadata.sorted_tables)}
{"".join(f"INSERT INTO {table} SELECT * FROM inserted_{table};" for table in SEEDED_TABLES)}
SELECT setval(format('%I.%I', schemaname, sequencename)::regclass, 1, sequencename = '{SEEDED_SEQUENCE}')
  FROM pg_sequences WHERE last_value IS NOT NULL
"""
# Changes if a test changes the schema.
SCHEMA_SUMMARY = """
SELECT version_num, (SELECT count(*) FROM pg_class), (SELECT count(*) FROM pg_constraint),
       (SELECT count(*) FROM pg_trigger WHERE tgenabled = 'O'), (SELECT count(*) FROM pg_proc),
       (SELECT sum(relnatts) FROM pg_class)
  FROM alembic_version
"""


# Keep the rows that the migrations inserted.
KEEP = "".join(f"CREATE TEMP TABLE inserted_{table} AS TABLE {table};" for table in SEEDED_TABLES)


class ReusedDatabase:
    """A PostgreSQL database for many tests: deleting all rows takes a tenth of the time of a new clone.

    After a test that changed the schema, the next test gets a new clone of the template.
    """

    def __init__(self, server: PostgresServer, template: str) -> None:
        self.server, self.template = server, template
        self.url = server.clone(template)
        self._connect()

    def empty(self) -> str:
        """Delete all rows and return the URL. A new clone has the same URL: applications stay usable."""
        try:
            if self._execute(SCHEMA_SUMMARY) == self.schema_summary:
                self._execute(EMPTY)
                return self.url
        except psycopg2.Error:
            pass  # the schema is broken, or another connection holds a lock: a new clone solves both
        self.close()
        self.server.clone(self.template, self.url)
        self._connect()
        return self.url

    def close(self) -> None:
        """Drop the database."""
        self.connection.close()
        self.server.drop(self.url)

    def _connect(self) -> None:
        self.connection = psycopg2.connect(self.url)
        self.connection.autocommit = True
        self.schema_summary = self._execute(KEEP + SCHEMA_SUMMARY)

    def _execute(self, statement: str) -> list[tuple[object, ...]]:
        with self.connection.cursor() as cursor:
            cursor.execute(statement)
            return cursor.fetchall()


class SchemaObject(NamedTuple):
    """A column, constraint, index, trigger, function or sequence, as the database describes it."""

    kind: str
    table: str
    name: str
    definition: str


def alembic_config(url: str) -> Config:
    """Return the alembic configuration for the database at `url`."""
    config = Config(ROOT / "migrations" / "alembic.ini")
    config.set_main_option("script_location", str(ROOT / "migrations"))
    config.set_main_option("sqlalchemy.url", url.replace("%", "%%"))
    return config


def migrate(url: str, revision: str = "head") -> None:
    """Upgrade the database at `url` to `revision`. A missing SQLite file is created."""
    command.upgrade(alembic_config(url), revision)


@contextmanager
def connected(url: str) -> Iterator[Engine]:
    """Return an engine with the options of the application. It is disposed of at the end."""
    engine = create_engine(url, **engine_options(url, echo=False))
    register(engine)
    try:
        yield engine
    finally:
        engine.dispose()


def objects_at(url: str) -> set[SchemaObject]:
    """Return all objects of the schema at `url`, except the table of alembic."""
    with connected(url) as engine, engine.connect() as connection:
        if engine.dialect.name == "postgresql":
            objects = {SchemaObject(*row) for row in connection.execute(text(POSTGRESQL_OBJECTS))}
        else:
            objects = set(_sqlite_objects(connection))
    return {item for item in objects if item.table != "alembic_version"}


def _sqlite_objects(connection: Connection) -> Iterator[SchemaObject]:
    rows = connection.execute(text("SELECT type, tbl_name, name, sql FROM sqlite_master WHERE sql <> ''"))
    for kind, table, name, sql in rows:
        if kind != "table":
            yield SchemaObject(kind, table, name, sql)
            continue
        for line in sql.splitlines()[1:-1]:  # SQLite stores the statement: one column or constraint per line
            text_of_line = line.strip(" \t,")
            if text_of_line.startswith("CONSTRAINT "):
                yield _sqlite_object("constraint", table, text_of_line.removeprefix("CONSTRAINT "))
                continue
            # a column that was added later is on the same line as the last column before it
            for definition in re.split(r", (?=[a-z_0-9]+ [A-Z])", text_of_line):
                column, *constraints = definition.split(" CONSTRAINT ")
                yield _sqlite_object("column", table, column)
                for constraint in constraints:
                    key = f" FOREIGN KEY({column.partition(' ')[0]}) REFERENCES "
                    yield _sqlite_object("constraint", table, constraint.replace(" REFERENCES ", key))


def _sqlite_object(kind: str, table: str, text_of_object: str) -> SchemaObject:
    name, _, definition = text_of_object.partition(" ")
    return SchemaObject(kind, table, name, definition)
