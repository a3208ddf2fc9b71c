"""Sessions: one row per sign-in, which is the truth about whether its tokens are good.

Redis, where there is one, answers "revoked" faster; it is never asked whether a session is good.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    and_,
    bindparam,
    delete,
    event,
    select,
    update,
)
from sqlalchemy.orm import Session, SessionTransaction

from cache.redis import redis_store
from database.engine import (
    PREPARED,
    REPLICA,
    is_silent,
    tell,
)
from enums import AuditOutcome, Role
from errors import ClinicError, not_found
from extensions import db, remembered
from models import Doctor, User, UserSession
from security import tokens
from security.permissions import Actor
from security.tokens import Claims
from services import clock
from services.audit import audit_log
from services.listing import paging
from services.listing.paging import ListQuery, ListSpec, Page
from services.rows import execute_core, get_or_404, read_outside_transaction

GRACE = timedelta(seconds=10)  # two tabs refresh at once: the second gets the current pair
TOUCH = timedelta(minutes=1)  # how exact "last use" is
MOST_KNOWN = 10_000  # callers whom a process remembers


@dataclass(frozen=True)
class Pair:
    """The tokens of a session as a client gets them."""

    access_token: str
    refresh_token: str


def revoked_key(session_id: int) -> str:
    """Under which name Redis lists a session that has ended."""
    return f"clinic:revoked:{session_id}"


def is_revoked(session_id: int) -> bool:
    """Whether Redis lists the session; no is no answer."""
    return redis_store.holds(revoked_key(session_id))


def ended() -> ClinicError:
    """The one 401 for every session that does not live."""
    return ClinicError("token_revoked", "This session has ended; sign in again.")


def identify(claims: Claims, visitor: Actor, *, revoked: bool, reading: bool) -> tuple[Actor, bool]:
    """Who the token's session belongs to now, and whether its last use should be noted.

    `revoked` is what Redis says. Raises 401 for a session that has ended or whose user is
    not active.

    In a transaction that is `trusting`, the database is not asked who it is but told who it was, together
    with the transaction's first statement, which it refuses to run if any of that has changed.
    """
    if revoked:
        raise ended().about("user", claims.user_id)
    now, key, info = clock.now(), (claims.user_id, claims.session_id), db.session.info
    known = remembered("callers")  # (user, session) -> what was read of them the last time
    found = known.get(key) if info.get("trusting") else None
    if found is not None:
        info["assumed"] = found
    else:
        found = _whose(claims, reading=reading)
    if found is None or found.ended_at or found.expires_at <= now or not found.is_active:
        raise ended().about("user", claims.user_id)
    idle = now - found.last_used_at > TOUCH
    if idle:
        known.pop(key, None)  # the last use is about to change
    else:
        if len(known) >= MOST_KNOWN:
            known.clear()
        known[key] = found
    return actor_of(visitor, found, claims.session_id), idle


def _whose(claims: Claims, *, reading: bool) -> Row[Any] | None:
    # a body may be slow to come, and on SQLite a transaction keeps all others out: those are not begun yet
    values = {"session_id": claims.session_id, "user_id": claims.user_id}
    if reading and db.engine.dialect.name == "postgresql":
        return execute_core(_WHOSE, **values).one_or_none()
    return read_outside_transaction(_WHOSE, **values)


def watch(session_class: type[Session] | Any) -> None:
    """Make transactions tell the database first what they take for granted."""
    event.listen(session_class, "after_begin", _assume)


def _assume(session: Session, _transaction: SessionTransaction, connection: Connection) -> None:
    found = session.info.get("assumed")
    if found is None or "told" in session.info or session.info.get(REPLICA):
        return  # the replica may be late
    values = {name: getattr(found, name) for name in ("session_id", "id", "name", "role", "doctor_id")}
    tell(connection, _STILL, values | {"now": clock.now()})
    session.info["told"] = connection


def confirm() -> None:
    """Have the database confirm what is assumed of the caller, where it was asked nothing yet."""
    info = db.session.info
    if "assumed" in info and ("told" not in info or is_silent(info["told"])):
        db.session.execute(select(1))


# Divides by nothing, error 22012, where the caller is not who is named any more.
_STILL = """
    SELECT 1 / count(*)
      FROM user_sessions
      JOIN users ON users.id = user_sessions.user_id
      LEFT JOIN doctors ON doctors.user_id = users.id
     WHERE user_sessions.id = %(session_id)s AND users.id = %(id)s
       AND user_sessions.ended_at IS NULL AND user_sessions.expires_at > %(now)s
       AND users.is_active AND users.name = %(name)s AND users.role = %(role)s
       AND doctors.id IS NOT DISTINCT FROM %(doctor_id)s
