"""Sessions: one row for each sign-in. The row decides whether the tokens of the session are valid.

Redis, if there is one, only speeds up the refusal of a revoked session. It never proves that one is valid.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from redis import Redis
from sqlalchemy import (
    ColumnElement,
    Row,
    and_,
    bindparam,
    delete,
    event,
    select,
    true,
    update,
)
from sqlalchemy.orm import Session
from sqlalchemy.orm.exc import StaleDataError

from cache.redis import redis_store
from enums import AuditOutcome, Role
from errors import ClinicError, not_found
from extensions import db
from models import Doctor, User, UserSession
from security import tokens
from security.permissions import Actor
from security.tokens import Claims, Pair
from services import clock, remembered
from services.audit import audit_log
from services.audit.audit_storage import EMERGENCY_UNTIL
from services.listing import paging
from services.listing.spec import ListQuery, ListSpec, Page
from services.rows import execute_core, get_or_404
from services.users import emergency_access, factor_policy

GRACE = timedelta(seconds=10)  # two browser tabs that refresh at once get the same pair
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def revoked_key(session_id: int, started: int | None) -> str:
    """Return the Redis key that marks a session as revoked."""
    return f"clinic:revoked:{session_id}:{started}"


def _started(session: UserSession | Row[Any]) -> int:
    """Return the start of a session in microseconds, as its tokens contain it."""
    return (session.created_at - EPOCH) // timedelta(microseconds=1)


def _is_token_of(claims: Claims, session: UserSession | Row[Any]) -> bool:
    """Return False for a token of an earlier session with the same id."""
    return claims.started in (None, _started(session))


def ended() -> ClinicError:
    """Return the 401 for a session that has ended."""
    return ClinicError("token_revoked", "This session has ended; sign in again.")


def identify(claims: Claims, visitor: Actor) -> tuple[Actor, bool]:
    """Return the user of the token's session, and True if its last use must be stored again.

    Reads session, user, role and doctor in the current transaction, or takes the remembered ones, which are
    verified before the commit (`services.remembered`). Raises 401 for a session that has ended
    or expired, and for a user who is not active.
    """
    key = (claims.session_id, claims.user_id)
    caller = remembered.recall_caller(key)
    if caller is None or _is_over(caller):
        caller = _valid_session(*key)
    if not _is_token_of(claims, caller):
        raise ended().about("user", claims.user_id)
    idle = clock.now() - caller.last_used_at > tokens.use_precision()
    if idle:
        remembered.forget_caller(key)
    else:
        remembered.remember_caller(key, caller)
    actor = actor_of(visitor, caller, claims.session_id)
    if caller.emergency_until is not None and caller.emergency_until > clock.now():
        actor = replace(actor, emergency_patients=emergency_access.open_patients(caller.user_id))
    return actor, idle


def verify_remembered() -> None:
    """Raise `StaleDataError` if the remembered caller has changed: the request then runs again."""
    caller = remembered.assumptions().caller
    if caller is None:
        return
    row = execute_core(_SESSION, session_id=caller.session_id, user_id=caller.user_id).one_or_none()
    names = (
        *("name", "role", "is_active", "doctor_id"),
        *("mfa_enabled_at", "mfa_required_since", "emergency_until"),
    )
    if row is None or _is_over(row) or any(getattr(row, name) != getattr(caller, name) for name in names):
        remembered.forget_caller((caller.session_id, caller.user_id))
        raise StaleDataError("the caller has changed")


def require_valid(actor: Actor) -> None:
    """Raise 401 if the session of an identified actor has ended meanwhile.

    Raise `StaleDataError` if the role has changed: the request then runs again.
    """
    if _valid_session(actor.session_id, actor.user_id).role is not actor.role:
        raise StaleDataError("the caller has changed")


def _valid_session(session_id: int | None, user_id: int | None) -> Row[Any]:
    row = execute_core(_SESSION, session_id=session_id, user_id=user_id).one_or_none()
    if row is None or _is_over(row) or not row.is_active:
        raise ended().about("user", user_id)
    return row


def _is_over(session: UserSession | Row[Any]) -> bool:
    return session.ended_at is not None or min(_ends(session)) <= clock.now()


def _ends(session: UserSession | Row[Any]) -> list[datetime]:
    """Return the instants that end a session: without a refresh, in any case, and without use."""
    ends = [session.expires_at, session.created_at + tokens.maximum_lifetime()]
    idle = tokens.idle_lifetime()
    return ends if idle is None else [*ends, session.last_used_at + idle]


_SESSION = (
    select(
        UserSession.id.label("session_id"),
        User.id.label("user_id"),
        UserSession.ended_at,
        UserSession.created_at,
        UserSession.expires_at,
        UserSession.last_used_at,
        User.id,
        User.name,
        User.role,
        User.is_active,
        User.mfa_enabled_at,
        User.mfa_required_since,
        Doctor.id.label("doctor_id"),
        EMERGENCY_UNTIL.label("emergency_until"),
    )
    .join(User, User.id == UserSession.user_id)
    .outerjoin(Doctor, Doctor.user_id == User.id)
    .where(UserSession.id == bindparam("session_id"), UserSession.user_id == bindparam("user_id"))
    .execution_options(prepare=True)
)


def touch(actor: Actor, session_id: int) -> None:
    """Set the last use of the session to now. Start the grace period of a user who needs a second factor."""
    factor_policy.start_grace(actor)
    db.session.execute(
        update(UserSession).where(UserSession.id == session_id).values(last_used_at=clock.now())
    )


def open_session(
    user: User, *, device: str | None, address: str | None, with_factor: bool = False
) -> tuple[UserSession, Pair]:
    """Create a session and its first tokens. Delete the expired sessions of the user.

    `with_factor`: the user has just proved a second factor.
    """
    now = clock.now()
    db.session.execute(
        delete(UserSession).where(UserSession.user_id == user.id, UserSession.expires_at <= now)
    )
    session = UserSession(
        user_id=user.id,
        device=device[:500] if device else None,
        address=address,
        created_at=now,
        last_used_at=now,
        expires_at=now + min(tokens.refresh_lifetime(), tokens.maximum_lifetime()),
        stepped_up_at=now if with_factor else None,
    )
    db.session.add(session)
    db.session.flush()
    return session, _issue(session, now)


def _issue(session: UserSession, now: datetime) -> Pair:
    return tokens.issue(
        session.user_id,
        session.id,
        session.counter,
        started=_started(session),
        remaining=session.expires_at - now,
    )


def actor_of(visitor: Actor, user: User | Row[Any], session_id: int) -> Actor:
    """Return the visitor as this user in this session."""
    doctor_id = user.doctor_id if user.role is Role.DOCTOR else None
    return replace(
        visitor,
        user_id=user.id,
        name=user.name,
        role=user.role,
        doctor_id=doctor_id,
        session_id=session_id,
        must_enrol=factor_policy.must_enrol(user),
    )


def rotate(visitor: Actor, claims: Claims) -> tuple[Actor, User, Pair]:
    """Retire a refresh token and return its actor, its user and a new pair of tokens.

    The token before the current one gets the current pair within `GRACE`. An older token was stolen or
    replayed: the session ends, and this 401 commits that (RFC 9700, section 4.14.2).
    """
    session = _lock_session(claims)
    now = clock.now()
    if session is None or _is_over(session):
        raise ended().about("user", claims.user_id)
    user = get_or_404(User, claims.user_id)
    if not user.is_active:
        raise ended().about("user", user.id)
    entry = audit_log.pending_entries().entry("user", user.id, "refresh")
    if claims.counter == session.counter:
        session.counter += 1
        session.rotated_at = now
        session.last_used_at = now
        session.expires_at = min(
            now + tokens.refresh_lifetime(), session.created_at + tokens.maximum_lifetime()
        )
    elif not _is_in_grace_period(session, claims):
        end(session)
        refusal = ended()
        refusal.commits_changes = True
        entry.outcome, entry.detail = AuditOutcome.REFUSED, refusal.code
        raise refusal
    pair = _issue(session, now)
    return actor_of(visitor, user, session.id), user, pair


def _is_in_grace_period(session: UserSession, claims: Claims) -> bool:
    return (
        claims.counter == session.counter - 1
        and session.rotated_at is not None
        and clock.now() - session.rotated_at <= GRACE
    )


def sign_out(visitor: Actor, claims: Claims) -> Actor:
    """End the session of a token of either kind. Return its actor, or the visitor without a session."""
    session = _lock_session(claims)
    if session is None:
        return visitor
    user = get_or_404(User, session.user_id)
    if session.ended_at is None:
        audit_log.pending_entries().entry("user", user.id, "logout")
        end(session)
    return actor_of(visitor, user, session.id)


def _lock_session(claims: Claims) -> UserSession | None:
    session = db.session.execute(
        select(UserSession)
        .where(UserSession.id == claims.session_id, UserSession.user_id == claims.user_id)
        .with_for_update()
    ).scalar_one_or_none()
    return session if session is not None and _is_token_of(claims, session) else None


# --- Own sessions --------------------------------------------------------------------------------------


def _own_valid(actor: Actor) -> ColumnElement[bool]:
    now, idle = clock.now(), tokens.idle_lifetime()
    return and_(
        UserSession.user_id == actor.user_id,
        UserSession.ended_at.is_(None),
        UserSession.expires_at > now,
        UserSession.created_at > now - tokens.maximum_lifetime(),
        true() if idle is None else UserSession.last_used_at > now - idle,
    )


LIST: ListSpec[UserSession] = ListSpec(
    name="sessions",
    model=UserSession,
    area="session",
    main_date="created_at",
    scope=_own_valid,
    omit=frozenset({"user_id", "counter", "rotated_at", "stepped_up_at"}),
    excluded={
        "is_current": "it depends on the request",
        "ends_at": "it depends on the settings; use last_used_at",
    },
)


def find(actor: Actor, query: ListQuery) -> Page[UserSession]:
    """Return one page of the caller's valid sessions."""
    return paging.page(actor, LIST, query)


