"""Requests and responses of imports of spreadsheets."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, StringConstraints

from column_types import NOT_BLANK_PATTERN
from enums import ImportAction, ImportRowState, ImportState, ImportSubject, OnDuplicate, OnError
from schemas.base import In, Out, patch_model
from schemas.fields import InstantOut

MAX_COLUMNS = 500


def _read_json(value: Any) -> Any:
    """Return the object in a text: the fields of a form are texts."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        raise ValueError(
            'write an object of column and member as JSON, such as {"Full name": "name"}'
        ) from None


Title = Annotated[str, StringConstraints(max_length=500)]
Member = Annotated[str, StringConstraints(max_length=100)]
MappingIn = Annotated[
    dict[Title, Member],
    Field(
        max_length=MAX_COLUMNS,
        description="Column of the file -> member. A column that is absent is not imported.",
        examples=[{"Full name": "name", "DOB": "date_of_birth"}],
    ),
    BeforeValidator(_read_json, json_schema_input_type=dict[Title, Member] | str),
]
Source = Annotated[
    str,
    StringConstraints(min_length=1, max_length=100, strip_whitespace=True, pattern=NOT_BLANK_PATTERN),
    Field(description="The system from which the file comes.", examples=["clinic2019"]),
]
Encoding = Annotated[
    str, StringConstraints(max_length=30), Field(description="Of a text file.", examples=["cp1252"])
]
Delimiter = Annotated[
    str,
    StringConstraints(max_length=3),
    Field(description="Of a text file: one of , ; | or tab.", examples=[";"]),
]
DateFormat = Annotated[
    str,
    StringConstraints(max_length=30),
    Field(description="The order of day, month and year in dates.", examples=["DD/MM/YYYY"]),
]
DecimalMark = Annotated[Literal[".", ","], Field(description="The decimal mark of numbers.")]


class _Options(In):
    mapping: MappingIn | None = None
    encoding: Encoding | None = None
    delimiter: Delimiter | None = None
    date_format: DateFormat | None = None
    decimal: DecimalMark | None = None
    on_duplicate: OnDuplicate = OnDuplicate.REPORT
    on_error: OnError = OnError.NONE


class ImportCreate(_Options):
    """A file to import: the fields of the form beside the part `file`."""

    kind: ImportSubject
    source: Source


ImportPatch = patch_model(_Options, "ImportPatch")


class ApplyIn(In):
    """The dry run whose result is to be applied."""

    digest: Annotated[str, StringConstraints(max_length=64), Field(examples=["5f2d9c"])]


class ImportOut(Out):
    """An import of a spreadsheet file.

    `rows` are the rows with values: ready, applied, skipped, refused or undone. `blank` rows are not among
    them. `digest` names the result of the last dry run.
    """

    id: int
    kind: ImportSubject
    source: str
    file_name: str
    sha256: str
    sheet: str | None
    other_sheets: Annotated[list[str], Field(description="Visible sheets that are not imported.")]
    encoding: str | None
    delimiter: str | None
    date_format: str | None
    decimal: str | None
    on_duplicate: OnDuplicate
    on_error: OnError
    header: list[str]
    mapping: dict[str, str]
    state: ImportState
    rows: int
    blank: int
    title_rows: Annotated[int, Field(description="Rows above the header. They are not imported.")]
    ready: int
    applied: int
    skipped: int
    refused: int
    undone: int
    progress: Annotated[int, Field(ge=0, le=100, description="Of the current run, in percent.")]
    digest: str | None
    failure: str | None
    has_file: Annotated[bool, Field(description="The file is still stored.")]
    job_id: int | None
    checked_at: InstantOut | None
    applied_at: InstantOut | None
    undone_at: InstantOut | None
    created_by_id: int | None
    created_at: InstantOut
    updated_at: InstantOut


class ImportColumnOut(Out):
    """A member that a column of the file can hold."""

    name: str
    type: str
    required: bool
    values: list[str]


class SampleRow(Out):
    """One of the first rows of the file, and how the mapping reads it."""

    number: int
    cells: list[str]
    members: dict[str, Any]
    problems: dict[str, str]


class ImportDetailOut(ImportOut):
    """An import with the members of its kind and the first rows of the file."""

    columns: list[ImportColumnOut]
    sample: list[SampleRow]


class RowProblem(Out):
    """A reason for the state of a row, or something to review. It contains no value of the file."""

    field: str
    code: str
    message: str


class ImportRowOut(Out):
    """A row of the file, as the last run has left it. `entity_id` is the row of the clinic."""

    id: int
    import_id: int
    number: int
    state: ImportRowState
    action: ImportAction
    entity_id: int | None
    problems: list[RowProblem]
