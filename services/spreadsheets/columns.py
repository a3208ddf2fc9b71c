"""The columns that a kind of import has, and the types of their values."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class CellType(StrEnum):
    """The type of the values of a column. It decides how the text or number of a cell is read."""

    TEXT = "text"
    CODE = "code"
    PHONE = "phone"
    EMAIL = "email"
    DATE = "date"
    TIME = "time"
    INSTANT = "instant"
    INTEGER = "integer"
    DECIMAL = "decimal"
    MONEY = "money"
    BOOLEAN = "boolean"
    ENUM = "enum"
    LIST = "list"


@dataclass(frozen=True)
class ImportColumn:
    """A member that a column of a file can hold.

    - `synonyms`: other names of the column, in several languages. Case and accents do not matter.
    - `values`: the accepted values of an enum.
    """

    name: str
    type: CellType
    required: bool = False
    synonyms: tuple[str, ...] = ()
    values: tuple[str, ...] = ()
