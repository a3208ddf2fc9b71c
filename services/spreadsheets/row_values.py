"""Read the members of a row: each mapped cell by the type of its column."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from services.spreadsheets.cells import CellProblem
from services.spreadsheets.columns import ImportColumn
from services.spreadsheets.reading import SourceRow
from services.spreadsheets.values import ValueOptions, parse_cell


@dataclass
class ParsedRow:
    """The members of a row.

    - `members`: the value of each mapped member; None for an empty cell.
    - `flags`: member -> what a person must review.
    - `problems`: member -> why its cell cannot be read. `row` is a problem of the whole row.
    """

    members: dict[str, Any] = field(default_factory=dict)
    flags: dict[str, str] = field(default_factory=dict)
    problems: dict[str, CellProblem] = field(default_factory=dict)


def parse_row(
    row: SourceRow,
    *,
    header: Sequence[str],
    mapping: Mapping[str, str],
    columns: Sequence[ImportColumn],
    options: ValueOptions,
) -> ParsedRow:
    """Return the members of a row. The parts of a name are joined into the member `name`."""
    parsed = ParsedRow()
    by_name = {column.name: column for column in columns}
    for title, cell in zip(header, row.cells, strict=True):
        column = by_name.get(mapping.get(title, ""))
        if column is None:
            continue
        try:
            value = parse_cell(cell, column, options)
        except CellProblem as problem:
            parsed.problems[column.name] = problem
            continue
        parsed.members[column.name] = value.value
        if value.flag:
            parsed.flags[column.name] = value.flag
    return parsed
