"""Field types of requests and responses: text, money, quantities, days and date-times."""

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
    HttpUrl,
    PlainSerializer,
    StringConstraints,
    TypeAdapter,
    ValidationError,
    WithJsonSchema,
)

from column_types import (
    MAX_INT,
    MONEY_LIMIT,
    NOT_BLANK_PATTERN,
    PHONE_DASHES,
    PHONE_MARKS,
    QUANTITY_LIMIT,
    SHOWS_NOTHING,
    QuantityType,
    canonical_language,
    is_blank_text,
    json_number,
    plain_phone,
)
from config import canonical_locale, settings
from security.sanitize import sanitize

# Clinics have internal mail domains, such as clinic.local.
email_validator.SPECIAL_USE_DOMAIN_NAMES.clear()

FIRST_YEAR, LAST_YEAR = 1890, 2199  # the oldest patients were born in the 1890s
MAX_ID = MAX_INT

# --- Text ----------------------------------------------------------------------------------------------


def _check_not_blank(value: str) -> str:
    if is_blank_text(value):
        raise ValueError("must not be blank")
    return value


def _check_email(value: str) -> str:
    try:
        # the syntax only: no DNS query
        email_validator.validate_email(value, check_deliverability=False, globally_deliverable=False)
    except email_validator.EmailNotValidError:
        raise ValueError("must be an e-mail address such as john@example.com") from None
    return value


def _check_phone(value: str) -> str:
    number = plain_phone(value)
    digits = sum(c.isdecimal() for c in number)
    if not 3 <= digits <= 20 or not re.fullmatch(r"[\d\s+()\-.,/#*;:=xXeEtT]+", number):
        raise ValueError(
            "not a phone number; use 3 to 20 digits, + ( ) - . / and an extension such as x12; "
            "a remark may follow in parentheses"
        )
    return value.strip()


def _check_website(value: str) -> str:
    try:
        url = _URL.validate_python(value)
    except ValidationError:
        url = None
    if url is None or url.username is not None or url.password is not None or _UNSAFE_IN_URL.search(value):
        raise ValueError("must be the address of a web page such as https://www.clinic.example")
    return value


_URL: TypeAdapter[HttpUrl] = TypeAdapter(HttpUrl)
_UNSAFE_IN_URL = re.compile(r"[\s\x00-\x1f\x7f\"'<>\\^`{|}]")

# `_check_not_blank` and `_check_phone` as patterns of JSON Schema
_NOT_BLANK = Field(json_schema_extra={"pattern": NOT_BLANK_PATTERN})
_PHONE_PART = rf"[\s+()\-.,/#*;:=xXeEtT{PHONE_DASHES}{PHONE_MARKS}]*"
_PHONE_REMARKS = r"(?:\([A-Za-z][^()\x00-\x1f]*\)\s*)*"
_PHONE_PATTERN = rf"^(?:\s*[Tt][Ee][Ll]:)?{_PHONE_PART}(?:[0-9]{_PHONE_PART}){{3,20}}{_PHONE_REMARKS}$"


def clean(max_length: int) -> AfterValidator:
    """Return the validator that makes active HTML inert. The result must fit the column."""

    def check(value: str) -> str:
        text = sanitize(value)
        if len(text) > max_length:
            raise ValueError(f"use at most {max_length} characters; a space is added after < before HTML")
        return text

    return AfterValidator(check)


