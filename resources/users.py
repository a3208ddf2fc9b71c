"""Endpoints of users."""

from __future__ import annotations

from typing import Any

from api import request_body
from api.body_format import Upload
from api.endpoint import StepUp, endpoint
from api.request_context import current_actor
from api.resource import ApiResource
from api.serialization import Serializer
from errors import ClinicError
from models import User
from schemas.account import PasswordResetOut, UserCreate, UserOut, UserPatch
from schemas.doctor import AccountIn
from schemas.second_factor import MfaResetIn
from security.permissions import Permission
from services.listing.spec import ListQuery, Page
from services.users import accounts, second_factors, sign_in

USER = Serializer(UserOut)


def hash_password_of(account: Any) -> str | None:
    """Return the hash of the password of a new account, of which a body has `email` and `password`.

    None for an account that the service will refuse: its error then names all problems of the body.
    """
    if not isinstance(account, dict):
        return None
    members = {name: account[name] for name in AccountIn.model_fields if name in account}
    try:
        password = request_body.validate(AccountIn, members).password
        return accounts.hash_new_password(current_actor(), password)
    except ClinicError as refusal:
        if refusal.status in (403, 422):
            return None
        raise


def _hash_password(_path: dict[str, Any], members: dict[str, Any], _upload: Upload | None) -> str | None:
    return hash_password_of(members)


class UserList(ApiResource):
    """Route `/users`."""

    @endpoint(Permission.USERS_MANAGE, list_spec=accounts.LIST, returns=USER)
    def get(self, query: ListQuery) -> Page[User]:
        """List users."""
        return accounts.find(current_actor(), query)

    @endpoint(
        Permission.USERS_MANAGE,
        body=UserCreate,
        prepare=_hash_password,
        returns=USER,
        status=201,
        errors=("already_exists",),
        step_up=StepUp.ALWAYS,
    )
    def post(self, data: UserCreate, prepared: str | None) -> User:
        """Add a user."""
        return accounts.create_user(current_actor(), password_hash=prepared, **data.model_dump())


class UserItem(ApiResource):
    """Route `/users/<user_id>`."""

    @endpoint(Permission.SIGNED_IN, load=accounts.get, returns=USER)
    def get(self, row: User) -> User:
        """Show a user. All but administrators: own only."""
        return row

    @endpoint(
        Permission.SIGNED_IN,
        load=accounts.get,
        body=UserPatch,
        returns=USER,
        errors=("already_exists", "last_admin"),
        step_up=StepUp.ADMINS,
    )
    def patch(self, row: User, data: Any) -> User:
        """Change a user. All but administrators: own name and phone only.

        `is_active` false deactivates the user, true activates them again. A new role applies from the user's
        next request.
        """
        return accounts.update(current_actor(), row, **data.model_dump(exclude_unset=True))

    @endpoint(
        Permission.USERS_MANAGE,
        load=accounts.get,
        returns=USER,
        errors=("last_admin",),
        step_up=StepUp.ALWAYS,
    )
    def delete(self, row: User) -> User:
        """Deactivate a user and end their sessions."""
        return accounts.deactivate(current_actor(), row)


class UserPasswordReset(ApiResource):
    """Route `/users/<user_id>/password-reset`."""

    @endpoint(
        Permission.USERS_MANAGE,
        load=accounts.get,
        returns=PasswordResetOut,
        secret=True,
        step_up=StepUp.ALWAYS,
    )
    def post(self, row: User) -> dict[str, Any]:
        """Issue a one-time token for a new password. It is valid for one hour."""
        token, reset = sign_in.issue_reset(current_actor(), row)
        message = "Give this token to the user. It is not shown again."
        return {"id": reset.id, "message": message, "token": token, "expires_at": reset.expires_at}


class UserMfaReset(ApiResource):
    """Route `/users/<user_id>/mfa-reset`."""

    @endpoint(
        Permission.USERS_MANAGE,
        load=accounts.get,
        body=MfaResetIn,
        returns=USER,
        step_up=StepUp.ALWAYS,
    )
    def post(self, row: User, data: MfaResetIn) -> User:
        """Remove the second factors of a user and end their sessions.

        For a user who has lost them. The user then signs in with the password only. The audit log has the
        reason.
        """
        return second_factors.reset(current_actor(), row, reason=data.reason)
