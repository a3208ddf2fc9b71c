"""E-mail through a real server (aiosmtpd): its answers, hang-ups and timeouts, and the headers."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from icalendar import Calendar

import config
from services.messages.providers import OutgoingMessage, PermanentFailure, Receipt, TemporaryFailure, smtp
from services.messages.providers.smtp import SmtpProvider, compose
from tests.conftest import settings_for
from tests.support.gateways import MailServer, mail_server, trickling_server

CALENDAR = b"BEGIN:VCALENDAR\r\nVERSION:2.0\r\nPRODID:x\r\nMETHOD:CANCEL\r\nEND:VCALENDAR\r\n"
MESSAGE = OutgoingMessage(
    reference="clinic-1",
    recipient="zawadi@example.com",
    text="Habari, Zoë.\nLine two",
    subject="Miadi yako ✓",
    sender_name="Kliniki ya Ñuñoa",
    message_id_header="<1@clinic.example>",
    unsubscribe_url="https://clinic.example/u/abc",
    calendar=CALENDAR,
)


@pytest.fixture(autouse=True)
def settings() -> None:
    use("clinic@example.com")


def use(mail_from: str) -> None:
    config.use(settings_for("sqlite:///clinic.db", mail_from=mail_from))


def provider_at(url: str) -> SmtpProvider:
    server = settings_for("sqlite:///clinic.db", smtp_url=url, mail_from="clinic@example.com").mail_server
    assert server is not None
    return SmtpProvider(server)


@pytest.fixture
def server() -> Iterator[tuple[MailServer, SmtpProvider]]:
    with mail_server() as (server, url):
        yield server, provider_at(url)


def test_the_server_gets_the_message_with_its_headers(server: tuple[MailServer, SmtpProvider]) -> None:
    mails, provider = server

    receipt = provider.send(MESSAGE)

    (mail,) = mails.accepted
    assert receipt == Receipt()
    assert mails.recipients == ["zawadi@example.com"]
    expected = {
        "From": "Kliniki ya Ñuñoa <clinic@example.com>",
        "To": "zawadi@example.com",
        "Subject": "Miadi yako ✓",
        "Message-ID": "<1@clinic.example>",
        "Auto-Submitted": "auto-generated",
        "List-Unsubscribe": "<https://clinic.example/u/abc>",
        "List-Unsubscribe-Post": "List-Unsubscribe=One-Click",
    }
    assert {name: str(mail[name]) for name in expected} == expected
    assert mail["Date"].datetime is not None
    text, calendar = mail.iter_parts()
    assert text.get_content().splitlines() == MESSAGE.text.splitlines()
    assert calendar.get_content_type() == "text/calendar"
    assert calendar["Content-Type"].params["method"] == "CANCEL"
    assert Calendar.from_ical(calendar.get_content())["METHOD"] == "CANCEL"


@pytest.mark.parametrize(
    ("answers", "failure", "detail"),
    [
        ({"RCPT": "451 4.7.1 zawadi@example.com try later"}, TemporaryFailure, "451 4.7.1"),
        ({"RCPT": "550 5.1.1 zawadi@example.com unknown"}, PermanentFailure, "550 5.1.1"),
        ({"RCPT": "452 full"}, TemporaryFailure, "452"),
        ({"DATA": "451 busy"}, TemporaryFailure, "451"),
        ({"DATA": "554 5.7.1 spam"}, PermanentFailure, "554 5.7.1"),
        ({"MAIL": "550 no"}, PermanentFailure, "550"),
        ({"MAIL": "421 4.3.2 later"}, TemporaryFailure, "421 4.3.2"),
        ({"MAIL": "530 5.7.0 authenticate first"}, TemporaryFailure, "530 5.7.0"),
        ({"RCPT": "close"}, TemporaryFailure, None),
        ({"DATA": "close"}, TemporaryFailure, None),
        ({"DATA": "hang"}, TemporaryFailure, None),
        ({"MAIL": "hang"}, TemporaryFailure, None),
    ],
)
def test_an_answer_decides_if_the_message_is_sent_again(
    server: tuple[MailServer, SmtpProvider],
    answers: dict[str, str],
    failure: type[TemporaryFailure | PermanentFailure],
    detail: str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mails, provider = server
    mails.answers = answers
    if "hang" in answers.values():
        monkeypatch.setattr(smtp, "TIMEOUT", 1.0)

    with pytest.raises(failure) as raised:
        provider.send(MESSAGE)

    assert detail is None or raised.value.detail == detail
    assert "zawadi" not in raised.value.detail
    assert mails.accepted == []


def test_a_server_that_sends_one_byte_at_a_time_holds_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smtp, "CALL_TIMEOUT", 0.3)
    for scheme in ("smtp", "smtps"):
        with trickling_server(b"220-clinic") as port, pytest.raises(TemporaryFailure):
            provider_at(f"{scheme}://127.0.0.1:{port}").send(MESSAGE)


def test_no_server_is_a_temporary_failure() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"smtp://127.0.0.1:{unused.getsockname()[1]}"
        provider = provider_at(url)

        with pytest.raises(TemporaryFailure):
            provider.send(MESSAGE)


def test_a_password_is_not_sent_without_tls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smtp, "LOCAL_HOSTS", ())
    with mail_server() as (_server, url):
        secret_url = url.replace("smtp://", "smtp://user:secret@")
        provider = provider_at(secret_url)

        with pytest.raises(TemporaryFailure, match="TLS"):
            provider.send(MESSAGE)


def test_a_password_for_a_server_without_sign_in_is_a_fault_of_the_settings() -> None:
    with mail_server() as (_server, url):
        for password in ("secret", "gehe%C3%AFm"):
            provider = provider_at(url.replace("smtp://", f"smtp://user:{password}@"))
            with pytest.raises(TemporaryFailure, match="AUTH"):
                provider.send(MESSAGE)


@pytest.mark.parametrize("length", [20, 40, 200])
def test_a_long_link_to_unsubscribe_is_not_encoded(length: int) -> None:
    url = f"https://{'appointments.' * (length // 10)}example/u/abc"

    mail = compose(replace(MESSAGE, unsubscribe_url=url)).as_bytes()

    assert f"\r\nList-Unsubscribe: <{url}>\r\n".encode() in mail


@pytest.mark.parametrize(
    "recipient", ["zoë@example.com", "zawadi@kliník.example", "用户@例え.example", "o'brien+x@example.com"]
)
def test_addresses_in_all_scripts_are_sent(server: tuple[MailServer, SmtpProvider], recipient: str) -> None:
    mails, provider = server

    provider.send(replace(MESSAGE, recipient=recipient))

    local, domain = recipient.split("@")
    assert mails.recipients == [f"{local}@{domain.encode('idna').decode()}"]


INJECTIONS = [
    {"subject": "Hello\r\nBcc: thief@example.com"},
    {"subject": "Hello\nBcc: thief@example.com\n\nbody"},
    {"subject": "Hello\u2028Bcc: thief@example.com"},
    {"subject": "=?utf-8?q?=0ABcc:_thief=40example.com?= Hello"},
    {"sender_name": "=?utf-8?q?=0ABcc:_thief=40example.com?="},
    {"sender_name": "=?utf-8?q??="},
    {"sender_name": 'Clinic"\r\nBcc: thief@example.com'},
    {"sender_name": "Clinic <thief@example.com>, x"},
    {"text": ".\r\n.\r\nMAIL FROM:<thief@example.com>\r\n"},
]


@pytest.mark.parametrize("change", INJECTIONS)
def test_no_value_adds_a_header_or_a_recipient(
    server: tuple[MailServer, SmtpProvider], change: dict[str, Any]
) -> None:
    mails, provider = server

    provider.send(replace(MESSAGE, **change))

    (mail,) = mails.accepted
    assert mails.recipients == ["zawadi@example.com"]
    assert mail["Bcc"] is None
    assert [address.addr_spec for address in mail["From"].addresses] == ["clinic@example.com"]
    assert len(mail.keys()) == 10, mail.keys()


@pytest.mark.parametrize(
    "recipient",
    [
        "a@example.com, thief@example.com",
        "a@example.com\r\nBcc: thief@example.com",
        "<a@example.com>",
        "a",
        "",
    ],
)
def test_an_address_that_is_not_one_address_is_refused(recipient: str) -> None:
    with pytest.raises(PermanentFailure):
        compose(replace(MESSAGE, recipient=recipient))


def test_the_name_of_the_sender_is_that_of_the_setting_if_it_has_one() -> None:
    use("Reception <reception@example.com>")

    assert str(compose(MESSAGE)["From"]) == "Reception <reception@example.com>"