Name = Annotated[
    str,
    StringConstraints(min_length=1, max_length=200),
    AfterValidator(_check_not_blank),
    _NOT_BLANK,
    clean(200),
]
Short = Annotated[str, StringConstraints(max_length=100), clean(100)]
RequiredShort = Annotated[
    str,
    StringConstraints(min_length=1, max_length=100),
    AfterValidator(_check_not_blank),
    _NOT_BLANK,
    clean(100),
]
Line = Annotated[str, StringConstraints(max_length=500), clean(500)]
RequiredLine = Annotated[
    str,
    StringConstraints(min_length=1, max_length=500),
    AfterValidator(_check_not_blank),
    _NOT_BLANK,
    clean(500),
]
Note = Annotated[str, StringConstraints(max_length=20_000), clean(20_000)]
RequiredNote = Annotated[
    str,
    StringConstraints(min_length=1, max_length=20_000),
    AfterValidator(_check_not_blank),
    _NOT_BLANK,
    clean(20_000),
]
Code = Annotated[
    str,
    StringConstraints(min_length=1, max_length=100, strip_whitespace=True),
    AfterValidator(_check_not_blank),
    _NOT_BLANK,
]
Email = Annotated[
    str,
    StringConstraints(max_length=254, strip_whitespace=True),
    AfterValidator(_check_email),
    WithJsonSchema({"type": "string", "format": "email", "maxLength": 254, "examples": ["john@example.com"]}),
]
Phone = Annotated[
    str,
    StringConstraints(max_length=100),
    AfterValidator(_check_phone),
    clean(100),
    WithJsonSchema(
        {"type": "string", "maxLength": 100, "pattern": _PHONE_PATTERN, "examples": ["+1 (555) 123-4567"]}
    ),
]
Website = Annotated[
    str,
    StringConstraints(max_length=500, strip_whitespace=True),
    AfterValidator(_check_website),
    WithJsonSchema(
        {
            "type": "string",
            "format": "uri",
            "pattern": "^[Hh][Tt][Tt][Pp][Ss]?://",
            "maxLength": 500,
            "examples": ["https://www.clinic.example"],
        }
    ),
]
Language = Annotated[
    str,
    StringConstraints(max_length=35),
    AfterValidator(canonical_language),
    WithJsonSchema(
        {
            "type": "string",
            "maxLength": 35,
            "description": "A language tag of BCP 47. Null means the language of the clinic.",
            "examples": ["sw"],
        }
    ),
]
LocaleName = Annotated[
    str,
    StringConstraints(max_length=35),
    AfterValidator(canonical_locale),
    WithJsonSchema(
        {
            "type": "string",
            "maxLength": 35,
            "description": "Language and country whose formats the clinic uses. Null means `CLINIC_LOCALE`.",
            "examples": ["en_KE"],
        }
    ),
]
Password = Annotated[str, StringConstraints(max_length=1024), AfterValidator(_check_not_blank), _NOT_BLANK]
Id = Annotated[int, Field(ge=1, le=MAX_ID, examples=[1])]
Quantity = Annotated[int, Field(ge=1, le=1_000_000)]


# --- Money ---------------------------------------------------------------------------------------------


# A float may have an exponent: str(1e16) is "1e+16". A bool does not match: str(True) is "True".
_AMOUNT = re.compile(r"-?[0-9]{1,15}(\.[0-9]+)?(e[+]?[0-9]{1,2})?", re.ASCII)


def parse_decimal(value: Any, places: int) -> Decimal:
    """Return a number from zero to the limit of money with at most so many decimals. Raises ValueError."""
    if not isinstance(value, (int, float, str, Decimal)) or not _AMOUNT.fullmatch(str(value)):
        raise ValueError("write an amount as a number or as a string such as '125.00'")
    amount = Decimal(str(value))
    if amount < 0:
        raise ValueError("must not be negative")
    if amount > MONEY_LIMIT:
        raise ValueError(f"must be at most {MONEY_LIMIT}")
    if amount != round(amount, places):
        raise ValueError(f"must have at most {places} decimal places" if places else "must have no decimals")
    return round(abs(amount), max(places, 2))  # abs: "-0" is zero


def _parse_money(value: Any) -> Decimal:
    return parse_decimal(value, settings().currency_places)


def _check_positive(value: Decimal) -> Decimal:
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
MoneyIn = Annotated[Decimal, BeforeValidator(_parse_money), WithJsonSchema(_MONEY_SCHEMA)]
PositiveMoneyIn = Annotated[
    Decimal, BeforeValidator(_parse_money), AfterValidator(_check_positive), WithJsonSchema(_MONEY_SCHEMA)
]
MoneyOut = Annotated[
    Decimal,
    PlainSerializer(lambda amount: f"{amount:.{settings().currency_places}f}", return_type=str),
    WithJsonSchema({"type": "string", "pattern": r"^-?[0-9]+(\.[0-9]{2})?$", "examples": ["125.00"]}),
]


