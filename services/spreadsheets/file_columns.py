"""The columns and cells of the spreadsheet files that the application writes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class CellKind(StrEnum):
    """The type of the values of a column, which are members of JSON."""

    TEXT = "text"
    NUMBER = "number"  # also money, which is a text in JSON
    BOOLEAN = "boolean"
    DAY = "day"
    INSTANT = "instant"
    JSON = "json"  # a list, or an object without a schema


@dataclass(frozen=True)
class FileColumn:
    """A column of a file: the names of the nested members that lead to its value, and its kind."""

    path: tuple[str, ...]
    kind: CellKind

    @property
    def heading(self) -> str:
        """Return the names, joined with dots."""
        return ".".join(self.path)

    def value_of(self, row: dict[str, Any]) -> Any:
        """Return the value of the column in a JSON object: a text, a number, a boolean or None.

        A list or an object is its JSON text, and an empty list None. A hidden member is None.
        """
        value: Any = row
        for name in self.path:
            value = value.get(name) if isinstance(value, dict) else None
        if isinstance(value, (list, dict)):
            return json.dumps(value, ensure_ascii=False) if value else None
        return value
