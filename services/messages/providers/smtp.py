"""The provider of e-mail: the mail server of the setting `SMTP_URL`."""

from __future__ import annotations

import re
import smtplib
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email import policy
from email.headerregistry import Address, BaseHeader, HeaderRegistry, UnstructuredHeader
from email.message import EmailMessage
from email.utils import format_datetime
from typing import Any

import email_validator

from config import settings
from config_messages import MailServer
from services import clock
from services.messages.providers import OutgoingMessage, PermanentFailure, Receipt, TemporaryFailure
from services.messages.providers.call import time_limit

TIMEOUT = 20.0  # seconds for each read of an answer of the server
CALL_TIMEOUT = 60.0  # seconds for the whole call
LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")
AUTHENTICATION_CODES = (530, 534, 535, 538)  # a fault of the settings: the message itself is not refused
_CONTROL = re.compile(r"[\x00-\x1f\x7f\u2028\u2029]+")
_METHOD = re.compile(rb"^METHOD:([A-Z]+)\r?$", re.MULTILINE)


class _UnfoldedHeader(UnstructuredHeader, BaseHeader):
    """A header with one URL. The standard library would encode a long URL, and mail programs decode none."""

    def fold(self, *, policy: policy.EmailPolicy) -> str:  # type: ignore[override]
        return f"{self.name}: {self}{policy.linesep}"


_HEADERS = HeaderRegistry()
_HEADERS.map_to_type("list-unsubscribe", _UnfoldedHeader)
# Lines of 7-bit text pass every server.
_ASCII = policy.SMTP.clone(cte_type="7bit", header_factory=_HEADERS)
_UTF8 = policy.SMTPUTF8.clone(cte_type="8bit", header_factory=_HEADERS)


class _Connection(smtplib.SMTP):
    """A connection that is in `opened` before the server greets: the greeting also has a time limit."""

    def __init__(self, opened: list[smtplib.SMTP], *arguments: Any, **options: Any) -> None:
        opened.append(self)
        super().__init__(*arguments, **options)


class _TlsConnection(_Connection, smtplib.SMTP_SSL):
    """The same with TLS from the start."""


class SmtpProvider:
    """Send e-mail through a mail server. The connection ends after each message."""

    name = "smtp"

    def __init__(self, server: MailServer) -> None:
        self.server = server

    def send(self, message: OutgoingMessage) -> Receipt:
        """Send the message. An interrupted connection is a temporary failure: the server may have accepted.

        The message is then sent again with the same `Message-ID`, by which mail programs find duplicates.
        """
        mail = compose(message)
        try:
            opened: list[smtplib.SMTP] = []
            with (
                time_limit(CALL_TIMEOUT, lambda: opened[0].sock if opened else None),
                self._connection(opened) as connection,
            ):
                connection.send_message(mail)
        except smtplib.SMTPRecipientsRefused as error:
            code, text = next(iter(error.recipients.values()))
            raise _failure(code, text) from None
        except (smtplib.SMTPSenderRefused, smtplib.SMTPDataError) as error:
            raise _failure(error.smtp_code, error.smtp_error) from None
        except smtplib.SMTPNotSupportedError:
            raise PermanentFailure("the server does not support SMTPUTF8 addresses") from None
        except smtplib.SMTPResponseException as error:  # greeting, EHLO, STARTTLS or AUTH
            raise TemporaryFailure(_describe(error.smtp_code, error.smtp_error)) from None
        except (smtplib.SMTPException, ssl.SSLError, OSError) as error:
            raise TemporaryFailure(type(error).__name__) from None
        return Receipt()

    @contextmanager
    def _connection(self, opened: list[smtplib.SMTP]) -> Iterator[smtplib.SMTP]:
        server = self.server
        context = ssl.create_default_context()
        is_local = server.host in LOCAL_HOSTS
        if is_local:  # its certificate rarely names localhost, and nobody is between
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        if server.implicit_tls:
            connection: smtplib.SMTP = _TlsConnection(
                opened, server.host, server.port, timeout=TIMEOUT, context=context
            )
        else:
            connection = _Connection(opened, server.host, server.port, timeout=TIMEOUT)
        try:
            connection.ehlo_or_helo_if_needed()
            if not server.implicit_tls and connection.has_extn("starttls"):
                connection.starttls(context=context)
                connection.ehlo()
            elif not server.implicit_tls and server.user is not None and not is_local:
                raise TemporaryFailure("the server offers no TLS, and the password needs it")
            if server.user is not None and server.password is not None:
                _login(connection, server.user, server.password)
            yield connection
        finally:
            _close(connection.quit, connection.close)


