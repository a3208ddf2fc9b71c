"""`flask backup`: the whole clinic as one sealed file, and back from it.

A backup is a line of JSON that says what it is, a line with its seal, and the data: a copy of the database on
SQLite, on PostgreSQL the tables as COPY writes them, compressed. The seal is HMAC-SHA256 under `AUDIT_KEY`
over the first line and the data, so that a file that was cut short, changed or forged is refused before the
database is looked at. On PostgreSQL the schema is not in it: the migrations make it, on any server version.
"""

from __future__ import annotations

import gzip
import hashlib
import hmac
import json
import os
import sqlite3
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import click
from alembic.script import ScriptDirectory
from flask.cli import AppGroup
from flask_migrate import upgrade
from psycopg2 import sql
from sqlalchemy import Connection, column, inspect, literal, select, table, text
from sqlalchemy.engine import make_url

from config import settings
from extensions import db
from services import clock, schema_version

backup = AppGroup("backup", help="Write the whole clinic to a sealed file, check one, restore one.")
FILE = click.Path(dir_okay=False, allow_dash=True, path_type=Path)

CHUNK = 1 << 20  # bytes read at once
MAX_LINE = 1_000  # bytes of the first line, and of the second
END = b"\\.\n"  # ends a table: no row that COPY writes looks like it
REVISION = "alembic_version"
HEADS = "audit_heads"  # the migrations make its rows: the one table that is not empty in a new database


@dataclass(frozen=True)
class Label:
    """What the first line of a backup says."""

    engine: str  # sqlite or postgresql
    revision: str  # of the schema
    made_at: str  # RFC 3339, UTC


@backup.command("create")
@click.argument("file", type=FILE)
def create(file: Path) -> None:
    """Write a backup to FILE, which must not exist, or to standard output where FILE is "-".

    One state of the database, taken while the clinic goes on working. It holds patients' data: FILE is
    readable by its owner alone; keep it encrypted, and AUDIT_KEY elsewhere.
    """
    with _output(file) as output, tempfile.TemporaryDirectory(dir=_folder(file)) as folder:
        data = Path(folder, "data")
        label = _dump_sqlite(data) if _engine() == "sqlite" else _dump_postgresql(data)
        first = json.dumps(asdict(label)).encode() + b"\n"
        seal = _seal(first)
        with data.open("rb") as content:
            for chunk in _chunks(content):
                seal.update(chunk)
            output.write(first + seal.hexdigest().encode() + b"\n")
            content.seek(0)
            for chunk in _chunks(content):
                output.write(chunk)
        output.flush()
    click.echo(f"written: {label.engine}, schema {label.revision}, {label.made_at}", err=True)


@backup.command("check")
@click.argument("file", type=FILE)
def check(file: Path) -> None:
    """Say whether FILE ("-": standard input) is a whole backup of this clinic; exits 1 where it is not."""
    with tempfile.TemporaryDirectory(dir=_folder(file)) as folder:
        label = _unseal(file, Path(folder, "data"))
    click.echo(f"whole: {label.engine}, schema {label.revision}, {label.made_at}")


@backup.command("restore")
@click.argument("file", type=FILE)
def restore(file: Path) -> None:
    """Put the backup in FILE ("-": standard input) into the empty database of the settings.

    Exits 1 and changes nothing where the file is damaged, was sealed under another AUDIT_KEY, is of another
    engine or a newer schema, or where the database holds anything already. Stop the server before.
    """
    chosen = _engine()
    place = _sqlite_path().parent if chosen == "sqlite" else _folder(file)
    with tempfile.TemporaryDirectory(dir=place) as folder:
        data = Path(folder, "data")  # what was checked is what is restored, whoever writes to FILE
        label = _unseal(file, data)
        known = {script.revision for script in _scripts().walk_revisions()}
        if label.engine != chosen:
            raise click.ClickException(f"This is a backup of {label.engine}, and the database is {chosen}.")
        if label.revision not in known:
            raise click.ClickException("The backup has a newer schema than this version of the clinic.")
        if chosen == "sqlite":
            _load_sqlite(data)
        else:
            _load_postgresql(data, label)
    click.echo(f"restored: the clinic of {label.made_at}")
    if label.revision != schema_version.expected_revision():
        click.echo("next: flask db upgrade")
    click.echo("next: flask verify && flask audit restored --reason '...' && flask audit verify")


