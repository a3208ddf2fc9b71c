"""Exports of lists: the check of the path, the job that writes the file, and the response with the file.

The job reads the keys of all rows with one statement, and then the rows in small transactions. So its memory
does not grow with the list, and other requests get their turn.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from tempfile import TemporaryFile
from typing import IO, Any, TypeVar
from urllib.parse import parse_qsl, urlsplit

from flask import Response, current_app, g
from werkzeug.exceptions import HTTPException

from api.list_files import (
    ListReader,
    batches_of,
    cells_of,
    columns_of,
    digest_of,
    write_sheet,
)
from api.request_context import RequestContext
from api.response_format import MEDIA_TYPES
from column_types import MAX_INT
from enums import ExportFormat
from errors import ClinicError, invalid
from extensions import db
from models import Export
from security.permissions import Actor
from services import clock
from services.audit import audit_log
from services.exports import exports, files
from services.exports.exports import ExportTask
from services.jobs import storage
from services.jobs.transactions import transaction, with_retries
from services.spreadsheets import xlsx_files
from services.spreadsheets.csv_files import write_csv
from services.spreadsheets.file_columns import FileColumn

Result = TypeVar("Result")

OPERATION = "exports.write"
MAX_ROWS = 10_000_000
PART = 5_000  # rows that one entry of the audit log names
NO_LIST = "must be the path of a list or a search, with its query string, such as /patients?is_active=true"


# --- Request -------------------------------------------------------------------------------------------


def reader_of(path: str) -> ListReader:
    """Return the list at a path with a query string. Raise 422 for another path, and 404 as the list does."""
    try:
        parts = urlsplit(path)
        pairs = parse_qsl(parts.query, keep_blank_values=True)
        rule, arguments = current_app.url_map.bind("").match(parts.path, "GET", return_rule=True)
    except (ValueError, HTTPException):
        raise invalid("path", NO_LIST) from None
    view: Any = current_app.view_functions[rule.endpoint]
    method = view.view_class().get
    if not path.startswith("/") or parts.netloc or parts.fragment or method.spec.list_spec is None:
        raise invalid("path", NO_LIST)
    if any(name == "format" for name, _text in pairs):
        raise invalid("path", "must not contain the parameter format; it is a member of the body")
    if any(isinstance(value, int) and value > MAX_INT for value in arguments.values()):
        raise ClinicError("not_found", "There is no such row: no id is that large.")
    return ListReader(method, method.spec, dict(arguments), pairs)


def request_export(actor: Actor, *, path: str, file_format: ExportFormat) -> Export:
    """Check that the actor may read the list at the path, and add an export of it.

    Raises 422, 403 and 404 as the list itself does.
    """
    reader = reader_of(path)
    actor.require(reader.spec.permission)
    reader.read_keys(actor, 1)
    audit_log.take_reads()  # nothing was read
    return exports.request(actor, path=path, file_format=file_format)


def file_response(actor: Actor, export: Export) -> Response:
    """Return the file of an export in parts. Raise 409 without a file, and 403 if the rights have changed."""
    exports.require_file(actor, export)
    reader = reader_of(export.path)
    actor.require(reader.spec.permission)
    audit_log.record_read("read", Export.__entity__, [export.id], [])
    size = export.size or 0
    day = clock.local(export.finished_at or clock.now()).date().isoformat()
    response = Response(files.read(db.engine, export.id, size), mimetype=MEDIA_TYPES[export.format])
    response.content_length = size
    response.headers["Content-Disposition"] = (
        f'attachment; filename="{reader.list_spec.name}-{day}.{export.format}"'
    )
    return response


# --- Job -----------------------------------------------------------------------------------------------


def write(payload: dict[str, Any]) -> None:
    """Write the file of an export. A repeated job starts from the beginning."""
    export_id, claim = payload["export_id"], storage.current_claim.get()
    task = with_retries(partial(_begin, export_id, claim.job_id if claim is not None else None))
    if task is None:
        return
    try:
        while with_retries(partial(_remove_parts, export_id)):
            pass
        _Writer(task, with_retries(partial(_user_of, task))).write()
    except ClinicError as refusal:
        with_retries(partial(_fail, export_id, refusal.message))


def _begin(export_id: int, job_id: int | None) -> ExportTask | None:
    with transaction(OPERATION):
        return exports.begin(export_id, job_id)


def _remove_parts(export_id: int) -> bool:
    """Remove some parts of an earlier attempt. Return False if there are none left."""
    with transaction(OPERATION):
        return files.remove_batch(export_id)


def _user_of(task: ExportTask) -> Actor:
    with transaction(OPERATION):
        return exports.writer(task)


def _fail(export_id: int, problem: str) -> None:
    with transaction(OPERATION, finishes_job=storage.current_claim.get() is not None):
        exports.fail(export_id, problem)


@dataclass(frozen=True)
class _Part:
    """Rows that one audit entry names: no entry may name a million patients."""

    number: int
    ids: Sequence[int] = ()
    patient_ids: frozenset[int] = frozenset()
    is_recorded: bool = False

    def with_rows(self, ids: Sequence[int], patient_ids: Collection[int]) -> _Part:
        """Return the part with more rows."""
        return replace(self, ids=[*self.ids, *ids], patient_ids=self.patient_ids.union(patient_ids))


@dataclass
class _Writer:
    """One attempt to write the file of an export.

    Each step runs in a transaction, and again after an error that another transaction caused. So it changes
    no member of the writer.
    """

    task: ExportTask
    actor: Actor
    count: int = 0
    left_out: int = 0
    part: _Part = field(default_factory=lambda: _Part(1))

    def write(self) -> None:
        """Write the file, store its parts, and mark the export as ready with the last transaction."""
        reader, keys = self._run(self._read_keys)
        _check_number(len(keys), self.task.format)
        columns = columns_of(reader.serializer.out, self.actor)
        with TemporaryFile() as file:
            rows = self._rows(reader, columns, keys)
            if self.task.format is ExportFormat.CSV:
                write_csv(file, [column.heading for column in columns], rows)
            else:
                write_sheet(reader, file, columns, rows, self.task.path)
            self._store(file, reader)

    def _run(self, step: Callable[[], Result], *, finishes_job: bool = False) -> Result:
        """Run a step as the user of the export. Raise 403 if their rights have changed."""
        return with_retries(partial(self._attempt, step, finishes_job=finishes_job))

    def _attempt(self, step: Callable[[], Result], *, finishes_job: bool) -> Result:
        finishes_job = finishes_job and storage.current_claim.get() is not None
        with transaction(OPERATION, actor=self.actor, finishes_job=finishes_job):
            exports.writer(self.task)
            return step()

    def _read_keys(self) -> tuple[ListReader, Sequence[int]]:
        with _as_request(self.actor, self.task):
            reader = reader_of(self.task.path)
            self.actor.require(reader.spec.permission)
            keys = reader.read_keys(self.actor, MAX_ROWS + 1)
            audit_log.take_reads()
        return reader, keys

    def _rows(
        self, reader: ListReader, columns: Sequence[FileColumn], keys: Sequence[int]
    ) -> Iterator[list[Any]]:
        processed = 0
        for batch in batches_of(keys):
            processed += len(batch)
            is_last = processed == len(keys)
            content, part = self._run(partial(self._read_batch, reader, batch, is_last=is_last))
            self.count += len(part.ids) - len(self.part.ids)
            self.part = _Part(self.part.number + 1) if part.is_recorded else part
            yield from cells_of(columns, content)
        self.left_out = len(keys) - self.count

    def _read_batch(self, reader: ListReader, batch: Sequence[int], *, is_last: bool) -> tuple[bytes, _Part]:
        """Return rows, and the present part with them. Add an audit entry if the part is complete."""
        with _as_request(self.actor, self.task):
            content, ids, patient_ids = reader.read_rows(self.actor, batch)
        part = self.part.with_rows(ids, patient_ids)
        if len(part.ids) >= PART and not is_last:
            facts = [f"export={self.task.id}", f"part={part.number}"]
            detail = f"part of export {self.task.id}"
            audit_log.record_export(reader.entity, part.ids, part.patient_ids, facts, detail)
            part = replace(part, is_recorded=True)
        return content, part

    def _store(self, file: IO[bytes], reader: ListReader) -> None:
        size = file.seek(0, 2)
        file.seek(0)
        digest = digest_of(file)
        self._run(partial(files.require_space, size))
        for number, content in enumerate(iter(lambda: file.read(files.CHUNK_SIZE), b"")):
            self._run(partial(files.store, self.task.id, number, content))
        self._run(partial(self._finish, reader, size, digest), finishes_job=True)

    def _finish(self, reader: ListReader, size: int, digest: str) -> None:
        exports.finish(self.task.id, count=self.count, left_out=self.left_out, size=size, digest=digest)
        facts = [
            f"export={self.task.id}",
            f"rows={self.count}",
            f"left_out={self.left_out}",
            f"format={self.task.format}",
            *reader.filters(),
        ]
        detail = f"sha256:{digest}"
        audit_log.record_export(reader.entity, self.part.ids, self.part.patient_ids, facts, detail)


@contextmanager
def _as_request(actor: Actor, task: ExportTask) -> Iterator[None]:
    """Run the block as in a request of the actor for the path: the endpoints of lists need one."""
    with current_app.test_request_context(task.path):
        g.context = RequestContext(
            request_id=f"export-{task.id}", started=0.0, address="", network=actor.network, actor=actor
        )
        try:
            yield
        finally:
            g.pop("context")  # it belongs to the thread of the worker


def _check_number(rows: int, file_format: ExportFormat) -> None:
    """Raise 422 if a file cannot hold so many rows."""
    if file_format is ExportFormat.XLSX and rows > xlsx_files.MAX_ROWS:
        message = f"A sheet holds at most {xlsx_files.MAX_ROWS:,} rows. Use the format csv, or add a filter."
        raise ClinicError("too_many_rows", message)
    if rows > MAX_ROWS:
        raise ClinicError("too_many_rows", f"A file holds at most {MAX_ROWS:,} rows. Add a filter.")
