"""Column types of the tables, and the forms in which typed text is compared."""

from __future__ import annotations

import re
import unicodedata
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import cache
from typing import Annotated, Any

from babel import Locale
from babel.core import get_global, parse_locale
from sqlalchemy import (
    JSON,
    BigInteger,
    Date,
    DateTime,
    Dialect,
    Integer,
    LargeBinary,
    Numeric,
    String,
    Text,
    TypeDecorator,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import mapped_column
from sqlalchemy.types import TypeEngine

MAX_INT = 2**63 - 1  # the largest id
MONEY_LIMIT = Decimal("9999999999.99")
QUANTITY_LIMIT = Decimal(1_000_000)  # the largest quantity of a prescribed medication or of a dispensing
# The upper bound in CHECK constraints, the same text on both engines. SQLite stores scaled integers of at
# most twelve digits, and this is the largest. On PostgreSQL, NUMERIC(12,2) and NUMERIC(12,3) already limit
# finite values, and NaN is above every number.
MONEY_TOP = "999999999999"
COST_TOP = "99999999999999"  # the same for unit costs, which SQLite stores in ten-thousandths


class FixedPointType(TypeDecorator[Decimal]):
    """An exact decimal: NUMERIC on PostgreSQL, a scaled integer on SQLite, which has no decimal type."""

    impl = Numeric
    cache_ok = True
    precision: int
    places: int

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Return the column type of the engine."""
        if dialect.name == "sqlite":
            return dialect.type_descriptor(BigInteger())
        return dialect.type_descriptor(Numeric(self.precision, self.places))

    def process_bind_param(self, value: Decimal | int | None, dialect: Dialect) -> Decimal | int | None:
        """Return a decimal as stored. Raises ValueError for more places than the type has."""
        if value is None:
            return None
        number = Decimal(value)
        if number != round(number, self.places):
            raise ValueError(f"at most {self.places} decimal places can be stored")
        return int(number.scaleb(self.places)) if dialect.name == "sqlite" else number

    def process_result_value(self, value: Any, dialect: Dialect) -> Decimal | None:
        """Return a stored decimal with all places of the type."""
        if value is None:
            return None
        if dialect.name == "sqlite":
            return Decimal(int(value)).scaleb(-self.places)
        return round(Decimal(value), self.places)


class EncryptedType(TypeDecorator[bytes]):
    """A value of `security.encryption`. Key commands find the columns of this type."""

    impl = LargeBinary
    cache_ok = True


class MoneyType(FixedPointType):
    """Exact money with two places."""

    cache_ok = True
    precision, places = 12, 2


class UnitCostType(MoneyType):
    """The cost of one unit. It has four places, because one tablet may cost less than a cent."""

    cache_ok = True
    precision, places = 14, 4


class QuantityType(FixedPointType):
    """An exact quantity of a medicine with three places."""

    cache_ok = True
    precision, places = 12, 3


def json_number(quantity: Decimal) -> int | float:
    """Return a quantity as a JSON number without trailing zeros. A float represents twelve digits exactly."""
    return int(quantity) if quantity == int(quantity) else float(quantity)


class InstantType(TypeDecorator[datetime]):
    """An aware datetime in UTC. SQLite stores it without a time zone, as sortable text."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Return an instant as stored. Raises ValueError for a datetime without a time zone."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("an instant needs an offset")
        value = value.astimezone(UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """Return a stored instant in UTC."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def unique_key(text: str) -> str:
    """Return the form in which unique values are compared: trimmed, NFC and case-folded."""
    return unicodedata.normalize("NFC", text.strip()).casefold()


# Characters that show nothing by themselves, as a set of a regular expression: spaces, control characters,
# marks that combine with any letter, marks of direction and width, selectors of a variant, and blank letters.
SHOWS_NOTHING = (
    r"\s\u0000-\u001f\u007f-\u009f\u00ad\u0300-\u036f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f"
    r"\u1ab0-\u1aff\u1dc0-\u1dff\u200b-\u200f\u202a-\u202e\u2060-\u206f\u20d0-\u20ff\u2800\u3164"
    r"\ufe00-\ufe0f\ufe20-\ufe2f\ufeff\uffa0\ufff9-\ufffb"
)
# A pattern of JSON Schema has no escape for characters above U+FFFF that all readers know.
NOT_BLANK_PATTERN = f"[^{SHOWS_NOTHING}]"
_VISIBLE = re.compile(rf"[^{SHOWS_NOTHING}\U0001d173-\U0001d17a\U000e0000-\U000e0fff]")


def is_blank_text(text: str) -> bool:
    """Return True for a text without a visible character."""
    return _VISIBLE.search(text) is None


# Hyphens and dashes (U+2010 to U+2015), the minus sign and the dashes of other widths.
PHONE_DASHES = "\u2010\u2011\u2012\u2013\u2014\u2015\u2212\ufe58\ufe63\uff0d"
# Address books copy marks of the writing direction together with a number.
PHONE_MARKS = (
    "\u00ad\u200b\u200c\u200d\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2060\u2066\u2067\u2068\u2069\ufeff"
)
_PLAIN = str.maketrans(dict.fromkeys(PHONE_DASHES, "-") | dict.fromkeys(PHONE_MARKS, ""))
_PHONE_SCHEME = re.compile(r"^\s*tel\s*[.:]+", re.IGNORECASE)
_PHONE_REMARK = re.compile(r"\(([^()]*)\)\s*$")
_FULL_NUMBER = 9  # digits; after so many, figures in parentheses are a remark too, such as (24/7)


def plain_phone(text: str) -> str:
    """Return a typed phone number with plain hyphens and blanks, without `tel:` and remarks."""
    text = _PHONE_SCHEME.sub("", text.translate(_PLAIN))
    while remark := _PHONE_REMARK.search(text):
        before = text[: remark.start()]
        has_letter = any(character.isalpha() for character in remark[1])
        if not has_letter and sum(character.isdecimal() for character in before) < _FULL_NUMBER:
            break
        text = before
    return " ".join(text.split())


_LANGUAGE_TAG = re.compile(r"[a-z]{2,3}(_[a-z]{4})?(_([a-z]{2}|[0-9]{3}))?", re.ASCII)
_NO_LANGUAGES = ("mul", "und", "zxx")  # several, undetermined, no linguistic content


@cache
def _known_languages() -> frozenset[str]:
    """Return the language subtags that CLDR knows, by name or by their script and country."""
    return frozenset(Locale("en").languages) | frozenset(get_global("likely_subtags"))


def canonical_language(text: str) -> str:
    """Return a language tag of BCP 47 in canonical form: `sw`, `pt-BR`, `zh-Hant`.

    A tag has a language, and optionally a script and a country. Case, `_` for `-` and outdated subtags (`iw`,
    `eng`, `UK`) are corrected. Raises ValueError for a tag with an unknown part.
    """
    tag = text.strip().lower().replace("-", "_")
    if _LANGUAGE_TAG.fullmatch(tag):
        language, territory, script, _variant = parse_locale(tag)[:4]
        alias = get_global("language_aliases").get(language) or language
        language, own_territory, own_script, _variant = parse_locale(alias)[:4]
        territory, script = territory or own_territory, script or own_script
        replaced_by = get_global("territory_aliases").get(territory or "", ())
        territory = replaced_by[0] if len(replaced_by) == 1 else territory
        english = Locale("en")
        if (
            language in _known_languages() - set(_NO_LANGUAGES)
            and (script is None or script in english.scripts)
            and (territory is None or territory in english.territories)
        ):
            return "-".join(filter(None, (language, script, territory)))
    raise ValueError("write a language as a tag of BCP 47 such as sw, ar or pt-BR")


BigId = BigInteger().with_variant(Integer(), "sqlite")
Json = JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")

Id = Annotated[int, mapped_column(BigId, primary_key=True)]
Money = Annotated[Decimal, mapped_column(MoneyType())]
UnitCost = Annotated[Decimal, mapped_column(UnitCostType())]
Quantity = Annotated[Decimal, mapped_column(QuantityType())]
Instant = Annotated[datetime, mapped_column(InstantType())]
Day = Annotated[date, mapped_column(Date())]
Name = Annotated[str, mapped_column(String(200))]
SearchKey = Annotated[str, mapped_column(String(400))]  # the maximum length of services.search_key.search_key
UniqueKey = Annotated[str, mapped_column(String(800))]  # case folding can make a text three times as long
Short = Annotated[str, mapped_column(String(100))]
Line = Annotated[str, mapped_column(String(500))]
Note = Annotated[str, mapped_column(Text())]
JsonList = Annotated[list[Any], mapped_column(Json)]
JsonDict = Annotated[dict[str, Any], mapped_column(Json)]
