"""Sign-in, change of password and reset of a forgotten password.

A password hash takes a good part of a second. So limits come first (`services.users.sign_in_limits`), and no
transaction is open during the hash: on SQLite an open transaction blocks all other writers.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Collection
from datetime import timedelta
from typing import Any, NamedTuple

from sqlalchemy import Row, delete, select, update

from column_types import unique_key
from enums import AuditOutcome, FactorMethod, FactorPurpose
from errors import ClinicError, invalid
from extensions import db
from models import FactorChallenge, PasswordReset, User
from security import passwords, tokens
from security.password_queue import Group, password_queue
from security.permissions import Actor, Permission
from security.tokens import Device, Pair
from services import clock, remembered
from services.audit import audit_log
from services.rows import get_or_404, read_outside_transaction
from services.users import factor_policy, factor_proofs, second_factors, sessions, sign_in_limits
from services.users.factor_proofs import Proof

RESET_LIFETIME = timedelta(hours=1)


class SignedIn(NamedTuple):
    """The result of a sign-in: caller, user, first tokens of the session, and token of the device."""

    actor: Actor
    user: User
    pair: Pair
    device_token: str


class FactorRequired(NamedTuple):
    """The result of the first step of a sign-in: the token of the second step, and its methods."""

    mfa_token: str
    methods: list[FactorMethod]


def sign_in(
    visitor: Actor, *, email: str, password: str, user_agent: str | None, device_tokens: Collection[str] = ()
) -> SignedIn | FactorRequired:
    """Sign in and open a session. A user with a second factor must also prove it (`complete`).

    Raises 401 `invalid_credentials`. An unknown e-mail address and a wrong password give the same response in
    the same time. Raises 403 `account_inactive` only for the right password. Raises 429 `too_many_requests`
    after too many failures, unless one of the `device_tokens` proves that the user knows the device.
    Raises 503 `unavailable` while too many password checks wait.
    """
    devices = [tokens.read_device(token) for token in device_tokens]  # in the same time for every account
    row = read_outside_transaction(
        select(User.id, User.password_hash, User.unlocked_at, User.mfa_enabled_at).where(
            User.email_key == unique_key(email)
        )
    )
    user_id, password_hash = (row.id, row.password_hash) if row else (None, None)
    device_id = _known_device(devices, row)
    check = sign_in_limits.of_sign_in(
        email,
        visitor.network,
        user_id=user_id,
        device_id=device_id,
        unlocked_at=row.unlocked_at if row else None,
    )
    with sign_in_limits.counted(check) as attempt:
        attempt.succeeded = passwords.verify(password_hash, password)
        # The first step alone must not reverse failures of the second one: it would allow endless guesses.
        attempt.withdrawn = attempt.succeeded and row is not None and row.mfa_enabled_at is not None
    if not attempt.succeeded or user_id is None:
        raise _invalid_credentials().about("user", user_id)
    remembered.begin(recalls=False)  # an outdated memory would run the request again, and hash again
    user = get_or_404(User, user_id, lock=True)
    if user.password_hash != password_hash:  # changed in the meantime
        raise _invalid_credentials().about("user", user.id)
    _check_active(user)
    if user.mfa_enabled_at is not None:
        token = secrets.token_urlsafe(32)
        factor_proofs.new_challenge(user.id, FactorPurpose.SIGN_IN, token=token)
        audit_log.set_action(user, "login_password")
        return FactorRequired(token, second_factors.methods(user.id))
    return _open(visitor, user, user_agent, device_id)


def complete(
    visitor: Actor,
    *,
    mfa_token: str,
    proof: Proof,
    user_agent: str | None,
    device_tokens: Collection[str] = (),
) -> SignedIn:
    """Complete a sign-in with the second factor, and open a session.

    Raises 401 `token_invalid` for a token that is used or expired, and 401 `invalid_code` for a wrong or used
    proof, which counts as a failed sign-in. Raises 403 `account_inactive` and 429 `too_many_requests`.
    """
    row = factor_proofs.pending_user(mfa_token)
    device_id = _known_device([tokens.read_device(token) for token in device_tokens], row)
    check = sign_in_limits.of_second_factor(
        row.id, visitor.network, device_id=device_id, unlocked_at=row.unlocked_at
    )
    with sign_in_limits.counted(check, hashes=False) as attempt:
        attempt.withdrawn = True  # until there is an outcome
        remembered.begin(recalls=False)
        user, challenge = factor_proofs.pending_sign_in(mfa_token)
        method = factor_proofs.prove(user, proof, challenge)
        attempt.succeeded, attempt.withdrawn = method is not None, False
    if method is None:
        wrong = ClinicError("invalid_code", "The second factor is wrong or was used already. Try again.")
        raise factor_proofs.refused(user.id, "login", wrong)
    _check_active(user)
    db.session.delete(challenge)
    signed_in = _open(visitor, user, user_agent, device_id, with_factor=True)
    audit_log.pending_entries().entry("user", user.id, "login").detail = method
    return signed_in


def _known_device(devices: Collection[Device | None], row: Row[Any] | None) -> str | None:
    """Return the id of the device on which the user has signed in before, or None."""
    known = (
        device.id for device in devices if device and row and device.belongs_to(row.id, row.password_hash)
    )
    return next(known, None)


def _check_active(user: User) -> None:
    if not user.is_active:
        message = "This account is not active; an administrator can activate it."
        raise ClinicError("account_inactive", message).about("user", user.id)


def _open(
    visitor: Actor, user: User, user_agent: str | None, device_id: str | None, *, with_factor: bool = False
) -> SignedIn:
    session, pair = sessions.open_session(
        user, device=user_agent, address=visitor.address, with_factor=with_factor
    )
    # not through the ORM, because a sign-in must not change the version of the user
    db.session.execute(update(User).where(User.id == user.id).values(last_login_at=session.created_at))
    audit_log.set_action(user, "login")
    actor = sessions.actor_of(visitor, user, session.id)
    factor_policy.start_grace(actor)
    device_token = tokens.issue_device(user.id, user.password_hash, device_id=device_id)
    return SignedIn(actor, user, pair, device_token)


def _invalid_credentials() -> ClinicError:
    return ClinicError("invalid_credentials", "Wrong e-mail or password.")


def change_password(actor: Actor, *, current_password: str, new_password: str) -> None:
    """Change the password of the caller and end their other sessions.

    Raises 422 `validation_failed` for a wrong current password, which is audited, and for a weak new one.
    Raises 429 `too_many_requests` after too many wrong ones, and 503 while too many password checks wait.
    """
    db.session.rollback()  # no transaction stays open during the hashing: SQLite has one writer
    user_id = actor.user_id or 0
    row = read_outside_transaction(
        select(User.name, User.email, User.password_hash).where(User.id == user_id)
    )
    check = sign_in_limits.of_password_change(user_id)
    with sign_in_limits.counted(check) as attempt:
        attempt.succeeded = row is not None and passwords.verify(row.password_hash, current_password)
    remembered.begin(recalls=False)  # as in `sign_in`
    sessions.require_valid(actor)
    if row is None or not attempt.succeeded:
        raise _refuse_current_password(user_id)
    if new_password == current_password:
        raise invalid("new_password", "must differ from the current one")
    db.session.rollback()
    _check_new_password(new_password, row.name, row.email)
    with password_queue.turn(check.group):
        hashed = passwords.hash_password(new_password)
    sessions.require_valid(actor)
    user = get_or_404(User, user_id, lock=True)
    if user.password_hash != row.password_hash:  # changed in the meantime
        raise _refuse_current_password(user_id)
    _set_password(user, hashed)
    audit_log.set_action(user, "change_password")
    sessions.end_all(user.id, except_id=actor.session_id)


def _refuse_current_password(user_id: int) -> ClinicError:
    """Return the audited 422 for a wrong current password.

    It is not a 401: the session is valid, and a front end would sign out its user.
    """
    refusal = invalid("current_password", "is wrong")
    entry = audit_log.pending_entries().entry("user", user_id, "change_password")
    entry.outcome, entry.detail = AuditOutcome.REFUSED, "invalid_credentials"
    refusal.commits_changes = True
    return refusal


def _set_password(user: User, hashed: str) -> None:
    """Set the hash. One-time tokens end, and sign-ins that wait for a second factor."""
    user.password_hash = hashed
    _end_resets(user)
    db.session.execute(
        delete(FactorChallenge).where(
            FactorChallenge.user_id == user.id, FactorChallenge.purpose == FactorPurpose.SIGN_IN
        )
    )


def _check_new_password(password: str, name: str, email: str) -> None:
    about = (name, email, email.partition("@")[0])
    passwords.check_strength(password, field="new_password", about=about)


# --- Forgotten passwords -------------------------------------------------------------------------------


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def issue_reset(actor: Actor, user: User) -> tuple[str, PasswordReset]:
    """Issue a one-time token that sets a new password. Older tokens of the user become invalid.

    The token is valid for `RESET_LIFETIME`. Only its SHA-256 hash is stored. A fast hash is sufficient,
    because the token has 256 random bits. Raises 403 `forbidden` unless the caller is an admin.
    """
    actor.require(Permission.USERS_MANAGE)
    now = clock.now()
    _end_resets(user)
    token = secrets.token_urlsafe(32)
    reset = PasswordReset(
        user_id=user.id, token_hash=_digest(token), created_at=now, expires_at=now + RESET_LIFETIME
    )
    db.session.add(reset)
    audit_log.set_action(user, "issue_reset")
    return token, reset


def _end_resets(user: User) -> None:
    unused = update(PasswordReset).where(PasswordReset.user_id == user.id, PasswordReset.used_at.is_(None))
    db.session.execute(unused.values(used_at=clock.now()))


def reset_password(visitor: Actor, *, token: str, new_password: str) -> None:
    """Set a new password with a one-time token, and end all sessions of the user.

    The failed sign-ins before no longer block the user. Raises 401 `token_invalid` for a wrong, used or
    expired token, and 422 `validation_failed` for a weak password. Raises 429 `too_many_requests` for many
    uses of the token at once, and 503 `unavailable` while too many password checks wait.
    """
    valid_token = (
        PasswordReset.token_hash == _digest(token),
        PasswordReset.used_at.is_(None),
        PasswordReset.expires_at > clock.now(),
    )
    row = read_outside_transaction(
        select(User.id, User.name, User.email).join(PasswordReset).where(*valid_token)
    )
    if row is None:
        raise _invalid_reset_token()
    _check_new_password(new_password, row.name, row.email)
    sign_in_limits.count_reset(_digest(token), row.id)
    with password_queue.turn(Group(visitor.network)):
        hashed = passwords.hash_password(new_password)
    remembered.begin(recalls=False)  # as in `sign_in`
    user = get_or_404(User, row.id, lock=True)  # before the row of the token, in the order of `issue_reset`
    if db.session.execute(select(PasswordReset.id).where(*valid_token).with_for_update()).first() is None:
        raise _invalid_reset_token()
    user.unlocked_at = clock.now()
    _set_password(user, hashed)
    audit_log.set_action(user, "reset_password")
    sessions.end_all(user.id)


def _invalid_reset_token() -> ClinicError:
    message = "This one-time token is wrong, used or expired; get a new one from an administrator."
    return ClinicError("token_invalid", message)
