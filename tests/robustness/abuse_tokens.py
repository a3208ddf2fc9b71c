"""Tokens that look like ours and are not, as somebody makes them who read the code but has no key."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt

from tests.support.clinic import Caller, Clinic


def encoded(part: bytes | dict[str, Any]) -> str:
    """base64url without padding, as tokens are written."""
    raw = json.dumps(part).encode() if isinstance(part, dict) else part
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def by_hand(header: dict[str, Any] | bytes, claims: dict[str, Any], key: bytes | None) -> str:
    """A token with any header, signed by HMAC-SHA256 whatever the header says; unsigned without key."""
    signed = f"{encoded(header)}.{encoded(claims)}"
    seal = hmac.new(key, signed.encode(), hashlib.sha256).digest() if key is not None else b""
    return f"{signed}.{encoded(seal)}"


def flipped(text: str, place: int) -> str:
    """The text with another letter at the place."""
    return text[:place] + ("A" if text[place] != "A" else "B") + text[place + 1 :]


def forged(clinic: Clinic, victim: Caller) -> dict[str, str]:
    """Name -> a token that must open nothing, made from the victim's genuine one."""
    genuine, key = victim.token or "", clinic.settings.jwt_secret_key
    other = clinic.sign_in("doctor")
    claims = jwt.decode(genuine, key, ["HS256"], audience="clinic")
    others = jwt.decode(other.token or "", key, ["HS256"], audience="clinic")
    header, payload, signature = genuine.split(".")
    now = datetime.now(UTC)
    hs256 = {"alg": "HS256", "typ": "JWT"}
    jwk = {"kty": "oct", "k": encoded(b"x" * 32)}

    def signed(changes: dict[str, Any], but: str = "") -> str:
        return jwt.encode({k: v for k, v in {**claims, **changes}.items() if k != but}, key, "HS256")

    ended = clinic.sign_in("admin")
    ended.post("/auth/logout")
    return {
        # without the key
        "no algorithm": by_hand({"alg": "none"}, claims, None),
        "no algorithm, in capitals": by_hand({"alg": "NONE"}, claims, None),
        "no algorithm, with the old signature": f"{encoded({'alg': 'none'})}.{payload}.{signature}",
        "no algorithm named": by_hand({"typ": "JWT"}, claims, None),
        "no signature": f"{header}.{payload}.",
        "another key": by_hand(hs256, claims, secrets.token_bytes(32)),
        "an empty key": by_hand(hs256, claims, b""),
        "a key of its own": by_hand({**hs256, "jwk": jwk}, claims, b"x" * 32),
        "a key from a file": by_hand({**hs256, "kid": "../../../../dev/null"}, claims, b""),
        "a key from a server": by_hand({**hs256, "jku": "http://127.0.0.1/keys"}, claims, b"x" * 32),
        "a tampered user": f"{header}.{encoded({**claims, 'sub': '1'})}.{signature}",
        "a tampered byte": f"{header}.{flipped(payload, 20)}.{signature}",
        "a tampered signature": f"{header}.{payload}.{flipped(signature, 10)}",
        "a cut signature": genuine[:-6],
        "two tokens": f"{genuine}.{genuine}",
        "five parts": f"{header}.{payload}.{signature}.{payload}.{signature}",
        "no JSON": by_hand(b"\xff\xfe{", claims, b"x" * 32),
        "two algorithms": by_hand(b'{"alg":"HS256","alg":"none"}', claims, None),
        "a deep one": f"{encoded(b'[' * 3000)}.{payload}.{signature}",
        # by the right key, as a mistake of ours could make them
        "HS384": jwt.encode(claims, key, "HS384"),
        "HS512": jwt.encode(claims, key, "HS512"),
        "RS256 signed with the secret": by_hand({"alg": "RS256"}, claims, key.encode()),
        "expired": signed({"exp": now - timedelta(seconds=1)}),
        "without end": signed({}, "exp"),
        "not yet valid": signed({"nbf": now + timedelta(minutes=5)}),
        "issued tomorrow": signed({"iat": now + timedelta(days=1)}),
        "a refresh token": victim.refresh_token or "",
        "another audience": signed({"aud": "elsewhere"}),
        "no audience": signed({}, "aud"),
        "another user in this session": signed({"sub": others["sub"]}),
        "this user in another's session": signed({"sid": others["sid"]}),
        "a session that is none": signed({"sid": 987654}),
        "a session too large": signed({"sid": 2**70}),
        "a negative session": signed({"sid": -1}),
        "a session in words": signed({"sid": f"{claims['sid']} OR 1=1"}),
        "no session": signed({}, "sid"),
        "a user in words": signed({"sub": f"{claims['sub']} OR 1=1"}),
        "another kind": signed({"type": "admin"}),
        "an ended session": ended.token or "",
        "somebody deactivated": clinic.sign_in("admin", active=False).token or "",
    }
