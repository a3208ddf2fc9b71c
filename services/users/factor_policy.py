"""Roles that must have a second factor, and actions that need a fresh proof of it."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Row, select, update

from config import settings
from enums import Role
from errors import ClinicError
from extensions import db
from models import User, UserSession
from security.permissions import Actor
from services import clock
from services.rows import execute_core

STEP_UP_LIFETIME = timedelta(minutes=10)


def is_required(role: Role | None) -> bool:
    """Return True if users of the role must have a second factor."""
    return role in settings().mfa_required_roles


def grace_ends_at(user: User | Row[Any]) -> datetime:
    """Return the end of the time in which a user of such a role can work without a second factor."""
    started: datetime = user.mfa_required_since or clock.now()
    return started + timedelta(days=settings().mfa_grace_days)


def must_enrol(user: User | Row[Any]) -> bool:
    """Return True if the user must set up a second factor before anything else."""
    return is_required(user.role) and user.mfa_enabled_at is None and grace_ends_at(user) <= clock.now()


def start_grace(actor: Actor) -> None:
    """Start the grace period of a user, unless it has started or the role needs no second factor."""
    if is_required(actor.role):
        unset = (User.id == actor.user_id, User.mfa_required_since.is_(None))
        # not through the ORM, because this must not change the version of the user
        db.session.execute(update(User).where(*unset).values(mfa_required_since=clock.now()))


def stepped_up_until(actor: Actor) -> datetime | None:
    """Return the time until which the session has a fresh proof of a second factor, None without one."""
    of_session = select(UserSession.stepped_up_at).where(UserSession.id == actor.session_id)
    proved_at = execute_core(of_session).scalar_one()
    if proved_at is None or proved_at + STEP_UP_LIFETIME <= clock.now():
        return None
    until: datetime = proved_at + STEP_UP_LIFETIME
    return until


def require_step_up(actor: Actor) -> None:
    """Raise 403 `step_up_required` if the user has a second factor and has not proved it in this session.

    A proof is fresh for `STEP_UP_LIFETIME`, as with `max_age` of RFC 9470. A sign-in with the second factor
    is a proof.
    """
    is_enrolled = select(User.mfa_enabled_at).where(User.id == actor.user_id)
    if execute_core(is_enrolled).scalar_one() is not None and stepped_up_until(actor) is None:
        message = "Confirm with your second factor: POST /auth/step-up. Then send the request again."
        raise ClinicError("step_up_required", message)