"""


_WHOSE = (
    select(
        UserSession.id.label("session_id"),
        UserSession.ended_at,
        UserSession.expires_at,
        UserSession.last_used_at,
        User.id,
        User.name,
        User.role,
        User.is_active,
        Doctor.id.label("doctor_id"),
    )
    .prefix_with(PREPARED)
    .join(User, User.id == UserSession.user_id)
    .outerjoin(Doctor, Doctor.user_id == User.id)
    .where(UserSession.id == bindparam("session_id"), UserSession.user_id == bindparam("user_id"))
)


def touch(session_id: int) -> None:
    """Note that the session is in use."""
    db.session.execute(
        update(UserSession).where(UserSession.id == session_id).values(last_used_at=clock.now())
    )


def open_session(user: User, *, device: str | None, address: str | None) -> tuple[UserSession, Pair]:
    """A new session of the user, and its first tokens; what has run out of theirs is removed."""
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
        expires_at=now + tokens.refresh_lifetime(),
    )
    db.session.add(session)
    db.session.flush()
    return session, Pair(*tokens.issue(user.id, session.id, session.counter))


def actor_of(visitor: Actor, user: User | Row[Any], session_id: int) -> Actor:
    """The visitor, who turned out to be this user in this session."""
    doctor_id = user.doctor_id if user.role is Role.DOCTOR else None
    return Actor(user.id, user.name, user.role, doctor_id, session_id, visitor.address, visitor.request_id)


def rotate(visitor: Actor, claims: Claims) -> tuple[Actor, User, Pair]:
    """A new pair for a refresh token, which is retired by it, and whose it is.

    The immediate parent gets the current pair again within `GRACE`. Any older token was stolen or
    replayed: it ends the session, and this 401 commits that (RFC 9700 section 4.14.2).
    """
    session = _of_token(claims)
    now = clock.now()
    if session is None or session.ended_at or session.expires_at <= now:
        raise ended().about("user", claims.user_id)
    user = get_or_404(User, claims.user_id)
    if not user.is_active:
        raise ended().about("user", user.id)
    deed = audit_log.pending_entries().deed("user", user.id, "refresh")
    if claims.counter == session.counter:
        session.counter += 1
        session.rotated_at = now
        session.last_used_at = now
        session.expires_at = now + tokens.refresh_lifetime()
    elif not (
        claims.counter == session.counter - 1
        and session.rotated_at is not None
        and now - session.rotated_at <= GRACE
    ):
        end(session)
        refusal = ended()
        refusal.keeps_work = True
        deed.outcome, deed.detail = AuditOutcome.REFUSED, refusal.code
        raise refusal
    pair = Pair(*tokens.issue(user.id, session.id, session.counter))
    return actor_of(visitor, user, session.id), user, pair


def sign_out(visitor: Actor, claims: Claims) -> Actor:
    """End the session that a token of either kind belongs to, if it lives, and whose it was."""
    session = _of_token(claims)
    if session is None:
        return visitor
    user = get_or_404(User, session.user_id)
    if session.ended_at is None:
        audit_log.pending_entries().deed("user", user.id, "logout")
        end(session)
    return actor_of(visitor, user, session.id)


def _of_token(claims: Claims) -> UserSession | None:
    return db.session.execute(
        select(UserSession)
        .where(UserSession.id == claims.session_id, UserSession.user_id == claims.user_id)
        .with_for_update()
    ).scalar_one_or_none()


# --- A user's own --------------------------------------------------------------------------------------


def _living(actor: Actor) -> ColumnElement[bool]:
    return and_(
        UserSession.user_id == actor.user_id,
        UserSession.ended_at.is_(None),
        UserSession.expires_at > clock.now(),
    )


LIST: ListSpec[UserSession] = ListSpec(
    name="sessions",
    model=UserSession,
    area="session",
    main_date="created_at",
    scope=_living,
    omit=frozenset({"user_id", "counter", "rotated_at", "ended_at"}),
)


def find(actor: Actor, query: ListQuery) -> Page[UserSession]:
    """One page of the caller's sessions that live."""
    return paging.page(actor, LIST, query)


def add_computed_fields(actor: Actor, rows: Sequence[UserSession]) -> None:
    """Tell which one the request itself belongs to."""
    for session in rows:
        session.is_current = session.id == actor.session_id


def get(actor: Actor, session_id: int, *, lock: bool = False) -> UserSession:
    """The caller's own session, or 404."""
    session = get_or_404(UserSession, session_id, lock=lock, what="session")
    if session.user_id != actor.user_id:
        raise not_found("session").about("user", session.user_id)
    return session


# --- Ending --------------------------------------------------------------------------------------------


def end_own(actor: Actor, session: UserSession) -> UserSession:
    """End one of the caller's own sessions."""
    if session.ended_at is None:
        audit_log.pending_entries().deed("user", actor.user_id, "end_session")
        end(session)
    return session


def end(session: UserSession) -> None:
    """End one session; its tokens are refused from the next request on."""
    if session.ended_at is None:
        session.ended_at = clock.now()
        _revoke(session.id, session.expires_at)


def end_all(user_id: int, *, but: int | None = None) -> None:
    """End every session of a user, but one if named."""
    statement = (
        select(UserSession)
        .where(UserSession.user_id == user_id, UserSession.ended_at.is_(None))
        .order_by(UserSession.id)
        .with_for_update()
    )
    for session in db.session.execute(statement).scalars():
        if session.id != but:
            end(session)


def _revoke(session_id: int, expires_at: datetime) -> None:
    # before the commit: a session that stays alive because the commit failed is refused for a moment at
    # worst, and never the other way round
    seconds = max(1, int((expires_at - clock.now()).total_seconds()) + 60)
    redis_store.call(lambda client: client.set(revoked_key(session_id), 1, ex=seconds), None)
