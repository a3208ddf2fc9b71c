"""Integrity checks of the clinic record, and of the settings and templates of messages."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from services import integrity_checks
from tests.support.clinic import Clinic
from tests.support.pictures import small_png


@pytest.mark.parametrize(
    ("damage", "rule"),
    [
        ("DELETE FROM clinic_record", "The clinic has a record."),
        ("UPDATE clinic_record SET logo = NULL", "A logo has its digest."),
        ("DELETE FROM message_settings", "Messages have settings."),
        ("UPDATE message_templates SET subject = 'Hello'", "Only the templates of e-mails have a subject."),
    ],
)
def test_a_damaged_row_is_reported(clinic: Clinic, damage: str, rule: str) -> None:
    clinic.admin.put("/clinic/logo", data=small_png(), content_type="image/png")
    clinic.admin.put("/messages/templates/booked/sms/en", {"text": "{clinic}: {date}"})
    with clinic.inside():
        assert list(integrity_checks.violations()) == []

    with clinic.inside() as session:
        session.execute(text(damage))

    with clinic.inside():
        assert list(integrity_checks.violations()) == [(rule, [1])]
