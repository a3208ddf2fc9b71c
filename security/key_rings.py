"""Key rings: the current key of a secret, and earlier keys that only verify and decrypt.

A ring is named by the variable of its current key. The id of a key is derived from the key, so it needs no
storage and reveals nothing about the key. Tokens, audit entries and encrypted data name the id of their key.
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal, get_args

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from config import Settings, settings
from config_keys import PREVIOUS

RingName = Literal["JWT_SECRET_KEY", "AUDIT_KEY", "DATA_KEY", "BACKUP_KEY"]
RING_NAMES: tuple[RingName, ...] = get_args(RingName)
ID_BYTES = 8
KEY_BYTES = 32  # of derived keys: AES-256


@dataclass(frozen=True, slots=True)
class Key:
    """A key with its id: 16 hexadecimal digits."""

    id: str
    secret: bytes = field(repr=False)

    @classmethod
    def of(cls, value: str) -> Key:
        """Return the key of a setting."""
        secret = value.encode()
        return cls(hmac.digest(secret, b"key id", "sha256")[:ID_BYTES].hex(), secret)

    def derive(self, purpose: str, *, salt: bytes | None = None) -> bytes:
        """Return a key of 32 bytes for one purpose only (RFC 5869)."""
        return HKDF(SHA256(), KEY_BYTES, salt, f"clinic {purpose}".encode()).derive(self.secret)


@dataclass(frozen=True, slots=True)
class KeyRing:
    """The keys of one secret."""

    name: RingName
    current: Key
    previous: tuple[Key, ...] = ()

    @property
    def keys(self) -> tuple[Key, ...]:
        """Return all keys, the current one first."""
        return (self.current, *self.previous)

    def candidates(self, key_id: str | None) -> Sequence[Key]:
        """Return the key with this id, none if the ring lacks it. Without an id return all keys."""
        return [key for key in self.keys if key_id is None or key.id == key_id]

    def find(self, key_id: str) -> Key | None:
        """Return the key with this id, or None."""
        return next(iter(self.candidates(key_id)), None)


def previous_name(name: RingName) -> str:
    """Return the variable with the earlier keys of a ring."""
    return name + PREVIOUS


def ring(name: RingName, chosen: Settings | None = None) -> KeyRing:
    """Return a ring of the settings, by default those of the application."""
    chosen = chosen or settings()
    return _ring(name, getattr(chosen, name.lower()), getattr(chosen, previous_name(name).lower()))


@lru_cache(maxsize=64)
def _ring(name: RingName, current: str, previous: tuple[str, ...]) -> KeyRing:
    return KeyRing(name, Key.of(current), tuple(map(Key.of, previous)))