# --- The file ------------------------------------------------------------------------------------------


def _seal(first: bytes) -> hmac.HMAC:
    return hmac.new(settings().audit_key.encode(), b"backup\n" + first, hashlib.sha256)


def _chunks(file: IO[bytes]) -> Iterator[bytes]:
    while chunk := file.read(CHUNK):
        yield chunk


def _folder(file: Path) -> Path | None:
    """Where there must be room for the data anyway; the system's temporary directory for a stream."""
    return None if str(file) == "-" else file.absolute().parent


@contextmanager
def _output(file: Path) -> Iterator[IO[bytes]]:
    """The new file, which is gone again where it could not be finished."""
    if str(file) == "-":
        yield sys.stdout.buffer
        return
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as problem:
        raise click.ClickException(f"{file}: {problem.strerror}") from None
    try:
        with os.fdopen(descriptor, "wb") as output:
            yield output
            os.fsync(output.fileno())
    except BaseException:
        file.unlink()
        raise


@contextmanager
def _input(file: Path) -> Iterator[IO[bytes]]:
    if str(file) == "-":
        yield sys.stdin.buffer
        return
    try:
        opened = file.open("rb")
    except OSError as problem:
        raise click.ClickException(f"{file}: {problem.strerror}") from None
    with opened:
        yield opened


def _unseal(file: Path, data: Path) -> Label:
    """Copy the data out of a backup and say what it is; ends the command where the seal does not fit."""
    with _input(file) as source, data.open("xb") as copy:
        first, told = source.readline(MAX_LINE), source.readline(MAX_LINE)
        seal = _seal(first)
        for chunk in _chunks(source):
            seal.update(chunk)
            copy.write(chunk)
    if not hmac.compare_digest(seal.hexdigest().encode() + b"\n", told):
        raise click.ClickException(
            f"{file}: no backup of this clinic, damaged, cut short, or sealed under another AUDIT_KEY. "
            "Nothing was changed."
        )
    return Label(**json.loads(first))


def _engine() -> str:
    return make_url(settings().database_url).get_backend_name()


def _scripts() -> ScriptDirectory:
    return ScriptDirectory(str(schema_version.MIGRATIONS))


def _no_schema() -> click.ClickException:
    return click.ClickException("The database has no tables: there is nothing to back up.")


# --- SQLite --------------------------------------------------------------------------------------------


def _sqlite_path() -> Path:
    return Path(make_url(settings().database_url).database or "")


def _dump_sqlite(data: Path) -> Label:
    if not _sqlite_path().exists():
        raise _no_schema()
    made_at = clock.now().isoformat()
    with db.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("VACUUM INTO ?", (str(data),))
    with closing(sqlite3.connect(data)) as copy:
        if not copy.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (REVISION,)).fetchone():
            raise _no_schema()
        (revision,) = copy.execute("SELECT version_num FROM alembic_version").fetchone()
    return Label("sqlite", revision, made_at)


def _load_sqlite(data: Path) -> None:
    target = _sqlite_path()
    for ending in ("-wal", "-shm"):
        if target.with_name(target.name + ending).exists():
            raise click.ClickException(
                f"{target.name}{ending} is there: the server still runs, or an older database was removed "
                "without it. Stop the one, remove the other."
            )
    if target.exists():
        with closing(sqlite3.connect(target)) as there:
            if there.execute("SELECT 1 FROM sqlite_master").fetchone():
                raise _not_empty()
    with closing(sqlite3.connect(data)) as copy:
        told = copy.execute("PRAGMA integrity_check").fetchone()[0]
    if told != "ok":
        raise click.ClickException("The backup was made of a database that was damaged already.")
    with data.open("rb") as file:
        os.fsync(file.fileno())
    os.replace(data, target)


