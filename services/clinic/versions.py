"""Versions of the clinic record: a document prints the clinic as it was at the issue of the document."""

from __future__ import annotations

from sqlalchemy import ScalarSelect, func, select
from sqlalchemy.orm import undefer

from config import settings
from extensions import db
from models import ClinicContent, ClinicRecord, ClinicRecordVersion

# The members that a version keeps.
CONTENT = tuple(ClinicContent.__annotations__)


def append(record: ClinicRecord) -> None:
    """Store the content of the changed record as its new version. The caller has locked the record."""
    db.session.add(ClinicRecordVersion(**{name: getattr(record, name) for name in CONTENT}))


def current_version_id() -> ScalarSelect[int]:
    """Return the id of the current version, an expression in the INSERT of a row."""
    return select(func.max(ClinicRecordVersion.id)).scalar_subquery()


def current_version() -> ClinicRecordVersion:
    """Return the current version with its logo."""
    statement = select(ClinicRecordVersion).order_by(ClinicRecordVersion.id.desc()).limit(1)
    statement = statement.options(undefer(ClinicRecordVersion.logo))
    version: ClinicRecordVersion = db.session.execute(statement).scalar_one()
    return version


def version_of(version_id: int) -> ClinicRecordVersion:
    """Return a version with its logo."""
    options = (undefer(ClinicRecordVersion.logo),)
    return db.session.get_one(ClinicRecordVersion, version_id, options=options)


def locale_of(content: ClinicContent) -> str:
    """Return the locale of the clinic: the chosen one, or that of the setting `CLINIC_LOCALE`."""
    return content.chosen_locale or settings().clinic_locale
