"""Planning: which messages an event causes, to which address, and when."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from enums import Role
from security.permissions import Actor
from services.jobs.transactions import transaction
from services.scheduling import appointments
from tests.support.booking import later, monday_morning
from tests.support.clinic import Clinic
from tests.support.messages import Outbox, enable_all, messages_of, outbox, run_worker, summary

__all__ = ["monday_morning", "outbox"]
IMPORTER = Actor(None, "import", Role.ADMIN)
EMAIL = "zawadi@example.com"
PHONE = "+1 555 767 7476"
NINE_TODAY = "2027-03-01T09:00:00+00:00"
THURSDAY = "2027-03-04T10:00:00+00:00"


def patient(clinic: Clinic, **members: Any) -> int:
    patient_id: int = clinic.patient(**{"email": EMAIL, "phone": PHONE} | members)["id"]
    return patient_id


def test_a_booking_is_confirmed_at_once_and_reminded_twice(clinic: Clinic, outbox: Outbox) -> None:
    clinic.appointment(patient_id=patient(clinic), date=THURSDAY)

    run_worker(clinic)

    rows = messages_of(clinic)
    assert [(row["kind"], row["state"], row["send_at"]) for row in rows[1:]] == [
        ("reminder", "queued", "2027-03-03T10:00:00+00:00"),
        ("reminder", "queued", "2027-03-04T08:00:00+00:00"),
    ]
    assert (rows[0]["kind"], rows[0]["state"], rows[0]["recipient"]) == ("booked", "sent", EMAIL)
    assert outbox.recipients() == [EMAIL]


def test_the_worker_sends_each_reminder_once_at_its_time(clinic: Clinic, outbox: Outbox) -> None:
    clinic.appointment(patient_id=patient(clinic), date=THURSDAY)

    for hours in (0, 49, 50, 50.5, 72, 73):
        with later(hours=hours):
            run_worker(clinic)

    assert [row[2] for row in summary(clinic)] == ["sent"] * 3
    assert len(outbox.sent) == 3


def test_a_move_cancels_the_messages_that_name_the_old_time(clinic: Clinic, outbox: Outbox) -> None:
    row = clinic.appointment(patient_id=patient(clinic), date=THURSDAY)
    run_worker(clinic)
    clinic.admin.patch(f"/appointments/{row['id']}", {"date": "2027-03-05T11:00:00+00:00"})

    for hours in (0.1, 74, 76, 98, 99):
        with later(hours=hours):
            run_worker(clinic)

    assert [(kind, state, reason) for kind, _channel, state, reason in summary(clinic)] == [
        ("booked", "sent", None),
        ("reminder", "cancelled", "not_needed"),
        ("reminder", "cancelled", "not_needed"),
        ("moved", "sent", None),
        ("reminder", "sent", None),
        ("reminder", "sent", None),
    ]


def test_two_changes_before_the_worker_runs_cause_one_message(clinic: Clinic, outbox: Outbox) -> None:
    row = clinic.appointment(patient_id=patient(clinic), date=THURSDAY)
    for hour in (11, 12):
        clinic.admin.patch(f"/appointments/{row['id']}", {"date": f"2027-03-04T{hour}:00:00+00:00"})

    run_worker(clinic)

    assert [row[0] for row in summary(clinic)] == ["moved", "reminder", "reminder"]


def test_a_move_back_keeps_the_reminders_of_the_first_time(clinic: Clinic, outbox: Outbox) -> None:
    row = clinic.appointment(patient_id=patient(clinic), date=THURSDAY)
    for date in (None, "2027-03-08T10:00:00+00:00", THURSDAY):
        if date is not None:
            clinic.admin.patch(f"/appointments/{row['id']}", {"date": date})
        run_worker(clinic)

    for hours in (50, 72):
        with later(hours=hours):
            run_worker(clinic)

    assert [(row["kind"], row["appointment_start"][:10], row["state"]) for row in messages_of(clinic)] == [
        ("booked", "2027-03-04", "sent"),
        ("reminder", "2027-03-04", "sent"),
        ("reminder", "2027-03-04", "sent"),
        ("moved", "2027-03-08", "sent"),
        ("reminder", "2027-03-08", "queued"),
        ("reminder", "2027-03-08", "queued"),
        ("moved", "2027-03-04", "sent"),
    ]


def test_another_doctor_at_the_same_time_is_no_message(clinic: Clinic, outbox: Outbox) -> None:
    row = clinic.appointment(patient_id=patient(clinic), date=THURSDAY)
    run_worker(clinic)
    clinic.admin.patch(f"/appointments/{row['id']}", {"doctor_id": clinic.doctor_row()["id"]})

    run_worker(clinic)

    assert len(messages_of(clinic)) == 3


def test_moves_back_and_forth_in_quiet_hours_cause_one_message(clinic: Clinic, outbox: Outbox) -> None:
    row = clinic.appointment(patient_id=patient(clinic), date=THURSDAY)
    run_worker(clinic)
    with later(hours=13):
        admin = clinic.sign_in("admin")
        for date in ("2027-03-05T10:00:00+00:00", THURSDAY, "2027-03-05T10:00:00+00:00"):
            assert admin.patch(f"/appointments/{row['id']}", {"date": date}).status_code == 200
            run_worker(clinic)

    with later(hours=23.6):
        run_worker(clinic)

    assert [message[0] for message in summary(clinic, state="sent")] == ["booked", "moved"]


def test_a_new_address_or_channel_does_not_double_a_reminder(clinic: Clinic, outbox: Outbox) -> None:
    patient_id = patient(clinic)
    row = clinic.appointment(patient_id=patient_id, date=THURSDAY)
    changes = [
        (f"/patients/{patient_id}", {"email": "new@example.com"}),
        (f"/patients/{patient_id}/contact-preferences", {"preferred_channel": "sms"}),
    ]
    for path, change in changes:
        run_worker(clinic)
        assert clinic.admin.patch(path, change).status_code == 200
        for date in ("2027-03-05T10:00:00+00:00", THURSDAY):
            assert clinic.admin.patch(f"/appointments/{row['id']}", {"date": date}).status_code == 200

    for hours in (0.1, 50, 72):
        with later(hours=hours):
            run_worker(clinic)

    assert [row[:3] for row in summary(clinic, kind="reminder", state="sent")] == [
        ("reminder", "sms", "sent")
    ] * 2
    assert [message.recipient for message in outbox.sent] == [
        EMAIL,
        "new@example.com",
        *["+15557677476"] * 3,
    ]


def test_reminders_that_wait_for_the_same_morning_are_one(clinic: Clinic, outbox: Outbox) -> None:
    enable_all(clinic, reminder_hours=[3, 2, 1])
    clinic.appointment(patient_id=patient(clinic), date="2027-03-04T08:15:00+00:00")

    for hours in (0, 71.6):
        with later(hours=hours):
            run_worker(clinic)

    assert [row[0::2][:2] for row in summary(clinic)] == [("booked", "sent"), ("reminder", "sent")]


def test_a_cancellation_is_announced_and_ends_the_reminders(clinic: Clinic, outbox: Outbox) -> None:
    row = clinic.appointment(patient_id=patient(clinic), date=THURSDAY)
    run_worker(clinic)
    clinic.admin.delete(f"/appointments/{row['id']}")

    for hours in (0.1, 50, 72):
        with later(hours=hours):
            run_worker(clinic)

    assert [(kind, state, reason) for kind, _channel, state, reason in summary(clinic)] == [
        ("booked", "sent", None),
        ("reminder", "cancelled", "not_needed"),
        ("reminder", "cancelled", "not_needed"),
        ("cancelled", "sent", None),
    ]


def test_the_channel_is_the_preferred_one_then_the_first_that_can_be_used(
    clinic: Clinic, outbox: Outbox
) -> None:
    cases: list[tuple[dict[str, Any], dict[str, Any], tuple[str, str, str | None]]] = [
        ({}, {}, ("email", "sent", None)),
        ({}, {"preferred_channel": "sms"}, ("sms", "sent", None)),
        ({}, {"email": False}, ("sms", "sent", None)),
        ({"email": None}, {}, ("sms", "sent", None)),
        ({"email": None, "phone": None}, {}, ("email", "suppressed", "no_address")),
        ({"phone": None}, {"email": False}, ("email", "suppressed", "not_allowed")),
        ({"email": None, "phone": "extension 12 34"[10:]}, {}, ("email", "suppressed", "no_address")),
    ]
    for members, preferences, _expected in cases:
        patient_id = patient(clinic, allow_duplicate=True, **members)
        path = f"/patients/{patient_id}/contact-preferences"
        assert clinic.receptionist.patch(path, preferences).status_code == 200
        clinic.appointment(patient_id=patient_id, date=NINE_TODAY, doctor_id=clinic.doctor_row()["id"])

    run_worker(clinic)

    assert [row[1:] for row in summary(clinic, kind="booked")] == [case[2] for case in cases]


def test_a_family_with_one_phone_gets_a_message_for_each_patient(clinic: Clinic, outbox: Outbox) -> None:
    for _number in range(2):
        member = patient(clinic, email=None, allow_duplicate=True)
        clinic.appointment(patient_id=member, date=NINE_TODAY, doctor_id=clinic.doctor_row()["id"])

    run_worker(clinic)

    assert outbox.recipients() == ["+15557677476"] * 2


def test_follow_ups_are_announced_a_week_before_unless_an_appointment_is_booked(
    clinic: Clinic, outbox: Outbox
) -> None:
    first, second = patient(clinic), patient(clinic, allow_duplicate=True)
    for patient_id in (first, second):
        clinic.visit(patient_id=patient_id, follow_up_date="2027-03-20")
    run_worker(clinic)
    clinic.appointment(patient_id=second, date="2027-03-18T09:00:00+00:00")

    with later(days=12):
        run_worker(clinic)

    rows = messages_of(clinic, kind="follow_up_due")
    assert [(row["patient_id"], row["state"], row["reason"], row["send_at"]) for row in rows] == [
        (first, "sent", None, "2027-03-13T07:30:00+00:00"),
        (second, "cancelled", "not_needed", "2027-03-13T07:30:00+00:00"),
    ]


def test_a_changed_follow_up_is_announced_once_for_its_new_date(clinic: Clinic, outbox: Outbox) -> None:
    visit = clinic.visit(patient_id=patient(clinic), follow_up_date="2027-03-20")
    for day in ("2027-04-10", "2027-03-20", "2027-04-10"):
        run_worker(clinic)
        assert clinic.admin.patch(f"/visits/{visit['id']}", {"follow_up_date": day}).status_code == 200

    for days in (0.1, 12.1, 33.1):
        with later(days=days):
            run_worker(clinic)

    sent = messages_of(clinic, kind="follow_up_due", state="sent")
    assert [row["send_at"][:10] for row in sent] == ["2027-04-03"]
    assert len(outbox.sent) == 1


def test_a_bill_is_announced_unless_it_is_void(clinic: Clinic, outbox: Outbox) -> None:
    bills = [clinic.bill(patient_id=patient(clinic, allow_duplicate=True))["id"] for _number in range(2)]
    clinic.admin.post(f"/billings/{bills[1]}/void", {"reason": "Wrong patient"})

    run_worker(clinic)

    assert [(row["billing_id"], row["state"]) for row in messages_of(clinic)] == [(bills[0], "sent")]


def test_past_appointments_and_inactive_patients_cause_no_message(clinic: Clinic, outbox: Outbox) -> None:
    gone = patient(clinic)
    clinic.appointment(patient_id=gone, date=THURSDAY)
    clinic.admin.patch(f"/patients/{gone}", {"deceased_on": "2027-03-01", "on_conflict": "cancel"})
    clinic.appointment(patient_id=patient(clinic, allow_duplicate=True), date=NINE_TODAY)

    with later(hours=3):
        run_worker(clinic)

    assert messages_of(clinic) == []


def import_appointment(clinic: Clinic, patient_id: int, doctor_id: int) -> int:
    with clinic.app.app_context(), transaction("import 1"):
        people = {"patient_id": patient_id, "doctor_id": doctor_id}
        row = appointments.book(IMPORTER, importing=True, date=datetime.fromisoformat(THURSDAY), **people)
        return row.id


def test_an_imported_appointment_is_reminded_and_not_confirmed(clinic: Clinic, outbox: Outbox) -> None:
    row_id = import_appointment(clinic, patient(clinic), clinic.doctor_row()["id"])
    run_worker(clinic)

    assert summary(clinic) == [("reminder", "email", "queued", None)] * 2
    clinic.admin.patch(f"/appointments/{row_id}", {"date": "2027-03-05T11:00:00+00:00"})
    run_worker(clinic)
    assert [row[0] for row in summary(clinic)] == ["reminder", "reminder", "moved", "reminder", "reminder"]


def test_an_undone_appointment_is_not_reminded_and_not_cancelled_by_message(
    clinic: Clinic, outbox: Outbox
) -> None:
    row_id = import_appointment(clinic, patient(clinic), clinic.doctor_row()["id"])
    run_worker(clinic)
    with clinic.app.app_context(), transaction("import 1 undo"):
        appointments.undo_import(appointments.get(IMPORTER, row_id, lock=True), "the import was undone")

    for hours in (1, 50, 72):
        with later(hours=hours):
            run_worker(clinic)

    assert summary(clinic) == [("reminder", "email", "cancelled", "not_needed")] * 2
    assert outbox.sent == []
