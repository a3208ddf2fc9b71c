"""The settings of messages: defaults, changes, refusals, versions and audit."""

from __future__ import annotations

from datetime import time

import pytest

from services.messages.settings import message_settings
from tests.support.clinic import Clinic

PATH = "/messages/settings"
DEFAULTS = {
    "kinds": ["booked", "moved", "cancelled", "reminder"],
    "channels": ["email"],
    "reminder_hours": [24, 2],
    "quiet_start": "20:00",
    "quiet_end": "07:30",
    "expiry_hours": 72,
}


def test_a_new_clinic_sends_emails_about_appointments(clinic: Clinic) -> None:
    row = clinic.admin.get(PATH).get_json()

    assert {name: row[name] for name in DEFAULTS} == DEFAULTS
    with clinic.inside():
        settings = message_settings()
        assert (settings.quiet_start, settings.quiet_end) == (time(20), time(7, 30))


def test_settings_are_changed_and_audited(clinic: Clinic) -> None:
    new = {
        "kinds": ["reminder", "invoice"],
        "channels": ["sms", "whatsapp", "email"],
        "reminder_hours": [2, 168, 24],
        "quiet_start": "22:00",
        "quiet_end": "06:00",
        "expiry_hours": 12,
    }
    first = clinic.admin.get(PATH)

    same = clinic.admin.put(PATH, first.get_json())
    changed = clinic.admin.put(PATH, new)
    headers = {"Authorization": f"Bearer {clinic.admin.token}", "If-Match": first.headers["ETag"]}
    stale = clinic.admin.patch(PATH, {"channels": []}, headers=headers)

    assert same.headers["ETag"] == first.headers["ETag"]
    row = changed.get_json()
    assert {name: row[name] for name in new} == new | {"reminder_hours": [168, 24, 2]}
    assert stale.status_code == 412
    no_quiet_hours = clinic.admin.patch(
        PATH, {"quiet_start": None, "quiet_end": None, "kinds": []}
    ).get_json()
    assert (no_quiet_hours["quiet_start"], no_quiet_hours["kinds"]) == (None, [])
    entries = clinic.admin.get(
        "/audit-logs?entity=message_settings&outcome=success&sort_order=asc"
    ).get_json()
    assert [set(entry["fields"]) for entry in entries] == [set(new), {"quiet_start", "quiet_end", "kinds"}]


@pytest.mark.parametrize(
    ("body", "member"),
    [
        ({"kinds": ["birthday"]}, "kinds"),
        ({"kinds": ["booked", "booked"]}, "kinds"),
        ({"kinds": None}, "kinds"),
        ({"channels": ["fax"]}, "channels"),
        ({"channels": ["sms", "sms"]}, "channels"),
        ({"reminder_hours": [0]}, "reminder_hours"),
        ({"reminder_hours": [337]}, "reminder_hours"),
        ({"reminder_hours": [24, 24]}, "reminder_hours"),
        ({"reminder_hours": [1, 2, 3, 4, 5, 6]}, "reminder_hours"),
        ({"reminder_hours": ["24h"]}, "reminder_hours"),
        ({"quiet_start": "24:00"}, "quiet_start"),
        ({"quiet_start": "8 pm"}, "quiet_start"),
        ({"quiet_start": "07:30"}, "quiet_start"),
        ({"quiet_end": None}, "quiet_end"),
        ({"expiry_hours": 0}, "expiry_hours"),
        ({"expiry_hours": None}, "expiry_hours"),
        ({"provider": "smtp"}, "provider"),
    ],
)
def test_wrong_settings_are_refused(clinic: Clinic, body: dict[str, object], member: str) -> None:
    response = clinic.admin.patch(PATH, body)

    assert response.status_code == 422, response.get_data(as_text=True)
    assert any(path.startswith(member) for path in response.get_json()["errors"])
    row = clinic.admin.get(PATH).get_json()
    assert {name: row[name] for name in DEFAULTS} == DEFAULTS
