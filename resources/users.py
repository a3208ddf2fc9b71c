"""Users over HTTP."""

from __future__ import annotations

from typing import Any

from api.endpoint import endpoint
from api.request_context import current_actor
from api.resource import ApiResource
from api.serialization import Serializer
from models import User
from schemas.account import PasswordResetOut, UserCreate, UserOut, UserPatch
from security.permissions import Permission
from services.listing.spec import ListQuery, Page
from services.users import accounts, sign_in

USER = Serializer(UserOut)


class UserList(ApiResource):
    """/users"""

    @endpoint(Permission.USERS_MANAGE, lists=accounts.LIST, returns=USER)
    def get(self, listed: ListQuery) -> Page[User]:
        """List users."""
        return accounts.find(current_actor(), listed)

    @endpoint(Permission.USERS_MANAGE, body=UserCreate, returns=USER, status=201, errors=("already_exists",))
    def post(self, data: UserCreate) -> User:
        """Add a user."""
        return accounts.create_user(current_actor(), **data.model_dump())


class UserItem(ApiResource):
    """/users/<user_id>"""

    @endpoint(Permission.SIGNED_IN, loads=accounts.get, returns=USER)
    def get(self, row: User) -> User:
        """Show a user: any for admins, themselves for the others."""
        return row

    @endpoint(
        Permission.SIGNED_IN,
        loads=accounts.get,
        body=UserPatch,
        returns=USER,
        errors=("already_exists", "last_admin"),
    )
    def patch(self, row: User, data: Any) -> User:
        """Change a user: everything for admins, their own name and phone for the others.

        `is_active` deactivates and brings back; a role holds from the user's next request.
        """
        return accounts.update(current_actor(), row, **data.model_dump(exclude_unset=True))

    @endpoint(Permission.USERS_MANAGE, loads=accounts.get, returns=USER, errors=("last_admin",))
    def delete(self, row: User) -> User:
        """Deactivate a user and end their sessions."""
        return accounts.deactivate(current_actor(), row)


class UserPasswordReset(ApiResource):
    """/users/<user_id>/password-reset"""

    @endpoint(Permission.USERS_MANAGE, loads=accounts.get, returns=PasswordResetOut, idempotent=False)
    def post(self, row: User) -> dict[str, Any]:
        """Issue a one-time token, good for an hour, with which the user sets a new password."""
        token, reset = sign_in.issue_reset(current_actor(), row)
        message = "Hand this token to the user: it is shown only now."
        return {"message": message, "token": token, "expires_at": reset.expires_at}
