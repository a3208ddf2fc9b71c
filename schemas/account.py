"""Accounts and sessions: what comes in and goes out. No answer ever holds a password or its hash."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator, Field, StringConstraints, WithJsonSchema

from enums import Role
from schemas.base import In, Out, partial
from schemas.fields import Email, InstantOut, Name, Password, Phone


def _trimmed(value: Any) -> Any:
    return value.strip() if isinstance(value, str) else value  # phones add a blank after what they complete


Address = Annotated[Email, BeforeValidator(_trimmed)]
Secret = Annotated[
    Password,
    WithJsonSchema(
        {
            "type": "string",
            "format": "password",
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
            "minLength": 12,
            "maxLength": 1024,
            "examples": ["a quiet harbour at dawn"],
            "description": "At least 12 characters, of any kind, and not a common password.",
        }
    ),
]
Token = Annotated[str, StringConstraints(max_length=4096)]


# --- In ------------------------------------------------------------------------------------------------


class UserCreate(In):
    """A user whom an admin adds."""

    name: Annotated[Name, Field(examples=["Grace Mwangi"])]
    email: Address
    password: NewPassword
    role: Role
    phone: Phone | None = None
    is_active: bool = True


UserPatch = partial(UserCreate, "UserPatch", without=frozenset({"password"}))


class RegisterIn(In):
    """An account somebody asks for; `role` is only what they would like to be."""

    name: Annotated[Name, Field(examples=["Grace Mwangi"])]
    email: Address
    password: NewPassword
    role: Role = Role.RECEPTIONIST
    phone: Phone | None = None


class LoginIn(In):
    """Somebody signs in."""

    email: Annotated[Address, Field(examples=["admin@clinic.com"])]
    password: Secret


class RefreshIn(In):
    """The refresh token, where it is neither the bearer token nor a cookie."""

    refresh_token: Token | None = None


class ChangePasswordIn(In):
    """A new password for oneself."""

    current_password: Secret
    new_password: NewPassword


class ResetPasswordIn(In):
    """A new password by a one-time token."""

    token: Token
    new_password: NewPassword


# --- Out -----------------------------------------------------------------------------------------------


class UserOut(Out):
    """A user."""

    area: ClassVar[str] = "user"

    id: int
    name: str
    email: str
    phone: str | None
    role: Role
    is_active: bool
    doctor_id: int | None = Field(description="The doctor this user is, where the role is doctor.")
    created_at: InstantOut
    last_login_at: InstantOut | None


class RegisterOut(Out):
    """What became of a registration."""

    message: str
    user: UserOut


class SignedInUser(Out):
    """Who signed in."""

    id: int
    name: str
    email: str
    role: Role


class TokensOut(Out):
    """The tokens of a session; the same two are set as HttpOnly cookies."""

    message: str
    access_token: str
    refresh_token: str
    token_type: str
    expires_in: int = Field(description="Seconds until the access token expires.")
    user: SignedInUser


class SessionOut(Out):
    """One sign-in on one device."""

    area: ClassVar[str] = "session"

    id: int
    device: str | None
    address: str | None
    created_at: InstantOut
    last_used_at: InstantOut = Field(description="To the minute.")
    expires_at: InstantOut
    ended_at: InstantOut | None
    is_current: bool


class PasswordResetOut(Out):
    """A one-time token for `POST /auth/reset-password`, shown only now."""

    message: str
    token: str
    expires_at: InstantOut
