"""Imports: upload, mapping, and the requests to run, apply, undo or delete them."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import PurePath
from typing import Any, TypedDict, Unpack

from sqlalchemy import delete, select

from enums import ImportState, ImportSubject, OnDuplicate, OnError
from errors import ClinicError
from extensions import db
from models import Import, ImportedRow, ImportFile
from security.permissions import Actor
from services import clock
from services.audit import audit_log
from services.imports import undo as import_undo
from services.imports.content import (
    ImportPlan,
    ReadFile,
    as_text,
    check_file,
    file_removed,
    kind_of,
    parse,
    plan_of,
    source_key,
)
from services.imports.rows import versions_of
from services.jobs import queue
from services.listing import paging
from services.listing.spec import Condition, ListQuery, ListSpec, Page
from services.rows import assign, changed_members, get_or_404
from services.spreadsheets.delimited import named_delimiter
from services.spreadsheets.mapping import check_mapping, propose_mapping
from services.spreadsheets.reading import SourceTable

SAMPLE_ROWS = 5
MAX_LISTED = 20  # rows in a 409 response
MAX_FILE_NAME = 200
# The kinds of the jobs; their payload is the id of the import.
DRY_RUN, APPLY, UNDO = "imports.dry_run", "imports.apply", "imports.undo"
OPEN = (ImportState.UPLOADED, ImportState.CHECKED)  # nothing was applied yet
RUNNING = (ImportState.CHECKING, ImportState.APPLYING, ImportState.UNDOING)
COUNTS = ("ready", "applied", "skipped", "refused", "undone")

LIST: ListSpec[Import] = ListSpec(
    name="imports",
    model=Import,
    area="import",
    main_date="created_at",
    newest_first=True,
    omit=frozenset({"header", "mapping", "other_sheets", "version"}),
    excluded={
        "progress": "it is computed from the counts",
        "has_file": "it is read from another table",
    },
)
ROWS: ListSpec[ImportedRow] = ListSpec(
    name="rows",
    model=ImportedRow,
    area="import",
    omit=frozenset({"previous", "problems", "version"}),
)


class Options(TypedDict, total=False):
    """The options of an import: the format of the file, and the treatment of duplicates and errors."""

    encoding: str | None
    delimiter: str | None
    date_format: str | None
    decimal: str | None
    on_duplicate: OnDuplicate
    on_error: OnError


def get(_actor: Actor, import_id: int, *, lock: bool = False) -> Import:
    """Return the import, or raise 404."""
    return get_or_404(Import, import_id, lock=lock)


def find(actor: Actor, query: ListQuery) -> Page[Import]:
    """Return one page of imports."""
    return paging.page(actor, LIST, query)


def find_rows(actor: Actor, row: Import, query: ListQuery) -> Page[ImportedRow]:
    """Return one page of the rows of an import."""
    query.conditions.append(Condition("import_id", "eq", row.id))
    return paging.page(actor, ROWS, query)


def add_computed_fields(_actor: Actor, rows: Sequence[Import]) -> None:
    """Set the progress, and whether the file is still stored, with one query."""
    ids = [row.id for row in rows]
    stored = set(db.session.scalars(select(ImportFile.import_id).where(ImportFile.import_id.in_(ids))))
    for row in rows:
        row.has_file = row.id in stored
        row.progress = _progress(row)


def add_details(actor: Actor, rows: Sequence[Import]) -> None:
    """Set the members of one import: the columns of its kind, and the first rows of the file."""
    add_computed_fields(actor, rows)
    for row in rows:
        row.columns = [
            {
                "name": column.name,
                "type": column.type,
                "required": column.required,
                "values": list(column.values),
            }
            for column in kind_of(row.kind).all_columns
        ]
        row.sample = db.session.scalar(select(ImportFile.sample).where(ImportFile.import_id == row.id)) or []


def _progress(row: Import) -> int:
    """Return the progress of the current or last run in percent."""
    processed = {
        ImportState.UPLOADED: 0,
        ImportState.CHECKING: row.ready + row.skipped + row.refused,
        ImportState.APPLYING: row.rows - row.ready,
        ImportState.UNDOING: row.rows - row.applied,
    }.get(row.state, row.rows)
    return 100 * processed // row.rows if row.rows else 100


# --- Upload and mapping --------------------------------------------------------------------------------


def upload(
    actor: Actor,
    *,
    kind: ImportSubject,
    source: str,
    file_name: str,
    content: bytes,
    file: ReadFile,
    mapping: Mapping[str, str] | None = None,
    **options: Unpack[Options],
) -> Import:
    """Store a file to import, with the given mapping or a proposed one. `file` was read with the options.

    Raises 422 for a wrong mapping.
    """
    row = Import(
        kind=kind,
        source=source_key(source),
        file_name=clean_file_name(file_name),
        sha256=hashlib.sha256(content).hexdigest(),
        state=ImportState.UPLOADED,
        created_by_id=actor.user_id,
        **options,
    )
    row.encoding, row.delimiter = file.encoding, file.delimiter
    _set_table(row, file.table)
    row.mapping = _checked_mapping(row, mapping)
    db.session.add(row)
    db.session.flush()
    db.session.add(ImportFile(import_id=row.id, content=content, sample=_sample(plan_of(row), file.table)))
    db.session.flush()
    return row


def update(
    row: Import,
    file: ReadFile | None,
    *,
    mapping: Mapping[str, str] | None = None,
    **options: Unpack[Options],
) -> Import:
    """Change the mapping or the options. The last dry run no longer counts.

    `file` is the file, read with the new options. Without a mapping, a new one is proposed if the columns of
    the file are read differently. Raises 409 `invalid_transition` if the import runs or was applied.
    """
    _require(row, *OPEN)
    if "delimiter" in options:
        options["delimiter"] = named_delimiter(options["delimiter"])
    changes = changed_members(row, options)
    if mapping is None and not changes:
        return row
    assign(row, changes)
    if file is None:
        raise file_removed()
    if (file.encoding, file.delimiter) != (row.encoding, row.delimiter):
        raise ClinicError("conflict", "Another user has changed the import. Read it again.")
    table = file.table
    keeps_columns = list(table.header) == row.header
    _set_table(row, table)
    row.mapping = _checked_mapping(row, mapping or (row.mapping if keeps_columns else None))
    stored = db.session.get_one(ImportFile, row.id)
    stored.sample = _sample(plan_of(row), table)
    _reset(row)
    return row


def _reset(row: Import) -> None:
    db.session.execute(delete(ImportedRow).where(ImportedRow.import_id == row.id))
    assign(row, dict.fromkeys(COUNTS, 0))
    row.state, row.digest, row.checked_at = ImportState.UPLOADED, None, None


def _set_table(row: Import, table: SourceTable) -> None:
    row.header, row.rows, row.blank = list(table.header), len(table.rows), table.blank_rows
    row.title_rows, row.sheet, row.other_sheets = table.title_rows, table.sheet, list(table.other_sheets)


def _checked_mapping(row: Import, mapping: Mapping[str, str] | None) -> dict[str, str]:
    columns = kind_of(row.kind).all_columns
    if mapping is None:
        return propose_mapping(row.header, columns)
    check_mapping(mapping, row.header, columns)
    return dict(mapping)


def _sample(plan: ImportPlan, table: SourceTable) -> list[dict[str, Any]]:
    """Return the first rows: their cells as text, and the members and problems that the mapping gives."""
    sample = []
    for row in itertools.islice(table.rows, SAMPLE_ROWS):
        parsed = parse(plan, row)
        sample.append(
            {
                "number": row.number,
                "cells": [as_text(cell) for cell in row.cells],
                "members": {name: _as_json(value) for name, value in parsed.members.items()},
                "problems": {name: problem.message for name, problem in parsed.problems.items()},
            }
        )
    return sample


def _as_json(value: Any) -> Any:
    return format(value, "f") if isinstance(value, Decimal) else value


def clean_file_name(name: str) -> str:
    """Return the last part of a file name, without characters that a terminal or a header could act on."""
    last = PurePath(name.replace("\\", "/")).name
    printable = "".join(c for c in last if c.isprintable())[:MAX_FILE_NAME].strip()
    return printable if printable.strip(".") else "file"


# --- Runs ----------------------------------------------------------------------------------------------


def request_dry_run(row: Import) -> Import:
    """Start a dry run. Raises 409 `conflict` if the import runs or was applied, 422 for a wrong mapping."""
    _require(row, *OPEN)
    check_mapping(row.mapping, row.header, kind_of(row.kind).all_columns)
    check_file(row.id)
    _reset(row)
    return _start(row, ImportState.CHECKING, DRY_RUN)


def request_apply(row: Import, digest: str) -> Import:
    """Start applying what the dry run with this digest has found.

    Raises 409 `conflict` if there is no such dry run, or if rows that it would change have changed since.
    With `on_error` none, it also raises 409 if the dry run has refused rows.
    """
    _require(row, ImportState.CHECKED)
    if digest != row.digest:
        raise ClinicError("conflict", "The import has changed since this dry run. Run it again.")
    if row.on_error is OnError.NONE and row.refused:
        message = f"{row.refused} rows are refused. Correct the file, or set on_error to skip."
        raise ClinicError("conflict", message)
    check_file(row.id)
    changed = _changed_rows(row)
    if changed:
        raise ClinicError(
            "conflict",
            "Rows have changed since the dry run. Run it again.",
            rows=changed[:MAX_LISTED],
            total=len(changed),
        )
    return _start(row, ImportState.APPLYING, APPLY)


def _changed_rows(row: Import) -> list[int]:
    """Return the numbers of the rows whose record has changed since the dry run."""
    kind, last, changed = kind_of(row.kind), 0, []
    statement = select(ImportedRow.number, ImportedRow.entity_id, ImportedRow.version).where(
        ImportedRow.import_id == row.id, ImportedRow.version.is_not(None)
    )
    order = statement.order_by(ImportedRow.number).limit(1_000)
    while planned := db.session.execute(order.where(ImportedRow.number > last)).all():
        versions = versions_of(kind, {each.entity_id for each in planned})
        changed += [each.number for each in planned if versions.get(each.entity_id) != each.version]
        last = planned[-1].number
    return changed


def request_undo(row: Import) -> Import:
    """Start the undo of an applied import.

    Raises 409 `conflict` after 7 days, and if a row was changed or used since. The error names the rows.
    """
    _require(row, ImportState.APPLIED)
    if row.applied_at is None or row.applied_at < clock.now() - import_undo.UNDO_DAYS:
        raise ClinicError("conflict", "An import can be undone for 7 days.")
    touched = list(itertools.islice(import_undo.find_touched(plan_of(row)), MAX_LISTED))
    if touched:
        entity = kind_of(row.kind).entity
        raise ClinicError(
            "conflict",
            "Rows were changed or used since the import. It cannot be undone.",
            rows=[{"number": each.number, "entity": entity, "id": each.entity_id} for each in touched],
        )
    return _start(row, ImportState.UNDOING, UNDO)


def _start(row: Import, state: ImportState, kind: str) -> Import:
    row.state, row.failure = state, None
    job = queue.enqueue(kind, {"import_id": row.id})
    row.job_id = job.id if job is not None else None
    audit_log.set_action(row, kind.partition(".")[2])
    return row


def remove(row: Import) -> Import:
    """Delete an import that was never applied, with its file. Raises 409 `conflict` for another one."""
    _require(row, *OPEN)
    for model in (ImportedRow, ImportFile):
        db.session.execute(delete(model).where(model.import_id == row.id))
    db.session.delete(row)
    db.session.flush()
    return row


def _require(row: Import, *states: ImportState) -> None:
    """Raise 409 `invalid_transition` unless the import is in one of the states."""
    if row.state in RUNNING:
        raise ClinicError("invalid_transition", f"The import is {row.state}. Wait until it ends.", allowed=[])
    if row.state not in states:
        allowed = " or ".join(states)
        message = f"The import is {row.state}. This is possible only while it is {allowed}."
        raise ClinicError("invalid_transition", message, allowed=list(states))
