"""Proofs of a second factor: codes of an authenticator app, passkeys and recovery codes.

Each proof is accepted once, also if it is sent many times at once: a guarded update decides.
Sources: RFC 6238 section 5.2, NIST SP 800-63B section 3.1.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import unicodedata
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import structlog
from prometheus_client import Counter as Metric
from sqlalchemy import ColumnElement, Row, delete, select, update

from enums import AuditOutcome, FactorMethod, FactorPurpose
from errors import ClinicError, invalid
from extensions import db
from models import FactorChallenge, Passkey, RecoveryCode, TotpSecret, User
from security import passkeys, totp
from security.encryption import DecryptionError, decrypt, encrypt, is_current
from security.permissions import Actor
from services import clock, remembered
from services.audit import audit_log
from services.rows import get_or_404, read_outside_transaction
from services.users import sessions, sign_in_limits

log = structlog.get_logger()

CHALLENGE_LIFETIME = timedelta(minutes=5)
SECRET_PURPOSE = "totp secret"  # noqa: S105 - the purpose of the encryption, no secret
FAILURES = Metric("clinic_second_factor_failures", "Wrong second factors.", ("action",))
_SEPARATORS = re.compile(r"[\s-]")


@dataclass(frozen=True)
class Proof:
    """The proof that a caller sends: a code, or the response of an authenticator (WebAuthn)."""

    code: str | None = None
    credential: dict[str, Any] | None = None


def normal_code(code: str) -> str:
    """Return a typed code without blanks and hyphens, in ASCII digits and letters.

    Keyboards of some languages write digits of another script, or full-width ones.
    """
    plain = _SEPARATORS.sub("", unicodedata.normalize("NFKC", code))
    return "".join(str(int(c)) if c.isdecimal() else c for c in plain).lower()


def digest(text: str) -> str:
    """Return the stored form of a recovery code or token. Both are random, so a fast hash is sufficient."""
    return hashlib.sha256(text.encode()).hexdigest()


# --- Secrets of authenticator apps ---------------------------------------------------------------------


def encrypt_secret(user_id: int, secret: str) -> bytes:
    """Return the secret of an authenticator app as it is stored, bound to its user."""
    return encrypt(SECRET_PURPOSE, secret.encode(), context=_context(user_id))


def matching_step(stored: TotpSecret, code: str) -> int | None:
    """Return the time step of a code that is right at present, or None. An unreadable secret has none."""
    try:
        secret = decrypt(SECRET_PURPOSE, stored.secret, context=_context(stored.user_id))
    except DecryptionError as error:  # its key was lost: an admin resets the second factor
        log.error("totp_secret_unreadable", user_id=stored.user_id, reason=str(error))  # noqa: TRY400
        return None
    return totp.matching_step(secret.decode(), code, clock.now().timestamp())


def under_current_key(stored: TotpSecret) -> bytes:
    """Return the stored secret under the current key, so that an earlier key can be removed some day."""
    if is_current(stored.secret):
        return stored.secret
    context = _context(stored.user_id)
    return encrypt(SECRET_PURPOSE, decrypt(SECRET_PURPOSE, stored.secret, context=context), context=context)


def _context(user_id: int) -> bytes:
    return str(user_id).encode()


# --- Challenges ----------------------------------------------------------------------------------------


def new_challenge(
    user_id: int,
    purpose: FactorPurpose,
    *,
    session_id: int | None = None,
    token: str | None = None,
    origin: str | None = None,
) -> FactorChallenge:
    """Store a step that waits for a second factor. Delete the expired ones of the user."""
    now = clock.now()
    db.session.execute(
        delete(FactorChallenge).where(FactorChallenge.user_id == user_id, FactorChallenge.expires_at <= now)
    )
    row = FactorChallenge(
        user_id=user_id,
        session_id=session_id,
        purpose=purpose,
        token_hash=digest(token) if token else None,
        created_at=now,
        expires_at=now + CHALLENGE_LIFETIME,
    )
    if origin is not None:
        set_options(row, origin)
    db.session.add(row)
    db.session.flush()
    return row


def set_options(row: FactorChallenge, origin: str) -> str:
    """Set and return a new WebAuthn challenge of a step. The one before becomes invalid."""
    row.challenge, row.origin = secrets.token_urlsafe(32), origin
    return row.challenge


def pending_user(mfa_token: str) -> Row[Any]:
    """Return the user of a sign-in that waits for a second factor, read outside the transaction.

    Raises 401 `token_invalid`.
    """
    row = read_outside_transaction(
        select(User.id, User.password_hash, User.unlocked_at)
        .join(FactorChallenge)
        .where(*_waiting(mfa_token))
    )
    if row is None:
        raise invalid_mfa_token()
    return row


def pending_sign_in(mfa_token: str) -> tuple[User, FactorChallenge]:
    """Return the user and the challenge of a sign-in that waits for a second factor, both locked.

    The user is locked first, as in all changes of second factors. Raises 401 `token_invalid`.
    """
    user = get_or_404(User, pending_user(mfa_token).id, lock=True)
    challenge = db.session.execute(
        select(FactorChallenge).where(*_waiting(mfa_token)).with_for_update()
    ).scalar_one_or_none()
    if challenge is None:
        raise invalid_mfa_token().about("user", user.id)
    return user, challenge


def _waiting(mfa_token: str) -> tuple[ColumnElement[bool], ...]:
    return (
        FactorChallenge.token_hash == digest(mfa_token),
        FactorChallenge.purpose == FactorPurpose.SIGN_IN,
        FactorChallenge.expires_at > clock.now(),
    )


def invalid_mfa_token() -> ClinicError:
    """Return the 401 for a sign-in that has expired, was completed, or never began."""
    message = "This sign-in has expired or is complete. Sign in again with e-mail and password."
    return ClinicError("token_invalid", message)


def take_challenge(actor: Actor, purpose: FactorPurpose) -> FactorChallenge | None:
    """Return the last step of this kind in the caller's session, and delete all of them."""
    of_session = (
        FactorChallenge.user_id == actor.user_id,
        FactorChallenge.session_id == actor.session_id,
        FactorChallenge.purpose == purpose,
    )
    valid = select(FactorChallenge).where(*of_session, FactorChallenge.expires_at > clock.now())
    row = db.session.execute(valid.order_by(FactorChallenge.id.desc()).limit(1)).scalar_one_or_none()
    if row is not None:
        db.session.expunge(row)
    db.session.execute(delete(FactorChallenge).where(*of_session))
    return row


