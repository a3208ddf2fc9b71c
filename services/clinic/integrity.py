"""Integrity checks of the clinic record, and of the settings and templates of messages."""

from __future__ import annotations

from sqlalchemy import exists, func, literal, or_, select

from enums import MessageChannel
from models import ClinicRecord, ClinicRecordVersion, MessageSettings, MessageTemplate
from services.clinic.versions import CONTENT
from services.integrity_rule import IntegrityCheck


def clinic_checks() -> list[IntegrityCheck]:
    """Return the checks."""
    last_version = select(func.max(ClinicRecordVersion.id)).scalar_subquery()
    differences = (
        getattr(ClinicRecord, name).is_distinct_from(getattr(ClinicRecordVersion, name))
        for name in CONTENT
        if name != "logo"  # its digest is compared
    )
    return [
        IntegrityCheck(
            "The clinic has a record.", select(literal(1)).where(~exists(select(ClinicRecord.id)))
        ),
        IntegrityCheck(
            "A logo has its digest.",
            select(ClinicRecord.id).where(ClinicRecord.logo.is_(None) != ClinicRecord.logo_hash.is_(None)),
        ),
        IntegrityCheck(
            "The last version of the clinic record has its content.",
            select(ClinicRecord.id)
            .outerjoin(ClinicRecordVersion, ClinicRecordVersion.id == last_version)
            .where(or_(*differences)),
        ),
        IntegrityCheck(
            "Messages have settings.", select(literal(1)).where(~exists(select(MessageSettings.id)))
        ),
        IntegrityCheck(
            "Only the templates of e-mails have a subject.",
            select(MessageTemplate.id).where(
                (MessageTemplate.channel == MessageChannel.EMAIL) != MessageTemplate.subject.is_not(None)
            ),
        ),
    ]
