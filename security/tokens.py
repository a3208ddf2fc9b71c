"""JSON Web Tokens: their claims, lifetimes and verification.

A token contains its user, its session and the counter of the session, but no role. Every request reads the
rights and the state of the session from the database. So a logout, a deactivation or a change of role takes
effect with the next request.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from typing import Any, Literal

import jwt
from flask_jwt_extended import create_access_token, create_refresh_token, decode_token
from flask_jwt_extended.exceptions import JWTExtendedException

from column_types import MAX_INT
from config import settings
from errors import ClinicError

AUDIENCE = "clinic"
ACCESS, REFRESH = "access", "refresh"
MAX_LENGTH = 4096  # characters; a valid token is much shorter


@dataclass(frozen=True, slots=True)
class Claims:
    """The verified claims of a token."""

    user_id: int
    session_id: int
    counter: int
    kind: Literal["access", "refresh"]


def access_lifetime() -> timedelta:
    """Return the lifetime of an access token."""
    return timedelta(minutes=settings().jwt_access_token_expires_minutes)


def refresh_lifetime() -> timedelta:
    """Return the lifetime of a refresh token, which is also that of an unused session."""
    return timedelta(days=settings().jwt_refresh_token_expires_days)


def issue(user_id: int, session_id: int, counter: int) -> tuple[str, str]:
    """Return a new access token and a new refresh token of a session."""
    claims = {"sid": session_id, "cnt": counter}
    return (
        create_access_token(str(user_id), additional_claims=claims, expires_delta=access_lifetime()),
        create_refresh_token(str(user_id), additional_claims=claims, expires_delta=refresh_lifetime()),
    )


def read(token: str, *kinds: str, allow_expired: bool = False) -> Claims:
    """Return the claims of a token of one of these kinds.

    Raises 401 `token_expired`, or 401 `token_invalid` for all other errors, without the reason.
    """
    if len(token) > MAX_LENGTH:
        raise _invalid()
    try:
        values = _decode(token, settings().jwt_secret_key)
        kind, expired = values["type"], values["exp"] <= time.time()
        user_id, session_id, counter = int(values["sub"]), values["sid"], values["cnt"]
    except (jwt.PyJWTError, JWTExtendedException, ValueError, KeyError, TypeError):
        raise _invalid() from None
    numbers = (user_id, session_id, counter)
    if kind not in kinds or not all(type(number) is int and 0 <= number <= MAX_INT for number in numbers):
        raise _invalid()
    if expired and not allow_expired:
        raise ClinicError("token_expired", "The token has expired; refresh it or sign in again.")
    return Claims(user_id, session_id, counter, "access" if kind == ACCESS else "refresh")


def _invalid() -> ClinicError:
    return ClinicError("token_invalid", "The token is not valid; sign in again.")


@lru_cache(maxsize=4096)
def _decode(token: str, _key: str) -> dict[str, Any]:
    """Return all claims of a token with a valid signature, even if it has expired.

    The result depends only on the token and the key, so it is cached. Errors are not cached.
    """
    return decode_token(token, allow_expired=True)
