"""Templates that an administrator reads, changes, previews and removes."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from sqlalchemy import text

from enums import MessageChannel, MessageKind
from extensions import db
from services.messages.rendering import MessageVariables, render
from services.messages.templates import built_in
from tests.services.messages.test_rendering import START
from tests.services.scheduling.test_booking_locks import WAITING
from tests.support.clinic import Clinic

PATH = "/messages/templates/reminder/sms/en"
TEXT = "{clinic}: see you on {date} at {time}."


def token(clinic: Clinic, **headers: str) -> dict[str, str]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return {"Authorization": f"Bearer {clinic.admin.token}"} | named


def test_a_built_in_text_is_replaced_and_restored(clinic: Clinic) -> None:
    shown = clinic.admin.get(PATH)
    built_in_text = built_in("en")[MessageKind.REMINDER, MessageChannel.SMS].text

    changed = clinic.admin.put(PATH, {"text": TEXT}, headers=token(clinic, If_Match='"0"'))
    stale = clinic.admin.put(PATH, {"text": "{date}"}, headers=token(clinic, If_Match='"0"'))

    assert (shown.status_code, shown.headers["ETag"]) == (200, '"0"')
    row = shown.get_json()
    assert (row["text"], row["is_changed"], row["created_at"]) == (built_in_text, False, None)
    assert row["variables"] == ["clinic", "phone", "date", "unsubscribe", "time", "link"]
    assert (row["segments"], row["encoding"]) == (2, "gsm-7")
    assert (changed.status_code, changed.headers["ETag"], stale.status_code) == (200, '"1"', 412)
    assert changed.get_json() == clinic.admin.get(PATH).get_json()
    assert (changed.get_json()["text"], changed.get_json()["is_changed"]) == (TEXT, True)
    with clinic.inside():
        values = MessageVariables(clinic="Lakeside", start=START)
        text = render(MessageKind.REMINDER, MessageChannel.SMS, "en-GB", values).text
    assert text == "Lakeside: see you on Wed, 5 Aug 2026 at 06:00."

    removed = clinic.admin.delete(PATH)
    assert (removed.status_code, removed.get_json()) == (200, row)
    assert clinic.admin.delete(PATH).get_json() == row
    assert clinic.admin.get(PATH).headers["ETag"] == '"0"'
    entries = clinic.admin.get(
        "/audit-logs?entity=message_template&outcome=success&sort_order=asc"
    ).get_json()
    assert [entry["action"] for entry in entries] == ["create", "delete"]


def test_a_text_that_is_sent_back_stays_built_in(clinic: Clinic) -> None:
    path = "/messages/templates/invoice/email/pt_br".replace("pt_br", "pt")
    row = clinic.admin.get(path).get_json()

    same = clinic.admin.put(path, row)

    assert (same.status_code, same.get_json(), same.headers["ETag"]) == (200, row, '"0"')


def test_a_language_without_a_text_is_written(clinic: Clinic) -> None:
    path = "/messages/templates/booked/email/so"
    text = {"subject": "Ballantaada {date}", "text": "{clinic}: {date}, {time}\n{link}"}

    missing = clinic.admin.get(path)
    empty = clinic.admin.put(path, {})
    without_subject = clinic.admin.put(path, {"text": text["text"]})
    gone = clinic.admin.delete(path)
    created = clinic.admin.put("/messages/templates/booked/email/SOM", text)

    assert (missing.status_code, gone.status_code) == (404, 404)
    assert (empty.status_code, without_subject.status_code) == (422, 422)
    assert set(empty.get_json()["errors"]) == {"subject", "text"}
    assert (created.status_code, created.get_json()["locale"]) == (200, "so")
    with clinic.inside():
        mail = render(
            MessageKind.BOOKED, MessageChannel.EMAIL, "so", MessageVariables(clinic="A", start=START)
        )
    assert (mail.subject, mail.locale) == ("Ballantaada Arbaco, Agosto 5, 2026", "so")
    listed = clinic.admin.get("/messages/templates?locale=so").get_json()
    assert [row["subject"] for row in listed] == [text["subject"]]
    removed = clinic.admin.delete(path)
    assert (removed.status_code, removed.get_json()["is_changed"]) == (200, False)
    assert clinic.admin.get(path).status_code == 404


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("{patient}", "{patient}"),
        ("{clinic.__class__}", "{clinic.__class__}"),
        ("{clinic!r}", "{clinic!r}"),
        ("{0}", "{0}"),
        ("{}", "{}"),
        ("{old_date}", "{old_date}"),
        ("{ date }", "{ date }"),
        ("{{date}}", "braces"),
        ("{date", "braces"),
        ("date}", "braces"),
        ("{clinic}" + "x" * 600, "parts in gsm-7"),
        ("{clinic} á中" + "x" * 200, "parts in ucs-2"),
        ("  ", "blank"),
    ],
)
def test_wrong_texts_are_refused(clinic: Clinic, text: str, named: str) -> None:
    for method, path in (("PUT", PATH), ("POST", f"{PATH}/preview")):
        response = clinic.admin.send(method, path, {"text": text})
        assert response.status_code == 422, response.get_data(as_text=True)
        problem = response.get_json()["errors"]["text"]
        assert named in problem
        if "{" in named:
            assert "{clinic}, {phone}, {date}, {unsubscribe}, {time}, {link}" in problem
    assert clinic.admin.get(PATH).headers["ETag"] == '"0"'


def test_subjects_belong_to_emails(clinic: Clinic) -> None:
    email = "/messages/templates/reminder/email/en"

    def refused(path: str, body: dict[str, Any]) -> str:
        response = clinic.admin.put(path, body)
        assert response.status_code == 422, response.get_data(as_text=True)
        return str(response.get_json()["errors"]["subject"])

    assert "only an e-mail" in refused(PATH, {"subject": "Hello"})
    assert "needs a subject" in refused(email, {"subject": None})
    assert "is not a variable" in refused(email, {"subject": "{reason}"})
    for broken in ("a\r\nBcc: x@example.com", "a\nb", "a\x1b[31m"):
        assert "one line" in refused(email, {"subject": broken})


def test_an_active_text_is_made_inert(clinic: Clinic) -> None:
    row = clinic.admin.put(PATH, {"text": "<script>{date}</script> BP <120"}).get_json()

    assert row["text"] == "< script>{date}< /script> BP <120"


def test_a_preview_shows_the_message_and_stores_nothing(clinic: Clinic) -> None:
    clinic.admin.patch("/clinic", {"name": "Clínica São José"})

    sms = clinic.admin.post(f"{PATH}/preview", {"text": TEXT}).get_json()
    mail = clinic.admin.post("/messages/templates/moved/email/ar/preview").get_json()

    assert sms["text"].startswith("Clinica Sao José: see you on ")
    assert sms["text"].endswith(" at 9:30 AM.")
    assert (sms["subject"], sms["segments"], sms["encoding"], sms["locale"]) == (None, 1, "gsm-7", "en")
    assert mail["subject"].startswith("تم تغيير موعدك إلى ")
    assert "{" not in mail["text"]
    assert (mail["segments"], mail["encoding"]) == (None, None)
    assert clinic.admin.get(PATH).get_json()["is_changed"] is False


def test_templates_are_listed_with_filters_and_pages(clinic: Clinic) -> None:
    clinic.admin.put(PATH, {"text": TEXT})

    first = clinic.admin.get("/messages/templates")
    filtered = clinic.admin.get("/messages/templates?kind=reminder&channel=sms")

    assert (len(first.get_json()), first.headers["X-Total-Count"]) == (20, "108")
    assert 'rel="next"' in first.headers["Link"]
    assert first.headers["Content-Range"] == "templates 0-19/108"
    rows = filtered.get_json()
    assert [row["locale"] for row in rows] == ["ar", "en", "es", "fr", "pt", "sw"]
    assert [row["is_changed"] for row in rows] == [False, True, False, False, False, False]
    for wrong in ("kind=x", "channel=fax", "locale=xx", "text=a", "page=0"):
        assert clinic.admin.get(f"/messages/templates?{wrong}").status_code == 422, wrong


@pytest.mark.parametrize(
    "path", ["fax/sms/en", "reminder/fax/en", "reminder/sms/xx", "reminder/sms/english", "reminder/sms"]
)
def test_an_unknown_template_does_not_exist(clinic: Clinic, path: str) -> None:
    assert clinic.admin.get(f"/messages/templates/{path}").status_code == 404
    assert clinic.admin.put(f"/messages/templates/{path}", {"text": TEXT}).status_code == 404


@pytest.mark.parametrize("engine_name", ["postgresql"])  # SQLite locks the whole database
def test_a_first_change_waits_for_another_one_and_then_sees_it(clinic: Clinic) -> None:
    statuses: list[int] = []
    caller = clinic.admin
    headers = token(clinic, If_Match='"0"')
    change = threading.Thread(
        target=lambda: statuses.append(caller.put(PATH, {"text": TEXT}, headers=headers).status_code)
    )
    with clinic.inside():
        engine = db.engine
    with engine.connect() as other, engine.connect() as watcher:
        other.execute(text("SELECT id FROM message_settings FOR NO KEY UPDATE"))
        change.start()
        while change.is_alive() and not watcher.execute(WAITING).scalar_one():
            watcher.rollback()
        other.execute(
            text(
                "INSERT INTO message_templates "
                "(kind, channel, locale, text, version, created_at, updated_at) "
                "VALUES ('reminder', 'sms', 'en', '{date}', 1, now(), now())"
            )
        )
        other.commit()
    change.join()

    assert statuses == [412]
    assert clinic.admin.get(PATH).get_json()["text"] == "{date}"


def test_only_an_admin_reads_and_writes_templates(clinic: Clinic) -> None:
    for caller in (clinic.receptionist, clinic.doctor, clinic.technician):
        assert caller.get("/messages/templates").status_code == 403
        assert caller.get("/messages/settings").status_code == 403
        assert caller.put(PATH, {"text": TEXT}).status_code == 403
        assert caller.patch("/messages/settings", {"channels": []}).status_code == 403