def _login(connection: smtplib.SMTP, user: str, password: str) -> None:
    """Sign in. A server without AUTH, and a password that it cannot take, are faults of the settings."""
    try:
        connection.login(user, password)
    except (smtplib.SMTPNotSupportedError, UnicodeError) as error:
        raise TemporaryFailure(f"AUTH: {type(error).__name__}") from None


def _close(quit_connection: Callable[[], object], close: Callable[[], object]) -> None:
    """End the connection. The message was accepted or refused before, so an error here means nothing."""
    try:
        quit_connection()
    except (smtplib.SMTPException, OSError):
        close()


def _failure(code: int, text: bytes | str) -> PermanentFailure | TemporaryFailure:
    is_permanent = 500 <= code <= 599 and code not in AUTHENTICATION_CODES
    return (PermanentFailure if is_permanent else TemporaryFailure)(_describe(code, text))


def _describe(code: int, text: bytes | str) -> str:
    """Return the code with the enhanced status code of RFC 3463, such as `550 5.1.1`."""
    answer = text.decode("ascii", "replace") if isinstance(text, bytes) else text
    enhanced = re.match(r"[245]\.\d{1,3}\.\d{1,3}", answer)
    return f"{code} {enhanced[0]}" if enhanced else str(code)


# --- The message ---------------------------------------------------------------------------------------


def compose(message: OutgoingMessage) -> EmailMessage:
    """Return the e-mail. No value can add a header: line breaks and control characters become blanks.

    Raises `PermanentFailure` for an address that is not valid.
    """
    recipient = _address(message.recipient)
    is_ascii = recipient.addr_spec.isascii()
    mail = EmailMessage(policy=_ASCII if is_ascii else _UTF8)
    sender = settings().sender
    name = _one_line(sender.display_name or message.sender_name)
    mail["From"] = Address(name, sender.username, sender.domain)
    mail["To"] = recipient
    mail["Subject"] = _one_line(message.subject)
    mail["Date"] = format_datetime(clock.now())
    mail["Message-ID"] = message.message_id_header
    mail["Auto-Submitted"] = "auto-generated"  # RFC 3834: no out-of-office answer
    if message.unsubscribe_url is not None:
        mail["List-Unsubscribe"] = f"<{message.unsubscribe_url}>"
        mail["List-Unsubscribe-Post"] = "List-Unsubscribe=One-Click"  # RFC 8058
    mail.set_content(message.text)
    if message.calendar is not None:
        method = _METHOD.search(message.calendar)
        mail.add_alternative(
            message.calendar.decode(),
            subtype="calendar",
            params={"method": method[1].decode() if method else "PUBLISH", "name": "appointment.ics"},
        )
    return mail


def _address(text: str) -> Address:
    """Return the address with its domain in ASCII form: IDNA for names such as kliník.example."""
    try:
        checked = email_validator.validate_email(text, check_deliverability=False, globally_deliverable=False)
        return Address(username=checked.local_part, domain=checked.ascii_domain)
    except (email_validator.EmailNotValidError, ValueError):
        raise PermanentFailure("the address is not valid") from None


def _one_line(text: str) -> str:
    """Return a text for a header: one line, and no encoded word (RFC 2047), which may hide a line break."""
    return " ".join(_CONTROL.sub(" ", text).replace("=?", "= ?").split())
