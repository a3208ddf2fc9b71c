"""Encryption of stored values with AES-256-GCM."""

from __future__ import annotations

import hmac
import secrets

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from config import settings

NONCE_BYTES = 12


class DecryptionError(Exception):
    """An encrypted value that the key does not decrypt, or that was changed."""


def encrypt(purpose: str, plaintext: bytes, *, context: bytes = b"") -> bytes:
    """Return a value encrypted for a purpose. Only the same `context` decrypts it."""
    nonce = secrets.token_bytes(NONCE_BYTES)
    return nonce + _cipher(purpose).encrypt(nonce, plaintext, context)


def decrypt(purpose: str, token: bytes, *, context: bytes = b"") -> bytes:
    """Return the plaintext of an encrypted value. Raise `DecryptionError` if that is not possible."""
    try:
        return _cipher(purpose).decrypt(token[:NONCE_BYTES], token[NONCE_BYTES:], context)
    except (InvalidTag, ValueError):
        raise DecryptionError("changed, or of another purpose or place") from None


def _cipher(purpose: str) -> AESGCM:
    return AESGCM(hmac.digest(settings().jwt_secret_key.encode(), f"clinic {purpose}".encode(), "sha256"))
