"""Encryption of stored values with AES-256-GCM under `DATA_KEY`.

An encrypted value has four parts: a byte with the version, the id of the key, a random nonce, and the
ciphertext with its tag. Each purpose has a key of its own (HKDF), so a value of one purpose is not valid for
another. The current key encrypts. Values under earlier keys of `DATA_KEYS_PREVIOUS` can still be decrypted.
"""

from __future__ import annotations

import secrets
from functools import lru_cache

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from security.key_rings import ID_BYTES, Key, ring

VERSION = b"\x01"
ID_START = len(VERSION)
HEADER = ID_START + ID_BYTES
NONCE_BYTES = 12


class DecryptionError(Exception):
    """An encrypted value that no key of the ring decrypts, or that was changed."""


def encrypt(purpose: str, plaintext: bytes, *, context: bytes = b"") -> bytes:
    """Return a value encrypted under the current key.

    `context` names the place of the value, such as the id of its row. Only with the same context can it be
    decrypted, so that a value copied to another row is refused.
    """
    key = ring("DATA_KEY").current
    header, nonce = VERSION + bytes.fromhex(key.id), secrets.token_bytes(NONCE_BYTES)
    return header + nonce + _cipher(key, purpose).encrypt(nonce, plaintext, header + context)


def decrypt(purpose: str, token: bytes, *, context: bytes = b"") -> bytes:
    """Return the plaintext of an encrypted value. Raise `DecryptionError` if that is not possible."""
    header, nonce, ciphertext = token[:HEADER], token[HEADER:][:NONCE_BYTES], token[HEADER + NONCE_BYTES :]
    if len(nonce) < NONCE_BYTES or not header.startswith(VERSION):
        raise DecryptionError("not an encrypted value")
    key_id = header[ID_START:].hex()
    key = ring("DATA_KEY").find(key_id)
    if key is None:
        raise DecryptionError(
            f"encrypted under the key {key_id}, which is not in DATA_KEY or its earlier keys"
        )
    try:
        return _cipher(key, purpose).decrypt(nonce, ciphertext, header + context)
    except InvalidTag:
        raise DecryptionError("changed, or of another purpose or place") from None


def is_current(token: bytes) -> bool:
    """Return True if a value is encrypted under the current key."""
    return token[ID_START:HEADER].hex() == ring("DATA_KEY").current.id


@lru_cache(maxsize=64)
def _cipher(key: Key, purpose: str) -> AESGCM:
    return AESGCM(key.derive(purpose))
