"""JSON Web Tokens: their claims, lifetimes and verification.

A token contains its user, its session and the counter of the session, but no role. Every request reads the
rights and the state of the session from the database. So a logout, a deactivation or a change of role takes
effect with the next request.

The header `kid` names the key that signed the token. Tokens without it are tried with every key of the ring.
"""

from __future__ import annotations

import hmac
import secrets
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from typing import Any, Literal

import jwt
from flask_jwt_extended import create_access_token, create_refresh_token
from jwt.types import Options

from column_types import MAX_INT
from config import settings
from errors import ClinicError
from extensions import jwt as jwt_manager
from security.key_rings import Key, KeyRing, ring

AUDIENCE = "clinic"
ACCESS, REFRESH = "access", "refresh"
MAX_LENGTH = 4096  # characters; a valid token is much shorter
DEVICE_AUDIENCE = "clinic-device"
DEVICE_LIFETIME = timedelta(days=180)  # renewed with each sign-in
USE_PRECISION = timedelta(minutes=1)  # of the stored last use of a session


@dataclass(frozen=True, slots=True)
class Claims:
    """The verified claims of a token.

    `started` is the start of the session in microseconds: a database that was restored gives an id again. It
    is None in tokens of earlier versions.
    """

    user_id: int
    session_id: int
    counter: int
    kind: Literal["access", "refresh"]
    started: int | None = None


def access_lifetime() -> timedelta:
    """Return the lifetime of an access token."""
    return timedelta(minutes=settings().jwt_access_token_expires_minutes)


def refresh_lifetime() -> timedelta:
    """Return the lifetime of a refresh token, which is also that of an unused session."""
    return timedelta(days=settings().jwt_refresh_token_expires_days)


def maximum_lifetime() -> timedelta:
    """Return the time from a sign-in to the latest end of its session."""
    return timedelta(hours=settings().session_max_hours)


def idle_lifetime() -> timedelta | None:
    """Return the time without use after which a session ends. None: it does not end."""
    minutes = settings().session_idle_minutes
    return timedelta(minutes=minutes) if minutes else None


def use_precision() -> timedelta:
    """Return the precision of the stored last use: a write for each request would be too expensive."""
    idle = idle_lifetime()
    return USE_PRECISION if idle is None else min(USE_PRECISION, idle / 60)


@dataclass(frozen=True)
class Pair:
    """The access token and the refresh token of a session, with their lifetimes in seconds."""

    access_token: str
    refresh_token: str
    access_seconds: int
    refresh_seconds: int


def issue(user_id: int, session_id: int, counter: int, *, started: int, remaining: timedelta) -> Pair:
    """Return new tokens of a session. They expire with the session, which ends after `remaining`."""
    options: dict[str, Any] = {
        "additional_claims": {"sid": session_id, "cnt": counter, "sst": started},
        "additional_headers": {"kid": ring("JWT_SECRET_KEY").current.id},
    }
    access, refresh = min(access_lifetime(), remaining), min(refresh_lifetime(), remaining)
    return Pair(
        create_access_token(str(user_id), expires_delta=access, **options),
        create_refresh_token(str(user_id), expires_delta=refresh, **options),
        int(access.total_seconds()),
        int(refresh.total_seconds()),
    )


@jwt_manager.encode_key_loader
def _signing_key(_identity: str) -> bytes:
    return ring("JWT_SECRET_KEY").current.secret


