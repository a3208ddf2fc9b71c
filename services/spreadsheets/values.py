"""Read the values of cells by the type of their column.

A value is returned as a JSON body would have it. A value that can be read in two ways is an error.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime, time
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo

from services.search_key import search_key
from services.spreadsheets.cells import MESSAGES, Cell, CellError, CellProblem
from services.spreadsheets.columns import CellType, ImportColumn
from services.spreadsheets.dates import check_date_format, read_date, read_instant, read_time
from services.spreadsheets.numbers import MAX_EXACT, read_decimal, read_integer, read_money
from services.spreadsheets.phone_cells import read_phone
from services.spreadsheets.texts import clean_line, clean_text

NOT_AVAILABLE = "not_available"
# Texts for "no value". Free text keeps them: "none" may be the finding of a doctor.
_NO_CODES = frozenset("-|--|---|?|n/a|#n/a|null".split("|"))
_NO_VALUES = _NO_CODES.union(
    "n.a.|na|nil|none|unknown|not known|missing|haijulikani|hakuna|inconnu|desconocido|desconhecido".split(
        "|"
    ),
    "غير معروف|0000-00-00|00/00/0000|00-00-0000|0000-00-00 00:00:00".split("|"),
)
_TRUE = "true|yes|y|1|x|✓|✔|ndiyo|ndio|oui|si|sim|ja|نعم|vrai|verdadero|verdadeiro|wahr"
_FALSE = "false|no|n|0|hapana|non|nao|nein|لا|faux|falso|falsch"
_BOOLEANS = {**dict.fromkeys(_TRUE.split("|"), True), **dict.fromkeys(_FALSE.split("|"), False)}
# Other words for the values of an enum. A word counts only in a column that has the value. "H" is missing:
# beside the Spanish "H", "M" means a woman.
_SYNONYMS = {
    "male": "m|man|boy|mwanaume|homme|masculin|hombre|masculino|varon|ذكر",
    "female": "f|woman|girl|mwanamke|femme|feminin|mujer|femenino|feminino|mulher|أنثى",
    "other": "nyingine|autre|otro|outro|آخر",
    "scheduled": "booked|planned|confirmed",
    "completed": "complete|done|attended|seen",
    "cancelled": "canceled",
    "no_show": "noshow|did not attend|dna|missed",
}


@dataclass(frozen=True)
class ValueOptions:
    """The notation of the values of a file.

    - `date_format`: the order of day, month and year, such as `DD/MM/YYYY`. None: only clear dates are read.
    - `decimal`: the decimal mark, `.` or `,`. None: only clear numbers are read.
    - `region`: the ISO 3166 code of the region of phone numbers without a country code.
    - `zone`: the time zone of date-times without an offset.
    - `currency`: the ISO 4217 code of the amounts.
    """

    date_format: str | None
    decimal: str | None
    region: str
    zone: ZoneInfo
    currency: str

    def __post_init__(self) -> None:
        """Raise 422 for a `date_format` that is not understood."""
        check_date_format(self.date_format)


@dataclass(frozen=True)
class ParsedCell:
    """The value of a cell, as a JSON body would have it. `flag` names what a person must review."""

    value: Any
    flag: str | None = None


def parse_cell(cell: Cell, column: ImportColumn, options: ValueOptions) -> ParsedCell:
    """Return the value of a cell. Raises `CellProblem` with the reason if it cannot be read.

    - text, code, phone, e-mail, enum: text. A list is a list of texts.
    - date: `YYYY-MM-DD`, `YYYY-MM` or `YYYY`. Time: `HH:MM`. Instant: RFC 3339, or a date without a time.
    - integer: an int. Decimal and money: a `Decimal`.
    """
    if isinstance(cell, CellError):
        raise CellProblem(cell.code, MESSAGES[cell.code])
    if cell is None:
        return ParsedCell(None)
    if isinstance(cell, str):
        line = clean_line(cell)
        if not line:
            return ParsedCell(None)
        if _is_no_value(line.casefold(), column):
            return ParsedCell(None, NOT_AVAILABLE)
    return _READERS[column.type](cell, column, options)


def _is_no_value(line: str, column: ImportColumn) -> bool:
    if column.type in (CellType.TEXT, CellType.LIST):
        return False
    if column.type is CellType.CODE:
        return line in _NO_CODES
    return line in _NO_VALUES and line not in column.values


def _read_text(cell: Cell, _column: ImportColumn, _options: ValueOptions) -> ParsedCell:
    return ParsedCell(clean_text(cell) if isinstance(cell, str) else _format(cell))


def _read_code(cell: Cell, _column: ImportColumn, _options: ValueOptions) -> ParsedCell:
    """Return a code as typed. The zeros before a number are lost in the file; they are not invented."""
    if isinstance(cell, date | time):
        raise CellProblem(
            "not_a_code", "the spreadsheet program has made a date of the code; write it as text"
        )
    return ParsedCell(clean_line(cell) if isinstance(cell, str) else _format(cell))


def _read_phone(cell: Cell, _column: ImportColumn, options: ValueOptions) -> ParsedCell:
    return ParsedCell(*read_phone(cell, region=options.region))


def _read_email(cell: Cell, _column: ImportColumn, _options: ValueOptions) -> ParsedCell:
    if not isinstance(cell, str):
        raise CellProblem("not_an_email", "must be an e-mail address such as john@example.com")
    text = clean_line(cell)
    is_link = text[:7].casefold() == "mailto:"  # a link of a spreadsheet program
    return ParsedCell(text[7:] if is_link else text)


def _read_date(cell: Cell, _column: ImportColumn, options: ValueOptions) -> ParsedCell:
    return ParsedCell(read_date(cell, date_format=options.date_format))


def _read_time(cell: Cell, _column: ImportColumn, _options: ValueOptions) -> ParsedCell:
    return ParsedCell(read_time(cell))


def _read_instant(cell: Cell, _column: ImportColumn, options: ValueOptions) -> ParsedCell:
    return ParsedCell(read_instant(cell, date_format=options.date_format, zone=options.zone))


def _read_integer(cell: Cell, _column: ImportColumn, options: ValueOptions) -> ParsedCell:
    return ParsedCell(read_integer(cell, decimal_mark=options.decimal))


def _read_decimal(cell: Cell, _column: ImportColumn, options: ValueOptions) -> ParsedCell:
    return ParsedCell(read_decimal(cell, decimal_mark=options.decimal))


def _read_money(cell: Cell, _column: ImportColumn, options: ValueOptions) -> ParsedCell:
    return ParsedCell(read_money(cell, decimal_mark=options.decimal, currency=options.currency))


def _read_boolean(cell: Cell, _column: ImportColumn, _options: ValueOptions) -> ParsedCell:
    value = cell if isinstance(cell, bool) else _BOOLEANS.get(search_key(_format(cell)))
    if value is None:
        raise CellProblem("not_a_boolean", "must be yes or no")
    return ParsedCell(value)


def _read_enum(cell: Cell, column: ImportColumn, _options: ValueOptions) -> ParsedCell:
    value = enum_words(column.values).get(_enum_key(_format(cell)))
    if value is None:
        raise CellProblem("unknown_value", f"must be one of {', '.join(column.values)}")
    return ParsedCell(value)


@lru_cache(maxsize=64)
def enum_words(values: tuple[str, ...]) -> dict[str, str]:
    """Return the words for the values of an enum, as search keys."""
    words = {_enum_key(word): value for value in values for word in _SYNONYMS.get(value, value).split("|")}
    return {**words, **{_enum_key(value): value for value in values}}


def _enum_key(text: str) -> str:
    return search_key(text.replace("_", " ").replace("-", " ")) if len(text) > 2 else text.strip().casefold()


def _read_list(cell: Cell, _column: ImportColumn, _options: ValueOptions) -> ParsedCell:
    """Return the parts of a text between semicolons or line breaks."""
    text = clean_text(cell) if isinstance(cell, str) else _format(cell)
    return ParsedCell([part for item in text.replace("\n", ";").split(";") if (part := item.strip())])


def _format(cell: Cell) -> str:
    """Return a value as the text that a person reads in the file."""
    if isinstance(cell, str):
        return clean_line(cell)
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    if isinstance(cell, int | float):
        if abs(cell) >= MAX_EXACT:
            raise CellProblem("lost_digits", "a number keeps 15 digits only; write it as text")
        return format(read_decimal(cell, decimal_mark=None), "f")
    if isinstance(cell, datetime):
        return cell.isoformat(" ")
    return cell.isoformat() if isinstance(cell, date | time) else ""


_READERS: dict[CellType, Callable[[Cell, ImportColumn, ValueOptions], ParsedCell]] = {
    CellType.TEXT: _read_text,
    CellType.CODE: _read_code,
    CellType.PHONE: _read_phone,
    CellType.EMAIL: _read_email,
    CellType.DATE: _read_date,
    CellType.TIME: _read_time,
    CellType.INSTANT: _read_instant,
    CellType.INTEGER: _read_integer,
    CellType.DECIMAL: _read_decimal,
    CellType.MONEY: _read_money,
    CellType.BOOLEAN: _read_boolean,
    CellType.ENUM: _read_enum,
    CellType.LIST: _read_list,
}
