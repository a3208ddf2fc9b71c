"""Field types of requests and responses: text, money, days and date-times."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from decimal import Decimal
from functools import lru_cache
from typing import Annotated, Any

import email_validator
from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainSerializer,
    StringConstraints,
    WithJsonSchema,
)

from column_types import CENT, MAX_INT, MONEY_LIMIT
from config import settings
from security.sanitize import sanitize

# Clinics have internal mail domains, such as clinic.local.
email_validator.SPECIAL_USE_DOMAIN_NAMES.clear()

FIRST_YEAR, LAST_YEAR = 1890, 2199  # the oldest patients were born in the 1890s
MAX_ID = MAX_INT

# --- Text ----------------------------------------------------------------------------------------------


def _not_blank(value: str) -> str:
    if not value.strip():
        raise ValueError("must not be blank")
    return value


def _email(value: str) -> str:
    try:
        # only the form is judged
        found = email_validator.validate_email(value, check_deliverability=False, globally_deliverable=False)
    except email_validator.EmailNotValidError as problem:
        raise ValueError(str(problem)) from None
    return found.normalized.lower()


def _phone(value: str) -> str:
    digits = sum(c.isdecimal() for c in value)
    if not 3 <= digits <= 20 or not re.fullmatch(r"[\d\s+()\-.,/#*;:xXeEtT]+", value):
        raise ValueError("not a phone number; digits with + ( ) - . / and an extension are fine")
    return value


# what `_not_blank` and `_phone` judge, as the documents tell it
_FILLED = Field(json_schema_extra={"pattern": r"\S"})
_PHONE_PART = r"[\s+()\-.,/#*;:xXeEtT]*"
_PHONE_PATTERN = f"^{_PHONE_PART}(?:[0-9]{_PHONE_PART}){{3,20}}$"

Clean = AfterValidator(sanitize)
Name = Annotated[
    str, StringConstraints(min_length=1, max_length=200), AfterValidator(_not_blank), _FILLED, Clean
]
Short = Annotated[str, StringConstraints(max_length=100), Clean]
Line = Annotated[str, StringConstraints(max_length=500), Clean]
RequiredLine = Annotated[
    str, StringConstraints(min_length=1, max_length=500), AfterValidator(_not_blank), _FILLED, Clean
]
Note = Annotated[str, StringConstraints(max_length=20_000), Clean]
RequiredNote = Annotated[
    str, StringConstraints(min_length=1, max_length=20_000), AfterValidator(_not_blank), _FILLED, Clean
]
Code = Annotated[str, StringConstraints(min_length=1, max_length=100), AfterValidator(_not_blank), _FILLED]
Email = Annotated[
    str,
    StringConstraints(max_length=254),
    AfterValidator(_email),
    WithJsonSchema({"type": "string", "format": "email", "maxLength": 254, "examples": ["john@example.com"]}),
]
Phone = Annotated[
    str,
    StringConstraints(max_length=40),
    AfterValidator(_phone),
    WithJsonSchema(
        {"type": "string", "maxLength": 40, "pattern": _PHONE_PATTERN, "examples": ["+1 (555) 123-4567"]}
    ),
]
Password = Annotated[str, StringConstraints(max_length=1024)]
Id = Annotated[int, Field(ge=1, le=MAX_ID, examples=[1])]
Quantity = Annotated[int, Field(ge=1, le=1_000_000)]


# --- Money ---------------------------------------------------------------------------------------------


def _money(value: Any) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, (int, float, str, Decimal)):
        raise ValueError("an amount is a number or a string such as '125.00'")
    text = value if isinstance(value, str) else repr(value) if isinstance(value, float) else str(value)
    if not re.fullmatch(r"-?[0-9]{1,15}(\.[0-9]+)?(e[+]?[0-9]{1,2})?", text, re.ASCII):
        raise ValueError("an amount is a number or a string such as '125.00'")
    amount = Decimal(text)
    if amount < 0:
        raise ValueError("must not be negative")
    if amount > MONEY_LIMIT:
        raise ValueError("must be at most 9999999999.99")
    if amount != amount.quantize(CENT):
        raise ValueError("must have at most two decimal places")
    return amount.quantize(CENT)


def _positive(value: Decimal) -> Decimal:
    if value <= 0:
        raise ValueError("must be more than zero")
    return value


_MONEY_SCHEMA = {
    "anyOf": [
        {"type": "string", "pattern": r"^[0-9]{1,10}(\.[0-9]{1,2})?$"},
        {"type": "number", "minimum": 0, "maximum": 9999999999.99, "multipleOf": 0.01},
    ],
    "examples": ["125.00"],
}
MoneyIn = Annotated[Decimal, BeforeValidator(_money), WithJsonSchema(_MONEY_SCHEMA)]
PositiveMoneyIn = Annotated[
    Decimal, BeforeValidator(_money), AfterValidator(_positive), WithJsonSchema(_MONEY_SCHEMA)
]
MoneyOut = Annotated[
    Decimal,
    PlainSerializer(lambda amount: f"{amount:.2f}", return_type=str),
    WithJsonSchema({"type": "string", "pattern": r"^-?[0-9]+\.[0-9]{2}$", "examples": ["125.00"]}),
]


# --- Time ----------------------------------------------------------------------------------------------

_INSTANT = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt ](\d\d):(\d\d)(?::(\d\d)(?:\.(\d{1,6})\d*)?)?"
    r"\s*(?:([Zz])|([+-])(\d\d):?(\d\d))?",
    re.ASCII,
)
_DAY = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)


def parse_day(value: Any) -> date:
    """`YYYY-MM-DD`, from 1900 to 2199. Raises ValueError saying what to send."""
    if isinstance(value, date) and not isinstance(value, datetime):
        return value
    if not isinstance(value, str) or not _DAY.fullmatch(value):
        raise ValueError("a date reads YYYY-MM-DD")
    try:
        day = date.fromisoformat(value)
    except ValueError:
        raise ValueError("there is no such day in the calendar") from None
    if not FIRST_YEAR <= day.year <= LAST_YEAR:
        raise ValueError(f"the year must be between {FIRST_YEAR} and {LAST_YEAR}")
    return day


def _offset_text(moment: datetime) -> str:
    return moment.strftime("%z")[:3] + ":" + moment.strftime("%z")[3:5]


def _to_instant(local: datetime) -> datetime:
    """A wall-clock time of the clinic as an instant; refuses the spring gap and the autumn fold."""
    zone = settings().zone
    first, second = local.replace(tzinfo=zone, fold=0), local.replace(tzinfo=zone, fold=1)
    if first.utcoffset() != second.utcoffset():
        exists = first.astimezone(UTC).astimezone(zone).replace(tzinfo=None) == local
        choices = " or ".join(sorted({_offset_text(first), _offset_text(second)}))
        problem = "exists twice" if exists else "does not exist"
        raise ValueError(f"this local time {problem} when the clocks change; add the offset {choices}")
    return first.astimezone(UTC)


def parse_instant(value: Any) -> datetime:
    """An RFC 3339 date-time as aware UTC; without offset it is the clinic's local time.

    Raises ValueError naming the offsets to choose from where the local time does not exist or exists twice.
    """
    if isinstance(value, datetime) and value.tzinfo is not None:
        return value.astimezone(UTC)
    found = _INSTANT.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise ValueError(
            "a date-time reads YYYY-MM-DDTHH:MM:SS, with an offset such as +02:00 or Z if you like"
        )
    year, month, day, hour, minute = (int(found[i]) for i in range(1, 6))
    if not FIRST_YEAR <= year <= LAST_YEAR:
        raise ValueError(f"the year must be between {FIRST_YEAR} and {LAST_YEAR}")
    try:
        local = datetime(  # noqa: DTZ001 - the offset follows
            year, month, day, hour, minute, int(found[6] or 0), int((found[7] or "0").ljust(6, "0"))
        )
        if found[8]:
            return local.replace(tzinfo=UTC)
        if found[9]:
            offset = timedelta(hours=int(found[10]), minutes=int(found[11]))
            if offset >= timedelta(hours=24) or int(found[11]) > 59:
                raise ValueError
            return (local - offset if found[9] == "+" else local + offset).replace(tzinfo=UTC)
    except ValueError:
        raise ValueError("there is no such date-time") from None
    return _to_instant(local)


def parse_instant_or_day(value: Any) -> datetime:
    """An instant; a bare day is its first moment in the clinic."""
    if isinstance(value, str) and _DAY.fullmatch(value):
        return datetime.combine(parse_day(value), time.min, tzinfo=settings().zone).astimezone(UTC)
    return parse_instant(value)


def format_instant(instant: datetime) -> str:
    """RFC 3339 with the clinic's offset."""
    return _written(instant, settings().zone)


@lru_cache(maxsize=4096)  # a day's list has each of its times several times
def _written(instant: datetime, zone: tzinfo) -> str:
    return instant.astimezone(zone).isoformat()


_INSTANT_SCHEMA = WithJsonSchema(
    {"type": "string", "format": "date-time", "examples": ["2026-03-02T09:00:00Z"]}
)
InstantIn = Annotated[datetime, BeforeValidator(parse_instant), _INSTANT_SCHEMA]
InstantOut = Annotated[
    datetime, PlainSerializer(format_instant, return_type=str, when_used="json"), _INSTANT_SCHEMA
]
InstantOrDay = Annotated[
    datetime,
    BeforeValidator(parse_instant_or_day),
    WithJsonSchema(
        {
            "anyOf": [{"type": "string", "format": "date-time"}, {"type": "string", "format": "date"}],
            "examples": ["2026-03-02T09:00:00Z"],
        }
    ),
]
_DAY_SCHEMA = WithJsonSchema({"type": "string", "format": "date", "examples": ["1990-01-01"]})
DayIn = Annotated[date, BeforeValidator(parse_day), _DAY_SCHEMA]
DayOut = Annotated[date, _DAY_SCHEMA]
