"""Sign-in, change of password and reset of a forgotten password.

A password hash takes a good part of a second. So rate limits come first, and no transaction is open during
the hash: on SQLite an open transaction blocks all other writers.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from datetime import timedelta

from sqlalchemy import select, update

from cache.rate_limits import limits
from column_types import unique_key
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


def _too_many_requests(seconds: int) -> ClinicError:
    return ClinicError("too_many_requests", "Too many failed attempts; try again later.", retry_after=seconds)


def _account_key(email: str) -> tuple[str, str]:
    """Return the key of the failed sign-ins of an account.

    Redis stores the key. So it contains a keyed hash and not the e-mail address.
    """
    digest = hmac.new(
        settings().jwt_secret_key.encode(), f"login-account\n{unique_key(email)}".encode(), hashlib.sha256
    )
    return "login-account", digest.hexdigest()


def sign_in(visitor: Actor, *, email: str, password: str, device: str | None) -> tuple[Actor, User, Pair]:
    """Sign in and open a session. Return the caller, the user, and the first tokens of the session.

    Raises 401 `invalid_credentials`. An unknown e-mail address and a wrong password give the same response in
    the same time. Raises 403 `account_inactive` only for the right password. Raises 429 `too_many_requests`
    after too many failures of the account or of the IP address. For an account every attempt counts until one
    succeeds. Raises 503 `unavailable` while too many password checks wait, which does not count as a failure.
    """
    passwords.raise_if_queue_full()
    by_account, by_address = settings().rate_limit_login_account, settings().rate_limit_login_address
    address = visitor.address or "unknown"
    account = _account_key(email)
    wait = limits.full(by_address, "login-address", address) or limits.hit(by_account, *account)
    if wait is not None:
        raise _too_many_requests(wait)
    row = read_outside_transaction(
        select(User.id, User.password_hash).where(User.email_key == unique_key(email))
    )
    if not passwords.verify(row.password_hash if row else None, password) or row is None:
        limits.hit(by_address, "login-address", address)
        raise _invalid_credentials().about("user", row.id if row else None)
    user = get_or_404(User, row.id, lock=True)
    if user.password_hash != row.password_hash:  # changed in the meantime
        raise _invalid_credentials().about("user", user.id)
    if not user.is_active:
        message = "This account is not active; an administrator can activate it."
        raise ClinicError("account_inactive", message).about("user", user.id)
    limits.forget(by_account, *account)
    session, pair = sessions.open_session(user, device=device, address=visitor.address)
    # not through the ORM, because a sign-in must not change the version of the user
    db.session.execute(update(User).where(User.id == user.id).values(last_login_at=session.created_at))
    audit_log.set_action(user, "login")
    return sessions.actor_of(visitor, user, session.id), user, pair


def _invalid_credentials() -> ClinicError:
    return ClinicError("invalid_credentials", "Wrong e-mail or password.")


def change_password(actor: Actor, *, current_password: str, new_password: str) -> None:
    """Change the password of the caller and end their other sessions.

    Raises 422 `validation_failed` for a wrong current password, which is audited, and for a weak new one.
    Raises 429 `too_many_requests` after too many wrong ones, and 503 while too many password checks wait.
    """
    passwords.raise_if_queue_full()
    db.session.rollback()  # no transaction stays open during the hashing: SQLite has one writer
    user_id = actor.user_id or 0
    by_account, key = settings().rate_limit_login_account, ("password-account", str(user_id))
    wait = limits.hit(by_account, *key)
    if wait is not None:
        raise _too_many_requests(wait)
    row = read_outside_transaction(
        select(User.name, User.email, User.password_hash).where(User.id == user_id)
    )
    is_right = row is not None and passwords.verify(row.password_hash, current_password)
    sessions.require_valid(actor)
    if row is None or not is_right:
        raise _refuse_current_password(user_id)
    limits.forget(by_account, *key)
    if new_password == current_password:
        raise invalid("new_password", "must differ from the current one")
    db.session.rollback()
    hashed = _hash_new_password(new_password, row.name, row.email)
    sessions.require_valid(actor)
    user = get_or_404(User, user_id, lock=True)
    if user.password_hash != row.password_hash:  # changed in the meantime
        raise _refuse_current_password(user_id)
    user.password_hash = hashed
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


def _hash_new_password(password: str, name: str, email: str) -> str:
    about = (name, email, email.partition("@")[0])
    passwords.check_strength(password, field="new_password", about=about)
    return passwords.hash_password(password)


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
    """Set a new password with a one-time token, and end all sessions of the user.

    Raises 401 `token_invalid` for a wrong, used or expired token, and 422 `validation_failed` for a weak
    password.
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
    hashed = _hash_new_password(new_password, row.name, row.email)
    user = get_or_404(User, row.id, lock=True)  # before the row of the token, in the order of `issue_reset`
    reset = db.session.execute(
        select(PasswordReset).where(*valid_token).with_for_update()
    ).scalar_one_or_none()
    if reset is None:
        raise _invalid_reset_token()
    reset.used_at = clock.now()
    user.password_hash = hashed
    audit_log.set_action(user, "reset_password")
    sessions.end_all(user.id)
    limits.forget(settings().rate_limit_login_account, *_account_key(user.email))


def _invalid_reset_token() -> ClinicError:
    message = "This one-time token is wrong, used or expired; get a new one from an administrator."
    return ClinicError("token_invalid", message)