# --- Decimal quantities --------------------------------------------------------------------------------


def _parse_quantity(value: Any) -> Decimal:
    if type(value) not in (int, float, Decimal):
        raise ValueError("write a quantity as a number such as 30 or 2.5")
    quantity = Decimal(str(value))
    if not 0 < quantity <= QUANTITY_LIMIT:
        raise ValueError(f"must be more than 0 and at most {QUANTITY_LIMIT}")
    if quantity != round(quantity, QuantityType.places):
        raise ValueError(f"must have at most {QuantityType.places} decimal places")
    return quantity


def _check_unit(value: str) -> str:
    if not _UNIT.search(value):
        raise ValueError("must be a word such as tablet, ml or puff, not a number")
    return value


_UNIT = re.compile(rf"[^{SHOWS_NOTHING}0-9.,]")
DecimalQuantityIn = Annotated[
    Decimal,
    BeforeValidator(_parse_quantity),
    WithJsonSchema(
        {
            "type": "number",
            "exclusiveMinimum": 0,
            "maximum": int(QUANTITY_LIMIT),
            "multipleOf": 0.001,
            "examples": [21],
        }
    ),
]
DecimalQuantityOut = Annotated[
    Decimal,
    PlainSerializer(json_number, return_type=int | float),
    WithJsonSchema({"type": "number", "examples": [21]}),
]
Unit = Annotated[
    str,
    StringConstraints(min_length=1, max_length=100),
    AfterValidator(_check_unit),
    Field(json_schema_extra={"pattern": _UNIT.pattern, "examples": ["tablet"]}),
    clean(100),
]


# --- Time ----------------------------------------------------------------------------------------------

_INSTANT = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt ](\d\d):(\d\d)(?::(\d\d)(?:\.(\d{1,6})\d*)?)?"
    r"\s*(?:([Zz])|([+-])(\d\d):?(\d\d))?",
    re.ASCII,
)
_BIRTH_DATE = re.compile(r"\d{4}(-\d\d(-\d\d)?)?", re.ASCII)
_DAY = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)


def parse_day(value: Any) -> date:
    """Return the date of a text `YYYY-MM-DD` with a year from 1890 to 2199. Raises ValueError."""
    if isinstance(value, date) and not isinstance(value, datetime):
        return value
    if not isinstance(value, str) or not _DAY.fullmatch(value):
        raise ValueError("write a date as YYYY-MM-DD")
    try:
        day = date.fromisoformat(value)
    except ValueError:
        raise ValueError("this day does not exist in the calendar") from None
    if not FIRST_YEAR <= day.year <= LAST_YEAR:
        raise ValueError(f"the year must be between {FIRST_YEAR} and {LAST_YEAR}")
    return day


def parse_birth_date(value: Any) -> str:
    """Return a date of birth `YYYY-MM-DD`, `YYYY-MM` or `YYYY`. Raises ValueError."""
    if not isinstance(value, str) or not _BIRTH_DATE.fullmatch(value):
        raise ValueError("write a date of birth as YYYY-MM-DD, or YYYY-MM or YYYY if the rest is unknown")
    parse_day((value + "-01-01")[:10])  # checks month, day and the range of years
    return value


def _format_offset(local: datetime) -> str:
    offset = local.strftime("%z")
    return f"{offset[:3]}:{offset[3:5]}"


def _to_utc(local: datetime, zone: tzinfo) -> datetime:
    """Convert a local time of a zone to UTC. Raises ValueError if it does not exist exactly once."""
    first, second = local.replace(tzinfo=zone, fold=0), local.replace(tzinfo=zone, fold=1)
    if first.utcoffset() != second.utcoffset():
        exists = first.astimezone(UTC).astimezone(zone).replace(tzinfo=None) == local
        offsets = " or ".join(sorted({_format_offset(first), _format_offset(second)}))
        problem = "exists twice" if exists else "does not exist"
        raise ValueError(f"this local time {problem} when the clocks change; add the offset {offsets}")
    return first.astimezone(UTC)


