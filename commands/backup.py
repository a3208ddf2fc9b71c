"""`flask backup`: write the database to one encrypted file, check the file, restore it.

The file is encrypted under `BACKUP_KEY` (`security.encrypted_file`). It contains a JSON header line and the
data. On SQLite the data is a copy of the database file. On PostgreSQL it is the output of COPY for every
table, compressed with gzip. The schema is not included: the migrations create it on any server version.

Files of earlier versions have no encryption, but a MAC under `AUDIT_KEY` in a line after the header. They can
still be restored. A truncated, changed or forged file of both kinds is refused before the database is opened.
"""

from __future__ import annotations

import gzip
import hmac
import io
import json
import os
import shutil
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
from sqlalchemy import Connection, Engine, column, inspect, literal, select, table, text
from sqlalchemy.engine import make_url

from commands.terminal import record_time
from config import settings
from database.roles import owner_engine
from extensions import db
from security import encrypted_file
from security.encrypted_file import EncryptedFileError
from security.key_rings import ring
from services import clock, schema_version

backup = AppGroup("backup", help="Write the database to an encrypted file, check a file, restore a file.")
FILE = click.Path(dir_okay=False, allow_dash=True, path_type=Path)

CHUNK_SIZE = 1 << 20  # bytes
MAX_LINE_SIZE = 1_000  # bytes of a header line, and of the MAC line of earlier versions
END_OF_TABLE = b"\\.\n"  # COPY never writes such a row
REVISION_TABLE = "alembic_version"
HEADS_TABLE = "audit_heads"
# Tables with rows in a new database, which a migration inserts, and the condition of rows in use.
SEEDED_TABLES = {
    HEADS_TABLE: column("number") > 0,
    "clinic_record": column("version") > 1,
    "clinic_record_versions": column("id") > 1,
    "message_settings": column("version") > 1,
}
# Tables whose rows a backup does not contain, and a restore leaves out. Referring tables come first.
# Files are of use for a day only. A session that ended after the backup must not become valid again.
TRANSIENT_TABLES = ("export_chunks", "exports", "factor_challenges", "password_resets", "user_sessions")


@dataclass(frozen=True)
class BackupHeader:
    """The first line of the content of a backup."""

    engine: str  # sqlite or postgresql
    revision: str  # schema revision of Alembic
    made_at: str  # RFC 3339, UTC


@backup.command("create")
@click.argument("file", type=FILE)
def create(file: Path) -> None:
    """Write a backup to FILE, which must not exist. "-" is standard output.

    The backup is one consistent state of the database. The application may run meanwhile. The file is
    encrypted under BACKUP_KEY: without this key nobody can restore it. Keep the key in another place.
    """
    with _open_output(file) as output:
        with encrypted_file.writer(output) as content:
            header = _dump_sqlite(content) if _engine_name() == "sqlite" else _dump_postgresql(content)
        output.flush()
    record_time(settings().last_backup_file)
    click.echo(f"written: {header.engine}, schema {header.revision}, {header.made_at}", err=True)


@backup.command("check")
@click.argument("file", type=FILE)
def check(file: Path) -> None:
    """Check that FILE is a complete backup of this clinic. "-" is standard input. Otherwise exit with 1."""
    with _open_input(file) as source:
        header = _verify(file, source)
    click.echo(f"complete: {header.engine}, schema {header.revision}, {header.made_at}")


@backup.command("restore")
@click.argument("file", type=FILE)
def restore(file: Path) -> None:
    """Restore the backup in FILE into the empty database of the settings. "-" is standard input.

    Stop the server first. Changes nothing and exits with 1 if the file is damaged, or if its key is neither
    BACKUP_KEY nor an earlier key. The same applies to a file from another engine or a newer schema, and to a
    database with rows.
    """
    engine_name = _engine_name()
    # A SQLite file is moved into place at the end, which needs the same file system.
    parent = _sqlite_path().parent if engine_name == "sqlite" else _temporary_parent(file)
    with tempfile.TemporaryDirectory(dir=parent) as folder:
        copied = Path(folder, "backup")  # FILE may change between check and restore
        with _open_input(file) as source, copied.open("xb") as copy:
            shutil.copyfileobj(source, copy, CHUNK_SIZE)
        with copied.open("rb") as source:
            header = _verify(file, source)
            source.seek(0)
            _check_target(header, engine_name)
            _, data = _read(source)
            if engine_name == "sqlite":
                _load_sqlite(data, Path(folder, "database"))
            else:
                _load_postgresql(data, header)
    click.echo(f"restored: backup of {header.made_at}")
    if header.revision != schema_version.expected_revision():
        click.echo("next: flask db upgrade")
    click.echo("next: flask verify && flask audit restored --reason '...' && flask audit verify")


