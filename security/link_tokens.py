"""The tokens of public links, in messages and on documents: HMACs, so that nothing must be stored.

Each purpose has a key of its own. A token of one purpose is therefore unknown at every other path.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Iterator
from enum import StrEnum

from config import settings
from security.key_rings import ring

ID_BYTES, MAC_BYTES = 8, 16
MAX_TOKEN = 100  # characters
_SEPARATOR = b"\x00"


class Purpose(StrEnum):
    """The action or the document that a token gives access to."""

    ANSWER = "answer an appointment"  # confirm or cancel it
    UNSUBSCRIBE = "unsubscribe from a channel"
    VERIFY_INVOICE = "verify an invoice"
    VERIFY_RECEIPT = "verify the receipt of a bill"
    VERIFY_PAYMENT = "verify the receipt of a payment"
    VERIFY_CREDIT_NOTE = "verify a credit note"
    VERIFY_LETTER = "verify a letter"


def create(purpose: Purpose, row_id: int, *bound_to: object) -> str:
    """Return the token for a row. It is valid only together with the values in `bound_to`."""
    row = row_id.to_bytes(ID_BYTES, "big").lstrip(b"\x00")
    mac = _mac(next(_keys(purpose)), row_id, bound_to)
    return base64.urlsafe_b64encode(mac + row).rstrip(b"=").decode()


def public_url(path: str, token: str) -> str | None:
    """Return the address of a token below `PUBLIC_URL`, or None without this setting."""
    base = settings().public_url
    return None if base is None else f"{base}/{path}/{token}"


def row_id_of(token: str) -> int | None:
    """Return the id of the row that a token claims to be for, None for a text that cannot be a token."""
    content = _decode(token) if len(token) <= MAX_TOKEN else None
    return None if content is None else int.from_bytes(content[MAC_BYTES:], "big")


def is_genuine(token: str, purpose: Purpose, row_id: int, *bound_to: object) -> bool:
    """Return True if `create` made the token with the same arguments, now or with an earlier key."""
    content = _decode(token)
    if content is None:
        return False
    macs = (_mac(key, row_id, bound_to) for key in _keys(purpose))
    return any(hmac.compare_digest(mac, content[:MAC_BYTES]) for mac in macs)


def _decode(token: str) -> bytes | None:
    try:
        content = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
    except (ValueError, binascii.Error):
        return None
    row = content[MAC_BYTES:]
    is_canonical = base64.urlsafe_b64encode(content).rstrip(b"=").decode() == token
    return content if is_canonical and 1 <= len(row) <= ID_BYTES and row[0] != 0 and row[0] < 128 else None


def _mac(key: bytes, row_id: int, bound_to: tuple[object, ...]) -> bytes:
    parts = [str(part).encode() for part in (row_id, *bound_to)]
    return hmac.digest(key, _SEPARATOR.join(parts), "sha256")[:MAC_BYTES]


def _keys(purpose: Purpose) -> Iterator[bytes]:
    """Yield the key that makes tokens, then those of earlier secrets, which only verify."""
    for key in ring("JWT_SECRET_KEY").keys:
        yield key.derive(f"link: {purpose}")
