"""The checks of users, sessions, second factors and emergency access."""

from __future__ import annotations

from sqlalchemy import (
    ColumnElement,
    exists,
    or_,
    select,
)

from models import (
    EmergencyAccess,
    IdempotencyKey,
    Passkey,
    RecoveryCode,
    TotpSecret,
    User,
    UserSession,
)
from services import clock
from services.integrity_rule import IntegrityCheck
from services.users import emergency_access


def _has_factor() -> ColumnElement[bool]:
    """Return True for a user with an authenticator app or a passkey."""
    has_app = exists().where(TotpSecret.user_id == User.id, TotpSecret.confirmed_at.is_not(None))
    return or_(has_app, exists().where(Passkey.user_id == User.id))


def _session_checks() -> list[IntegrityCheck]:
    return [
        IntegrityCheck(
            "No deactivated user has an open session.",
            select(UserSession.id)
            .join(User, User.id == UserSession.user_id)
            .where(User.is_active.is_(False), UserSession.ended_at.is_(None)),
        ),
        IntegrityCheck(
            "A user needs a second factor at the sign-in exactly if there is one.",
            select(User.id).where(User.mfa_enabled_at.is_not(None) != _has_factor()),
        ),
        IntegrityCheck(
            "Only a user with a second factor has recovery codes.",
            select(RecoveryCode.id).join(User).where(User.mfa_enabled_at.is_(None)),
        ),
        IntegrityCheck(
            "Every idempotency key has a response.",
            select(IdempotencyKey.id).where(IdempotencyKey.status.is_(None)),
        ),
    ]


def _emergency_checks() -> list[IntegrityCheck]:
    access = EmergencyAccess
    return [
        IntegrityCheck(
            "No emergency access ends later than an hour from now.",
            select(access.id).where(access.expires_at > clock.now() + emergency_access.DURATION),
        ),
        IntegrityCheck(
            "An emergency access is reviewed by another user, after it began.",
            select(access.id).where(
                or_(access.reviewed_by_id == access.user_id, access.reviewed_at < access.created_at)
            ),
        ),
    ]


def user_checks() -> list[IntegrityCheck]:
    """Return the checks of users, sessions, second factors and emergency access."""
    return [*_session_checks(), *_emergency_checks()]
