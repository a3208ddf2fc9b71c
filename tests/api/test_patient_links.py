"""Public pages: confirm or cancel an appointment, end messages. A GET never changes anything."""

from __future__ import annotations

import json
from typing import Any

import pytest
from sqlalchemy import func, select

from api.pages import html
from config import ROOT
from enums import MessageChannel
from extensions import db
from models import Appointment, AuditLog, Patient
from services.messages import links
from tests.support.booking import later, monday_morning
from tests.support.clinic import Clinic

__all__ = ["monday_morning"]
START = "2027-03-04T10:00:00+00:00"
PUBLIC = "https://clinic.example"


@pytest.fixture
def clinic(make_clinic: Any) -> Clinic:
    clinic: Clinic = make_clinic(public_url=PUBLIC)
    return clinic


def booked(clinic: Clinic, **members: Any) -> tuple[str, dict[str, Any]]:
    """Book an appointment. Return the path of its page and the appointment."""
    patient_id = clinic.patient(name="Zawadi Njeri", **members)["id"]
    row = clinic.appointment(patient_id=patient_id, date=START)
    with clinic.inside():
        url = links.answer_url(db.session.get_one(Appointment, row["id"]))
    return str(url).removeprefix(PUBLIC), row


def unsubscribe_path(clinic: Clinic, patient_id: int, channel: str) -> str:
    with clinic.inside():
        return str(links.unsubscribe_url(patient_id, MessageChannel(channel))).removeprefix(PUBLIC)


def shown(clinic: Clinic, row: dict[str, Any]) -> dict[str, Any]:
    appointment: dict[str, Any] = clinic.admin.get(f"/appointments/{row['id']}").get_json()
    return appointment


def audit_count(clinic: Clinic) -> int:
    with clinic.inside() as session:
        return int(session.scalar(select(func.count()).select_from(AuditLog)))


def test_the_page_shows_the_time_and_changes_nothing(clinic: Clinic) -> None:
    path, row = booked(clinic)
    before = shown(clinic, row), audit_count(clinic)

    pages = [clinic.nobody.send(method, path) for method in ("GET", "HEAD", "GET")]

    text = pages[0].get_data(as_text=True)
    assert [(page.status_code, page.mimetype) for page in pages] == [(200, "text/html")] * 3
    assert "Thursday, March 4, 2027" in text
    assert 'value="confirm"' in text
    assert 'value="cancel"' in text
    assert "Zawadi" not in text
    assert "general practice" not in text
    assert "<script" not in text
    assert pages[0].headers["Cache-Control"] == "no-store"
    assert "form-action 'self'" in pages[0].headers["Content-Security-Policy"]
    assert (shown(clinic, row), audit_count(clinic) - 1) == before


def test_the_patient_confirms_and_the_front_desk_sees_it(clinic: Clinic) -> None:
    path, row = booked(clinic)

    page = clinic.nobody.post(path, data={"action": "confirm", "start": START})

    after = shown(clinic, row)
    assert page.status_code == 200
    assert "You have confirmed" in page.get_data(as_text=True)
    assert (after["status"], after["confirmed_at"][:16]) == ("scheduled", "2027-03-01T08:00")
    with clinic.inside() as session:
        entry = session.scalars(select(AuditLog).where(AuditLog.action == "confirm")).one()
        assert (entry.user_id, entry.user_name, entry.entity_id) == (None, "patient link", row["id"])
        assert entry.patient_ids == [row["patient_id"]]


def test_the_patient_cancels_and_a_repeat_changes_nothing(clinic: Clinic) -> None:
    path, row = booked(clinic)

    pages = [clinic.nobody.post(path, data={"action": "cancel", "start": START}) for _number in range(2)]

    after = shown(clinic, row)
    assert [page.status_code for page in pages] == [200, 200]
    assert "<button" not in pages[1].get_data(as_text=True)
    assert (after["status"], after["cancelled_by"]) == ("cancelled", "patient")


def test_a_move_ends_the_confirmation_and_the_old_page_confirms_nothing(clinic: Clinic) -> None:
    path, row = booked(clinic)
    clinic.nobody.post(path, data={"action": "confirm", "start": START})
    clinic.admin.patch(f"/appointments/{row['id']}", {"date": "2027-03-05T10:00:00+00:00"})

    page = clinic.nobody.post(path, data={"action": "confirm", "start": START})

    assert page.status_code == 409
    assert "March 5, 2027" in page.get_data(as_text=True)
    assert shown(clinic, row)["confirmed_at"] is None


