"""Messages and contact preferences for the front desk, and the callbacks of gateways."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import select

from api.body_format import FORM
from models import AuditLog, ContactStop
from services.messages.providers import OutgoingMessage, Receipt, TemporaryFailure
from tests.support.booking import later, monday_morning
from tests.support.clinic import Clinic
from tests.support.messages import Outbox, enable_all, messages_of, outbox, run_worker, set_message

__all__ = ["monday_morning", "outbox"]
THURSDAY = "2027-03-04T10:00:00+00:00"
SECRETS = {"sms_callback_secret": "s" * 40, "whatsapp_callback_secret": "w" * 40}
SMS, WHATSAPP = f"/messages/callbacks/sms/{'s' * 40}", f"/messages/callbacks/whatsapp/{'w' * 40}"
PHONE = "+254712345678"


@pytest.fixture
def clinic(make_clinic: Any) -> Clinic:
    clinic: Clinic = make_clinic(default_phone_region="KE", **SECRETS)
    return clinic


def booked(clinic: Clinic, **members: Any) -> dict[str, Any]:
    members = {"email": "zawadi@example.com", "phone": PHONE, "allow_duplicate": True} | members
    patient_id = clinic.patient(**members)["id"]
    return clinic.appointment(patient_id=patient_id, date=THURSDAY, doctor_id=clinic.doctor_row()["id"])


# --- Messages ------------------------------------------------------------------------------------------


def test_the_front_desk_filters_messages_and_doctors_read_them(clinic: Clinic, outbox: Outbox) -> None:
    rows = [booked(clinic), booked(clinic)]
    run_worker(clinic)

    filters: list[tuple[dict[str, Any], int]] = [
        ({"patient_id": rows[0]["patient_id"]}, 3),
        ({"appointment_id": rows[1]["id"]}, 3),
        ({"state": "queued"}, 4),
        ({"kind": "booked"}, 2),
        ({"channel": "sms"}, 0),
        ({"state": "queued", "patient_id": rows[0]["patient_id"]}, 2),
        ({"start_date": "2027-03-03", "end_date": "2027-03-03"}, 2),
    ]
    for query, count in filters:
        assert len(messages_of(clinic, **query)) == count, query
    row = messages_of(clinic)[0]
    shown = clinic.doctor.get(f"/messages/{row['id']}").get_json()
    assert row["billing_id"] is None
    assert shown == {name: value for name, value in row.items() if name != "billing_id"}
    assert clinic.doctor.get("/messages?billing_id=1").status_code == 403
    assert {"dedupe_key", "provider_message_id", "text"}.isdisjoint(row)
    assert clinic.technician.get("/messages").status_code == 403


def test_a_queued_message_can_be_cancelled_and_a_sent_one_not(clinic: Clinic, outbox: Outbox) -> None:
    booked(clinic)
    run_worker(clinic)
    sent, queued, _other = messages_of(clinic)

    answers = [clinic.receptionist.post(f"/messages/{row['id']}/cancel") for row in (queued, queued, sent)]

    assert [answer.status_code for answer in answers] == [200, 409, 409]
    assert (answers[0].get_json()["state"], answers[0].get_json()["reason"]) == ("cancelled", "by_user")
    assert clinic.doctor.post(f"/messages/{queued['id']}/cancel").status_code == 403
    with later(days=4):
        run_worker(clinic)
    assert len(outbox.sent) == 1


def test_a_message_by_hand_is_sent_at_once_and_a_second_click_is_refused(
    clinic: Clinic, outbox: Outbox
) -> None:
    path = f"/appointments/{booked(clinic)['id']}/messages"

    answers = [clinic.receptionist.post(path, {"kind": "reminder", "channel": "sms"}) for _number in range(2)]
    run_worker(clinic)
    again = clinic.receptionist.post(path, {"kind": "reminder", "channel": "sms"})

    first = answers[0].get_json()
    assert [answer.status_code for answer in (*answers, again)] == [201, 409, 201]
    assert answers[0].headers["Location"] == f"/messages/{first['id']}"
    assert (answers[1].get_json()["error"], answers[1].get_json()["id"]) == ("already_done", first["id"])
    assert (first["state"], first["created_by_id"]) == ("queued", clinic.receptionist.user_id)
    assert [message.recipient for message in outbox.sent if message.reference == f"clinic-{first['id']}"] == [
        PHONE
    ]


def test_a_second_click_is_refused_in_quiet_hours_and_before_a_repeat(clinic: Clinic, outbox: Outbox) -> None:
    row = booked(clinic)
    run_worker(clinic)
    path, body = f"/appointments/{row['id']}/messages", {"kind": "reminder", "channel": "sms"}
    with later(hours=13):
        night = [clinic.sign_in("receptionist").post(path, body).status_code for _number in range(2)]
    outbox.answer = temporary_failure
    with later(hours=23.6):
        run_worker(clinic)
        morning = clinic.sign_in("receptionist").post(path, body)

    assert night == [201, 409]
    assert (morning.status_code, morning.get_json()["error"]) == (409, "already_done")


def temporary_failure(_message: OutgoingMessage) -> Receipt:
    raise TemporaryFailure("HTTP 503")


def test_an_idempotency_key_sends_one_message_by_hand(clinic: Clinic, outbox: Outbox) -> None:
    path = f"/appointments/{booked(clinic)['id']}/messages"
    options = {"headers": {"Idempotency-Key": "click-1"}}

    answers = []
    for _number in range(2):
        answers.append(clinic.admin.post(path, {}, **options))
        run_worker(clinic)

    assert [answer.status_code for answer in answers] == [201, 201]
    assert answers[0].get_json()["id"] == answers[1].get_json()["id"]


def test_a_message_by_hand_must_be_true(clinic: Clinic, outbox: Outbox) -> None:
    row, cancelled = booked(clinic), booked(clinic, email=None, phone=None)
    clinic.admin.delete(f"/appointments/{cancelled['id']}")
    cases = [
        (row, "cancelled", 409),
        (row, "moved", 409),
        (row, "invoice", 422),
        (cancelled, "reminder", 409),
        (cancelled, "booked", 409),
        (cancelled, "cancelled", 201),
    ]
    for appointment, kind, status in cases:
        answer = clinic.admin.post(f"/appointments/{appointment['id']}/messages", {"kind": kind})
        assert answer.status_code == status, (kind, answer.get_data(as_text=True))
    assert (answer.get_json()["state"], answer.get_json()["reason"]) == ("suppressed", "no_address")
    with later(days=4):
        late = clinic.sign_in("admin").post(f"/appointments/{row['id']}/messages", {"kind": "reminder"})
    assert late.status_code == 409


# --- Contact preferences -------------------------------------------------------------------------------


def test_contact_preferences_have_defaults_and_versions(clinic: Clinic) -> None:
    path = f"/patients/{clinic.patient()['id']}/contact-preferences"
    first = clinic.doctor.get(path)
    change = {"sms": False, "preferred_channel": "email"}

    changed = clinic.receptionist.patch(path, change, headers={"If-Match": first.headers["ETag"]})
    stale = clinic.receptionist.patch(path, {"sms": True}, headers={"If-Match": first.headers["ETag"]})

    members = {"email": True, "sms": True, "whatsapp": True, "preferred_channel": None, "stopped": []}
    assert {name: first.get_json()[name] for name in members} == members
    assert changed.status_code == 200, changed.get_data(as_text=True)
    assert {name: changed.get_json()[name] for name in members} == members | change
    assert clinic.admin.get(path).get_json() == changed.get_json()
    assert stale.status_code == 412
    assert clinic.doctor.patch(path, {"sms": True}).status_code == 403
    assert clinic.admin.get("/patients/999/contact-preferences").status_code == 404
    for wrong in ({"sms": None}, {"preferred_channel": "fax"}, {"fax": True}):
        assert clinic.admin.patch(path, wrong).status_code == 422


# --- Callbacks -----------------------------------------------------------------------------------------


def sent_sms(clinic: Clinic, outbox: Outbox) -> dict[str, Any]:
    """Send an SMS and return it. Its id at the gateway is `id-clinic-<id>`."""
    appointment = booked(clinic, email=None)
    run_worker(clinic)
    row: dict[str, Any] = messages_of(clinic, appointment_id=appointment["id"], kind="booked")[0]
    assert (row["state"], row["channel"]) == ("sent", "sms")
    return row


RECEIPTS: list[tuple[str, dict[str, Any], str]] = [
    # Africa's Talking, Twilio, seven, WhatsApp, Infobip, Vonage
    ("form", {"id": "{id}", "status": "Success", "phoneNumber": PHONE, "networkCode": "63902"}, "delivered"),
    ("form", {"id": "{id}", "status": "Failed", "failureReason": "AbsentSubscriber"}, "failed"),
    ("form", {"id": "{id}", "status": "Buffered"}, "sent"),
    ("form", {"MessageSid": "{id}", "MessageStatus": "delivered", "To": PHONE}, "delivered"),
    ("form", {"MessageSid": "{id}", "MessageStatus": "undelivered", "ErrorCode": "30003"}, "failed"),
    ("json", {"webhook_event": "dlr", "data": {"msg_id": "{id}", "status": "DELIVERED"}}, "delivered"),
    (
        "json",
        {"entry": [{"changes": [{"value": {"statuses": [{"id": "{id}", "status": "read"}]}}]}]},
        "delivered",
    ),
    (
        "json",
        {"results": [{"messageId": "{id}", "status": {"id": 5, "groupName": "UNDELIVERABLE"}}]},
        "failed",
    ),
    ("json", {"message_uuid": "{id}", "status": "rejected"}, "failed"),
    ("json", {"messageId": "another", "status": "delivered"}, "sent"),
    ("json", {"status": "delivered"}, "sent"),
    ("json", {}, "sent"),
]


def test_delivery_receipts_of_many_gateways_are_understood(clinic: Clinic, outbox: Outbox) -> None:
    row = sent_sms(clinic, outbox)
    for kind, body, state in RECEIPTS:
        set_message(clinic, row["id"], state="sent", reason=None, detail=None, delivered_at=None)
        filled = fill(body, f"id-clinic-{row['id']}")
        answer = clinic.nobody.post(SMS, **({"data": filled} if kind == "form" else {"json": filled}))

        after = clinic.admin.get(f"/messages/{row['id']}").get_json()
        assert answer.status_code == 200, answer.get_data(as_text=True)
        assert after["state"] == state, body
        assert (after["delivered_at"] is not None) == (state == "delivered")
        assert after["reason"] == ("undelivered" if state == "failed" else None)


def fill(value: Any, message_id: str) -> Any:
    if isinstance(value, str):
        return value.replace("{id}", message_id)
    if isinstance(value, list):
        return [fill(part, message_id) for part in value]
    return (
        {name: fill(part, message_id) for name, part in value.items()} if isinstance(value, dict) else value
    )


def test_receipts_in_any_order_end_in_delivered(clinic: Clinic, outbox: Outbox) -> None:
    row = sent_sms(clinic, outbox)
    body = {"id": f"id-clinic-{row['id']}"}

    for status in ("failed", "delivered", "delivered", "failed", "sent"):
        assert clinic.nobody.post(SMS, body | {"status": status}).status_code == 200

    assert messages_of(clinic, kind="booked")[0]["state"] == "delivered"


def test_a_receipt_of_another_channel_changes_nothing(clinic: Clinic, outbox: Outbox) -> None:
    row = sent_sms(clinic, outbox)

    clinic.nobody.post(WHATSAPP, {"id": f"id-clinic-{row['id']}", "status": "delivered"})

    assert messages_of(clinic, kind="booked")[0]["state"] == "sent"


def test_a_wrong_path_and_a_wrong_body_are_refused(clinic: Clinic) -> None:
    wrong = ["sms/" + "x" * 40, "sms/" + "w" * 40, "email/" + "s" * 40, "fax/" + "s" * 40, "sms/é"]
    assert [clinic.nobody.post(f"/messages/callbacks/{path}", {}).status_code for path in wrong] == [404] * 5
    cases: list[tuple[dict[str, Any], int]] = [
        ({"json": [1]}, 400),
        ({"data": "{", "content_type": "application/json"}, 400),
        ({"data": "<a/>", "content_type": "text/xml"}, 415),
        ({"data": {"text": "x" * 70_000}}, 413),
        ({"data": "text=ARR%CAT&from=1", "content_type": FORM}, 400),
        ({"data": "text=ARR%CAT&from=1", "content_type": f"{FORM}; charset=ISO-8859-1"}, 200),
        ({"json": {"text": "x" * 60_000, "from": "1"}}, 200),
        ({"json": {"from": 1.5, "text": None, "id": [], "status": {}}}, 200),
        ({"json": {"a": {"b": {"c": {"d": {"e": {"f": {"g": {"h": {"id": "1"}}}}}}}}}}, 200),
    ]
    for options, status in cases:
        assert clinic.nobody.post(SMS, **options).status_code == status, options


def test_a_gateway_without_a_secret_has_no_callback(make_clinic: Any) -> None:
    clinic: Clinic = make_clinic()

    assert clinic.nobody.post("/messages/callbacks/sms/None", {}).status_code == 404


STOPS = [
    "STOP",
    " stop. ",
    "Arrêt",
    "ARRET",
    "توقف",
    "الغاء الاشتراك",
    "Baja",
    "SAIR",
    "Acha",
    "stop all",
    "Cancel",
    "revoke",
]
STARTS = ["START", "Unstop", "ANZA", "DÉMARRER", "ابدأ", "INICIAR", "Começar"]
OTHERS = ["", "Please stop the pain", "STOPP", "yes", "I will be there, do not cancel"]


def test_stop_and_start_in_six_languages(clinic: Clinic) -> None:
    for words, stopped in ((STOPS, True), (STARTS, False), (OTHERS, False)):
        for word in words:
            set_stop(clinic, not stopped if word not in OTHERS else False)
            assert clinic.nobody.post(SMS, data={"from": PHONE, "text": word, "to": "1"}).status_code == 200
            assert stops(clinic) == ([("sms", PHONE)] if stopped else []), word


def set_stop(clinic: Clinic, stopped: bool) -> None:
    assert (
        clinic.nobody.post(SMS, data={"from": PHONE, "text": "STOP" if stopped else "START"}).status_code
        == 200
    )


def stops(clinic: Clinic) -> list[tuple[str, str]]:
    with clinic.inside() as session:
        return [(row.channel.value, row.number) for row in session.scalars(select(ContactStop))]


def test_stop_ends_the_messages_to_every_patient_with_the_number(clinic: Clinic, outbox: Outbox) -> None:
    enable_all(clinic, channels=["sms", "whatsapp"])
    rows = [booked(clinic, phone=phone) for phone in (PHONE, "0712 345 678", "+254 700 000 000")]

    # without the +, as some gateways write it; twice
    for _number in range(2):
        assert clinic.nobody.post(SMS, {"sender": "254712345678", "text": "Stop"}).status_code == 200
    rows.append(booked(clinic, phone="+254-712-345678"))  # registered after the answer
    run_worker(clinic)

    results = [messages_of(clinic, appointment_id=row["id"], kind="booked")[0] for row in rows]
    assert [row["channel"] for row in results] == ["whatsapp", "whatsapp", "sms", "whatsapp"]
    shown = clinic.admin.get(f"/patients/{rows[0]['patient_id']}/contact-preferences").get_json()
    assert (shown["sms"], shown["stopped"]) == (True, ["sms"])
    with clinic.inside() as session:
        entry = session.scalars(select(AuditLog).where(AuditLog.entity == "contact_stop")).one()
        assert (entry.user_name, entry.action) == ("gateway", "stop")
        assert entry.patient_ids == [row["patient_id"] for row in rows[:2]]


def test_a_stop_after_planning_suppresses_the_reminder(clinic: Clinic, outbox: Outbox) -> None:
    enable_all(clinic, channels=["sms"])
    booked(clinic)
    run_worker(clinic)
    clinic.nobody.post(SMS, {"from": PHONE, "text": "STOP"})

    with later(days=2, hours=3):
        run_worker(clinic)

    assert [(row["state"], row["reason"]) for row in messages_of(clinic)][:2] == [
        ("sent", None),
        ("suppressed", "stopped"),
    ]
