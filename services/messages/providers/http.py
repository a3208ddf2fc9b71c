"""The provider of SMS and WhatsApp: a POST to the gateway of the settings `SMS_HTTP_*` or `WHATSAPP_HTTP_*`.

An accepted SMS must not be sent twice. So only a failure before the gateway can have accepted the message is
temporary: no connection, or an answer that refuses it for now.
"""

from __future__ import annotations

import http.client
import json
from typing import Any
from urllib.parse import urlencode, urlsplit

from config_messages import Gateway, fill
from services.messages.providers import (
    NoAnswer,
    OutgoingMessage,
    PermanentFailure,
    Receipt,
    TemporaryFailure,
)
from services.messages.providers.call import time_limit

CONNECT_TIMEOUT = 10.0  # seconds
ANSWER_TIMEOUT = 25.0  # seconds from the request to the end of the answer
MAX_ANSWER = 64 * 1024  # bytes
RETRY_STATUSES = (408, 429)
# A proxy got no answer from the gateway behind it, which may have accepted the message.
LOST_STATUSES = (502, 504, 520, 524)
NO_IDS = ("", "none", "null")  # some gateways write these in place of an id


class HttpProvider:
    """Send messages through an HTTP gateway."""

    name = "http"

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway

    def send(self, message: OutgoingMessage) -> Receipt:
        """Send one request. Redirects are not followed: they would carry the secret to another host."""
        status, body = self._post(*self._request(message))
        if status in LOST_STATUSES:
            raise NoAnswer(f"HTTP {status}")
        if status in RETRY_STATUSES or status >= 500:
            raise TemporaryFailure(f"HTTP {status}")
        if not 200 <= status < 300:
            raise PermanentFailure(f"HTTP {status}")
        if not self.gateway.id_path:
            return Receipt()
        return Receipt(_read_id(body, self.gateway.id_path))

    def _request(self, message: OutgoingMessage) -> tuple[dict[str, str], bytes]:
        gateway = self.gateway
        values = {
            "to": message.recipient,
            "to_digits": message.recipient.lstrip("+"),
            "text": message.text,
            "id": message.reference,
        }
        body = fill(gateway.body, values)
        media_type = "application/x-www-form-urlencoded" if gateway.is_form else "application/json"
        content = urlencode(body) if gateway.is_form else json.dumps(body)
        headers = {"Content-Type": media_type, "Accept": "application/json", "User-Agent": "clinic"}
        given = {name.lower() for name in gateway.headers}
        headers = {name: value for name, value in headers.items() if name.lower() not in given}
        return headers | gateway.headers, content.encode()

    def _post(self, headers: dict[str, str], content: bytes) -> tuple[int, bytes]:
        url = urlsplit(self.gateway.url)
        kind = http.client.HTTPSConnection if url.scheme == "https" else http.client.HTTPConnection
        connection = kind(url.hostname or "", url.port, timeout=CONNECT_TIMEOUT)
        try:
            try:
                connection.connect()
            except (OSError, UnicodeError) as error:  # UnicodeError: a host name that cannot exist
                raise TemporaryFailure(type(error).__name__) from None
            path = (url.path or "/") + (f"?{url.query}" if url.query else "")
            connected = connection.sock  # a response without keep-alive removes it from the connection
            try:
                with time_limit(ANSWER_TIMEOUT, lambda: connected):
                    return _exchange(connection, path, headers, content)
            except (OSError, http.client.HTTPException) as error:
                raise NoAnswer(type(error).__name__) from None
        finally:
            connection.close()


def _exchange(
    connection: http.client.HTTPConnection, path: str, headers: dict[str, str], content: bytes
) -> tuple[int, bytes]:
    """Send the request and return status and body of the answer, at most `MAX_ANSWER` bytes of it.

    Of an interrupted answer the status counts: a refusal stays a refusal.
    """
    if connection.sock is not None:
        connection.sock.settimeout(ANSWER_TIMEOUT)
    connection.request("POST", path, body=content, headers=headers)
    answer = connection.getresponse()
    try:
        return answer.status, answer.read(MAX_ANSWER)
    except (OSError, http.client.HTTPException):
        return answer.status, b""


def _read_id(body: bytes, path: tuple[str, ...]) -> str:
    """Return the id of the message in the answer. Raises `NoAnswer` without one.

    Gateways answer 200 with a null id to some refusals. Nobody knows then if the message was accepted.
    """
    try:
        value: Any = json.loads(body)
        for part in path:
            value = value[int(part)] if isinstance(value, list) else value[part]
    except (ValueError, KeyError, IndexError, TypeError, RecursionError):
        value = None
    text = str(value) if isinstance(value, (str, int)) and not isinstance(value, bool) else ""
    if text.strip().lower() in NO_IDS or len(text) > 200:
        raise NoAnswer("the answer has no message id")
    return text
