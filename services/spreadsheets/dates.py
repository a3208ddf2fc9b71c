"""Read dates, times and date-times of spreadsheets."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, date, datetime, time
from functools import lru_cache
from zoneinfo import ZoneInfo

from babel.dates import get_month_names

from errors import invalid
from services.search_key import search_key
from services.spreadsheets.cells import Cell, CellProblem
from services.spreadsheets.numbers import ascii_digits
from services.spreadsheets.texts import clean_line

DAY_FIRST, MONTH_FIRST, YEAR_FIRST = "DD/MM/YYYY", "MM/DD/YYYY", "YYYY-MM-DD"
FIRST_YEAR, LAST_YEAR = 1890, 2199
LANGUAGES = ("en", "sw", "fr", "ar", "es", "pt", "de")
_ORDERS = {"dmy": DAY_FIRST, "mdy": MONTH_FIRST, "ymd": YEAR_FIRST}
_SEPARATORS = r"[/.\-\u2010-\u2015 ]"
_NUMBERS = re.compile(rf"([0-9]{{1,4}}){_SEPARATORS}\s*([0-9]{{1,2}})(?:{_SEPARATORS}\s*([0-9]{{1,4}}))?")
_COMPACT = re.compile(r"[0-9]{8}")
_YEAR = re.compile(r"[0-9]{4}")
_WORDS = re.compile(r"[0-9]+|[^\W\d_]+")
_FILLERS = frozenset(("de", "del", "of", "st", "nd", "rd", "th", "er", "the"))
_TIME = re.compile(
    r"([0-9]{1,2})(?:[:.hH]([0-9]{2})(?::([0-9]{2})(?:[.,][0-9]+)?)?|[hH])?\s*([AaPp])?(?:\.?\s*[Mm]\.?)?"
)
_OFFSET = re.compile(r"([Zz]|[+-][0-9]{2}:?[0-9]{2})$")
# A date and a time: the time has a colon, or an hour with "h", "am" or "pm".
_DATE_AND_TIME = re.compile(
    r"(.+?)[T,\s]+([0-9]{1,2}(?:[:hH.][0-9]{2}(?::[0-9]{2}(?:[.,][0-9]+)?)?)?\s*(?:[AaPp]\.?[Mm]\.?)?)"
)


def check_date_format(date_format: str | None) -> None:
    """Raise 422 for a `date_format` that does not name day, month and year, such as `DD/MM/YYYY`."""
    if date_format is not None and _order(date_format) is None:
        raise invalid("date_format", f"use {DAY_FIRST}, {MONTH_FIRST} or {YEAR_FIRST}")


def propose_date_format(cells: Iterable[Cell]) -> str | None:
    """Return the only order of day and month that fits all dates of a column, or None.

    It is a proposal for a person. A column with an ambiguous date needs the option `date_format`.
    """
    possible = {DAY_FIRST, MONTH_FIRST}
    seen = False
    for cell in cells:
        match = _NUMBERS.match(clean_line(cell)) if isinstance(cell, str) else None
        if match is None or match[3] is None or len(match[3]) != 4:
            continue
        seen = True
        if int(match[1]) > 12:
            possible.discard(MONTH_FIRST)
        if int(match[2]) > 12:
            possible.discard(DAY_FIRST)
    return possible.pop() if seen and len(possible) == 1 else None


def read_date(cell: Cell, *, date_format: str | None) -> str:
    """Return a date as `YYYY-MM-DD`, or `YYYY-MM` or `YYYY` if the rest is unknown. Raises `CellProblem`."""
    if isinstance(cell, datetime):
        if cell.time() != time.min:
            raise _has_time()
        return _day(cell.year, cell.month, cell.day)
    if isinstance(cell, date):
        return _day(cell.year, cell.month, cell.day)
    if isinstance(cell, int | float) and not isinstance(cell, bool):
        if cell != int(cell):
            raise _not_a_date()
        return _read_number(str(int(cell)), date_format)
    if not isinstance(cell, str):
        raise _not_a_date()
    text = ascii_digits(clean_line(cell))
    match = _DATE_AND_TIME.fullmatch(_OFFSET.sub("", text) if ":" in text else text)
    if match is not None and ":" in match[2]:
        if read_time(match[2]) != "00:00":
            raise _has_time()
        text = match[1]
    return _read_text(text, date_format)


def read_time(cell: Cell) -> str:
    """Return a time of the day as `HH:MM`, with seconds if they are not zero. Raises `CellProblem`."""
    if isinstance(cell, datetime):
        cell = cell.time()
    if isinstance(cell, time):
        return _format_time(cell)
    match = _TIME.fullmatch(ascii_digits(clean_line(cell))) if isinstance(cell, str) else None
    if match is None or not (match[4] or match[2] or "h" in match[0].lower()):
        raise CellProblem("not_a_time", "must be a time such as 09:30")
    hour, minute, second = int(match[1]), int(match[2] or 0), int(match[3] or 0)
    if match[4]:
        if not 1 <= hour <= 12:
            raise CellProblem("not_a_time", "must be a time such as 09:30")
        hour = hour % 12 + (12 if match[4] in "pP" else 0)
    try:
        return _format_time(time(hour, minute, second))
    except ValueError:
        raise CellProblem("not_a_time", "must be a time such as 09:30") from None


def read_instant(cell: Cell, *, date_format: str | None, zone: ZoneInfo) -> str:
    """Return a date-time with its offset from UTC, or a date. A local time belongs to `zone`.

    Raises `CellProblem`, also for a local time that does not exist or exists twice.
    """
    if isinstance(cell, datetime):
        local = cell
    elif isinstance(cell, str):
        text = ascii_digits(clean_line(cell))
        offset = _OFFSET.search(text) if ":" in text else None
        match = _DATE_AND_TIME.fullmatch(_OFFSET.sub("", text).strip() if offset else text)
        if match is None or not re.search(r"[:hHmM]", match[2]):
            return read_date(cell, date_format=date_format)
        day = _read_text(match[1], date_format)
        if len(day) < len("YYYY-MM-DD"):
            raise _not_a_date()
        local = datetime.fromisoformat(f"{day}T{read_time(match[2])}")
        if offset:
            return local.isoformat() + ("+00:00" if offset[1] in "zZ" else _with_colon(offset[1]))
    else:
        return read_date(cell, date_format=date_format)
    return _in_zone(local, zone)


def _in_zone(local: datetime, zone: ZoneInfo) -> str:
    first, second = (local.replace(tzinfo=zone, fold=fold) for fold in (0, 1))
    if first.utcoffset() != second.utcoffset():
        exists = first.astimezone(UTC).astimezone(zone).replace(tzinfo=None) == local
        offsets = " or ".join(sorted({first.isoformat()[-6:], second.isoformat()[-6:]}))
        raise CellProblem(
            "ambiguous_time" if exists else "nonexistent_time",
            f"this local time {'exists twice' if exists else 'does not exist'} when the clocks change; "
            f"add the offset {offsets}",
        )
    return first.isoformat()


def _with_colon(offset: str) -> str:
    return offset if ":" in offset else f"{offset[:3]}:{offset[3:]}"


def _format_time(value: time) -> str:
    return value.strftime("%H:%M:%S" if value.second else "%H:%M")


def _read_text(text: str, date_format: str | None) -> str:
    if text.isdecimal():
        return _read_number(text, date_format)
    match = _NUMBERS.fullmatch(text)
    if match is None:
        return _read_month_name(text)
    first, second, third = match[1], match[2], match[3]
    if third is None:
        if len(first) == 4:
            return _month(int(first), int(second))
        raise _not_a_date()
    if len(first) == 4:
        if len(third) > 2:
            raise _not_a_date()
        return _day(int(first), int(second), int(third))
    if len(first) > 2 or len(third) == 3:
        raise _not_a_date()
    if len(third) < 4:
        raise _two_digit_year()
    return _ordered(int(first), int(second), int(third), date_format)


def _ordered(first: int, second: int, year: int, date_format: str | None) -> str:
    """Return the date of two numbers that are day and month, or month and day."""
    order = _order(date_format)
    if order == DAY_FIRST or first == second:
        return _day(year, second, first)
    if order == MONTH_FIRST:
        return _day(year, first, second)
    if first > 12:
        return _day(year, second, first)
    if second > 12:
        return _day(year, first, second)
    raise CellProblem(
        "ambiguous_date",
        f"may be day and month, or month and day; set `date_format` to {DAY_FIRST} or {MONTH_FIRST}",
    )


def _read_number(digits: str, date_format: str | None) -> str:
    """Return the date of digits without separators: a year, or `YYYYMMDD`."""
    if _YEAR.fullmatch(digits):
        return _year(int(digits))
    if not _COMPACT.fullmatch(digits):
        raise CellProblem(
            "not_a_date", "the number is not a date; give the cell the format of a date, or write YYYY-MM-DD"
        )
    readings = {
        YEAR_FIRST: (digits[:4], digits[4:6], digits[6:]),
        DAY_FIRST: (digits[4:], digits[2:4], digits[:2]),
        MONTH_FIRST: (digits[4:], digits[:2], digits[2:4]),
    }
    order = _order(date_format)
    possible = set()
    for name, parts in readings.items():
        try:
            possible.add(_day(*map(int, parts)))
        except CellProblem:
            continue
        if name == order:
            return _day(*map(int, parts))
    if len(possible) == 1:
        return possible.pop()
    if possible:
        raise CellProblem("ambiguous_date", "the digits can be read as several dates; write YYYY-MM-DD")
    raise _not_a_date()


def _read_month_name(text: str) -> str:
    """Return a date with the name of a month, such as `3 Mar 2026`, `March 3, 2026` or `March 2026`."""
    words = [word for word in _WORDS.findall(search_key(text)) if word not in _FILLERS]
    months = [month for word in words if (month := month_names().get(word)) is not None]
    numbers = [word for word in words if word.isdecimal()]
    if len(months) != 1 or len(months) + len(numbers) != len(words) or not 1 <= len(numbers) <= 2:
        raise _not_a_date()
    years = [number for number in numbers if len(number) == 4]
    days = [number for number in numbers if len(number) <= 2]
    if len(years) == 1 and len(days) == len(numbers) - 1:
        return _day(int(years[0]), months[0], int(days[0])) if days else _month(int(years[0]), months[0])
    raise _two_digit_year() if not years and len(days) == 2 else _not_a_date()


@lru_cache(maxsize=1)
def month_names() -> dict[str, int]:
    """Return the search keys of the names of months in all languages, without those of two months."""
    found: dict[str, set[int]] = {}
    for language in LANGUAGES:
        for width in ("wide", "abbreviated"):
            for month, name in get_month_names(width, locale=language).items():
                found.setdefault(search_key(name).rstrip("."), set()).add(month)
    return {name: months.pop() for name, months in found.items() if len(months) == 1}


def _order(date_format: str | None) -> str | None:
    """Return the order of a format such as `DD/MM/YYYY`, `d.m.yy`, `dmy` or `%d/%m/%Y`."""
    letters = re.sub(r"[^dmy]", "", (date_format or "").lower())
    return _ORDERS.get(re.sub(r"(.)\1+", r"\1", letters))


def _day(year: int, month: int, day: int) -> str:
    _year(year)
    try:
        return date(year, month, day).isoformat()
    except ValueError:
        raise CellProblem("not_a_date", "this day does not exist in the calendar") from None


def _month(year: int, month: int) -> str:
    return _day(year, month, 1)[:7]


def _year(year: int) -> str:
    if not FIRST_YEAR <= year <= LAST_YEAR:
        raise CellProblem("not_a_date", f"the year must be between {FIRST_YEAR} and {LAST_YEAR}")
    return str(year)


def _not_a_date() -> CellProblem:
    return CellProblem("not_a_date", "must be a date; write YYYY-MM-DD")


def _two_digit_year() -> CellProblem:
    return CellProblem(
        "two_digit_year", "the century of the year is not known; write the year with four digits"
    )


def _has_time() -> CellProblem:
    return CellProblem(
        "date_with_time", "must be a date without a time; a time near midnight may belong to another day"
    )
