"""Step-up: a fresh proof of the second factor in the present session (RFC 9470)."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import update

from extensions import db
from models import UserSession
from security.permissions import Actor
from services import clock
from services.audit import audit_log
from services.users.factor_policy import STEP_UP_LIFETIME
from services.users.factor_proofs import Proof, prove_in_session


def confirm(actor: Actor, proof: Proof) -> datetime:
    """Record a fresh proof for the caller's session. Return its end.

    Raises what `prove_in_session` raises.
    """
    user = prove_in_session(actor, proof, "step_up")
    now = clock.now()
    db.session.execute(
        update(UserSession).where(UserSession.id == actor.session_id).values(stepped_up_at=now)
    )
    audit_log.set_action(user, "step_up")
    return now + STEP_UP_LIFETIME
