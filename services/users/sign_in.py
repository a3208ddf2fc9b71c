"""Signing in and passwords.

Hashing takes a good part of a second: it is bounded by limits before, and happens while no transaction is
open, since on SQLite an open one holds every other writer up.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from datetime import timedelta

from sqlalchemy import select, update

from cache.rate_limits import limits
from config import settings
from enums import AuditOutcome
from errors import ClinicError, invalid
from extensions import db
from models import PasswordReset, User
from security import passwords
from security.permissions import Actor, Permission
from services import clock
from services.audit import audit_log
from services.rows import get_or_404, read_outside_transaction
from services.users import sessions
from services.users.sessions import Pair

RESET_LIFETIME = timedelta(hours=1)


def _too_many(seconds: int) -> ClinicError:
    return ClinicError("too_many_requests", "Too many failed tries; try again later.", retry_after=seconds)


def _account(email: str) -> tuple[str, str]:
    """The key that an account's failures are counted under; it lies in Redis, and names nobody there."""
    digest = hmac.new(settings().jwt_secret_key.encode(), f"login-account\n{email}".encode(), hashlib.sha256)
    return "login-account", digest.hexdigest()


def sign_in(visitor: Actor, *, email: str, password: str, device: str | None) -> tuple[Actor, User, Pair]:
    """Open a session: who it is now, and the session's first tokens.

    An unknown address and a wrong password are one 401 in one time; 403 `account_inactive` only follows the
    right password; 429 after too many failures, by account (every try counts until one succeeds) and by
    address; 503 while too many password checks wait, which does not count as a failure.
    """
    passwords.raise_if_queue_full()
    by_account, by_address = settings().rate_limit_login_account, settings().rate_limit_login_address
    address = visitor.address or "unknown"
    account = _account(email)
    wait = limits.full(by_address, "login-address", address) or limits.hit(by_account, *account)
    if wait is not None:
        raise _too_many(wait)
    found = read_outside_transaction(select(User.id, User.password_hash).where(User.email == email))
    if not passwords.verify(found.password_hash if found else None, password) or found is None:
        limits.hit(by_address, "login-address", address)
        raise _wrong().about("user", found.id if found else None)
    user = get_or_404(User, found.id, lock=True)
    if user.password_hash != found.password_hash:  # changed in the meantime
        raise _wrong().about("user", user.id)
    if not user.is_active:
        message = "This account is not active; an administrator can activate it."
        raise ClinicError("account_inactive", message).about("user", user.id)
    limits.forget(by_account, *account)
    session, pair = sessions.open_session(user, device=device, address=visitor.address)
    # not through the row: signing in is no new version of the record
    db.session.execute(update(User).where(User.id == user.id).values(last_login_at=session.created_at))
    audit_log.set_action(user, "login")
    return sessions.actor_of(visitor, user, session.id), user, pair


def _wrong() -> ClinicError:
    return ClinicError("invalid_credentials", "Wrong e-mail or password.")


def change_password(actor: Actor, *, current_password: str, new_password: str) -> None:
    """A new password for the caller, whose other sessions end.

    Raises 422 where the current one is wrong (audited) or the new one weak, 429 after too many wrong ones.
    """
    db.session.rollback()  # no transaction stays open during the hashing: SQLite has one writer
    user_id = actor.user_id or 0
    by_account, key = settings().rate_limit_login_account, ("password-account", str(user_id))
    wait = limits.hit(by_account, *key)
    if wait is not None:
        raise _too_many(wait)
    found = read_outside_transaction(
        select(User.name, User.email, User.password_hash).where(User.id == user_id)
    )
    if found is None or not passwords.verify(found.password_hash, current_password):
        raise _wrong_current(user_id)
    limits.forget(by_account, *key)
    if new_password == current_password:
        raise invalid("new_password", "must differ from the current one")
    hashed = _new_hash(new_password, found.name, found.email)
    sessions.require_valid(actor)
    user = get_or_404(User, user_id, lock=True)
    if user.password_hash != found.password_hash:  # changed in the meantime
        raise _wrong_current(user_id)
    user.password_hash = hashed
    audit_log.set_action(user, "change_password")
    sessions.end_all(user.id, except_id=actor.session_id)


def _wrong_current(user_id: int) -> ClinicError:
    # not 401: the session is good, and a front end would sign its user out
    refusal = invalid("current_password", "is wrong")
    deed = audit_log.pending_entries().entry("user", user_id, "change_password")
    deed.outcome, deed.detail = AuditOutcome.REFUSED, "invalid_credentials"
    refusal.commits_changes = True
    return refusal


def _new_hash(password: str, name: str, email: str) -> str:
    about = (name, email, email.partition("@")[0])
    passwords.check_strength(password, field="new_password", about=about)
    return passwords.hash_password(password)


# --- Forgotten passwords -------------------------------------------------------------------------------


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def issue_reset(actor: Actor, user: User) -> tuple[str, PasswordReset]:
    """A one-time token, good for `RESET_LIFETIME`, with which the user sets a new password; older ones end.

    Only its SHA-256 is stored: it has 256 random bits, so that nobody can guess one.
    """
    actor.require(Permission.USERS_MANAGE)
    now = clock.now()
    unused = select(PasswordReset).where(PasswordReset.user_id == user.id, PasswordReset.used_at.is_(None))
    for older in db.session.execute(unused).scalars():
        older.used_at = now
    token = secrets.token_urlsafe(32)
    reset = PasswordReset(
        user_id=user.id, token_hash=_digest(token), created_at=now, expires_at=now + RESET_LIFETIME
    )
    db.session.add(reset)
    audit_log.set_action(user, "issue_reset")
    return token, reset


def reset_password(*, token: str, new_password: str) -> None:
    """Set a new password by a one-time token, which is used up, and end all sessions of its user.

    Raises 401 `token_invalid` for a token that is wrong, used or expired, 422 for a weak password.
    """
    good = (
        PasswordReset.token_hash == _digest(token),
        PasswordReset.used_at.is_(None),
        PasswordReset.expires_at > clock.now(),
    )
    found = read_outside_transaction(select(User.id, User.name, User.email).join(PasswordReset).where(*good))
    if found is None:
        raise _no_reset()
    hashed = _new_hash(new_password, found.name, found.email)
    user = get_or_404(User, found.id, lock=True)  # before the token's row, as `issue_reset` does
    reset = db.session.execute(select(PasswordReset).where(*good).with_for_update()).scalar_one_or_none()
    if reset is None:
        raise _no_reset()
    reset.used_at = clock.now()
    user.password_hash = hashed
    audit_log.set_action(user, "reset_password")
    sessions.end_all(user.id)
    limits.forget(settings().rate_limit_login_account, *_account(user.email))


def _no_reset() -> ClinicError:
    message = "This one-time token is wrong, used or expired; ask an administrator for a new one."
    return ClinicError("token_invalid", message)
