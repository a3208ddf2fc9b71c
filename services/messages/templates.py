"""The templates of messages: the built-in texts, and those that an administrator has changed.

The built-in texts are in `data/messages`, one file for each language. A changed template is a row. It
replaces the built-in text of its kind, channel and locale. Texts contain clinic, date, time and links only.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

from sqlalchemy import select

from column_types import canonical_language
from enums import MessageChannel, MessageKind
from errors import not_found
from extensions import db
from models import MessageTemplate

FOLDER = Path(__file__).resolve().parents[2] / "data" / "messages"
LAST_LOCALE = "en"  # of a message without a text in the languages of patient and clinic
VARIABLE = re.compile(r"\{([^{}]*)\}")
# Variables without a value leave out their line. The others always have one.
OPTIONAL = frozenset({"phone", "old_date", "old_time", "link", "unsubscribe"})
_ALWAYS = ("clinic", "phone", "date", "unsubscribe")
_OF_APPOINTMENT = (*_ALWAYS, "time")
VARIABLES: dict[MessageKind, tuple[str, ...]] = {
    MessageKind.BOOKED: (*_OF_APPOINTMENT, "link"),
    MessageKind.MOVED: (*_OF_APPOINTMENT, "link", "old_date", "old_time"),
    MessageKind.CANCELLED: _OF_APPOINTMENT,
    MessageKind.REMINDER: (*_OF_APPOINTMENT, "link"),
    MessageKind.FOLLOW_UP_DUE: _ALWAYS,
    MessageKind.INVOICE: _ALWAYS,
}


class Text(NamedTuple):
    """The subject and the text of a template, with variables. Only e-mails have a subject."""

    subject: str | None
    text: str


@cache
def built_in(locale: str) -> dict[tuple[MessageKind, MessageChannel], Text]:
    """Return the built-in texts of a locale, nothing for another one."""
    if locale not in built_in_locales():
        return {}
    content = json.loads((FOLDER / f"{locale}.json").read_text(encoding="utf-8"))
    return {
        (MessageKind(kind), MessageChannel(channel)): Text(entry.get("subject"), "\n".join(entry["text"]))
        for kind, channels in content.items()
        for channel, entry in channels.items()
    }


@cache
def built_in_locales() -> tuple[str, ...]:
    """Return the locales with built-in texts."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.json")))


def fallbacks(*locales: str | None) -> Iterator[str]:
    """Yield the locales in the order of preference, each before its less specific forms, then English.

    `pt-BR` comes before `pt`. A locale may also have the notation of Babel, such as `en_KE`.
    """
    seen = set()
    for locale in (*locales, LAST_LOCALE):
        parts = canonical_language(locale).split("-") if locale else []
        for length in range(len(parts), 0, -1):
            tag = "-".join(parts[:length])
            if tag not in seen:
                seen.add(tag)
                yield tag


def find_text(kind: MessageKind, channel: MessageChannel, *locales: str | None) -> tuple[str, Text]:
    """Return the first text of these locales and their fallbacks, with its locale."""
    tags = list(fallbacks(*locales))
    rows = db.session.scalars(
        select(MessageTemplate).where(
            MessageTemplate.kind == kind,
            MessageTemplate.channel == channel,
            MessageTemplate.locale.in_(tags),
        )
    )
    changed = {row.locale: Text(row.subject, row.text) for row in rows}
    for tag in tags:
        text = changed.get(tag) or built_in(tag).get((kind, channel))
        if text is not None:
            return tag, text
    raise not_found("message_template")