def test_a_status_that_allows_no_answer_is_shown_without_buttons(clinic: Clinic) -> None:
    path, row = booked(clinic)
    clinic.admin.delete(f"/appointments/{row['id']}")

    pages = [clinic.nobody.get(path), clinic.nobody.post(path, data={"action": "confirm"})]

    assert [page.status_code for page in pages] == [200, 409]
    assert all("This appointment is cancelled." in page.get_data(as_text=True) for page in pages)
    assert all("<button" not in page.get_data(as_text=True) for page in pages)


def test_dead_foreign_and_altered_tokens_are_the_same_404(clinic: Clinic) -> None:
    path, row = booked(clinic)
    token = path.rsplit("/", 1)[1]
    other = unsubscribe_path(clinic, row["patient_id"], "email").rsplit("/", 1)[1]
    with later(days=3, hours=2):
        pages = [clinic.nobody.get(path), clinic.nobody.post(path, data={"action": "confirm"})]
    altered = [
        token[:-1] + "A",
        "A" + token[1:],
        token + "A",
        token + "=",
        token[:22],
        "x",
        "%00",
        "é",
        "A" * 900,
    ]

    pages += [clinic.nobody.get(f"/a/{text}") for text in (other, *altered)]
    pages += [clinic.nobody.get(f"/u/{token}"), clinic.nobody.post(f"/u/{token}")]

    assert {page.status_code for page in pages} == {404}
    assert {page.mimetype for page in pages} == {"text/html"}
    assert len({page.get_data() for page in pages}) == 1
    for path_of_api in (f"/calendar/{token}.ics", f"/messages/callbacks/sms/{token}"):
        assert clinic.nobody.post(path_of_api).status_code in (404, 405)


def test_a_token_is_for_one_patient(clinic: Clinic) -> None:
    path, row = booked(clinic)
    other = clinic.patient()["id"]
    clinic.admin.patch(f"/appointments/{row['id']}", {"patient_id": other})

    assert clinic.nobody.get(path).status_code == 404


def test_unsubscribing_turns_one_channel_of_one_patient_off(clinic: Clinic) -> None:
    first, second = clinic.patient()["id"], clinic.patient()["id"]
    path = unsubscribe_path(clinic, first, "email")
    question = clinic.nobody.get(path)
    assert preferences(clinic, first) == [True, True, True]

    # the body of a mail program, in both media types of RFC 8058
    bodies: list[dict[str, Any]] = [
        {"data": {"List-Unsubscribe": "One-Click"}},
        {"data": {"List-Unsubscribe": "One-Click"}, "content_type": "multipart/form-data"},
    ]
    pages = [clinic.nobody.post(path, **body) for body in bodies]

    assert [page.status_code for page in (question, *pages)] == [200, 200, 200]
    assert "You will get no more messages by e-mail." in pages[0].get_data(as_text=True)
    assert preferences(clinic, first) == [False, True, True]
    assert preferences(clinic, second) == [True, True, True]


def preferences(clinic: Clinic, patient_id: int) -> list[bool]:
    row = clinic.admin.get(f"/patients/{patient_id}/contact-preferences").get_json()
    return [row["email"], row["sms"], row["whatsapp"]]


@pytest.mark.parametrize(
    ("language", "expected", "direction"),
    [
        ("fr", "jeudi 4 mars 2027", "ltr"),
        ("sw", "10:00 asubuhi", "ltr"),
        ("ar", "2027", "rtl"),
        ("pt-BR", "4 de março de 2027", "ltr"),
    ],
)
def test_the_page_is_in_the_language_of_the_patient(
    clinic: Clinic, language: str, expected: str, direction: str
) -> None:
    path, _row = booked(clinic, language=language)

    text = clinic.nobody.get(path).get_data(as_text=True)

    assert f'<html lang="{language}" dir="{direction}">' in text
    assert expected in text
    assert html.texts_of(language)["confirm"] in text


