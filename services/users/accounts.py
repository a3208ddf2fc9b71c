"""User accounts: registration, creation, changes and deactivation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypedDict, Unpack

from sqlalchemy import ColumnElement, or_, select
from sqlalchemy.orm import joinedload

from column_types import unique_key
from config import settings
from database.functions import contains_text
from enums import Role
from errors import ClinicError, not_found
from extensions import db
from models import Doctor, User
from security import passwords
from security.password_queue import Group, password_queue
from security.permissions import Actor, Permission
from services import clock, remembered
from services.audit import audit_log
from services.listing import paging
from services.listing.conditions import words_in
from services.listing.spec import Kind, ListColumn, ListQuery, ListSpec, Page
from services.rows import (
    assign,
    changed_members,
    for_update,
    forbid_members,
    get_or_404,
    read_outside_transaction,
)
from services.search_key import search_key
from services.users import sessions, sign_in_limits

OWN_MEMBERS = frozenset({"name", "phone"})  # members that users may change for themselves


class UserChanges(TypedDict, total=False):
    """The members of a user to change. An absent member is unchanged."""

    name: str
    email: str
    role: Role
    phone: str | None
    is_active: bool


def matches(text: str) -> ColumnElement[bool]:
    """Return the filter of `q`: parts of the name in any order, or a part of the e-mail address."""
    return or_(words_in(User.name_fold, text), contains_text(User.email, text))


LIST: ListSpec[User] = ListSpec(
    name="users",
    model=User,
    area="user",
    main_date="created_at",
    text=matches,
    options=(joinedload(User.doctor).load_only(Doctor.id),),
    omit=frozenset({"unlocked_at", "mfa_enabled_at", "mfa_required_since", "updated_at", "version"}),
    computed={
        "doctor_id": ListColumn(
            Kind.ID, select(Doctor.id).where(Doctor.user_id == User.id).correlate(User).scalar_subquery()
        )
    },
)


def find(actor: Actor, query: ListQuery) -> Page[User]:
    """Return one page of users. Raises 403 `forbidden` unless the caller is an admin."""
    actor.require(Permission.USERS_MANAGE)
    return paging.page(actor, LIST, query)


def get(actor: Actor, user_id: int, *, lock: bool = False) -> User:
    """Return a user. Other callers than admins can see only themselves.

    Raises 404 `not_found`. With `lock` the row is locked until the end of the transaction.
    """
    if not actor.may(Permission.USERS_MANAGE):
        user = get_or_404(User, user_id, lock=lock and user_id == actor.user_id)
        if user.id != actor.user_id:
            raise not_found("user").about("user", user.id)
        return user
    if lock:
        _lock_active_admins()  # before the row: two admins who change each other cannot deadlock
    return get_or_404(User, user_id, lock=lock)


def me(actor: Actor, *, lock: bool = False) -> User:
    """Return the signed-in user."""
    return get_or_404(User, actor.user_id or 0, lock=lock)


def get_by_id_or_email(actor: Actor, id_or_email: str) -> User:
    """Return the user with this id or e-mail address, locked. Raises 404 `not_found`."""
    actor.require(Permission.USERS_MANAGE)
    condition: ColumnElement[bool] = User.email_key == unique_key(id_or_email)
    if id_or_email.isascii() and id_or_email.isdigit():
        condition = User.id == int(id_or_email)
    user_id = db.session.execute(select(User.id).where(condition)).scalar_one_or_none()
    if user_id is None:
        raise not_found("user")
    return get(actor, user_id, lock=True)


# --- Creation ------------------------------------------------------------------------------------------


def create_user(
    actor: Actor,
    *,
    name: str,
    email: str,
    password: str,
    role: Role,
    phone: str | None = None,
    is_active: bool = True,
    password_hash: str | None = None,
) -> User:
    """Create a user. A request hashes the password before its transaction: `password_hash`.

    Raises 403 `forbidden` unless the caller is an admin, 422 `validation_failed` for a weak password, and
    409 `already_exists` for an e-mail address that has an account.
    """
    actor.require(Permission.USERS_MANAGE)
    _check_new_password(password, name, email)
    _check_email_is_free(email)
    if password_hash is None:  # a command
        password_hash = hash_new_password(actor, password)
    return _insert(password_hash, name=name, email=email, role=role, phone=phone, is_active=is_active)


def hash_new_password(actor: Actor, password: str) -> str:
    """Return the hash of the password of a new user, computed in a turn of the queue.

    On SQLite a transaction would hold the write lock meanwhile. Raises 403 `forbidden` unless the caller is
    an admin, and 422 `validation_failed` for a weak password.
    """
    actor.require(Permission.USERS_MANAGE)
    passwords.check_strength(password)
    with password_queue.turn(sign_in_limits.queue_group(actor.user_id)):
        return passwords.hash_password(password)


def register(
    actor: Actor, *, name: str, email: str, password: str, role: Role, phone: str | None = None
) -> User:
    """Register an account. It is inactive until an admin activates it. An account by an admin is active.

    Raises 403 `registration_closed`, 403 `forbidden` for the role admin, 409 `already_exists`,
    422 `validation_failed` for a weak password, and 429 `too_many_requests`. The 409 shows that an account
    exists: without e-mail there is no other way to tell the user what to do. A clinic can close registration.
    Attempts are limited for each network, also those that end with 403 or 409, which are audited.
    """
    is_admin = actor.may(Permission.USERS_MANAGE)
    _check_new_password(password, name, email)
    if not is_admin:
        sign_in_limits.count_registration(actor.network)
        _check_registration(role)
    _check_email_is_free(email)
    db.session.rollback()  # no transaction stays open during the hashing: SQLite has one writer
    group = sign_in_limits.queue_group(actor.user_id) if is_admin else Group(actor.network)
    with password_queue.turn(group):
        password_hash = passwords.hash_password(password)
    remembered.begin(recalls=False)  # an outdated memory would run the request again, and hash again
    if actor.session_id is not None:
        sessions.require_valid(actor)
    user = _insert(password_hash, name=name, email=email, role=role, phone=phone, is_active=is_admin)
    if not is_admin:
        audit_log.set_action(user, "register")
    return user


def _check_registration(role: Role) -> None:
    if settings().registration == "closed":
        raise ClinicError(
            "registration_closed", "Registration is closed; contact an administrator for an account."
        )
    if role is Role.ADMIN:
        message = "You cannot register as an admin; contact an administrator."
        raise ClinicError("forbidden", message, errors={"role": "must not be admin"})


def _check_new_password(password: str, name: str, email: str) -> None:
    passwords.check_strength(password, about=(name, email, email.partition("@")[0]))


def _check_email_is_free(email: str) -> None:
    if read_outside_transaction(select(User.id).where(User.email_key == unique_key(email))) is not None:
        message = "This e-mail address is already registered."
        raise ClinicError("already_exists", message, errors={"email": message})


def _insert(
    password_hash: str, *, name: str, email: str, role: Role, phone: str | None, is_active: bool
) -> User:
    user = User(
        name=name,
        name_fold=search_key(name),
        email=email,
        password_hash=password_hash,
        role=role,
        phone=phone,
        is_active=is_active,
    )
    db.session.add(user)
    db.session.flush()
    return user


# --- Changes -------------------------------------------------------------------------------------------


def update(actor: Actor, user: User, **changes: Unpack[UserChanges]) -> User:
    """Change a user. An admin may change all members, other users their own name and phone.

    A deactivation ends the sessions of the user. Raises 403 `forbidden`, and 409 `last_admin` if no active
    admin would remain.
    """
    if not actor.may(Permission.USERS_MANAGE):
        return update_own(user, **changes)
    values = changed_members(user, changes)
    stays_admin = values.get("is_active", user.is_active) and values.get("role", user.role) is Role.ADMIN
    if user.is_active and user.role is Role.ADMIN and not stays_admin:
        _check_other_admin(user)
    return _change(user, values)


def update_own(user: User, **changes: Unpack[UserChanges]) -> User:
    """Change the name and phone of the signed-in user. Raises 403 `forbidden` for other members."""
    values = changed_members(user, changes)
    forbid_members(values, set(values) - OWN_MEMBERS, "You may change your own name and phone only.")
    return _change(user, values)


def deactivate(actor: Actor, user: User) -> User:
    """Deactivate a user and end their sessions. Raises 409 `last_admin`. The row remains."""
    return update(actor, user, is_active=False)


def _change(user: User, values: dict[str, Any]) -> User:
    if "name" in values:
        values["name_fold"] = search_key(values["name"])
    assign(user, values)
    if "is_active" in values:
        audit_log.set_action(user, "activate" if user.is_active else "deactivate")
        if not user.is_active:
            sessions.end_all(user.id)
            sessions.end_resets(user.id)
    return user


def unlock(actor: Actor, user: User) -> User:
    """Forgive the failed sign-ins of a user: those before do not block the user any more."""
    actor.require(Permission.USERS_MANAGE)
    user.unlocked_at = clock.now()
    audit_log.set_action(user, "unlock")
    return user


def _lock_active_admins() -> Sequence[int]:
    """Lock all active admins in the order of their ids, so that none can disappear. Return the ids."""
    admins = select(User.id).where(User.role == Role.ADMIN, User.is_active).order_by(User.id)
    return db.session.execute(for_update(admins)).scalars().all()


def _check_other_admin(user: User) -> None:
    if not [admin_id for admin_id in _lock_active_admins() if admin_id != user.id]:
        raise ClinicError("last_admin", "This is the last active admin; create another one first.")


def has_admin() -> bool:
    """Return True if the clinic has an active admin."""
    admin = select(User.id).where(User.role == Role.ADMIN, User.is_active).limit(1)
    return db.session.execute(admin).scalar() is not None