def parse_instant(value: Any, *, zone: tzinfo | None = None) -> datetime:
    """Return an RFC 3339 date-time in UTC.

    Without an offset it is the local time of `zone`. The default zone is that of the clinic.

    Raises ValueError. For a local time that does not exist or exists twice, it contains the possible offsets.
    """
    if isinstance(value, datetime) and value.tzinfo is not None:
        return value.astimezone(UTC)
    match = _INSTANT.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError(
            "write a date-time as YYYY-MM-DDTHH:MM:SS; an offset such as +02:00 or Z is optional"
        )
    year, month, day, hour, minute = (int(match[i]) for i in range(1, 6))
    if not FIRST_YEAR <= year <= LAST_YEAR:
        raise ValueError(f"the year must be between {FIRST_YEAR} and {LAST_YEAR}")
    try:
        local = datetime(  # noqa: DTZ001 - the offset follows
            year, month, day, hour, minute, int(match[6] or 0), int((match[7] or "0").ljust(6, "0"))
        )
        if match[8]:
            return local.replace(tzinfo=UTC)
        if match[9]:
            offset_time = time(int(match[10]), int(match[11]))  # checks the range, too
            offset = timedelta(hours=offset_time.hour, minutes=offset_time.minute)
            return (local - offset if match[9] == "+" else local + offset).replace(tzinfo=UTC)
    except ValueError:
        raise ValueError("this date-time does not exist") from None
    return _to_utc(local, zone or settings().zone)


def parse_instant_or_day(value: Any) -> datetime:
    """Return a date-time in UTC. A date is its start in the time zone of the clinic. Raises ValueError."""
    if isinstance(value, str) and _DAY.fullmatch(value):
        return datetime.combine(parse_day(value), time.min, tzinfo=settings().zone).astimezone(UTC)
    return parse_instant(value)


def format_instant(instant: datetime) -> str:
    """Return the RFC 3339 text of an instant, with the offset of the clinic."""
    return _format_in_zone(instant, settings().zone)


@lru_cache(maxsize=4096)  # the rows of a list share many times
def _format_in_zone(instant: datetime, zone: tzinfo) -> str:
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
_DAY_SCHEMA = WithJsonSchema({"type": "string", "format": "date", "examples": ["2026-03-02"]})
DayIn = Annotated[date, BeforeValidator(parse_day), _DAY_SCHEMA]
DayOut = Annotated[date, _DAY_SCHEMA]
_BIRTH_DATE_SCHEMA = WithJsonSchema(
    {
        "type": "string",
        "pattern": r"^[0-9]{4}(-[0-9]{2}(-[0-9]{2})?)?$",
        "description": "YYYY-MM-DD, or YYYY-MM or YYYY if the rest is unknown.",
        "examples": ["1990-01-01"],
    }
)
BirthDateIn = Annotated[str, BeforeValidator(parse_birth_date), _BIRTH_DATE_SCHEMA]
BirthDateOut = Annotated[str, _BIRTH_DATE_SCHEMA]


def _parse_clock_time(value: Any) -> time:
    match = re.fullmatch(r"(\d\d):(\d\d)(?::(\d\d))?", value, re.ASCII) if isinstance(value, str) else None
    if match is None:
        raise ValueError("write a time of the day as HH:MM")
    hour, minute, second = int(match[1]), int(match[2]), int(match[3] or 0)
    if (hour, minute, second) == (24, 0, 0):
        return time.max  # `time` cannot represent 24:00, the end of the day
    try:
        return time(hour, minute, second)
    except ValueError:
        raise ValueError("this time of the day does not exist") from None


def _format_clock_time(value: time) -> str:
    if value == time.max:
        return "24:00"
    return value.strftime("%H:%M:%S" if value.second else "%H:%M")


_CLOCK_SCHEMA = {"type": "string", "pattern": r"^([01]\d|2[0-4]):[0-5]\d(:[0-5]\d)?$", "examples": ["09:00"]}
ClockTime = Annotated[
    time,
    BeforeValidator(lambda value: value if isinstance(value, time) else _parse_clock_time(value)),
    PlainSerializer(_format_clock_time, return_type=str, when_used="json"),
    WithJsonSchema(_CLOCK_SCHEMA),
]