def add_computed_fields(actor: Actor, rows: Sequence[UserSession]) -> None:
    """Mark the session of the current request, and compute the end of each session without further use."""
    for session in rows:
        session.is_current = session.id == actor.session_id
        session.ends_at = session.ended_at or min(_ends(session))


def get(actor: Actor, session_id: int, *, lock: bool = False) -> UserSession:
    """Return a session of the caller, or raise 404."""
    session = get_or_404(UserSession, session_id, lock=lock, what="session")
    if session.user_id != actor.user_id:
        raise not_found("session").about("user", session.user_id)
    return session


# --- End of a session ----------------------------------------------------------------------------------


def end_own(actor: Actor, session: UserSession) -> UserSession:
    """End one session of the caller."""
    if session.ended_at is None:
        audit_log.pending_entries().entry("user", actor.user_id, "end_session")
        end(session)
    return session


def end(session: UserSession) -> None:
    """End a session. Its tokens are refused from the next request on."""
    if session.ended_at is None:
        session.ended_at = clock.now()
        key = revoked_key(session.id, _started(session))
        _ended_in(db.session()).append((key, session.expires_at))


def end_all(user_id: int, *, except_id: int | None = None) -> None:
    """End all sessions of a user, without the session `except_id`."""
    statement = (
        select(UserSession)
        .where(UserSession.user_id == user_id, UserSession.ended_at.is_(None))
        .order_by(UserSession.id)
        .with_for_update()
    )
    for session in db.session.execute(statement).scalars():
        if session.id != except_id:
            end(session)


class EndedSessions(list[tuple[str, datetime]]):
    """Redis key and expiry of the sessions that a transaction ends: `session.info[EndedSessions]`."""


def _ended_in(session: Session) -> EndedSessions:
    ended_sessions: EndedSessions = session.info.setdefault(EndedSessions, EndedSessions())
    return ended_sessions


def register(session_class: type[Session] | Any) -> None:
    """Register the handlers that list ended sessions in Redis.

    This happens after the commit only: a transaction that was rolled back must revoke nothing. Until then the
    row of the session decides.
    """
    event.listen(session_class, "after_commit", _list_in_redis)
    event.listen(session_class, "after_rollback", lambda session: _ended_in(session).clear())


def _list_in_redis(session: Session) -> None:
    ended_sessions = _ended_in(session)
    for key, expires_at in ended_sessions:
        seconds = max(1, int((expires_at - clock.now()).total_seconds()) + 60)
        redis_store.call(partial(_set_revoked, key, seconds), None)
    ended_sessions.clear()


def _set_revoked(key: str, seconds: int, client: Redis) -> None:
    client.set(key, 1, ex=seconds)
