"""The rows of an imported file, read by the mapping and the options of the import."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

from sqlalchemy import select

from column_types import unique_key
from config import settings
from enums import ImportSubject, OnDuplicate
from errors import ClinicError
from extensions import db
from models import Import, ImportFile
from services.imports.kinds import KINDS, SOURCE_ID, ImportKind, ImportRow
from services.rows import read_outside_transaction
from services.spreadsheets.delimited import named_delimiter
from services.spreadsheets.reading import SourceRow, SourceTable, read_table
from services.spreadsheets.row_values import ParsedRow, parse_row
from services.spreadsheets.values import ValueOptions

Problem = dict[str, str]  # field, code, message
MAX_SOURCE_ID = 200  # characters


@dataclass(frozen=True)
class ImportPlan:
    """The values of an import that decide how its rows are read and applied."""

    import_id: int
    kind: ImportKind
    source: str
    header: tuple[str, ...]
    mapping: Mapping[str, str]
    options: ValueOptions
    on_duplicate: OnDuplicate

    @property
    def operation(self) -> str:
        """Return the name of the import in the audit log."""
        return f"import {self.import_id}"


@dataclass(frozen=True)
class FileRow:
    """A row of the file as it was read: the row for a service, or the problems that refuse it.

    `notes` are problems that do not refuse the row, such as a restored phone number.
    """

    number: int
    source_id: str
    row: ImportRow | None
    problems: tuple[Problem, ...] = ()
    notes: tuple[Problem, ...] = ()


def problem_of(field: str | None, code: str, message: str) -> Problem:
    """Return a problem of a row. Without a member, it is a problem of the whole row."""
    return {"field": field or "row", "code": code, "message": message}


def problems_of(refusal: ClinicError) -> tuple[Problem, ...]:
    """Return the problems of a row that a service or a schema has refused."""
    if not refusal.errors:
        return (problem_of(None, refusal.code, refusal.message),)
    return tuple(problem_of(field, refusal.code, text) for field, text in refusal.errors.items())


def kind_of(name: ImportSubject) -> ImportKind:
    """Return a kind of import, or raise 422 for one that this version does not have."""
    if name not in KINDS:
        raise ClinicError("validation_failed", f"kind: {name} cannot be imported yet.")
    return KINDS[name]


def plan_of(row: Import) -> ImportPlan:
    """Return the plan of a stored import."""
    server = settings()
    return ImportPlan(
        import_id=row.id,
        kind=kind_of(row.kind),
        source=row.source,
        header=tuple(row.header),
        mapping=dict(row.mapping),
        options=ValueOptions(
            row.date_format, row.decimal, server.default_phone_region, server.zone, server.currency
        ),
        on_duplicate=row.on_duplicate,
    )


@dataclass(frozen=True)
class ReadFile:
    """A file that was read, and the options with which it was read."""

    encoding: str | None
    delimiter: str | None
    table: SourceTable


def read_file(content: bytes, file_name: str, encoding: str | None, delimiter: str | None) -> ReadFile:
    """Return the table of a file. It can take seconds: call it without a transaction."""
    delimiter = named_delimiter(delimiter)
    table = read_table(content, file_name=file_name, encoding=encoding, delimiter=delimiter)
    return ReadFile(encoding, delimiter, table)


def read_stored(import_id: int, **options: str | None) -> ReadFile | None:
    """Return the table of the stored file, or None if it was removed. No transaction may be open.

    `options` replace the encoding or the delimiter of the import.
    """
    row = read_outside_transaction(
        select(Import.file_name, Import.encoding, Import.delimiter, ImportFile.content)
        .join(ImportFile, ImportFile.import_id == Import.id)
        .where(Import.id == import_id)
    )
    if row is None:
        return None
    given = {"encoding": row.encoding, "delimiter": row.delimiter} | options
    return read_file(row.content, row.file_name, given["encoding"], given["delimiter"])


def check_file(import_id: int) -> None:
    """Raise 409 `conflict` if the file of the import was removed."""
    if db.session.scalar(select(ImportFile.import_id).where(ImportFile.import_id == import_id)) is None:
        raise file_removed()


def file_removed() -> ClinicError:
    """Return the 409 for an import whose file was removed."""
    return ClinicError("conflict", "The file of this import was removed. Upload it again.")


def parse(plan: ImportPlan, row: SourceRow) -> ParsedRow:
    """Return the members of a row of the file, of the mapped columns only, as JSON would have them."""
    parsed = parse_row(
        row,
        header=plan.header,
        mapping=plan.mapping,
        columns=plan.kind.all_columns,
        options=plan.options,
    )
    for name, value in parsed.members.items():
        if isinstance(value, Decimal):
            parsed.members[name] = format(value, "f")
    return parsed


def read_row(plan: ImportPlan, row: SourceRow) -> FileRow:
    """Return a row of the file for a service. It has problems if it cannot be read or is not valid."""
    parsed = parse(plan, row)
    source_id = parsed.members.pop(SOURCE_ID.name, None)
    file_row = FileRow(row.number, source_id or content_id(row), None)
    notes = tuple(problem_of(member, flag, flag.replace("_", " ")) for member, flag in parsed.flags.items())
    problems = tuple(
        problem_of(member, problem.code, problem.message) for member, problem in parsed.problems.items()
    )
    if source_id is not None and len(source_id) > MAX_SOURCE_ID:
        message = f"use at most {MAX_SOURCE_ID} characters"
        problems += (problem_of(SOURCE_ID.name, "validation_failed", message),)
    if problems:
        return replace(file_row, problems=problems)
    members = {name: value for name, value in parsed.members.items() if value is not None}
    try:
        values = plan.kind.validate(members)
    except ClinicError as refusal:
        return replace(file_row, problems=problems_of(refusal))
    texts = tuple(f"{note['field']}: {note['message']}" for note in notes)
    return replace(file_row, row=ImportRow(plan.source, values, frozenset(members), texts), notes=notes)


def content_id(row: SourceRow) -> str:
    """Return the id of a row without a source id: the digest of its cells.

    It makes a second run of the same file change nothing. Two equal rows of a file are one row.
    """
    cells = "\x1f".join("" if cell is None else str(cell) for cell in row.cells)
    return f"row:{hashlib.sha256(cells.encode()).hexdigest()}"


def source_key(source: str) -> str:
    """Return the name of a source in the form in which it is compared."""
    return unique_key(source)


def as_text(value: Any) -> str:
    """Return a cell as text, for the sample and the report."""
    return "" if value is None else str(value)
