"""Telephone numbers: stored as typed, with the additional forms that a search needs."""

from __future__ import annotations

import re

import phonenumbers

from column_types import plain_phone
from config import settings

MIN_SEARCHED = 3  # digits; fewer would match almost every patient
_INTERNATIONAL_PREFIX = re.compile(r"^[\s(]*00")
_PHONE_LIKE = re.compile(r"[\d\s+()\-./]+")


def e164(phone: str | None) -> str | None:
    """Return the number in E.164 form, or None if it is not a possible number.

    A number without a country code belongs to the region of the setting `DEFAULT_PHONE_REGION`. A leading
    `00` means `+` in every region.
    """
    if not phone:
        return None
    typed = _INTERNATIONAL_PREFIX.sub("+", plain_phone(phone))
    try:
        number = phonenumbers.parse(typed, settings().default_phone_region)
    except phonenumbers.NumberParseException:
        return None
    if not phonenumbers.is_possible_number(number):
        return None
    return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)


def searchable(phone: str | None, international: str | None) -> str | None:
    """Return the text that a search by digits matches: the typed digits, then those of the E.164 form."""
    if not phone:
        return None
    return f"{digits(plain_phone(phone))} {(international or '').lstrip('+')}".strip()[:50]


def digits(text: str) -> str:
    """Return the digits of a text as ASCII digits, from any script."""
    return "".join(str(int(c)) for c in text if c.isdecimal())


def searched_digits(text: str) -> str | None:
    """Return the digits of a text that looks like a phone number or a part of one, else None.

    A leading `00` is left out: it means `+`.
    """
    text = plain_phone(text)
    searched = digits(_INTERNATIONAL_PREFIX.sub("+", text))
    return searched if len(searched) >= MIN_SEARCHED and _PHONE_LIKE.fullmatch(text) else None
