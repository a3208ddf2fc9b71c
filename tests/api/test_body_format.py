"""Formats of request bodies: media types, forms and private documents."""

from __future__ import annotations

import pytest
from flask import Flask

from api.body_format import FORM, JSON, MAX_FORM_FIELDS, BodyFormat, decode_form
from api.cached_document import private_response
from errors import ClinicError


def test_a_form_is_decoded_into_text_members() -> None:
    assert decode_form(b"action=confirm&note=caf%C3%A9+noir&empty=") == {
        "action": "confirm",
        "note": "café noir",
        "empty": "",
    }


@pytest.mark.parametrize("charset", ["iso-8859-1", "ISO-8859-1", "windows-1252", "latin1"])
def test_a_form_is_read_in_its_declared_charset(charset: str) -> None:
    assert decode_form(b"text=ARR%CAT", charset) == {"text": "ARRÊT"}


@pytest.mark.parametrize("charset", ["utf-7", "idna", "hex", "nonsense", "", "x\0"])
def test_other_charsets_are_refused(charset: str) -> None:
    with pytest.raises(ClinicError) as refusal:
        decode_form(b"text=a", charset)

    assert refusal.value.status == 400


@pytest.mark.parametrize(
    "body",
    [b"a=1&a=2", b"\xff=1", b"a=%ff", b"a", "a=é".encode(), b"&".join([b"a=1"] * (MAX_FORM_FIELDS + 1))],
)
def test_an_unreadable_form_is_refused(body: bytes) -> None:
    with pytest.raises(ClinicError) as refusal:
        decode_form(body)

    assert refusal.value.status == 400


def test_an_endpoint_accepts_its_media_types_alone() -> None:
    both = BodyFormat((FORM, "application/json"), 64 * 1024)
    png = BodyFormat(("image/png",), 200_000)

    assert both.accepts(FORM)
    assert both.accepts("application/merge-patch+json")
    assert not JSON.accepts(FORM)
    assert not png.accepts("application/json")
    assert (both.has_members, png.has_members) == (True, False)
    assert (both.size(), png.size()) == ("64 KiB", "200 kB")


def test_a_private_document_is_sent_once_and_confirmed_afterwards() -> None:
    app = Flask(__name__)
    with app.test_request_context():
        first = private_response(b"BEGIN:VCALENDAR", "text/calendar", file_name="a.ics")
    tag = first.headers["ETag"]
    with app.test_request_context(headers={"If-None-Match": tag}):
        second = private_response(b"BEGIN:VCALENDAR", "text/calendar")
    with app.test_request_context(headers={"If-None-Match": tag}):
        changed = private_response(b"BEGIN:VCALENDAR2", "text/calendar")

    assert (first.status_code, second.status_code, changed.status_code) == (200, 304, 200)
    assert first.headers["Cache-Control"] == "private, no-cache"
    assert first.headers["Content-Disposition"] == 'attachment; filename="a.ics"'
