"""Integrity checks of the clinic record, and of the settings and templates of messages."""

from __future__ import annotations

from sqlalchemy import exists, literal, select

from enums import MessageChannel
from models import ClinicRecord, MessageSettings, MessageTemplate
from services.integrity_rule import IntegrityCheck


def clinic_checks() -> list[IntegrityCheck]:
    """Return the checks."""
    return [
        IntegrityCheck(
            "The clinic has a record.", select(literal(1)).where(~exists(select(ClinicRecord.id)))
        ),
        IntegrityCheck(
            "A logo has its digest.",
            select(ClinicRecord.id).where(ClinicRecord.logo.is_(None) != ClinicRecord.logo_hash.is_(None)),
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
