"""The language of a document: its texts, and the formats of dates, numbers and money."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from functools import cache

from babel import Locale, UnknownLocaleError
from babel.dates import format_date, format_skeleton
from babel.numbers import format_currency, format_decimal, format_percent
from babel.units import format_unit

from config import ROOT, settings
from errors import ClinicError
from services import clock

FOLDER = ROOT / "data" / "documents"
LANGUAGES = ("en", "sw", "fr", "ar", "es", "pt")


@dataclass(frozen=True)
class DocumentLanguage:
    """The texts of a language, with the formats of a country: `en_KE` writes `Ksh1,200.00`."""

    locale: Locale
    texts: Mapping[str, str]

    def text(self, name: str, **values: str) -> str:
        """Return a text with the values in place of their names in braces."""
        # in one pass: a value may contain braces
        return re.sub(r"{(\w+)}", lambda match: values.get(match[1], match[0]), self.texts[name])

    def money(self, amount: Decimal) -> str:
        """Return an amount with its currency."""
        return money_text(amount, self.locale)

    def amount(self, amount: Decimal) -> str:
        """Return an amount without currency, with all its places: for columns of amounts."""
        places = settings().currency_places
        return format_decimal(amount, f"#,##0.{'0' * places}".rstrip("."), locale=self.locale)

    def number(self, number: Decimal | float) -> str:
        """Return a quantity with at most three places."""
        return format_decimal(number, locale=self.locale)

    def percent(self, percent: Decimal) -> str:
        """Return a percentage, such as `16%` for 16."""
        return format_percent(percent / 100, "#,##0.##%", locale=self.locale)

    def day(self, day: date) -> str:
        """Return a date with the name of its month."""
        return format_date(day, "long", locale=self.locale)

    def short_day(self, day: date) -> str:
        """Return a date with the abbreviated name of its month, for tables with many columns.

        The short forms of Arabic contain marks of direction, which move the day in a cell of digits.
        """
        is_rtl = self.locale.text_direction == "rtl"
        return format_date(day, "long" if is_rtl else "medium", locale=self.locale)

    def month(self, day: date) -> str:
        """Return the month of a date, such as `November 2026`."""
        return format_skeleton("yMMMM", day, locale=self.locale)

    def known_day(self, known: str) -> str:
        """Return the known part of a date, of which a year or a month may be all: `1990`, `1990-11`."""
        year, *rest = map(int, known.split("-"))
        if not rest:
            return str(year)
        return self.month(date(year, rest[0], 1)) if len(rest) == 1 else self.day(date(year, *rest))

    def days(self, number: int) -> str:
        """Return a number of days, such as `7 days`."""
        return format_unit(number, "duration-day", locale=self.locale)

    def share(self, share: float | None) -> str:
        """Return a share from 0 to 1 as a percentage, or a dash without one."""
        return "–" if share is None else format_percent(share, "#,##0%", locale=self.locale)

    def local_day(self, instant: datetime) -> str:
        """Return the date of an instant in the time zone of the clinic."""
        return self.day(clock.local(instant).date())


def money_text(amount: Decimal, locale: Locale) -> str:
    """Return an amount with its currency, with the places of ISO 4217.

    CLDR writes some currencies without their places, such as HUF and IDR. A printed total would be rounded.
    """
    pattern = copy(locale.currency_formats["standard"])
    pattern.frac_prec = (settings().currency_places,) * 2
    return format_currency(amount, settings().currency, pattern, locale, currency_digits=False)


def document_language(*preferred: str | None, clinic_locale: str) -> DocumentLanguage:
    """Return the first of the preferred languages that documents have, else that of the clinic.

    Its formats are those of the country of the clinic. A preferred tag with a country, such as `pt-BR`, keeps
    its own formats.
    """
    country = Locale.parse(clinic_locale).territory
    for tag in (*preferred, clinic_locale, LANGUAGES[0]):
        locale = _parsed(tag) if tag else None
        if locale is not None and locale.language in LANGUAGES:
            return DocumentLanguage(
                _in_country(locale.language, locale.territory or country), _texts(locale.language)
            )
    raise AssertionError("the last tag is a language of documents")


@cache
def english() -> DocumentLanguage:
    """Return English with the formats of no special country."""
    return DocumentLanguage(Locale("en"), _texts("en"))


def requested_language(tag: str | None) -> str | None:
    """Return a requested tag. Raise 422 for a language in which there are no documents."""
    if tag is None:
        return None
    locale = _parsed(tag)
    if locale is None or locale.language not in LANGUAGES:
        message = f"must be a language of documents ({', '.join(LANGUAGES)}), also with a country as in en_KE"
        raise ClinicError("validation_failed", "Check the parameter.", errors={"locale": message})
    return tag


def _parsed(tag: str) -> Locale | None:
    try:
        return Locale.parse(tag.replace("-", "_"))
    except (ValueError, UnknownLocaleError):
        return None


def _in_country(language: str, country: str | None) -> Locale:
    """Return the locale of a language in a country, if Babel knows formats for the pair."""
    return _parsed(f"{language}_{country}") or Locale(language)


@cache
def _texts(language: str) -> Mapping[str, str]:
    texts: dict[str, str] = json.loads((FOLDER / f"{language}.json").read_text(encoding="utf-8"))
    return texts
