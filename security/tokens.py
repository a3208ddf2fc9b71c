"""JSON Web Tokens: what is in them, and whether they are ours. Whether a session lives, the database says.

A token names its user, its session and the session's counter, never a role: rights are read afresh from the
database on every request, so that logout, deactivation and a role change hold from the next one on.
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
MAX_LENGTH = 4096  # characters; longer ones are not worth parsing


@dataclass(frozen=True, slots=True)
class Claims:
    """What a genuine token says."""

    user_id: int
    session_id: int
    counter: int
    kind: Literal["access", "refresh"]


def access_lifetime() -> timedelta:
    """How long an access token is good for."""
    return timedelta(minutes=settings().jwt_access_token_expires_minutes)


def refresh_lifetime() -> timedelta:
    """How long a refresh token, and with it a session without use, lives."""
    return timedelta(days=settings().jwt_refresh_token_expires_days)


def issue(user_id: int, session_id: int, counter: int) -> tuple[str, str]:
    """An access and a refresh token of one session."""
    claims = {"sid": session_id, "cnt": counter}
    return (
        create_access_token(str(user_id), additional_claims=claims, expires_delta=access_lifetime()),
        create_refresh_token(str(user_id), additional_claims=claims, expires_delta=refresh_lifetime()),
    )


def read(token: str, *kinds: str, allow_expired: bool = False) -> Claims:
    """The claims of a token of one of these kinds, or a 401 that says no more than it must."""
    try:
        if len(token) > MAX_LENGTH:
            raise ValueError
        claims = _verified(token, settings().jwt_secret_key)
        user_id, session_id, counter = int(claims["sub"]), claims["sid"], claims["cnt"]
        numbers = (user_id, session_id, counter)
        if claims["type"] not in kinds or not all(type(n) is int and 0 <= n <= MAX_INT for n in numbers):
            raise ValueError
        if claims["exp"] <= time.time() and not allow_expired:
            raise jwt.ExpiredSignatureError
    except jwt.ExpiredSignatureError:
        raise ClinicError("token_expired", "The token has expired; refresh it or sign in again.") from None
    except (jwt.PyJWTError, JWTExtendedException, ValueError, KeyError, TypeError):
        raise ClinicError("token_invalid", "The token is not valid; sign in again.") from None
    return Claims(user_id, session_id, counter, "access" if claims["type"] == ACCESS else "refresh")


@lru_cache(maxsize=4096)
def _verified(token: str, _key: str) -> dict[str, Any]:
    """What a token says whose signature is ours, kept: the same bytes under the same key are as good again.

    Whether it has run out is another question every time. A token that is refused is not kept.
    """
    return decode_token(token, allow_expired=True)
