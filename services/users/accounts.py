"""Accounts: asking for one, adding, changing, deactivating; the last active admin stays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, or_, select
from sqlalchemy.orm import joinedload

from cache.rate_limits import limits
from config import settings
from enums import Role
from errors import ClinicError, not_found
from extensions import db
from models import Doctor, User
from security import passwords
from security.permissions import Actor, Permission
from services.audit import audit_log
from services.listing import paging
from services.listing.conditions import words_in
from services.listing.spec import ListQuery, ListSpec, Page
from services.rows import (
    assign,
    changed_members,
    for_update,
    forbid_members,
    get_or_404,
    read_outside_transaction,
)
from services.search_key import search_key
from services.users import sessions

OWN = frozenset({"name", "phone"})  # what users may change about themselves


def matches(text: str) -> ColumnElement[bool]:
    """What `q` finds: parts of the name in any order, parts of the e-mail address."""
    return or_(words_in(User.name_fold, text), User.email.icontains(text, autoescape=True))


LIST: ListSpec[User] = ListSpec(
    name="users",
    model=User,
    area="user",
    main_date="created_at",
    text=matches,
    options=(joinedload(User.doctor).load_only(Doctor.id),),
)


def find(actor: Actor, query: ListQuery) -> Page[User]:
    """One page of users."""
    actor.require(Permission.USERS_MANAGE)
    return paging.page(actor, LIST, query)


def get(actor: Actor, user_id: int, *, lock: bool = False) -> User:
    """The user, or 404: users who may not manage users see themselves alone."""
    if not actor.may(Permission.USERS_MANAGE):
        user = get_or_404(User, user_id, lock=lock and user_id == actor.user_id)
        if user.id != actor.user_id:
            raise not_found("user").about("user", user.id)
        return user
    if lock:
        _active_admins()  # before the row itself: two who change each other never wait for each other
    return get_or_404(User, user_id, lock=lock)


def me(actor: Actor, *, lock: bool = False) -> User:
    """The signed-in user."""
    return get_or_404(User, actor.user_id or 0, lock=lock)


def named(actor: Actor, who: str) -> User:
    """The user with this id or e-mail address, locked, or 404."""
    actor.require(Permission.USERS_MANAGE)
    column: ColumnElement[bool] = User.email == who.strip().lower()
    if who.isascii() and who.isdigit():
        column = User.id == int(who)
    user_id = db.session.execute(select(User.id).where(column)).scalar_one_or_none()
    if user_id is None:
        raise not_found("user")
    return get(actor, user_id, lock=True)


# --- Adding --------------------------------------------------------------------------------------------


def create_user(actor: Actor, *, password: str, **values: Any) -> User:
    """A new user with `name`, `email`, `role`, and `phone` and `is_active` if need be.

    Raises 422 for a weak password and 409 `already_exists` for an address that has an account.
    """
    actor.require(Permission.USERS_MANAGE)
    return _add(_hashed(password, values["name"], values["email"]), **values)


def register(actor: Actor, *, role: Role, password: str, **values: Any) -> User:
    """The account somebody asks for, inactive until an admin activates it; an admin's own is active at once.

    Raises 403 `registration_closed`, 403 for who would be admin, 409 `already_exists`, 429. That an address
    already has an account is told, since without e-mail there is no other way to say what to do next; a
    clinic that minds closes registration.
    """
    if actor.may(Permission.USERS_MANAGE):
        return create_user(actor, role=role, password=password, **values)
    if settings().registration == "closed":
        raise ClinicError(
            "registration_closed", "Registration is closed; ask an administrator for an account."
        )
    if role is Role.ADMIN:
        message = "Nobody can ask to be admin; an administrator makes those accounts."
        raise ClinicError("forbidden", message, errors={"role": "must not be admin"})
    # every account costs a password hash: an address makes no more of them than it may fail to sign in
    rate, key = settings().rate_limit_login_address, ("register", actor.address or "unknown")
    wait = limits.full(rate, *key)
    if wait is not None:
        raise ClinicError(
            "too_many_requests", "Too many accounts were asked for; try later.", retry_after=wait
        )
    hashed = _hashed(password, values["name"], values["email"])
    limits.hit(rate, *key)
    user = _add(hashed, role=role, is_active=False, **values)
    audit_log.set_action(user, "register")
    return user


def _hashed(password: str, name: str, email: str) -> str:
    """The password's hash, made before the transaction begins; what is cheap to refuse is refused first."""
    passwords.check_strength(password, about=(name, email, email.partition("@")[0]))
    if read_outside_transaction(select(User.id).where(User.email == email)) is not None:
        message = "This e-mail address is already registered."
        raise ClinicError("already_exists", message, errors={"email": message})
    return passwords.hash_password(password)


def _add(password_hash: str, *, is_active: bool = True, **values: Any) -> User:
    user = User(
        password_hash=password_hash, is_active=is_active, name_fold=search_key(values["name"]), **values
    )
    db.session.add(user)
    db.session.flush()
    return user


# --- Changing ------------------------------------------------------------------------------------------


def update(actor: Actor, user: User, **values: Any) -> User:
    """Change the members given: everything for an admin, their own name and phone for the others.

    Deactivating ends the user's sessions. Raises 409 `last_admin` where no active admin would be left.
    """
    if not actor.may(Permission.USERS_MANAGE):
        return update_own(user, **values)
    values = changed_members(user, values)
    stays = values.get("is_active", user.is_active) and values.get("role", user.role) is Role.ADMIN
    if user.is_active and user.role is Role.ADMIN and not stays:
        _keep_an_admin(user)
    return _change(user, values)


def update_own(user: User, **values: Any) -> User:
    """Change one's own name and phone; 403 for anything else."""
    values = changed_members(user, values)
    forbid_members(values, set(values) - OWN, "You may change your own name and phone only.")
    return _change(user, values)


def deactivate(actor: Actor, user: User) -> User:
    """Keep the user from signing in and end their sessions; the row stays."""
    return update(actor, user, is_active=False)


def _change(user: User, values: dict[str, Any]) -> User:
    if "name" in values:
        values["name_fold"] = search_key(values["name"])
    assign(user, values)
    if "is_active" in values:
        audit_log.set_action(user, "activate" if user.is_active else "deactivate")
        if not user.is_active:
            sessions.end_all(user.id)
    return user


def _active_admins() -> Sequence[int]:
    """The ids of the active admins, locked in order: whoever takes one away has looked at all of them."""
    admins = select(User.id).where(User.role == Role.ADMIN, User.is_active).order_by(User.id)
    return db.session.execute(for_update(admins)).scalars().all()


def _keep_an_admin(user: User) -> None:
    if not [admin for admin in _active_admins() if admin != user.id]:
        raise ClinicError("last_admin", "This is the last active admin; make another one first.")


def has_admin() -> bool:
    """Whether the clinic has an active admin."""
    return (
        db.session.execute(select(User.id).where(User.role == Role.ADMIN, User.is_active).limit(1)).scalar()
        is not None
    )
