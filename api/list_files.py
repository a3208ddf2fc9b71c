"""Lists as CSV and XLSX files: all rows that the filters select, with the fields that the role may read.

The keys of the rows are read first, and then the rows in small transactions: on SQLite no other request can
write during a transaction. The file is written after them, and is sent after a transaction with the audit
entry.
"""

from __future__ import annotations

import hashlib
import json
import types
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from decimal import Decimal
from functools import lru_cache
from tempfile import SpooledTemporaryFile, TemporaryFile
from typing import IO, Annotated, Any, Literal, Union, get_args, get_origin

from flask import Response
from pydantic import BaseModel
from werkzeug.wsgi import FileWrapper

from api import calendar_range, list_query, serialization
from api.endpoint import EndpointSpec
from api.request_context import RequestContext
from api.response_format import MEDIA_TYPES
from api.serialization import EndpointResult, Serializer
from config import settings
from errors import ClinicError
from extensions import db
from models import Base
from schemas.fields import BirthDateOut, format_instant
from security.permissions import Actor, hidden
from services import clock
from services.audit import audit_log
from services.listing.spec import Kind, ListQuery, ListSpec, Page
from services.spreadsheets.csv_files import write_csv
from services.spreadsheets.file_columns import CellKind, FileColumn
from services.spreadsheets.xlsx_files import write_xlsx

MAX_ROWS = 20_000  # of a response; a job writes more
BATCH = 500  # rows that are read at once
IN_MEMORY = 4_000_000  # bytes of rows; more are kept in a temporary file
HIDDEN_TEXT = "(text)"  # a filter by a text may name a patient, and audit entries contain no such values

ORDER = ("sort_by", "sort_order", "sort", "_sort", "_order")

Pairs = list[tuple[str, str]]


# --- Columns -------------------------------------------------------------------------------------------


def columns_of(out: type[BaseModel], actor: Actor) -> list[FileColumn]:
    """Return the columns of a file of these rows, without the fields that the role may not read.

    A field that is hidden in some rows only is empty there. `id` is the first column. A member of a nested
    object that the row also has itself, such as `patient.name` and `patient_name`, has one column.
    """
    columns = [
        FileColumn(path, kind)
        for path, kind, guards in _all_columns(out)
        if not any(name in _hidden_everywhere(area, actor) for area, name in guards)
    ]
    headings = {column.heading for column in columns}
    unique = [column for column in columns if len(column.path) == 1 or "_".join(column.path) not in headings]
    return sorted(unique, key=lambda column: column.path != ("id",))


def _hidden_everywhere(area: str, actor: Actor) -> frozenset[str]:
    return hidden(area, actor.role, emergency=bool(actor.emergency_patients))


_Column = tuple[tuple[str, ...], CellKind, tuple[tuple[str, str], ...]]


@lru_cache
def _all_columns(out: type[BaseModel]) -> tuple[_Column, ...]:
    """Return path and kind of every column, with the areas and the names of the fields that it shows."""
    columns: list[_Column] = []
    area: str = getattr(out, "area", "")
    annotations = {name: info.rebuild_annotation() for name, info in out.model_fields.items()}
    annotations |= {name: info.return_type for name, info in out.model_computed_fields.items()}
    for name, nullable in annotations.items():
        annotation = _without_null(nullable)
        guard = (area, name)
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            columns += [
                ((name, *path), kind, (guard, *guards)) for path, kind, guards in _all_columns(annotation)
            ]
        else:
            columns.append(((name,), _kind_of(annotation), (guard,)))
    return tuple(columns)


def _without_null(annotation: Any) -> Any:
    if get_origin(annotation) in (Union, types.UnionType):
        parts = [part for part in get_args(annotation) if part is not type(None)]
        return _without_null(parts[0]) if len(parts) == 1 else annotation
    return annotation


def _kind_of(annotation: Any) -> CellKind:
    if annotation == BirthDateOut:
        return CellKind.DAY
    if get_origin(annotation) is Annotated:
        return _kind_of(get_args(annotation)[0])
    if get_origin(annotation) is Literal:
        return CellKind.TEXT
    if not isinstance(annotation, type) or issubclass(annotation, (list, dict)):
        return CellKind.JSON
    kinds = (
        (bool, CellKind.BOOLEAN),
        ((int, float, Decimal), CellKind.NUMBER),
        (datetime, CellKind.INSTANT),
        (date, CellKind.DAY),
    )
    return next((kind for parents, kind in kinds if issubclass(annotation, parents)), CellKind.TEXT)


