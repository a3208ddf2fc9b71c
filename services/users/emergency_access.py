"""Emergency access: a user reads the clinical fields of one patient for an hour, and an admin reviews it.

The right belongs to the user, not to the role. It begins at once, without an approval: a patient may be in
danger. Its reason, every read and the review are in the audit log. It adds no right to change anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import structlog
from sqlalchemy import ColumnElement, bindparam, or_, select
from sqlalchemy.orm import joinedload

from column_types import InstantType
from database.functions import contains_text
from enums import ReviewOutcome
from errors import ClinicError, not_found
from extensions import db
from models import EmergencyAccess, Patient
from security.permissions import Actor, Permission
from services import clock
from services.audit import audit_log
from services.listing import paging
from services.listing.related_rows import of_patient_or_file, patient_column, patient_filter, user_column
from services.listing.spec import Filter, Kind, ListColumn, ListQuery, ListSpec, Page
from services.rows import get_or_404

log = structlog.get_logger()
DURATION = timedelta(minutes=60)


def open_patients(user_id: int) -> frozenset[int]:
    """Return the patients that the emergency access of the user covers now."""
    statement = select(EmergencyAccess.patient_id).where(
        EmergencyAccess.user_id == user_id, EmergencyAccess.expires_at > clock.now()
    )
    return frozenset(db.session.execute(statement).scalars())


def grant(actor: Actor, patient: Patient, *, reason: str) -> EmergencyAccess:
    """Give the actor emergency access to a patient. It ends after `DURATION`."""
    now = clock.now()
    access = EmergencyAccess(
        patient=patient,
        user_id=actor.user_id or 0,
        reason=reason,
        created_at=now,
        expires_at=now + DURATION,
    )
    db.session.add(access)
    audit_log.set_action(access, "grant")
    log.warning("emergency_access", emergency_access_id=access.id, user_id=actor.user_id)
    return access


def get(actor: Actor, emergency_access_id: int, *, lock: bool = False) -> EmergencyAccess:
    """Return an emergency access, or raise 404. Users who do not review see their own only."""
    access = get_or_404(EmergencyAccess, emergency_access_id, lock=lock)
    if access.user_id != actor.user_id and not actor.may(Permission.EMERGENCY_REVIEW):
        raise not_found("emergency_access").about("emergency_access", access.id, access.patient_id)
    return access


def review(
    actor: Actor, access: EmergencyAccess, *, outcome: ReviewOutcome, note: str | None = None
) -> EmergencyAccess:
    """Record the review of a locked emergency access. An access that is not justified ends now.

    Raises 403 for the user who had the access, and 409 `already_done` for a second review.
    """
    if access.user_id == actor.user_id:
        raise ClinicError("forbidden", "Another administrator must review your emergency access.")
    if access.outcome is not None:
        raise ClinicError("already_done", "This emergency access was already reviewed.", id=access.id)
    now = clock.now()
    access.outcome, access.note = outcome, note
    access.reviewed_by_id, access.reviewed_at = actor.user_id, now
    if outcome is ReviewOutcome.UNJUSTIFIED:
        access.expires_at = min(access.expires_at, now)
    audit_log.set_action(access, "review")
    return access


# --- Lists ---------------------------------------------------------------------------------------------

_NOW = bindparam("now", callable_=clock.now, type_=InstantType())


def _is_reviewed(reviewed: bool) -> ColumnElement[bool]:
    return EmergencyAccess.outcome.is_not(None) if reviewed else EmergencyAccess.outcome.is_(None)


def _matches(text: str) -> ColumnElement[bool]:
    return or_(
        of_patient_or_file(EmergencyAccess.patient_id, text),
        contains_text(EmergencyAccess.reason, text),
    )


LIST: ListSpec[EmergencyAccess] = ListSpec(
    name="emergency_access",
    kept_since="created_at",
    model=EmergencyAccess,
    area="emergency_access",
    main_date="created_at",
    text=_matches,
    options=(
        joinedload(EmergencyAccess.patient),
        joinedload(EmergencyAccess.user),
        joinedload(EmergencyAccess.reviewed_by),
    ),
    filters={
        "patient_name": patient_filter(EmergencyAccess.patient_id),
        "is_reviewed": Filter(Kind.BOOLEAN, _is_reviewed, "An admin has reviewed the access."),
    },
    computed={
        "patient_name": patient_column(EmergencyAccess.patient_id),
        "user_name": user_column(EmergencyAccess.user_id),
        "is_active": ListColumn(Kind.BOOLEAN, EmergencyAccess.expires_at > _NOW, nullable=False),
    },
    omit=frozenset({"version", "updated_at"}),
    newest_first=True,
)


def find(actor: Actor, query: ListQuery) -> Page[EmergencyAccess]:
    """Return one page of emergency accesses."""
    return paging.page(actor, LIST, query)


def add_computed_fields(_actor: Actor, rows: Sequence[EmergencyAccess]) -> None:
    """Set whether the accesses still run."""
    now = clock.now()
    for row in rows:
        row.is_active = row.expires_at > now
