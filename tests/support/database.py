"""Databases as the migrations make them, without the application."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import psycopg2
from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, Engine, create_engine, text

from database.engine import engine_options, register
from models import Base
from services.audit.audit_log import CHAINS
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

# As the migrations leave it: no rows but the ends of the audit's chains. No trigger or foreign key hinders.
EMPTY = f"""
SET lock_timeout = '5s'; SET session_replication_role = replica;
{"".join(f"DELETE FROM {table.name};" for table in Base.metadata.sorted_tables)}
INSERT INTO audit_heads SELECT chain, 0, '' FROM generate_series(0, {CHAINS - 1}) AS chain;
SELECT setval(format('%I.%I', schemaname, sequencename)::regclass, 1, false)
  FROM pg_sequences WHERE last_value IS NOT NULL
"""
# Enough to tell that a test has changed the schema.
SHAPE = """
SELECT version_num, (SELECT count(*) FROM pg_class), (SELECT count(*) FROM pg_constraint),
       (SELECT count(*) FROM pg_trigger WHERE tgenabled = 'O'), (SELECT count(*) FROM pg_proc),
       (SELECT sum(relnatts) FROM pg_class)
  FROM alembic_version
"""


class ReusedDatabase:
    """A PostgreSQL database for one test after the other: emptying it takes a tenth of cloning one.

    A test that changed its schema costs it its life: the next one gets a new clone of the template.
    """

    def __init__(self, server: PostgresServer, template: str) -> None:
        self.server, self.template = server, template
        self._open()

    def emptied(self) -> str:
        """Its URL, when no row of the test before is left."""
        try:
            if self._ask(SHAPE) == self.shape:
                self._ask(EMPTY)
                return self.url
        except psycopg2.Error:
            pass  # the schema is broken, or somebody still holds a lock: not worth asking which
        self.close()
        self._open()
        return self.url

    def close(self) -> None:
        """Drop it."""
        self.connection.close()
        self.server.drop(self.url)

    def _open(self) -> None:
        self.url = self.server.clone(self.template)
        self.connection = psycopg2.connect(self.url)
        self.connection.autocommit = True
        self.shape = self._ask(SHAPE)

    def _ask(self, statement: str) -> list[tuple[object, ...]]:
        with self.connection.cursor() as cursor:
            cursor.execute(statement)
            return cursor.fetchall()


class SchemaObject(NamedTuple):
    """A column, constraint, index, trigger, function or sequence, as the database itself tells of it."""

    kind: str
    table: str
    name: str
    definition: str


def alembic_config(url: str) -> Config:
    """What alembic's commands are given to work on the database at `url`."""
    config = Config(ROOT / "migrations" / "alembic.ini")
    config.set_main_option("script_location", str(ROOT / "migrations"))
    config.set_main_option("sqlalchemy.url", url.replace("%", "%%"))
    return config


def migrate(url: str, revision: str = "head") -> None:
    """Bring the database at `url` up to `revision`; a SQLite file is made where there is none."""
    command.upgrade(alembic_config(url), revision)


@contextmanager
def connected(url: str) -> Iterator[Engine]:
    """An engine that connects as the application's does, and lets go of the database at the end."""
    engine = create_engine(url, **engine_options(url, echo=False))
    register(engine)
    try:
        yield engine
    finally:
        engine.dispose()


def objects_at(url: str) -> set[SchemaObject]:
    """Everything the schema at `url` is made of, alembic's own table aside."""
    with connected(url) as engine, engine.connect() as connection:
        if engine.dialect.name == "postgresql":
            found = {SchemaObject(*row) for row in connection.execute(text(POSTGRESQL_OBJECTS))}
        else:
            found = set(_sqlite_objects(connection))
    return {each for each in found if each.table != "alembic_version"}


def _sqlite_objects(connection: Connection) -> Iterator[SchemaObject]:
    stored = connection.execute(text("SELECT type, tbl_name, name, sql FROM sqlite_master WHERE sql <> ''"))
    for kind, table, name, sql in stored:
        if kind != "table":
            yield SchemaObject(kind, table, name, sql)
            continue
        for line in sql.splitlines()[1:-1]:  # SQLite keeps the text: one column or constraint a line
            kind = "constraint" if "CONSTRAINT" in line else "column"
            told = line.strip(" \t,").removeprefix("CONSTRAINT ")
            # a column that was added later stands behind the last of those that were there
            for words in re.split(r", (?=[a-z_]+ [A-Z])", told) if kind == "column" else [told]:
                first, _, rest = words.partition(" ")
                yield SchemaObject(kind, table, first, rest)