def _check_target(header: BackupHeader, engine_name: str) -> None:
    """End the command if the backup is of another engine or has a newer schema."""
    revisions = {script.revision for script in _scripts().walk_revisions()}
    if header.engine != engine_name:
        raise click.ClickException(f"This is a backup of {header.engine}, but the database is {engine_name}.")
    if header.revision not in revisions:
        raise click.ClickException("The backup has a newer schema than this version of the application.")


# --- The file ------------------------------------------------------------------------------------------


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


class _SignedReader(io.RawIOBase):
    """The data of a backup of an earlier version. Its end is refused if no key of the ring made the MAC."""

    def __init__(self, header_line: bytes, source: IO[bytes]) -> None:
        self.mac, self.source = source.readline(MAX_LINE_SIZE), source
        start = b"backup\n" + header_line
        self.macs = [hmac.new(key.secret, start, "sha256") for key in ring("AUDIT_KEY").keys]

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read bytes of the data."""
        chunk = self.source.read(len(buffer))
        buffer[: len(chunk)] = chunk
        for mac in self.macs:
            mac.update(chunk)
        if not chunk and not any(self._is_mac(mac) for mac in self.macs):
            raise EncryptedFileError("damaged, truncated, or written under an unknown AUDIT_KEY")
        return len(chunk)

    def _is_mac(self, mac: hmac.HMAC) -> bool:
        return hmac.compare_digest(mac.hexdigest().encode() + b"\n", self.mac)


def _read(source: IO[bytes]) -> tuple[BackupHeader, IO[bytes]]:
    """Return the header and the data of a backup. The data is verified while it is read to its end.

    Raise `EncryptedFileError` for a file that is not a valid backup.
    """
    line = header_line = source.readline(MAX_LINE_SIZE)
    if encrypted_file.key_id(line) is not None:
        data = encrypted_file.reader(line, source)
        header_line = data.readline(MAX_LINE_SIZE)
    else:
        data = io.BufferedReader(_SignedReader(line, source), CHUNK_SIZE)
    try:
        return BackupHeader(**json.loads(header_line)), data
    except (ValueError, TypeError, RecursionError):
        raise EncryptedFileError("not a backup, or damaged") from None


def _verify(file: Path, source: IO[bytes]) -> BackupHeader:
    """Read a backup to its end and return its header. End the command if it is not valid."""
    try:
        header, data = _read(source)
        while data.read(CHUNK_SIZE):
            pass
    except EncryptedFileError as error:
        raise click.ClickException(f"{file}: {error}. Nothing was changed.") from None
    return header


def _write_header(content: IO[bytes], header: BackupHeader) -> None:
    content.write(json.dumps(asdict(header)).encode() + b"\n")


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


def _dump_sqlite(content: IO[bytes]) -> BackupHeader:
    if not _sqlite_path().exists():
        raise _no_tables()
    # beside the database, because the copy is not encrypted
    with tempfile.TemporaryDirectory(dir=_sqlite_path().parent) as folder:
        copied = Path(folder, "copy")
        made_at = clock.now().isoformat()
        with db.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql("VACUUM INTO ?", (str(copied),))
        with closing(sqlite3.connect(copied)) as copy:
            _remove_transient_rows(copy)
            if not copy.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (REVISION_TABLE,)).fetchone():
                raise _no_tables()
            (revision,) = copy.execute("SELECT version_num FROM alembic_version").fetchone()
        header = BackupHeader("sqlite", revision, made_at)
        _write_header(content, header)
        with copied.open("rb") as source:
            shutil.copyfileobj(source, content, CHUNK_SIZE)
    return header


def _remove_transient_rows(copy: sqlite3.Connection) -> None:
    """Remove the rows of `TRANSIENT_TABLES`, and their content from the file."""
    tables = {name for (name,) in copy.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    removed = 0
    for name in TRANSIENT_TABLES:
        if name in tables:
            removed += copy.execute(f"DELETE FROM {name}").rowcount  # noqa: S608 - a constant
    copy.commit()
    if removed:
        copy.execute("VACUUM")


def _load_sqlite(data: IO[bytes], database: Path) -> None:
    target = _sqlite_path()
    for suffix in ("-wal", "-shm"):
        if target.with_name(target.name + suffix).exists():
            raise click.ClickException(
                f"The file {target.name}{suffix} exists. Stop the server if it runs. "
                "Otherwise the file belonged to a deleted database: delete it too."
            )
    if target.exists():
        with closing(sqlite3.connect(target)) as connection:
            if connection.execute("SELECT 1 FROM sqlite_master").fetchone():
                raise _not_empty()
    # for the owner only: the file becomes the database
    with open(database, "xb", opener=partial(os.open, mode=0o600)) as file:
        shutil.copyfileobj(data, file, CHUNK_SIZE)
        file.flush()
        os.fsync(file.fileno())
    with closing(sqlite3.connect(database)) as copy:
        if copy.execute("PRAGMA integrity_check").fetchone()[0] != "ok":
            raise click.ClickException("The database was already damaged when the backup was written.")
        _remove_transient_rows(copy)  # backups of earlier versions have them
    os.replace(database, target)


# --- PostgreSQL ----------------------------------------------------------------------------------------


@contextmanager
def _copy_cursor(connection: Connection) -> Iterator[Any]:
    """Open a cursor for COPY whose text format does not depend on the settings of the server."""
    connection.exec_driver_sql(
        "SET LOCAL datestyle = 'ISO'; SET LOCAL timezone = 'UTC'; SET LOCAL client_encoding = 'UTF8'"
    )
    with closing(connection.connection.cursor()) as cursor:
        yield cursor


def _dump_postgresql(content: IO[bytes]) -> BackupHeader:
    options = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
    with (
        db.engine.connect().execution_options(**options) as connection,
        _copy_cursor(connection) as cursor,
    ):
        made_at = clock.now().isoformat()
        inspector = inspect(connection)
        if not inspector.has_table(REVISION_TABLE):
            raise _no_tables()
        revision = connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one()
        header = BackupHeader("postgresql", revision, made_at)
        _write_header(content, header)
        with gzip.GzipFile(fileobj=content, mode="wb", compresslevel=6) as file:
            # Referenced tables come first. The last item has no table: it lists the cyclic foreign keys.
            for name, _keys in inspector.get_sorted_table_and_fkc_names():
                if name not in (None, REVISION_TABLE, *TRANSIENT_TABLES):
                    columns = [column["name"] for column in inspector.get_columns(name)]
                    file.write(json.dumps({"table": name, "columns": columns}).encode() + b"\n")
                    cursor.copy_expert(_copy_statement("COPY {} ({}) TO STDOUT", name, columns), file)
                    file.write(END_OF_TABLE)
    return header


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

    def skip(self) -> None:
        """Read to the end of the table."""
        while self.readline():
            pass

    def read(self, size: int = CHUNK_SIZE) -> bytes:
        """Return the next complete rows, at least `size` bytes unless the table ends."""
        rows, length = [], 0
        while length < size and (row := self.readline()):
            rows.append(row)
            length += len(row)
        return b"".join(rows)


def _load_postgresql(data: IO[bytes], header: BackupHeader) -> None:
    with owner_engine(db.engine) as engine:
        _load_as_owner(engine, data, header)


def _load_as_owner(engine: Engine, data: IO[bytes], header: BackupHeader) -> None:
    with engine.connect() as connection:
        if not _is_new(connection):
            raise _not_empty()
    if schema_version.stored_revision() not in (None, header.revision):
        raise click.ClickException("The database has another schema than the backup: restore into a new one.")
    db.session.remove()
    upgrade(revision=header.revision)
    with (
        gzip.GzipFile(fileobj=data, mode="rb") as file,
        engine.begin() as connection,
        _copy_cursor(connection) as cursor,
    ):
        while line := file.readline():
            section = json.loads(line)
            name, columns = section["table"], section["columns"]
            if name in TRANSIENT_TABLES:  # in a backup of an earlier version
                _TableReader(file).skip()
                continue
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
