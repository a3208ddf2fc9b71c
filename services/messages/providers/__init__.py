"""Providers: they hand a message over to a mail server or a gateway.

A provider has the method `send(message) -> Receipt`. It raises one of the failures below. No database
transaction is open during the call. A `detail` is a status code, never the text of a server: that text may
contain the address of a patient.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class OutgoingMessage:
    """A rendered message.

    - `reference` identifies the message at the gateway. It is the same for each attempt.
    - `recipient` is an e-mail address, or a phone number in E.164 form.
    - `subject`, `sender_name`, `message_id_header`, `unsubscribe_url` and `calendar` are for e-mail only.
    """

    reference: str
    recipient: str
    text: str
    subject: str = ""
    sender_name: str = ""
    message_id_header: str = ""
    unsubscribe_url: str | None = None
    calendar: bytes | None = None


@dataclass(frozen=True)
class Receipt:
    """The answer of a provider that has accepted a message. The id is the one in its delivery receipts."""

    provider_message_id: str | None = None


class _Failure(Exception):  # noqa: N818 - the base of named failures
    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail[:100]


class TemporaryFailure(_Failure):
    """The provider did not accept the message now. The message is sent again later."""


class PermanentFailure(_Failure):
    """The provider will never accept this message."""


class NoAnswer(_Failure):
    """The provider got the message, but its answer is missing or does not say if it was accepted."""


class Provider(Protocol):
    """A way to hand messages over. `name` is stored with each message."""

    name: str

    def send(self, message: OutgoingMessage) -> Receipt:
        """Hand the message over. Raises `TemporaryFailure`, `PermanentFailure` or `NoAnswer`."""
        ...