def _not_empty() -> click.ClickException:
    return click.ClickException("The database is not empty: restore into a new one. Nothing was changed.")


# --- PostgreSQL ----------------------------------------------------------------------------------------


@contextmanager
def _copying(connection: Connection) -> Iterator[Any]:
    """A cursor that copies values in one notation."""
    connection.exec_driver_sql(
        "SET LOCAL datestyle = 'ISO'; SET LOCAL timezone = 'UTC'; SET LOCAL client_encoding = 'UTF8'"
    )
    with closing(connection.connection.cursor()) as cursor:
        yield cursor


def _dump_postgresql(data: Path) -> Label:
    options = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
    with (
        gzip.open(data, "wb", compresslevel=6) as file,
        db.engine.connect().execution_options(**options) as connection,
        _copying(connection) as cursor,
    ):
        made_at = clock.now().isoformat()
        found = inspect(connection)
        if not found.has_table(REVISION):
            raise _no_schema()
        revision = connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one()
        # parents first; the last one, without a name, stands for circles, of which there are none
        for name, _keys in found.get_sorted_table_and_fkc_names():
            if name not in (None, REVISION):
                columns = [told["name"] for told in found.get_columns(name)]
                file.write(json.dumps({"table": name, "columns": columns}).encode() + b"\n")
                cursor.copy_expert(_copy("COPY {} ({}) TO STDOUT", name, columns), file)
                file.write(END)
    return Label("postgresql", revision, made_at)


def _copy(statement: str, name: str, columns: list[str]) -> sql.Composed:
    names = sql.SQL(", ").join(map(sql.Identifier, columns))
    return sql.SQL(statement).format(sql.Identifier(name), names)


class _Rows:
    """The rows of one table, for COPY to read."""

    def __init__(self, file: gzip.GzipFile) -> None:
        self.file, self.over = file, False

    def readline(self, _size: int = -1) -> bytes:
        """The next row, nothing after the last."""
        row = b"" if self.over else self.file.readline()
        self.over = self.over or row == END
        return b"" if self.over else row

    def read(self, size: int = CHUNK) -> bytes:
        """The next rows, as many as it takes to fill `size` bytes."""
        rows, length = [], 0
        while length < size and (row := self.readline()):
            rows.append(row)
            length += len(row)
        return b"".join(rows)


def _load_postgresql(data: Path, label: Label) -> None:
    with db.engine.connect() as connection:
        if not _is_new(connection):
            raise _not_empty()
    if schema_version.stored_revision() not in (None, label.revision):
        raise click.ClickException("The database has another schema than the backup; restore into a new one.")
    db.session.remove()
    upgrade(revision=label.revision)
    with (
        gzip.open(data, "rb") as file,
        db.engine.begin() as connection,
        _copying(connection) as cursor,
    ):
        while line := file.readline():
            told = json.loads(line)
            name, columns = told["table"], told["columns"]
            into = name
            if name == HEADS:  # its rows are there, and may only go on
                cursor.execute("CREATE TEMP TABLE restored_heads (LIKE audit_heads) ON COMMIT DROP")
                into = "restored_heads"
            cursor.copy_expert(_copy("COPY {} ({}) FROM STDIN", into, columns), _Rows(file), CHUNK)
            if "id" in columns:
                cursor.execute(
                    sql.SQL(
                        "SELECT setval(pg_get_serial_sequence({}, 'id'), max(id)) FROM {} "
                        "HAVING max(id) IS NOT NULL"
                    ).format(sql.Literal(name), sql.Identifier(name))
                )
        cursor.execute(
            "UPDATE audit_heads SET number = restored_heads.number, mac = restored_heads.mac "
            "FROM restored_heads WHERE restored_heads.chain = audit_heads.chain"
        )


def _is_new(connection: Connection) -> bool:
    """Whether nothing was ever stored: no table, or those of the migrations as they make them."""
    for name in inspect(connection).get_table_names():
        rows = select(literal(1)).select_from(table(name)).limit(1)
        if name == HEADS:
            rows = rows.where(column("number") > 0)
        if name != REVISION and connection.execute(rows).first():
            return False
    return True
