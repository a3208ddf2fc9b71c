"""Templates as an administrator reads and changes them. Changes wait for each other on the settings row."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import time, timedelta
from typing import TypedDict, Unpack

from sqlalchemy import select

from column_types import canonical_language, is_blank_text
from enums import MessageChannel, MessageKind
from errors import ClinicError, not_found
from extensions import db
from models import MessageTemplate
from security.permissions import Actor
from services import clock
from services.clinic.record import clinic_record
from services.listing.spec import ListQuery, Page
from services.messages import settings
from services.messages.rendering import (
    LONG_LINK,
    MessageVariables,
    RenderedMessage,
    longest_sms,
    render_text,
)
from services.messages.templates import VARIABLE, VARIABLES, Text, built_in, built_in_locales
from services.rows import assign, for_update

MAX_SEGMENTS = 3


class TemplateChanges(TypedDict, total=False):
    """Members of a change of a template; absent ones stay as they are."""

    subject: str | None
    text: str


def get(actor: Actor, kind: str, channel: str, locale: str, *, lock: bool = False) -> MessageTemplate:
    """Return the template in effect: the changed one, else the built-in one, which has no id.

    Raises 404 for an unknown kind, channel or language. With `lock` the template of a language without a
    text is empty: it can be written.
    """
    key = _parse_key(kind, channel, locale)
    if lock:
        settings.get(actor, lock=True)
    row = _stored(key, lock=lock) or _built_in_row(key)
    if row is None and lock:
        row = _new_row(key, Text(None, ""))
    if row is None:
        raise not_found("message_template")
    return row


Key = tuple[MessageKind, MessageChannel, str]


def _parse_key(kind: str, channel: str, locale: str) -> Key:
    try:
        return MessageKind(kind), MessageChannel(channel), canonical_language(locale)
    except ValueError:
        raise not_found("message_template") from None


def _stored(key: Key, *, lock: bool) -> MessageTemplate | None:
    kind, channel, locale = key
    statement = select(MessageTemplate).where(
        MessageTemplate.kind == kind, MessageTemplate.channel == channel, MessageTemplate.locale == locale
    )
    row: MessageTemplate | None = db.session.scalars(
        for_update(statement) if lock else statement
    ).one_or_none()
    return row


def _built_in_row(key: Key) -> MessageTemplate | None:
    text = built_in(key[2]).get(key[:2])
    return None if text is None else _new_row(key, text)


def _new_row(key: Key, text: Text) -> MessageTemplate:
    """Return a template that is not stored. Its ETag is that of version 0."""
    kind, channel, locale = key
    return MessageTemplate(
        kind=kind, channel=channel, locale=locale, subject=text.subject, text=text.text, version=0
    )


def find(
    kind: str | None, channel: str | None, locale: str | None, query: ListQuery
) -> Page[MessageTemplate]:
    """Return one page of the templates in effect, in the order of languages, kinds and channels."""
    rows = {(row.kind, row.channel, row.locale): row for row in db.session.scalars(select(MessageTemplate))}
    for each in built_in_locales():
        for pair, text in built_in(each).items():
            rows.setdefault((*pair, each), _new_row((*pair, each), text))
    kinds, channels = list(MessageKind), list(MessageChannel)
    selected = [
        rows[key]
        for key in sorted(rows, key=lambda key: (key[2], kinds.index(key[0]), channels.index(key[1])))
        if kind in (None, key[0]) and channel in (None, key[1]) and locale in (None, key[2])
    ]
    return Page(selected[query.offset : query.offset + query.limit], len(selected), False, query)


def add_computed_fields(_actor: Actor, rows: Sequence[MessageTemplate]) -> None:
    """Set the variables of the kind, and the size of an SMS with long values."""
    record = clinic_record()
    for row in rows:
        row.is_changed = row.version > 0
        row.variables = list(VARIABLES[row.kind])
        if row.channel is MessageChannel.SMS:
            longest = longest_sms(Text(None, row.text), row.locale, record)
            row.segments, row.encoding = longest.segments, longest.encoding


def update(row: MessageTemplate, **changes: Unpack[TemplateChanges]) -> MessageTemplate:
    """Change the template. Raises 422 as `check`."""
    text = Text(changes.get("subject", row.subject), changes.get("text", row.text))
    check(row, text)
    if text != (row.subject, row.text):
        assign(row, text._asdict())
        db.session.add(row)
    return row


def remove(row: MessageTemplate) -> MessageTemplate:
    """Remove a changed template and return the built-in one, or the removed one if there is none."""
    key = (row.kind, row.channel, row.locale)
    built_in_row = _built_in_row(key)
    if row.version > 0:
        db.session.delete(row)
        return built_in_row or _new_row(key, Text(row.subject, row.text))
    if built_in_row is None:
        raise not_found("message_template")
    return built_in_row


def check(row: MessageTemplate, text: Text) -> None:
    """Raise 422 for an unknown variable, a missing or superfluous subject, and an SMS that is too long."""
    problems = {}
    if row.channel is MessageChannel.EMAIL and text.subject is None:
        problems["subject"] = "an e-mail needs a subject"
    if row.channel is not MessageChannel.EMAIL and text.subject is not None:
        problems["subject"] = "only an e-mail has a subject"
    if is_blank_text(text.text):
        problems["text"] = "must not be blank"
    for name, template in text._asdict().items():
        if template is not None and (problem := _variable_problem(template, VARIABLES[row.kind])):
            problems[name] = problem
    if not problems and row.channel is MessageChannel.SMS:
        longest = longest_sms(text, row.locale, clinic_record())
        if (longest.segments or 0) > MAX_SEGMENTS:
            problems["text"] = (
                f"with long values this SMS has {longest.segments} parts in {longest.encoding}; "
                f"use at most {MAX_SEGMENTS}"
            )
    if problems:
        message = " ".join(f"{name}: {problem}." for name, problem in problems.items())
        raise ClinicError("validation_failed", message, errors=problems)


def _variable_problem(template: str, known: Sequence[str]) -> str | None:
    listed = ", ".join(f"{{{name}}}" for name in known)
    for name in VARIABLE.findall(template):
        if name not in known:
            return f"{{{name[:50]}}} is not a variable of this message; use {listed}"
    rest = VARIABLE.sub("", template)
    if "{" in rest or "}" in rest:
        return f"braces are for variables only; use {listed}"
    return None


def preview(row: MessageTemplate, **changes: Unpack[TemplateChanges]) -> RenderedMessage:
    """Return the message with example values, a week from now. Raises 422 as `check`."""
    text = Text(changes.get("subject", row.subject), changes.get("text", row.text))
    check(row, text)
    day = clock.today() + timedelta(days=7)
    is_booked = "time" in VARIABLES[row.kind]
    variables = MessageVariables(
        clinic=clinic_record().name,
        start=clock.at(day, time(9, 30)) if is_booked else None,
        old_start=clock.at(day - timedelta(days=1), time(15)),
        day=day,
        link=LONG_LINK,
        unsubscribe=LONG_LINK,
    )
    return render_text(text, row.channel, (row.locale, None), variables)
