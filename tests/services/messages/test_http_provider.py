"""SMS and WhatsApp through an HTTP gateway: the request, and what each answer means."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qs

import pytest

from services.messages.providers import (
    NoAnswer,
    OutgoingMessage,
    PermanentFailure,
    Receipt,
    TemporaryFailure,
    http,
)
from services.messages.providers.http import HttpProvider
from tests.conftest import settings_for
from tests.support.gateways import Gateway, http_gateway, trickling_server

MESSAGE = OutgoingMessage(
    "clinic-7", "+254712345678", 'Smith & Sons: "9:00" {to} 100% \\ Zoë=+ñ\nhttps://a/b?c=d'
)
JSON_BODY = '{"to": ["{to}"], "text": "{text}", "ref": "{id}", "priority": 1, "plain": "x{to_digits}"}'
FORM_BODY = "username=clinic&to={to}&message={text}&empty="


@pytest.fixture
def gateway() -> Iterator[tuple[Gateway, str]]:
    with http_gateway() as pair:
        yield pair


def provider(url: str, body: str = JSON_BODY, **settings: str) -> HttpProvider:
    settings = {"sms_http_headers": '{"apiKey": "secret"}', "sms_http_id_path": "messages.0.id"} | settings
    request = {"sms_provider": "http", "sms_http_url": url, "sms_http_body": body}
    configured = settings_for("sqlite:///clinic.db", **request, **settings).gateway("sms")
    assert configured is not None
    return HttpProvider(configured)


def test_a_json_request_has_every_value_unchanged(gateway: tuple[Gateway, str]) -> None:
    server, url = gateway
    server.answers({"messages": [{"id": 4711}]}, 201)

    receipt = provider(url).send(MESSAGE)

    ((path, headers, body),) = server.requests
    assert (path, receipt) == ("/send?v=1", Receipt("4711"))
    assert (headers["apiKey"], headers["Content-Type"]) == ("secret", "application/json")
    assert json.loads(body) == {
        "to": ["+254712345678"],
        "text": MESSAGE.text,
        "ref": "clinic-7",
        "priority": 1,
        "plain": "x254712345678",
    }


def test_a_form_has_every_value_unchanged(gateway: tuple[Gateway, str]) -> None:
    server, url = gateway
    server.answers({"messages": [{"id": "abc"}]})

    provider(url, FORM_BODY).send(MESSAGE)

    ((_path, headers, body),) = server.requests
    assert headers["Content-Type"] == "application/x-www-form-urlencoded"
    assert parse_qs(body.decode(), keep_blank_values=True) == {
        "username": ["clinic"],
        "to": ["+254712345678"],
        "message": [MESSAGE.text],
        "empty": [""],
    }


@pytest.mark.parametrize(
    ("status", "body", "failure"),
    [
        (400, b"", PermanentFailure),
        (401, b"", PermanentFailure),
        (404, b"", PermanentFailure),
        (301, b"", PermanentFailure),
        (429, b"", TemporaryFailure),
        (408, b"", TemporaryFailure),
        (500, b"", TemporaryFailure),
        (503, b"", TemporaryFailure),
        # accepted, or not: the answer does not say
        (502, b"", NoAnswer),
        (504, b"", NoAnswer),
        (200, b"", NoAnswer),
        (200, b"<html>", NoAnswer),
        (200, b"[]", NoAnswer),
        (200, b'{"messages": []}', NoAnswer),
        (200, b'{"messages": [{"id": null}]}', NoAnswer),
        (200, b'{"messages": [{"id": "None"}]}', NoAnswer),
        (200, b'{"messages": [{"id": {"a": 1}}]}', NoAnswer),
        (200, b'{"messages": "text"}', NoAnswer),
        (200, b"[" * 100_000, NoAnswer),
        (200, b'{"messages": [{"id": "' + b"x" * 70_000 + b'"}]}', NoAnswer),
    ],
)
def test_an_answer_decides_if_the_message_is_sent_again(
    gateway: tuple[Gateway, str], status: int, body: bytes, failure: type[Exception]
) -> None:
    server, url = gateway
    server.status, server.body = status, body
    server.headers = {"Location": url} if status == 301 else {}

    with pytest.raises(failure):
        provider(url).send(MESSAGE)

    assert len(server.requests) == 1


def test_after_the_request_a_missing_answer_is_not_a_refusal(
    gateway: tuple[Gateway, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, url = gateway
    server.closes = True
    with pytest.raises(NoAnswer):
        provider(url).send(MESSAGE)

    server.hangs = True
    monkeypatch.setattr(http, "ANSWER_TIMEOUT", 0.2)
    with pytest.raises(NoAnswer, match="Timeout"):
        provider(url).send(MESSAGE)


@pytest.mark.parametrize(
    ("answer", "failure"),
    [
        (b"HTTP/1.1 200 OK\r\nX-Filler: " + b"x" * 60_000, NoAnswer),  # the headers never end
        (b"HTTP/1.1 200 OK\r\n\r\n", NoAnswer),  # the body never ends
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n", NoAnswer),
        (b"HTTP/1.1 400 No\r\nContent-Length: 9999\r\n\r\n", PermanentFailure),
    ],
)
def test_a_gateway_that_sends_one_byte_at_a_time_holds_no_thread(
    answer: bytes, failure: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "ANSWER_TIMEOUT", 2.0)

    with (
        trickling_server(answer, accepts_after=b'"priority"') as port,
        pytest.raises(failure),
    ):
        provider(f"http://127.0.0.1:{port}/").send(MESSAGE)


def test_without_a_connection_the_message_is_sent_again() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        for host in ("127.0.0.1", "host.invalid"):
            with pytest.raises(TemporaryFailure):
                provider(f"http://{host}:{port}/").send(MESSAGE)


def test_a_host_name_that_cannot_exist_is_a_temporary_failure() -> None:
    with pytest.raises(TemporaryFailure):
        provider("http://gateway..example/send").send(MESSAGE)


def test_without_a_path_of_the_id_every_answer_of_success_is_accepted(gateway: tuple[Gateway, str]) -> None:
    server, url = gateway
    server.body = b"OK 1"
    without_path = provider(url).gateway.model_copy(update={"id_path": ()})

    assert HttpProvider(without_path).send(MESSAGE) == Receipt()


def test_a_value_is_never_a_template(gateway: tuple[Gateway, str]) -> None:
    server, url = gateway
    server.answers({"messages": [{"id": "1"}]})

    provider(url).send(replace(MESSAGE, text="{id} {to} {unknown} {{text}}"))

    sent: dict[str, Any] = json.loads(server.requests[0][2])
    assert sent["text"] == "{id} {to} {unknown} {{text}}"