# --- Rows ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ListReader:
    """A list that a caller reads whole. `method` is the method of its endpoint."""

    method: Callable[..., Any]
    spec: EndpointSpec
    path: dict[str, Any]
    pairs: Pairs

    @property
    def list_spec(self) -> ListSpec[Any]:
        """Return the declaration of the list."""
        assert self.spec.list_spec is not None  # noqa: S101 - checked by the callers
        return self.spec.list_spec

    @property
    def serializer(self) -> Serializer:
        """Return the representation of the rows."""
        assert isinstance(self.spec.returns, Serializer)  # noqa: S101 - every list has one
        return self.spec.returns

    @property
    def entity(self) -> str | None:
        """Return the name of the rows in the audit log."""
        model: type[Base] = self.list_spec.model
        return self.serializer.entity or model.__entity__

    def read_keys(self, actor: Actor, limit: int) -> Sequence[int]:
        """Return the keys of the rows in their order, at most `limit`.

        Raises 422 and 403 for the query string, and 404 for the path, as the list itself does.
        """
        query = list_query.read_list(self.list_spec, self.pairs, is_file=True)
        return self._page(actor, replace(query, keys_only=True, offset=0, limit=limit)).keys

    def read_rows(self, actor: Actor, keys: Sequence[int]) -> tuple[bytes, list[int], set[int]]:
        """Return the rows with these keys as a JSON array, their ids, and their patients.

        Rows that are gone, or that the caller may no longer see, are left out.
        """
        page = self._page(actor, ListQuery(keys=keys))
        content = serialization.dump(self.serializer, actor, page.rows)
        patient_ids = {patient for row in page.rows if (patient := audit_log.patient_of(row)) is not None}
        ids = [row.id for row in page.rows]
        db.session.flush()
        db.session.expunge_all()  # the memory must not grow with the list
        if self.serializer.entity is None:
            patient_ids = set()
        return content, ids, patient_ids | audit_log.take_reads()

    def _page(self, actor: Actor, query: ListQuery) -> Page[Any]:
        if self.spec.load is None:
            result = self.method(query=query, **self.path)
        else:
            result = self.method(row=self.spec.load(actor, **self.path, lock=False), query=query)
        page: Page[Any] = result.value if isinstance(result, EndpointResult) else result
        return page

    def filters(self) -> list[str]:
        """Return the parameters of the query string for the audit log, without the texts of filters."""
        return [
            f"{name}={text if self._is_harmless(name) else HIDDEN_TEXT}"
            for name, text in self.pairs
            if name != "format"
        ]

    def _is_harmless(self, name: str) -> bool:
        if name in (*ORDER, *calendar_range.PARAMETERS):
            return True
        spec, stem = self.list_spec, name
        for suffix in list_query.SUFFIXES:
            stem = stem if stem in spec.columns else name.removesuffix(suffix)
        declared = spec.filters.get(name) or spec.columns.get(stem)
        return declared is not None and declared.kind is not Kind.TEXT


def batches_of(keys: Sequence[int]) -> Iterator[Sequence[int]]:
    """Yield the keys of rows in parts, each for one transaction."""
    for start in range(0, len(keys), BATCH):
        yield keys[start : start + BATCH]


def cells_of(columns: Sequence[FileColumn], content: bytes) -> Iterator[list[Any]]:
    """Yield the cells of the rows in a JSON array."""
    for row in json.loads(content):
        yield [column.value_of(row) for column in columns]


# --- Files ---------------------------------------------------------------------------------------------


