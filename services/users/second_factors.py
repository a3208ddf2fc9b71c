"""Second factors of a user: authenticator app, recovery codes, their removal and reset.

Passkeys are in `services.users.user_passkeys`. Sources: RFC 6238, NIST SP 800-63B sections 3.1.2 and 3.1.4.
"""

from __future__ import annotations

import base64
import secrets
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import delete, func, select, update

from enums import FactorMethod
from errors import ClinicError, invalid
from extensions import db
from models import FactorChallenge, Passkey, RecoveryCode, TotpSecret, User
from security import totp
from security.permissions import Actor, Permission
from services import clock
from services.audit import audit_log
from services.clinic.record import clinic_record
from services.rows import get_or_404
from services.users import factor_policy, sessions
from services.users.factor_proofs import (
    Proof,
    digest,
    encrypt_secret,
    matching_step,
    normal_code,
    prove_in_session,
)

RECOVERY_CODES = 10
# Random bytes of a recovery code. From 112 bits on, a fast hash is permitted (NIST SP 800-63B, 3.1.2.2).
RECOVERY_BYTES = 15
GROUP = 6  # characters between two hyphens


class Enrolment(NamedTuple):
    """The secret for an authenticator app: the URI, and the same as a QR code."""

    otpauth_uri: str
    qr_svg: str


class FactorStatus(NamedTuple):
    """The second factors of the caller, and whether the role needs one."""

    enabled: bool
    enabled_at: datetime | None
    methods: list[FactorMethod]
    passkeys: int
    recovery_codes_left: int
    required: bool
    required_from: datetime | None
    stepped_up_until: datetime | None


def status(actor: Actor) -> FactorStatus:
    """Return the second factors of the caller."""
    user = get_or_404(User, actor.user_id or 0)
    required = factor_policy.is_required(user.role)
    factors = _factors(user.id)
    return FactorStatus(
        enabled=user.mfa_enabled_at is not None,
        enabled_at=user.mfa_enabled_at,
        methods=_usable(factors),
        passkeys=factors.passkeys,
        recovery_codes_left=factors.recovery_codes,
        required=required,
        required_from=factor_policy.grace_ends_at(user) if required else None,
        stepped_up_until=factor_policy.stepped_up_until(actor),
    )


def methods(user_id: int) -> list[FactorMethod]:
    """Return the ways in which the user can prove a second factor, the usual one first."""
    return _usable(_factors(user_id))


class _Factors(NamedTuple):
    """The number of a user's confirmed factors of each kind."""

    apps: int
    passkeys: int
    recovery_codes: int


def _factors(user_id: int) -> _Factors:
    conditions = (
        (TotpSecret.user_id == user_id, TotpSecret.confirmed_at.is_not(None)),
        (Passkey.user_id == user_id,),
        (RecoveryCode.user_id == user_id, RecoveryCode.used_at.is_(None)),
    )
    counts = (select(func.count()).where(*each).scalar_subquery() for each in conditions)
    return _Factors(*db.session.execute(select(*counts)).one())


def _usable(factors: _Factors) -> list[FactorMethod]:
    # the members of both are in the same order
    return [method for method, count in zip(FactorMethod, factors, strict=True) if count > 0]


def _totp(user_id: int) -> TotpSecret | None:
    return db.session.execute(select(TotpSecret).where(TotpSecret.user_id == user_id)).scalar_one_or_none()


# --- Authenticator app ---------------------------------------------------------------------------------


def enrol_totp(actor: Actor) -> Enrolment:
    """Issue a secret for an authenticator app. It replaces an unconfirmed one, and is shown only once.

    Raises 409 `already_exists` if the user has a confirmed app.
    """
    user = lock_caller(actor)
    stored = _totp(user.id)
    if stored is not None and stored.confirmed_at is not None:
        message = "You have an authenticator app. Remove it first with DELETE /auth/mfa/totp."
        raise ClinicError("already_exists", message)
    secret = totp.new_secret()
    if stored is None:
        stored = TotpSecret(user_id=user.id)
        db.session.add(stored)
    stored.secret, stored.created_at = encrypt_secret(user.id, secret), clock.now()
    audit_log.set_action(user, "enrol_totp")
    uri = totp.otpauth_uri(secret, account=user.email, issuer=clinic_record().name)
    return Enrolment(uri, totp.qr_svg(uri))