def read(token: str, *kinds: str, allow_expired: bool = False) -> Claims:
    """Return the claims of a token of one of these kinds.

    Raises 401 `token_expired`, or 401 `token_invalid` for all other errors, without the reason.
    """
    if len(token) > MAX_LENGTH:
        raise _invalid()
    try:
        values = _decode(token, ring("JWT_SECRET_KEY"))
        kind, expired = values["type"], values["exp"] <= time.time()
        user_id, session_id, counter = int(values["sub"]), values["sid"], values["cnt"]
        started = values.get("sst")
    except (jwt.PyJWTError, ValueError, KeyError, TypeError):
        raise _invalid() from None
    numbers = (user_id, session_id, counter)
    if kind not in kinds or not all(type(number) is int and 0 <= number <= MAX_INT for number in numbers):
        raise _invalid()
    if expired and not allow_expired:
        raise ClinicError("token_expired", "The token has expired; refresh it or sign in again.")
    return Claims(user_id, session_id, counter, "access" if kind == ACCESS else "refresh", started)


def _invalid() -> ClinicError:
    return ClinicError("token_invalid", "The token is not valid; sign in again.")


@lru_cache(maxsize=4096)
def _decode(token: str, keys: KeyRing) -> dict[str, Any]:
    """Return all claims of a token with a valid signature, even if it has expired.

    The result depends only on the token and the keys, so it is cached. Errors are not cached.
    """
    for key in _candidates(token, keys):
        with suppress(jwt.InvalidSignatureError):
            return _verify(token, key.secret, AUDIENCE, verify_exp=False)
    raise jwt.InvalidSignatureError("signed with another key")


def _candidates(token: str, keys: KeyRing) -> Sequence[Key]:
    """Return the keys that may have signed a token."""
    return keys.candidates(jwt.get_unverified_header(token).get("kid"))


def _verify(token: str, secret: bytes, audience: str, *, verify_exp: bool = True) -> dict[str, Any]:
    """Return the claims of a token. Raise `jwt.PyJWTError` if it is not valid."""
    options: Options = {"verify_exp": verify_exp, "require": ["exp", "sub", "jti"]}
    claims: dict[str, Any] = jwt.decode(token, secret, ["HS256"], options, audience=audience)
    return claims


# --- Known devices -------------------------------------------------------------------------------------


def issue_device(user_id: int, password_hash: str, *, device_id: str | None = None) -> str:
    """Return the token of a device on which the user has signed in.

    It proves no identity: it only protects the user from failures on other devices. It ends with the
    password, because it contains a fingerprint of the hash.
    """
    now = int(time.time())
    claims = {
        "aud": DEVICE_AUDIENCE,
        "sub": str(user_id),
        "jti": device_id or secrets.token_hex(16),
        "iat": now,
        "exp": now + int(DEVICE_LIFETIME.total_seconds()),
    }
    key = ring("JWT_SECRET_KEY").current
    claims["pwd"] = _fingerprint(key, password_hash)
    return jwt.encode(claims, _device_key(key), algorithm="HS256", headers={"kid": key.id})


@dataclass(frozen=True, slots=True)
class Device:
    """The verified claims of a device token."""

    id: str
    user_id: str
    fingerprint: str
    key: Key  # that signed the token

    def belongs_to(self, user_id: int, password_hash: str) -> bool:
        """Return True if the user has signed in on this device with the present password."""
        return self.user_id == str(user_id) and hmac.compare_digest(
            self.fingerprint, _fingerprint(self.key, password_hash)
        )


def read_device(token: str) -> Device | None:
    """Return the device of a token, or None for a token that is not valid."""
    if len(token) > MAX_LENGTH:
        return None
    try:
        for key in _candidates(token, ring("JWT_SECRET_KEY")):
            with suppress(jwt.InvalidSignatureError):
                claims = _verify(token, _device_key(key), DEVICE_AUDIENCE)
                return Device(claims["jti"], claims["sub"], claims["pwd"], key)
    except (jwt.PyJWTError, ValueError, KeyError):
        pass
    return None


def _device_key(key: Key) -> bytes:
    """Return a key for this purpose only: no token of a session is valid as a device token."""
    return hmac.digest(key.secret, b"device token", "sha256")


def _fingerprint(key: Key, password_hash: str) -> str:
    return hmac.digest(_device_key(key), password_hash.encode(), "sha256").hex()[:32]