def test_every_language_has_every_text_of_the_pages() -> None:
    texts = json.loads((ROOT / "data" / "public_pages.json").read_text())

    assert set(texts) == {"en", "sw", "fr", "ar", "es", "pt"}
    assert {frozenset(names) for names in texts.values()} == {frozenset(texts["en"])}
    assert all(text.strip() for names in texts.values() for text in names.values())
    assert all("{channel}" in names["unsubscribed"] for names in texts.values())


def test_parameters_that_mail_programs_add_to_a_link_are_ignored(clinic: Clinic) -> None:
    path, row = booked(clinic)
    added = "utm_source=mail&utm_source=again&fbclid=%00&_=1"
    unsubscribe = unsubscribe_path(clinic, row["patient_id"], "email")

    pages = [
        clinic.nobody.get(f"{path}?{added}"),
        clinic.nobody.get(f"{unsubscribe}?{added}"),
        clinic.nobody.post(f"{path}?{added}", data={"action": "confirm", "start": START}),
        clinic.nobody.get(f"/a/nothing?{added}"),
    ]

    assert [(page.status_code, page.mimetype) for page in pages] == [
        *[(200, "text/html")] * 3,
        (404, "text/html"),
    ]
    assert shown(clinic, row)["confirmed_at"] is not None


def test_every_error_is_a_page_in_the_language_of_the_browser(
    clinic: Clinic, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, _row = booked(clinic)
    spanish = {"headers": {"Accept-Language": "es-MX,es;q=0.9"}}
    requests: list[tuple[str, str, dict[str, Any], int]] = [
        ("GET", "/a/nothing", {}, 404),
        ("DELETE", path, {}, 405),
        ("GET", "/u", {}, 404),
        ("POST", path, {"data": {"action": "x" * 5000}}, 413),
        ("POST", path, {"json": {"action": "confirm"}}, 415),
        ("POST", path, {"data": {"action": "delete"}}, 422),
        ("POST", path, {"data": {"action": "confirm", "start": "tomorrow"}}, 422),
        ("POST", path, {"data": {}}, 422),
        ("POST", "/u/nothing", {"data": {"x": "x" * 5000}}, 413),
    ]
    for method, target, options, status in requests:
        page = clinic.nobody.send(method, target, **spanish, **options)
        assert (page.status_code, page.mimetype) == (status, "text/html"), (method, target)
        assert '<html lang="es" dir="ltr">' in page.get_data(as_text=True)

    monkeypatch.setattr(db.session, "get", None)
    page = clinic.nobody.get(path, **spanish)
    assert (page.status_code, page.mimetype) == (500, "text/html")


def test_the_rate_limit_of_a_page_is_a_page(make_clinic: Any) -> None:
    clinic: Clinic = make_clinic(rate_limit_enabled=True, rate_limit_default="2 per minute")

    pages = [clinic.nobody.get("/a/nothing") for _number in range(3)]

    assert [page.status_code for page in pages] == [404, 404, 429]
    assert (pages[2].mimetype, pages[2].headers["Retry-After"].isdecimal()) == ("text/html", True)


def test_the_token_is_in_no_log(clinic: Clinic, capsys: pytest.CaptureFixture[str]) -> None:
    path, row = booked(clinic)
    paths = [path, unsubscribe_path(clinic, row["patient_id"], "sms")]

    for target in paths:
        clinic.nobody.get(target)
        clinic.nobody.post(target, data={"action": "confirm"})

    written = capsys.readouterr().err
    assert [written.count(f"route={route}") for route in ("/a/<token>", "/u/<token>")] == [2, 2]
    assert not any(target.rsplit("/", 1)[1] in written for target in paths)


def test_a_name_with_markup_is_escaped(clinic: Clinic) -> None:
    clinic.admin.patch("/clinic", {"name": "Smith & Sons <b>Clinic</b>"})
    path, _row = booked(clinic)

    text = clinic.nobody.get(path).get_data(as_text=True)

    assert "Smith &amp; Sons &lt; b&gt;" in text or "Smith &amp; Sons &lt;b&gt;Clinic&lt;/b&gt;" in text


def test_links_need_a_public_url(make_clinic: Any) -> None:
    clinic: Clinic = make_clinic()
    row = clinic.appointment()

    with clinic.inside() as session:
        assert links.answer_url(session.get_one(Appointment, row["id"])) is None
        assert (
            links.unsubscribe_url(session.get_one(Patient, row["patient_id"]).id, MessageChannel.SMS) is None
        )
