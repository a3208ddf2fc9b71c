"""The clinic record: one row, which a migration inserts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict, Unpack

from config import settings
from models import ClinicRecord
from security.permissions import Actor
from services.clinic import versions
from services.patients import phones
from services.rows import assign, changed_members, get_or_404

ROW_ID = 1


class ClinicChanges(TypedDict, total=False):
    """Members of a change of the clinic record; absent ones stay as they are."""

    name: str
    legal_name: str | None
    address: str | None
    phones: list[str]
    email: str | None
    website: str | None
    registration_number: str | None
    tax_number: str | None
    bank_details: str | None
    invoice_footer: str | None
    locale: str | None


def clinic_record() -> ClinicRecord:
    """Return the clinic record with its locale, currency and time zone."""
    record = get_or_404(ClinicRecord, ROW_ID)
    _add_settings(record)
    return record


def get(_actor: Actor, *, lock: bool = False) -> ClinicRecord:
    """Return the clinic record, with `lock` locked until the end of the transaction."""
    return get_or_404(ClinicRecord, ROW_ID, lock=lock)


def add_computed_fields(_actor: Actor, rows: Sequence[ClinicRecord]) -> None:
    """Set the members that follow from the settings, and the phone numbers in E.164 form."""
    for record in rows:
        _add_settings(record)
        record.phones_e164 = [phones.e164(phone) for phone in record.phones]


def _add_settings(record: ClinicRecord) -> None:
    configured = settings()
    record.locale = versions.locale_of(record)
    record.currency = configured.currency
    record.timezone = configured.clinic_timezone


def update(record: ClinicRecord, **changes: Unpack[ClinicChanges]) -> ClinicRecord:
    """Change the given members. A `locale` of None means the setting `CLINIC_LOCALE`."""
    values = dict(changes)
    if "locale" in values:
        values["chosen_locale"] = values.pop("locale")
    if changes_of_record := changed_members(record, values):
        assign(record, changes_of_record)
        versions.append(record)
    return record
