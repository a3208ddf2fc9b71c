"""The rendering of messages: dates in the language of the patient, and the variables of a template."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import cache

from babel import Locale, UnknownLocaleError
from babel.dates import format_date, format_skeleton, format_time, get_timezone_name

from enums import MessageChannel, MessageKind
from models import ClinicRecord
from services import clock
from services.clinic.record import clinic_record
from services.messages import segments
from services.messages.segments import Encoding
from services.messages.templates import VARIABLE, Text, find_text

LEFT_TO_RIGHT_MARK = "\u200e"
_BLANK = re.compile(r"[\u00a0\u2009\u202f]")  # in times of CLDR; some telephones show a box for them
_BLANK_LINES = re.compile(r"\n{3,}")
# "9:00" is three o'clock to a reader of Swahili: hours count from sunrise. The part of the day decides.
_TIME_WITH_PART_OF_DAY = {"sw": "HH:mm B"}


@dataclass(frozen=True)
class MessageVariables:
    """The content of a message.

    - `clinic`: the name of the clinic.
    - `start`, `old_start`: the start of the appointment, and the one before it was moved.
    - `day`: the date of a message that is about no appointment: of the follow-up or of the invoice.
    - `link`: the page on which the patient confirms or cancels. `unsubscribe`: the page that ends e-mails.
    """

    clinic: str
    start: datetime | None = None
    old_start: datetime | None = None
    day: date | None = None
    link: str | None = None
    unsubscribe: str | None = None


@dataclass(frozen=True)
class RenderedMessage:
    """A message as it is sent. Only an e-mail has a subject, only an SMS has segments and an encoding.

    `locale` is the language of the text.
    """

    subject: str | None
    text: str
    segments: int | None
    encoding: Encoding | None
    locale: str


def render(
    kind: MessageKind, channel: MessageChannel, locale: str | None, variables: MessageVariables
) -> RenderedMessage:
    """Return a message in the language of the patient, or in the nearest one that has a text.

    Raises ValueError without a start and a day.
    """
    text_locale, template = find_text(kind, channel, locale, clinic_record().locale)
    return render_text(template, channel, (text_locale, locale), variables)


def render_text(
    template: Text, channel: MessageChannel, locales: tuple[str, str | None], variables: MessageVariables
) -> RenderedMessage:
    """Return a text with its variables. `locales` are those of the text and of the patient."""
    record = clinic_record()
    formats = formatting_locale(*locales, record.locale)
    values = _values(variables, formats, record.phones[0] if record.phones else None, channel)
    text = _fill(template.text, values)
    if channel is MessageChannel.SMS:
        text = segments.for_sms(text)
        return RenderedMessage(
            None, text, segments.count_segments(text), segments.encoding_of(text), locales[0]
        )
    subject = None if template.subject is None else " ".join(_fill(template.subject, values).split())
    return RenderedMessage(subject, text, None, None, locales[0])


def _fill(template: str, values: Mapping[str, str | None]) -> str:
    """Return the template with its values. A line with a variable without a value is left out."""
    lines = [
        VARIABLE.sub(lambda match: values.get(match[1]) or "", line)
        for line in template.splitlines()
        if all(values.get(name) for name in VARIABLE.findall(line))
    ]
    return _BLANK_LINES.sub("\n\n", "\n".join(lines)).strip()


def _values(
    variables: MessageVariables, formats: Locale, phone: str | None, channel: MessageChannel
) -> dict[str, str | None]:
    start, old_start = (
        None if instant is None else clock.local(instant)
        for instant in (variables.start, variables.old_start)
    )
    day = variables.day or (start.date() if start is not None else None)
    if day is None:
        raise ValueError("a message needs a start or a day")
    if phone is not None and formats.text_direction == "rtl":
        phone = LEFT_TO_RIGHT_MARK + phone  # otherwise + moves to the other end of the number
    return {
        "clinic": " ".join(variables.clinic.split()),
        "phone": phone,
        "date": _format_day(day, formats, channel),
        "time": None if start is None else format_clock_time(start, formats),
        "old_date": None if old_start is None else _format_day(old_start.date(), formats, channel),
        "old_time": None if old_start is None else format_clock_time(old_start, formats),
        "link": variables.link,
        "unsubscribe": variables.unsubscribe,
    }


# --- Dates ---------------------------------------------------------------------------------------------


@cache
def formatting_locale(text_locale: str, patient_locale: str | None, clinic_locale: str) -> Locale:
    """Return the locale of dates and times: the language of the text, with a country if one is known.

    The country is that of the patient's language tag, else that of the clinic.
    """
    language = text_locale.split("-")[0]
    country = Locale.parse(clinic_locale).territory
    names = [text_locale.replace("-", "_"), language, "en"]
    if country is not None and "-" not in text_locale:
        names.insert(0, f"{language}_{country}")
    if patient_locale is not None and patient_locale.startswith(f"{language}-"):
        names.insert(0, patient_locale.replace("-", "_"))
    for name in names:
        try:
            return Locale.parse(name)
        except (UnknownLocaleError, ValueError):
            continue
    raise ValueError("Babel has no English")


def _format_day(day: date, formats: Locale, channel: MessageChannel) -> str:
    """Return a date with its weekday, in an SMS in short form."""
    if channel is MessageChannel.SMS:
        return _BLANK.sub(" ", format_skeleton("yMMMEd", day, locale=formats))
    return _BLANK.sub(" ", format_date(day, "full", locale=formats))


def format_clock_time(local: datetime, formats: Locale) -> str:
    """Return a time of the day. The hour that occurs twice when the clocks change has its time zone."""
    pattern = _TIME_WITH_PART_OF_DAY.get(formats.language, "short")
    text = _BLANK.sub(" ", format_time(local, pattern, locale=formats))
    if local.replace(fold=0).utcoffset() != local.replace(fold=1).utcoffset():
        text += f" ({get_timezone_name(local, 'short', locale=formats)})"
    return text


# --- Length --------------------------------------------------------------------------------------------

LONG_NAME = 40  # characters of the name of a clinic
LONG_LINK = "https://appointments.clinic.example/a/" + "0" * 32
LONG_PHONE = "+999 999 999 999"
_YEAR = [date(2028, 1, 1) + timedelta(days=number) for number in range(366)]


def longest_sms(template: Text, locale: str, record: ClinicRecord) -> RenderedMessage:
    """Return an SMS with the longest values that are plausible, in the locale of a template."""
    formats = formatting_locale(locale, None, record.locale)
    day = _longest_day(formats)
    start = clock.day_start(day) + timedelta(hours=22, minutes=30)
    name = record.name if len(record.name) > LONG_NAME else record.name.ljust(LONG_NAME, "x")
    variables = MessageVariables(
        clinic=name, start=start, old_start=start, day=day, link=LONG_LINK, unsubscribe=LONG_LINK
    )
    values = _values(variables, formats, LONG_PHONE, MessageChannel.SMS)
    text = segments.for_sms(_fill(template.text, values))
    return RenderedMessage(None, text, segments.count_segments(text), segments.encoding_of(text), locale)


@cache
def _longest_day(formats: Locale) -> date:
    return max(_YEAR, key=lambda day: len(_format_day(day, formats, MessageChannel.SMS)))
