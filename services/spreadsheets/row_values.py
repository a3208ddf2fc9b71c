"""Read the members of a row: each mapped cell by the type of its column."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from services.spreadsheets.cells import CellProblem
from services.spreadsheets.columns import ImportColumn
from services.spreadsheets.mapping import NAME, NAME_PARTS, target_columns
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
    members = target_columns(columns)
    if row.too_long:
        parsed.problems["row"] = CellProblem("too_many_cells", "the row has more cells than the header")
    for title, cell in zip(header, row.cells, strict=True):
        column = members.get(mapping.get(title, ""))
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
    _join_name(parsed)
    return parsed


def _join_name(parsed: ParsedRow) -> None:
    """Replace the parts of a name by the member `name`."""
    parts = [part.name for part in NAME_PARTS if part.name in parsed.members]
    if parts:
        parsed.members[NAME] = " ".join(filter(None, map(parsed.members.pop, parts))) or None
