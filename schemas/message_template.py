"""Requests and responses of the settings and the templates of messages."""

from __future__ import annotations

from datetime import time
from typing import Annotated, TypeVar

from pydantic import AfterValidator, Field, StringConstraints

from column_types import canonical_language
from enums import MessageChannel, MessageKind
from schemas.base import In, Out, patch_model
from schemas.fields import ClockTime, InstantOut, clean
from schemas.patient import PageQuery

Item = TypeVar("Item")
MAX_HOURS = 336  # two weeks
MAX_SUBJECT, MAX_TEXT = 200, 5_000  # characters


def _check_unique(values: list[Item]) -> list[Item]:
    if len(set(values)) < len(values):
        raise ValueError("use each value once")
    return values


def _sort_descending(values: list[int]) -> list[int]:
    return sorted(values, reverse=True)


def _check_before_midnight(value: time) -> time:
    if value == time.max:
        raise ValueError("write midnight as 00:00")
    return value


def _check_one_line(value: str) -> str:
    if not value.isprintable():
        raise ValueError("must be one line without control characters")
    return value


Hours = Annotated[int, Field(ge=1, le=MAX_HOURS)]
QuietTime = Annotated[ClockTime, AfterValidator(_check_before_midnight)]
Subject = Annotated[
    str, StringConstraints(max_length=MAX_SUBJECT), clean(MAX_SUBJECT), AfterValidator(_check_one_line)
]
TemplateText = Annotated[str, StringConstraints(max_length=MAX_TEXT), clean(MAX_TEXT)]


class MessageSettingsIn(In):
    """The settings of messages to patients: kinds, channels and times.

    A message uses the first of the `channels` on which the patient can be reached. Between `quiet_start` and
    `quiet_end`, local times of the clinic, a message waits. Null in both means no quiet hours.
    """

    kinds: Annotated[
        list[MessageKind], Field(description="The kinds that are sent."), AfterValidator(_check_unique)
    ]
    channels: Annotated[
        list[MessageChannel],
        Field(description="The channels, in the order in which they are tried."),
        AfterValidator(_check_unique),
    ]
    reminder_hours: Annotated[
        list[Hours],
        Field(max_length=5, description="Hours before the appointment.", examples=[[24, 2]]),
        AfterValidator(_check_unique),
        AfterValidator(_sort_descending),
    ]
    quiet_start: Annotated[QuietTime, Field(examples=["20:00"])] | None = None
    quiet_end: Annotated[QuietTime, Field(examples=["07:30"])] | None = None
    expiry_hours: Annotated[Hours, Field(description="A message is not sent later than so many hours.")]


MessageSettingsPatch = patch_model(MessageSettingsIn, "MessageSettingsPatch")


class MessageSettingsOut(Out):
    """The settings of messages."""

    kinds: list[MessageKind]
    channels: list[MessageChannel]
    reminder_hours: list[int]
    quiet_start: ClockTime | None
    quiet_end: ClockTime | None
    expiry_hours: int
    created_at: InstantOut
    updated_at: InstantOut


class TemplateIn(In):
    """A template with variables in braces. Only an e-mail has a subject.

    A line is left out if one of its variables has no value. A clinic without `PUBLIC_URL` has no `{link}`.
    """

    subject: Annotated[Subject, Field(examples=["Your appointment on {date}"])] | None = None
    text: Annotated[TemplateText, Field(examples=["{clinic}: see you on {date} at {time}."])]


TemplatePatch = patch_model(TemplateIn, "TemplatePatch")


class TemplateOut(Out):
    """A template. `is_changed` is false for a built-in text, which has no dates.

    `segments` is the number of parts of an SMS with long values, `encoding` is `gsm-7` or `ucs-2`.
    """

    kind: MessageKind
    channel: MessageChannel
    locale: str
    subject: str | None
    text: str
    is_changed: bool
    variables: list[str]
    segments: int | None
    encoding: str | None
    created_at: InstantOut | None
    updated_at: InstantOut | None


class TemplateQuery(PageQuery):
    """The page and the filters of the templates."""

    kind: Annotated[MessageKind | None, Field(description="Only templates of this kind.")] = None
    channel: Annotated[MessageChannel | None, Field(description="Only templates of this channel.")] = None
    locale: Annotated[
        str | None,
        Field(max_length=35, description="Only templates in this language.", examples=["sw"]),
        AfterValidator(lambda text: None if text is None else canonical_language(text)),
    ] = None


class PreviewOut(Out):
    """A message with example values. `segments` and `encoding` are those of an SMS."""

    subject: str | None
    text: str
    segments: int | None
    encoding: str | None
    locale: str
