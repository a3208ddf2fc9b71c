"""Telephone numbers: kept as typed, with the forms that finding them needs beside."""

from __future__ import annotations

import re

import phonenumbers

from config import settings

MIN_SEARCHED = 3  # digits; fewer would find everybody
_NUMBER = re.compile(r"[\d\s+()\-./]+")


def e164(phone: str | None) -> str | None:
    """The international form where the number parses, by `DEFAULT_PHONE_REGION`."""
    if not phone:
        return None
    try:
        number = phonenumbers.parse(phone, settings().default_phone_region)
    except phonenumbers.NumberParseException:
        return None
    if not phonenumbers.is_possible_number(number):
        return None
    return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)


def searchable(phone: str | None, international: str | None) -> str | None:
    """What a search by digits looks in: those typed, then those of the international form."""
    if not phone:
        return None
    return f"{digits(phone)} {(international or '').lstrip('+')}".strip()[:50]


def digits(text: str) -> str:
    """The digits of a text, in ASCII whatever script they were typed in."""
    return "".join(str(int(c)) for c in text if c.isdecimal())


def searched_digits(text: str) -> str | None:
    """The digits to look for where the text reads as a number or a part of one, else None."""
    found = digits(text)
    return found if len(found) >= MIN_SEARCHED and _NUMBER.fullmatch(text) else None
