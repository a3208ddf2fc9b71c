"""Messages in six languages: complete, short, with dates of the language and without confidential data."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, date, datetime
from typing import Any

import pytest

from enums import MessageChannel, MessageKind
from models import MessageTemplate
from services.clinic.record import clinic_record
from services.messages.rendering import MessageVariables, RenderedMessage, longest_sms, render
from services.messages.templates import OPTIONAL, VARIABLE, VARIABLES, built_in, built_in_locales, fallbacks
from tests.support.clinic import Clinic
from tests.support.servers import ROOT

MakeClinic = Callable[..., Clinic]
LOCALES = ("ar", "en", "es", "fr", "pt", "sw")
LINK = "https://clinic.example/a/AbCdEfGhIjKlMnOp"
START = datetime(2026, 8, 5, 6, 0, tzinfo=UTC)
BOOKED = MessageVariables(clinic="Lakeside Clinic", start=START, link=LINK, unsubscribe=f"{LINK}/u")
MAX_SEGMENTS = {"ar": 3} | dict.fromkeys(("en", "es", "fr", "pt", "sw"), 2)
# the script of a language that is not Latin: letters of another script would be a wrong text
ARABIC = re.compile(r"[\u0600-\u06ff]")


def message(clinic: Clinic, *args: Any, **kwargs: Any) -> RenderedMessage:
    with clinic.inside():
        return render(*args, **kwargs)


def test_every_kind_and_channel_has_a_text_in_six_languages() -> None:
    assert built_in_locales() == LOCALES
    for locale in LOCALES:
        texts = built_in(locale)
        assert texts.keys() == {(kind, channel) for kind in MessageKind for channel in MessageChannel}
        for (kind, channel), (subject, text) in texts.items():
            where = (locale, kind, channel)
            used = set(VARIABLE.findall(f"{subject}{text}"))
            needed = {"clinic", "date"} | ({"time"} if "time" in VARIABLES[kind] else set())
            needed |= {"link"} if "link" in VARIABLES[kind] else set()
            assert needed <= used <= set(VARIABLES[kind]), where
            assert (subject is not None) == (channel is MessageChannel.EMAIL), where
            assert bool(ARABIC.search(text)) == (locale == "ar"), where
            assert ("unsubscribe" in used) == (channel is MessageChannel.EMAIL), where
            # the first line stays, whatever has no value
            assert not set(VARIABLE.findall(text.splitlines()[0])) & OPTIONAL, where
    assert {name for names in VARIABLES.values() for name in names} >= OPTIONAL


def test_the_documentation_shows_the_texts(make_clinic: MakeClinic) -> None:
    clinic = make_clinic(clinic_locale="en_KE", clinic_timezone="Africa/Nairobi")
    clinic.admin.patch("/clinic", {"phones": ["+254 20 555 0100"]})
    page = (ROOT / "docs" / "messages.md").read_text(encoding="utf-8")
    values = MessageVariables(
        clinic="Lakeside Clinic",
        start=START,
        old_start=datetime(2026, 8, 4, 12, 30, tzinfo=UTC),
        link="https://clinic.example/a/…",
    )

    for kind in MessageKind:
        # GSM-7 has no ellipsis
        shown = message(clinic, kind, MessageChannel.SMS, "en", values).text.replace("...", "…")
        assert f"| `{kind}` | {shown.replace(chr(10), '<br>')} |" in page, shown


def test_texts_of_languages_differ() -> None:
    for key in built_in("en"):
        assert len({built_in(locale)[key].text for locale in LOCALES}) == len(LOCALES), key


def test_built_in_sms_are_short(make_clinic: MakeClinic) -> None:
    clinic = make_clinic(clinic_locale="en_US")  # 12-hour times are longer
    with clinic.inside():
        for locale in LOCALES:
            for (kind, channel), text in built_in(locale).items():
                if channel is MessageChannel.SMS:
                    sms = longest_sms(text, locale, clinic_record())
                    assert (sms.segments or 9) <= MAX_SEGMENTS[locale], (locale, kind, sms)
                    assert sms.encoding == ("ucs-2" if locale == "ar" else "gsm-7"), (locale, kind)


@pytest.mark.parametrize(
    ("locale", "expected"),
    [
        (
            "en",
            "Lakeside Clinic: your appointment is booked for Wed, 5 Aug 2026 at 09:00.\n"
            f"Confirm or cancel: {LINK}\nPhone: +254 712 345 678",
        ),
        (
            "en-US",
            "Lakeside Clinic: your appointment is booked for Wed, Aug 5, 2026 at 9:00 AM.\n"
            f"Confirm or cancel: {LINK}\nPhone: +254 712 345 678",
        ),
        (
            "sw",
            "Lakeside Clinic: miadi yako imepangwa Jumatano, 5 Ago 2026, 09:00 asubuhi.\n"
            f"Thibitisha au ghairi: {LINK}\nSimu: +254 712 345 678",
        ),
        (
            "fr-CA",
            "Lakeside Clinic : votre rendez-vous est enregistré pour le mer. 5 aout 2026 à 09 h 00.\n"
            f"Confirmer ou annuler : {LINK}\nTél. : +254 712 345 678",
        ),
        (
            "pt-BR",
            "Lakeside Clinic: a sua consulta foi marcada para qua., 5 de ago. de 2026, 09:00.\n"
            f"Confirmar ou cancelar: {LINK}\nTel. +254 712 345 678",
        ),
        (
            "ar",
            "من Lakeside Clinic: تم حجز موعدك يوم الأربعاء، 5 أغسطس 2026 الساعة 9:00 ص.\n"
            f"للتأكيد أو الإلغاء: {LINK}",
        ),
    ],
)
def test_an_sms_in_the_language_and_the_formats_of_the_patient(
    make_clinic: MakeClinic, locale: str, expected: str
) -> None:
    clinic = make_clinic(clinic_locale="en_KE", clinic_timezone="Africa/Nairobi")
    clinic.admin.patch("/clinic", {"phones": ["+254 712 345 678"]})

    sms = message(clinic, MessageKind.BOOKED, MessageChannel.SMS, locale, BOOKED)

    assert sms.text == expected
    assert (sms.subject, sms.locale) == (None, locale.split("-")[0])


def test_an_email_has_a_subject_of_one_line_and_whole_dates(make_clinic: MakeClinic) -> None:
    clinic = make_clinic(clinic_locale="en_KE", clinic_timezone="Africa/Nairobi")
    names = MessageVariables(
        clinic="Lake\r\nBcc: x@y.example", start=START, old_start=datetime(2026, 8, 4, 12, 30, tzinfo=UTC)
    )
    with clinic.inside() as session:
        session.add(
            MessageTemplate(
                kind=MessageKind.MOVED,
                channel=MessageChannel.EMAIL,
                locale="en",
                subject="{clinic}: moved to {date}",
                text="Moved from {old_date} {old_time}\nto {time}\n\n{link}\n\n\n{unknown}\nEnd",
            )
        )

    mail = message(clinic, MessageKind.MOVED, MessageChannel.EMAIL, None, names)

    assert mail.subject == "Lake Bcc: x@y.example: moved to Wednesday, 5 August 2026"
    assert mail.text == "Moved from Tuesday, 4 August 2026 15:30\nto 09:00\n\nEnd"
    assert (mail.segments, mail.encoding) == (None, None)


def test_a_line_without_its_value_is_left_out(clinic: Clinic) -> None:
    values = MessageVariables(clinic="Lakeside Clinic", start=START)

    for kind in (MessageKind.BOOKED, MessageKind.MOVED, MessageKind.REMINDER, MessageKind.CANCELLED):
        for channel in MessageChannel:
            text = message(clinic, kind, channel, "en", values).text
            assert "http" not in text
            assert not text.endswith((":", "\n"))
            assert "None" not in text
            assert "\n\n\n" not in text
    with clinic.inside(), pytest.raises(ValueError, match="a start or a day"):
        render(MessageKind.BOOKED, MessageChannel.SMS, "en", MessageVariables(clinic="A"))


def test_a_message_about_a_day_has_no_time(clinic: Clinic) -> None:
    values = MessageVariables(clinic="Lakeside Clinic", day=date(2026, 8, 5))

    for locale in LOCALES:
        for kind in (MessageKind.FOLLOW_UP_DUE, MessageKind.INVOICE):
            for channel in MessageChannel:
                text = message(clinic, kind, channel, locale, values).text
                assert "2026" in text, (locale, kind, channel)
                assert ":00" not in text


def test_a_time_that_occurs_twice_names_its_zone(make_clinic: MakeClinic) -> None:
    clinic = make_clinic(clinic_timezone="America/New_York")
    texts = [
        message(
            clinic,
            MessageKind.REMINDER,
            MessageChannel.SMS,
            "en",
            MessageVariables(clinic="A", start=datetime(2026, 11, 1, hour, 30, tzinfo=UTC)),
        ).text
        for hour in (5, 6, 7)
    ]

    assert [text.partition(" at ")[2] for text in texts] == ["1:30 AM (EDT).", "1:30 AM (EST).", "2:30 AM."]


def test_the_number_of_the_clinic_stays_in_order_in_arabic(clinic: Clinic) -> None:
    clinic.admin.patch("/clinic", {"phones": ["+254 712 345 678"]})

    text = message(clinic, MessageKind.CANCELLED, MessageChannel.SMS, "ar", BOOKED).text

    assert "\u200e+254 712 345 678" in text
    assert text.startswith("من ")  # a Latin name at the start would turn the whole line


@pytest.mark.parametrize(
    ("locales", "expected"),
    [
        (("pt-BR", "en_KE"), ["pt-BR", "pt", "en-KE", "en"]),
        ((None, "sw_KE"), ["sw-KE", "sw", "en"]),
        (("zh-Hant-TW", "fr"), ["zh-Hant-TW", "zh-Hant", "zh", "fr", "en"]),
        (("en", "en_US"), ["en", "en-US"]),
    ],
)
def test_the_nearest_language_comes_first(locales: tuple[str | None, ...], expected: list[str]) -> None:
    assert list(fallbacks(*locales)) == expected


@pytest.mark.parametrize(
    ("patient", "clinic_locale", "expected"),
    [("pt-BR", "en_KE", "pt"), (None, "sw_KE", "sw"), ("so", "fr_CD", "fr"), ("so", "am_ET", "en")],
)
def test_a_language_without_texts_falls_back(
    make_clinic: MakeClinic, patient: str | None, clinic_locale: str, expected: str
) -> None:
    clinic = make_clinic(clinic_locale=clinic_locale)

    for channel in MessageChannel:
        assert message(clinic, MessageKind.BOOKED, channel, patient, BOOKED).locale == expected