@dataclass
class ListFile:
    """The rows of a list, read for an actor, and the file of them."""

    reader: ListReader
    actor: Actor
    keys: Sequence[int]
    lines: IO[bytes] = field(default_factory=lambda: SpooledTemporaryFile(IN_MEMORY))  # noqa: SIM115
    ids: list[int] = field(default_factory=list)
    patient_ids: set[int] = field(default_factory=set)

    @property
    def columns(self) -> list[FileColumn]:
        """Return the columns that the actor may read."""
        return columns_of(self.reader.serializer.out, self.actor)

    def require_same_rights(self, actor: Actor | None) -> None:
        """Raise 403 in a later transaction if the rights of the user have changed since the first one."""
        if actor is None or actor.reader != self.actor.reader:
            message = "Your rights have changed while the file was written. Send the request again."
            raise ClinicError("forbidden", message)

    def add(self, batch: tuple[bytes, list[int], set[int]]) -> None:
        """Add rows as `ListReader.read_rows` returns them."""
        content, ids, patient_ids = batch
        self.lines.write(content + b"\n")
        self.ids += ids
        self.patient_ids |= patient_ids

    def _rows(self, columns: Sequence[FileColumn]) -> Iterator[list[Any]]:
        self.lines.seek(0)
        for line in self.lines:
            yield from cells_of(columns, line)

    def write(self, file_format: str, path: str) -> IO[bytes]:
        """Write the file, and return it at its start. It has no name and goes with its last reader."""
        target = TemporaryFile()  # noqa: SIM115 - the response closes it
        columns = self.columns
        rows = self._rows(columns)
        if file_format == "csv":
            write_csv(target, [column.heading for column in columns], rows)
        else:
            write_sheet(self.reader, target, columns, rows, path)
        self.lines.close()
        target.seek(0)
        return target


def begin(reader: ListReader, context: RequestContext) -> ListFile:
    """Read the keys of the rows of a list for a response, in the current transaction.

    Raises 422 `too_many_rows` above `MAX_ROWS`.
    """
    actor = context.actor
    assert actor is not None  # noqa: S101 - lists need a signed-in caller
    keys = reader.read_keys(actor, MAX_ROWS + 1)
    if len(keys) > MAX_ROWS:
        message = (
            f"The list has more than {MAX_ROWS:,} rows. Add a filter, or let a job write the file: "
            'POST /exports with "path" and "format".'
        )
        raise ClinicError("too_many_rows", message)
    audit_log.take_reads()  # the file gets one entry, with its digest
    return ListFile(reader, actor, keys)


def read_batch(
    file: ListFile, context: RequestContext, keys: Sequence[int]
) -> tuple[bytes, list[int], set[int]]:
    """Read some rows of a file in the current transaction. Raise 403 if the rights have changed."""
    file.require_same_rights(context.actor)
    return file.reader.read_rows(file.actor, keys)


def write_sheet(
    reader: ListReader,
    target: IO[bytes],
    columns: Sequence[FileColumn],
    rows: Iterable[Sequence[Any]],
    path: str,
) -> None:
    """Write the rows of a list as an XLSX file."""
    name = reader.list_spec.name
    about = {
        "list": name,
        "request": path,
        "written at": format_instant(clock.now()),
        "time zone": f"{settings().clinic_timezone}: all date-times are local times of this zone",
        "currency": settings().currency,
        "lists in cells": "JSON",
        "old dates": "Dates before 1900-03-01, and times that exist twice when the clocks change, are texts.",
    }
    write_xlsx(target, columns, rows, name=name, zone=settings().zone, about=about)


def record(file: ListFile, context: RequestContext, file_format: str, digest: str) -> None:
    """Add the audit entry of a file to the current transaction. Raise 403 if the rights have changed."""
    file.require_same_rights(context.actor)
    facts = [f"rows={len(file.ids)}", f"format={file_format}", *file.reader.filters()]
    audit_log.record_export(file.reader.entity, file.ids, file.patient_ids, facts, f"sha256:{digest}")


def digest_of(content: IO[bytes]) -> str:
    """Return the SHA-256 digest of a file, and go back to its start."""
    digest = hashlib.file_digest(content, "sha256").hexdigest()  # type: ignore[arg-type]
    content.seek(0)
    return digest


def file_response(name: str, file_format: str, content: IO[bytes]) -> Response:
    """Return the response that sends a file piece by piece. A browser saves it under the name and date."""
    size = content.seek(0, 2)
    content.seek(0)
    response = Response(FileWrapper(content), mimetype=MEDIA_TYPES[file_format], direct_passthrough=True)
    response.content_length = size
    file_name = f"{name}-{clock.today().isoformat()}.{file_format}"
    response.headers["Content-Disposition"] = f'attachment; filename="{file_name}"'
    return response
