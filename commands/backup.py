"""`flask backup`: write the database to one authenticated file, check the file, restore it.

A backup file has three parts: a JSON header line, a line with the MAC in hexadecimal, and the data.
On SQLite the data is a copy of the database file. On PostgreSQL it is the output of COPY for every table,
compressed with gzip; the schema is not included, because the migrations create it on any server version.
The MAC is HMAC-SHA256 under `AUDIT_KEY` over the header and the data. A truncated, changed or forged file
is therefore refused before the database is opened.
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
from functools import partial
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

backup = AppGroup("backup", help="Write the database to a backup file, check a file, restore a file.")
FILE = click.Path(dir_okay=False, allow_dash=True, path_type=Path)

CHUNK_SIZE = 1 << 20  # bytes
MAX_LINE_SIZE = 1_000  # bytes of the header line, and of the MAC line
END_OF_TABLE = b"\\.\n"  # COPY never writes such a row
REVISION_TABLE = "alembic_version"
HEADS_TABLE = "audit_heads"
# Tables with rows in a new database, which a migration inserts, and the condition of rows in use.
SEEDED_TABLES = {
    HEADS_TABLE: column("number") > 0,
    "clinic_record": column("version") > 1,
    "message_settings": column("version") > 1,
}


@dataclass(frozen=True)
class BackupHeader:
    """The first line of a backup file."""

    engine: str  # sqlite or postgresql
    revision: str  # schema revision of Alembic
    made_at: str  # RFC 3339, UTC


@backup.command("create")
@click.argument("file", type=FILE)
def create(file: Path) -> None:
    """Write a backup to FILE, which must not exist. "-" is standard output.

    The backup is one consistent state of the database. The application may run meanwhile. The file contains
    patient data: only its owner can read it. Keep it encrypted, and keep AUDIT_KEY in another place.
    """
    with _open_output(file) as output, tempfile.TemporaryDirectory(dir=_temporary_parent(file)) as folder:
        data = Path(folder, "data")
        header = _dump_sqlite(data) if _engine_name() == "sqlite" else _dump_postgresql(data)
        header_line = json.dumps(asdict(header)).encode() + b"\n"
        mac = _start_mac(header_line)
        with data.open("rb") as content:
            for chunk in _read_chunks(content):
                mac.update(chunk)
            output.write(header_line + mac.hexdigest().encode() + b"\n")
            content.seek(0)
            for chunk in _read_chunks(content):
                output.write(chunk)
        output.flush()
    _record_time()
    click.echo(f"written: {header.engine}, schema {header.revision}, {header.made_at}", err=True)


@backup.command("check")
@click.argument("file", type=FILE)
def check(file: Path) -> None:
    """Check that FILE is a complete backup of this clinic. "-" is standard input. Otherwise exit with 1."""
    with tempfile.TemporaryDirectory(dir=_temporary_parent(file)) as folder:
        header = _extract_data(file, Path(folder, "data"))
    click.echo(f"complete: {header.engine}, schema {header.revision}, {header.made_at}")


@backup.command("restore")
@click.argument("file", type=FILE)
def restore(file: Path) -> None:
    """Restore the backup in FILE into the empty database of the settings. "-" is standard input.

    Stop the server first. Changes nothing and exits with 1 if the file is damaged or has a MAC under another
    AUDIT_KEY. The same applies to a file from another engine or a newer schema, and to a database with rows.
    """
    engine_name = _engine_name()
    # A SQLite file is moved into place at the end, which needs the same file system.
    parent = _sqlite_path().parent if engine_name == "sqlite" else _temporary_parent(file)
    with tempfile.TemporaryDirectory(dir=parent) as folder:
        data = Path(folder, "data")  # a copy: FILE may change between check and restore
        header = _extract_data(file, data)
        revisions = {script.revision for script in _scripts().walk_revisions()}
        if header.engine != engine_name:
            raise click.ClickException(
                f"This is a backup of {header.engine}, but the database is {engine_name}."
            )
        if header.revision not in revisions:
            raise click.ClickException("The backup has a newer schema than this version of the application.")
        if engine_name == "sqlite":
            _load_sqlite(data)
        else:
            _load_postgresql(data, header)
    click.echo(f"restored: backup of {header.made_at}")
    if header.revision != schema_version.expected_revision():
        click.echo("next: flask db upgrade")
    click.echo("next: flask verify && flask audit restored --reason '...' && flask audit verify")


# --- The file ------------------------------------------------------------------------------------------


def _record_time() -> None:
    """Set the time of the last backup, which `GET /metrics` shows."""
    try:
        settings().last_backup_file.parent.mkdir(parents=True, exist_ok=True)
        settings().last_backup_file.touch(mode=0o600)
    except OSError as error:
        click.echo(f"{settings().last_backup_file}: {error.strerror}. The metrics show no backup.", err=True)


def _start_mac(header_line: bytes) -> hmac.HMAC:
    return hmac.new(settings().audit_key.encode(), b"backup\n" + header_line, hashlib.sha256)


def _read_chunks(file: IO[bytes]) -> Iterator[bytes]:
    while chunk := file.read(CHUNK_SIZE):
        yield chunk


def _temporary_parent(file: Path) -> Path | None:
    """Return the folder of the file, which needs space for the data anyway. None (system default) for "-"."""
    return None if str(file) == "-" else file.absolute().parent


@contextmanager
def _open_output(file: Path) -> Iterator[IO[bytes]]:
    """Create the file, readable by its owner only. Delete it again after an error."""
    if str(file) == "-":
        yield sys.stdout.buffer
        return
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise click.ClickException(f"{file}: {error.strerror}") from None
    try:
        with os.fdopen(descriptor, "wb") as output:
            yield output
            os.fsync(output.fileno())
    except BaseException:
        file.unlink()
        raise


@contextmanager
def _open_input(file: Path) -> Iterator[IO[bytes]]:
    if str(file) == "-":
        yield sys.stdin.buffer
        return
    try:
        source = file.open("rb")
    except OSError as error:
        raise click.ClickException(f"{file}: {error.strerror}") from None
    with source:
        yield source


def _extract_data(file: Path, data: Path) -> BackupHeader:
    """Copy the data of a backup to `data`, return its header. End the command if the MAC does not match."""
    # for the owner only: on SQLite the file becomes the database
    private = partial(os.open, mode=0o600)
    with _open_input(file) as source, open(data, "xb", opener=private) as copy:
        header_line, mac_line = source.readline(MAX_LINE_SIZE), source.readline(MAX_LINE_SIZE)
        mac = _start_mac(header_line)
        for chunk in _read_chunks(source):
            mac.update(chunk)
            copy.write(chunk)
    if not hmac.compare_digest(mac.hexdigest().encode() + b"\n", mac_line):
        raise click.ClickException(
            f"{file}: not a backup of this clinic, damaged, truncated, or written with another AUDIT_KEY. "
            "Nothing was changed."
        )
    return BackupHeader(**json.loads(header_line))


def _engine_name() -> str:
    return make_url(settings().database_url).get_backend_name()


def _scripts() -> ScriptDirectory:
    return ScriptDirectory(str(schema_version.MIGRATIONS))


def _no_tables() -> click.ClickException:
    return click.ClickException("The database has no tables: there is nothing to back up.")


def _not_empty() -> click.ClickException:
    return click.ClickException("The database is not empty: restore into a new one. Nothing was changed.")


# --- SQLite --------------------------------------------------------------------------------------------


def _sqlite_path() -> Path:
    return Path(make_url(settings().database_url).database or "")


def _dump_sqlite(data: Path) -> BackupHeader:
    if not _sqlite_path().exists():
        raise _no_tables()
    made_at = clock.now().isoformat()
    with db.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("VACUUM INTO ?", (str(data),))
    with closing(sqlite3.connect(data)) as copy:
        if not copy.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (REVISION_TABLE,)).fetchone():
            raise _no_tables()
        (revision,) = copy.execute("SELECT version_num FROM alembic_version").fetchone()
    return BackupHeader("sqlite", revision, made_at)


def _load_sqlite(data: Path) -> None:
    target = _sqlite_path()
    for suffix in ("-wal", "-shm"):
        if target.with_name(target.name + suffix).exists():
            raise click.ClickException(
                f"The file {target.name}{suffix} exists. Stop the server if it runs. "
                "Otherwise the file is a rest of a deleted database: delete it too."
            )
    if target.exists():
        with closing(sqlite3.connect(target)) as connection:
            if connection.execute("SELECT 1 FROM sqlite_master").fetchone():
                raise _not_empty()
    with closing(sqlite3.connect(data)) as copy:
        result = copy.execute("PRAGMA integrity_check").fetchone()[0]
    if result != "ok":
        raise click.ClickException("The database was already damaged when the backup was written.")
    with data.open("rb") as file:
        os.fsync(file.fileno())
    os.replace(data, target)


# --- PostgreSQL ----------------------------------------------------------------------------------------


@contextmanager
def _copy_cursor(connection: Connection) -> Iterator[Any]:
    """Open a cursor for COPY whose text format does not depend on the settings of the server."""
    connection.exec_driver_sql(
        "SET LOCAL datestyle = 'ISO'; SET LOCAL timezone = 'UTC'; SET LOCAL client_encoding = 'UTF8'"
    )
    with closing(connection.connection.cursor()) as cursor:
        yield cursor


def _dump_postgresql(data: Path) -> BackupHeader:
    options = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
    with (
        gzip.open(data, "wb", compresslevel=6) as file,
        db.engine.connect().execution_options(**options) as connection,
        _copy_cursor(connection) as cursor,
    ):
        made_at = clock.now().isoformat()
        inspector = inspect(connection)
        if not inspector.has_table(REVISION_TABLE):
            raise _no_tables()
        revision = connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one()
        # Referenced tables come first. The last item has no table: it lists the cyclic foreign keys.
        for name, _keys in inspector.get_sorted_table_and_fkc_names():
            if name not in (None, REVISION_TABLE):
                columns = [column["name"] for column in inspector.get_columns(name)]
                file.write(json.dumps({"table": name, "columns": columns}).encode() + b"\n")
                cursor.copy_expert(_copy_statement("COPY {} ({}) TO STDOUT", name, columns), file)
                file.write(END_OF_TABLE)
    return BackupHeader("postgresql", revision, made_at)


def _copy_statement(template: str, name: str, columns: list[str]) -> sql.Composed:
    identifiers = sql.SQL(", ").join(map(sql.Identifier, columns))
    return sql.SQL(template).format(sql.Identifier(name), identifiers)


class _TableReader:
    """A file-like object with the rows of one table, as `copy_expert` reads it."""

    def __init__(self, file: gzip.GzipFile) -> None:
        self.file, self.at_end = file, False

    def readline(self, _size: int = -1) -> bytes:
        """Return the next row, or nothing at the end of the table."""
        row = b"" if self.at_end else self.file.readline()
        self.at_end = self.at_end or row == END_OF_TABLE
        return b"" if self.at_end else row

    def read(self, size: int = CHUNK_SIZE) -> bytes:
        """Return the next complete rows, at least `size` bytes unless the table ends."""
        rows, length = [], 0
        while length < size and (row := self.readline()):
            rows.append(row)
            length += len(row)
        return b"".join(rows)


def _load_postgresql(data: Path, header: BackupHeader) -> None:
    with db.engine.connect() as connection:
        if not _is_new(connection):
            raise _not_empty()
    if schema_version.stored_revision() not in (None, header.revision):
        raise click.ClickException("The database has another schema than the backup: restore into a new one.")
    db.session.remove()
    upgrade(revision=header.revision)
    with (
        gzip.open(data, "rb") as file,
        db.engine.begin() as connection,
        _copy_cursor(connection) as cursor,
    ):
        while line := file.readline():
            section = json.loads(line)
            name, columns = section["table"], section["columns"]
            target = name
            if name == HEADS_TABLE:  # triggers refuse deletes, so its rows are updated below
                target = "restored_heads"
                cursor.execute("CREATE TEMP TABLE restored_heads (LIKE audit_heads) ON COMMIT DROP")
            elif name in SEEDED_TABLES:
                cursor.execute(sql.SQL("DELETE FROM {}").format(sql.Identifier(name)))
            statement = _copy_statement("COPY {} ({}) FROM STDIN", target, columns)
            cursor.copy_expert(statement, _TableReader(file), CHUNK_SIZE)
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
    """Return True if no table has a row, except unchanged ones that the migrations insert."""
    for name in inspect(connection).get_table_names():
        rows = select(literal(1)).select_from(table(name)).limit(1)
        if name in SEEDED_TABLES:
            rows = rows.where(SEEDED_TABLES[name])
        if name != REVISION_TABLE and connection.execute(rows).first():
            return False
    return True