def confirm_totp(actor: Actor, code: str) -> list[str] | None:
    """Make the authenticator app a second factor. Return new recovery codes if it is the first one.

    Raises 409 `conflict` without an unconfirmed secret, and 422 `validation_failed` for a wrong code. Raises
    403 `step_up_required` for a user who has a passkey: the secret may be from a stolen session.
    """
    user = lock_caller(actor)
    stored = _totp(user.id)
    if stored is None or stored.confirmed_at is not None:
        raise ClinicError("conflict", "There is nothing to confirm. Begin with POST /auth/mfa/totp.")
    factor_policy.require_step_up(actor)
    step = matching_step(stored, normal_code(code))
    if step is None:
        raise invalid("code", "is wrong; check the clock of the device, and send the present code")
    stored.confirmed_at, stored.last_step = clock.now(), step
    codes = enable(user)
    audit_log.set_action(user, "confirm_totp")
    return codes


def remove_totp(actor: Actor, proof: Proof) -> None:
    """Remove the authenticator app. Without a code, a fresh step-up is needed.

    Raises 404 `not_found` without an app, and 403 `step_up_required`.
    """
    stored = _totp(actor.user_id or 0)
    if stored is None:
        raise ClinicError("not_found", "You have no authenticator app.")
    if stored.confirmed_at is not None and (proof.code is not None or proof.credential is not None):
        user = prove_in_session(actor, proof, "remove_totp")
    else:
        user = lock_caller(actor)  # before the check: another request may confirm the app meanwhile
        factor_policy.require_step_up(actor)
    db.session.execute(delete(TotpSecret).where(TotpSecret.user_id == user.id))
    disable_without_factor(user)
    audit_log.set_action(user, "remove_totp")


def lock_caller(actor: Actor) -> User:
    """Return the signed-in user, locked: all changes of second factors happen one after the other."""
    return get_or_404(User, actor.user_id or 0, lock=True)


# --- On and off ----------------------------------------------------------------------------------------


def enable(user: User) -> list[str] | None:
    """Ask the user for a second factor from the next sign-in on. Return recovery codes for the first one."""
    if user.mfa_enabled_at is not None:
        return None
    _set_enabled(user, clock.now())
    return _new_recovery_codes(user)


def disable_without_factor(user: User) -> None:
    """Ask for the password only, if the user has no factor any more. Recovery codes alone are no factor."""
    factors = _factors(user.id)
    if factors.apps == factors.passkeys == 0:
        _set_enabled(user, None)
        db.session.execute(delete(RecoveryCode).where(RecoveryCode.user_id == user.id))


def _set_enabled(user: User, at: datetime | None) -> None:
    # not through the ORM, because this must not change the version of the user
    db.session.execute(update(User).where(User.id == user.id).values(mfa_enabled_at=at))


def reset(actor: Actor, user: User, *, reason: str) -> User:
    """Remove all second factors of a user who has lost them, and end the user's sessions.

    The password remains. Raises 403 `forbidden` unless the caller is an admin.
    """
    actor.require(Permission.USERS_MANAGE)
    for model in (TotpSecret, RecoveryCode, Passkey, FactorChallenge):
        db.session.execute(delete(model).where(model.user_id == user.id))
    _set_enabled(user, None)
    sessions.end_all(user.id)
    audit_log.set_action(user, "reset_mfa")
    audit_log.pending_entries().entry("user", user.id, "reset_mfa").detail = reason
    return user


# --- Recovery codes ------------------------------------------------------------------------------------


def renew_recovery_codes(actor: Actor) -> list[str]:
    """Replace all recovery codes. Raises 409 `conflict` for a user without a second factor."""
    user = lock_caller(actor)
    if user.mfa_enabled_at is None:
        raise ClinicError("conflict", "You have no second factor. Set one up with POST /auth/mfa/totp.")
    codes = _new_recovery_codes(user)
    audit_log.set_action(user, "renew_recovery_codes")
    return codes


def _new_recovery_codes(user: User) -> list[str]:
    db.session.execute(delete(RecoveryCode).where(RecoveryCode.user_id == user.id))
    codes = [_random_code() for _number in range(RECOVERY_CODES)]
    now = clock.now()
    db.session.add_all(
        RecoveryCode(user_id=user.id, code_hash=digest(normal_code(code)), created_at=now) for code in codes
    )
    return codes


def _random_code() -> str:
    text = base64.b32encode(secrets.token_bytes(RECOVERY_BYTES)).decode().lower()
    return "-".join(text[start : start + GROUP] for start in range(0, len(text), GROUP))
