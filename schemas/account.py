"""Requests and responses of users and sessions. No response contains a password or its hash."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field, StringConstraints, WithJsonSchema

from enums import Role
from schemas.base import In, Out, patch_model
from schemas.fields import Email, InstantOut, Name, Password, Phone

EnteredPassword = Annotated[
    Password,
    WithJsonSchema(
        {
            "type": "string",
            "format": "password",
            "pattern": r"\S",
            "maxLength": 1024,
            "examples": ["a quiet harbour at dawn"],
        }
    ),
]
NewPassword = Annotated[
    Password,
    WithJsonSchema(
        {
            "type": "string",
            "format": "password",
            "pattern": r"\S",
            "minLength": 12,
            "maxLength": 1024,
            "examples": ["a quiet harbour at dawn"],
            "description": "At least 12 characters. Common passwords are refused.",
        }
    ),
]
Token = Annotated[str, StringConstraints(max_length=4096)]


# --- Requests ------------------------------------------------------------------------------------------


class UserCreate(In):
    """A new user, created by an admin."""

    name: Annotated[Name, Field(examples=["Grace Mwangi"])]
    email: Email
    password: NewPassword
    role: Role
    phone: Phone | None = None
    is_active: bool = True


UserPatch = patch_model(UserCreate, "UserPatch", without=frozenset({"password"}))


class RegisterIn(In):
    """A registration. `role` is a request: an admin decides about the account."""

    name: Annotated[Name, Field(examples=["Grace Mwangi"])]
    email: Email
    password: NewPassword
    role: Role = Role.RECEPTIONIST
    phone: Phone | None = None


class LoginIn(In):
    """The credentials of a sign-in."""

    email: Annotated[Email, Field(examples=["admin@clinic.com"])]
    password: EnteredPassword


class RefreshIn(In):
    """The refresh token, if it is neither the bearer token nor a cookie."""

    refresh_token: Token | None = None


class ChangePasswordIn(In):
    """A new password for the signed-in user."""

    current_password: EnteredPassword
    new_password: NewPassword


class ResetPasswordIn(In):
    """A new password, authorised by a one-time token."""

    token: Token
    new_password: NewPassword


# --- Responses -----------------------------------------------------------------------------------------


class UserOut(Out):
    """A user."""

    area: ClassVar[str] = "user"

    id: int
    name: str
    email: str
    phone: str | None
    role: Role
    is_active: bool
    doctor_id: int | None = Field(description="The doctor of this user, if the role is doctor.")
    created_at: InstantOut
    last_login_at: InstantOut | None


class RegisterOut(Out):
    """The result of a registration."""

    message: str
    user: UserOut


class SignedInUser(Out):
    """The signed-in user."""

    id: int
    name: str
    email: str
    role: Role


class TokensOut(Out):
    """The tokens of a session. They are also set as HttpOnly cookies."""

    message: str
    access_token: str
    refresh_token: str
    token_type: str
    expires_in: int = Field(description="Seconds until the access token expires.")
    user: SignedInUser


class SignedInOut(TokensOut):
    """The tokens of a new session, and the token of the device."""

    device_token: str = Field(
        description="Marks this device as known to the user. A client without cookies sends it as "
        "`X-Device-Token` with later sign-ins."
    )


class SessionOut(Out):
    """One sign-in on one device."""

    area: ClassVar[str] = "session"

    id: int
    device: str | None
    address: str | None
    created_at: InstantOut
    last_used_at: InstantOut = Field(description="Exact to one minute.")
    expires_at: InstantOut = Field(description="End of the session, unless its tokens are refreshed before.")
    ends_at: InstantOut = Field(description="End of the session without further use.")
    ended_at: InstantOut | None
    is_current: bool


class PasswordResetOut(Out):
    """A one-time token for `POST /auth/reset-password`, shown only once."""

    id: int
    message: str
    token: str
    expires_at: InstantOut