# --- Proofs --------------------------------------------------------------------------------------------


def prove(user: User, proof: Proof, challenge: FactorChallenge | None) -> FactorMethod | None:
    """Use up a proof and return its kind, or None for a wrong or used one. The user is locked.

    Raises 422 unless there is either a code or a credential.
    """
    if proof.code is not None and proof.credential is None:
        code = normal_code(proof.code)
        if totp.CODE.fullmatch(code):
            return FactorMethod.TOTP if _use_totp(user, code) else None
        return FactorMethod.RECOVERY_CODE if _use_recovery_code(user, code) else None
    if proof.credential is None or proof.code is not None:
        raise invalid("code", "send either a code or a credential")
    return FactorMethod.WEBAUTHN if _use_passkey(user, proof.credential, challenge) else None


def _use_totp(user: User, code: str) -> bool:
    confirmed = select(TotpSecret).where(TotpSecret.user_id == user.id, TotpSecret.confirmed_at.is_not(None))
    stored = db.session.execute(confirmed).scalar_one_or_none()
    step = matching_step(stored, code) if stored is not None else None
    if stored is None or step is None:
        return False
    unused = update(TotpSecret).where(TotpSecret.id == stored.id, TotpSecret.last_step < step)
    return _changes_one_row(unused.values(last_step=step, secret=under_current_key(stored)))


def _use_recovery_code(user: User, code: str) -> bool:
    unused = update(RecoveryCode).where(
        RecoveryCode.user_id == user.id,
        RecoveryCode.code_hash == digest(code),
        RecoveryCode.used_at.is_(None),
    )
    return _changes_one_row(unused.values(used_at=clock.now()))


def _changes_one_row(statement: Any) -> bool:
    statement = statement.execution_options(synchronize_session=False)
    return bool(db.session.execute(statement).rowcount == 1)  # type: ignore[attr-defined]


def _use_passkey(user: User, credential: dict[str, Any], challenge: FactorChallenge | None) -> bool:
    if challenge is None or challenge.challenge is None or challenge.origin is None:
        return False
    expected, challenge.challenge = challenge.challenge, None  # used once, also by a wrong response
    credential_id = credential.get("id")
    if not isinstance(credential_id, str):
        return False
    of_user = select(Passkey).where(Passkey.user_id == user.id, Passkey.credential_id == credential_id)
    passkey = db.session.execute(of_user).scalar_one_or_none()
    if passkey is None:
        return False
    try:
        passkey.sign_count = passkeys.verify_authentication(
            credential,
            challenge=expected,
            origin=challenge.origin,
            public_key=passkey.public_key,
            sign_count=passkey.sign_count,
        )
    except passkeys.PasskeyError:
        return False
    passkey.last_used_at = clock.now()
    return True


def refused(user_id: int, action: str, refusal: ClinicError) -> ClinicError:
    """Return the refusal of a wrong second factor. It is audited, and uses up the challenge."""
    db.session.flush()
    entry = audit_log.pending_entries().entry("user", user_id, action)
    entry.action, entry.outcome, entry.detail = action, AuditOutcome.REFUSED, "invalid_code"
    refusal.commits_changes = True
    FAILURES.labels(action).inc()
    return refusal


def prove_in_session(actor: Actor, proof: Proof, action: str) -> User:
    """Check a second factor of the signed-in user. Return the user, locked. The audit entry names the factor.

    Raises 409 `conflict` for a user without a second factor, and 422 `validation_failed` for a wrong proof: a
    401 would make a front end sign out its user. Raises 429 `too_many_requests` after too many wrong ones.
    """
    db.session.rollback()  # no transaction stays open while other attempts have no outcome
    with sign_in_limits.counted(sign_in_limits.of_step_up(actor.user_id or 0), hashes=False) as attempt:
        attempt.withdrawn = True  # until there is an outcome
        remembered.begin(recalls=False)
        sessions.require_valid(actor)
        user = get_or_404(User, actor.user_id or 0, lock=True)
        if user.mfa_enabled_at is None:
            raise ClinicError("conflict", "You have no second factor. Set one up with POST /auth/mfa/totp.")
        challenge = take_challenge(actor, FactorPurpose.STEP_UP) if proof.credential is not None else None
        method = prove(user, proof, challenge)
        attempt.succeeded, attempt.withdrawn = method is not None, False
    if method is None:
        member = "code" if proof.credential is None else "credential"
        raise refused(user.id, action, invalid(member, "is wrong or was used already"))
    audit_log.pending_entries().entry("user", user.id, action).detail = method
    return user
