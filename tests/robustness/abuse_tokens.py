"""Forged tokens, as an attacker makes them who knows the code but not the key."""

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


def encode_part(part: bytes | dict[str, Any]) -> str:
    """Return base64url without padding."""
    raw = json.dumps(part).encode() if isinstance(part, dict) else part
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def make_token(header: dict[str, Any] | bytes, claims: dict[str, Any], key: bytes | None) -> str:
    """Return a token with any header, signed with HMAC-SHA256. Without a key it has no signature."""
    signed = f"{encode_part(header)}.{encode_part(claims)}"
    signature = hmac.new(key, signed.encode(), hashlib.sha256).digest() if key is not None else b""
    return f"{signed}.{encode_part(signature)}"


def change_letter(text: str, index: int) -> str:
    """Return the text with another letter at the index."""
    return text[:index] + ("A" if text[index] != "A" else "B") + text[index + 1 :]


def forge_tokens(clinic: Clinic, victim: Caller) -> dict[str, str]:
    """Return invalid tokens by name, made from the valid token of the victim."""
    genuine, key = victim.token or "", clinic.settings.jwt_secret_key
    other = clinic.sign_in("doctor")
    claims = jwt.decode(genuine, key, ["HS256"], audience="clinic")
    others = jwt.decode(other.token or "", key, ["HS256"], audience="clinic")
    header, payload, signature = genuine.split(".")
    now = datetime.now(UTC)
    hs256 = {"alg": "HS256", "typ": "JWT"}
    jwk = {"kty": "oct", "k": encode_part(b"x" * 32)}

    def signed(changes: dict[str, Any], without: str = "") -> str:
        return jwt.encode({k: v for k, v in {**claims, **changes}.items() if k != without}, key, "HS256")

    ended = clinic.sign_in("admin")
    ended.post("/auth/logout")
    return {
        # without the key
        "no algorithm": make_token({"alg": "none"}, claims, None),
        "no algorithm, in capitals": make_token({"alg": "NONE"}, claims, None),
        "no algorithm, with the old signature": f"{encode_part({'alg': 'none'})}.{payload}.{signature}",
        "no algorithm named": make_token({"typ": "JWT"}, claims, None),
        "no signature": f"{header}.{payload}.",
        "another key": make_token(hs256, claims, secrets.token_bytes(32)),
        "an empty key": make_token(hs256, claims, b""),
        "a key of its own": make_token({**hs256, "jwk": jwk}, claims, b"x" * 32),
        "a key from a file": make_token({**hs256, "kid": "../../../../dev/null"}, claims, b""),
        "a key from a server": make_token({**hs256, "jku": "http://127.0.0.1/keys"}, claims, b"x" * 32),
        "a tampered user": f"{header}.{encode_part({**claims, 'sub': '1'})}.{signature}",
        "a tampered byte": f"{header}.{change_letter(payload, 20)}.{signature}",
        "a tampered signature": f"{header}.{payload}.{change_letter(signature, 10)}",
        "a cut signature": genuine[:-6],
        "two tokens": f"{genuine}.{genuine}",
        "five parts": f"{header}.{payload}.{signature}.{payload}.{signature}",
        "no JSON": make_token(b"\xff\xfe{", claims, b"x" * 32),
        "two algorithms": make_token(b'{"alg":"HS256","alg":"none"}', claims, None),
        "a deep one": f"{encode_part(b'[' * 3000)}.{payload}.{signature}",
        # signed with the right key: only a bug could make them
        "HS384": jwt.encode(claims, key, "HS384"),
        "HS512": jwt.encode(claims, key, "HS512"),
        "RS256 signed with the secret": make_token({"alg": "RS256"}, claims, key.encode()),
        "expired": signed({"exp": now - timedelta(seconds=1)}),
        "without end": signed({}, "exp"),
        "not yet valid": signed({"nbf": now + timedelta(minutes=5)}),
        "issued tomorrow": signed({"iat": now + timedelta(days=1)}),
        "a refresh token": victim.refresh_token or "",
        "another audience": signed({"aud": "elsewhere"}),
        "no audience": signed({}, "aud"),
        "another user in this session": signed({"sub": others["sub"]}),
        "this user in another's session": signed({"sid": others["sid"]}),
        "an earlier session with this id": signed({"sst": claims["sst"] - 1}),
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
