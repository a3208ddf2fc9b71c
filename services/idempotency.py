"""`Idempotency-Key`: the response of the first request is stored, and repeated for the same request.

The key, the changes of the request and the response are written in one transaction. So a crash leaves all of
them or none, and no key stays without a response. A second request with the key waits on the unique index
until the first has committed or rolled back.

Responses contain data of patients, so they are encrypted under `DATA_KEY`. Requests may contain a password,
so their hash is keyed: a plain SHA-256 could be guessed much faster than the bcrypt hash of the user.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import structlog
from sqlalchemy import delete, select

from errors import ClinicError, invalid
from extensions import db
from models import IdempotencyKey
from security import encryption
from security.key_rings import ring
from services import clock

log = structlog.get_logger()

PURPOSE = "idempotency response"
RETENTION = timedelta(hours=24)
MAX_LENGTH = 255


def fingerprints(method: str, path: str, body: bytes) -> list[str]:
    """Return the hashes that identify a request: of method, path with query, and body. The first is stored.

    The others are those under earlier keys, and that of earlier versions, which had no key.
    """
    content = b"\n".join((method.encode(), path.encode(), body))
    keys = (key.derive("idempotency fingerprint") for key in ring("DATA_KEY").keys)
    keyed = [hmac.digest(key, content, "sha256").hex() for key in keys]
    return [*keyed, hashlib.sha256(content).hexdigest()]


def begin(user_id: int, key: str, request_fingerprints: Sequence[str]) -> IdempotencyKey:
    """Return the stored row of a key with the response to repeat, or a new row for `finish`.

    Raises 422 for an invalid key, and `idempotency_mismatch` for a key of another request. While the first
    request with the key runs, the insert waits. The lock timeout of the database ends the wait.
    """
    if not 1 <= len(key) <= MAX_LENGTH or not key.isprintable():
        raise invalid("Idempotency-Key", f"must have 1 to {MAX_LENGTH} printable characters")
    now = clock.now()
    of_user = IdempotencyKey.user_id == user_id
    db.session.execute(delete(IdempotencyKey).where(of_user, IdempotencyKey.created_at <= now - RETENTION))
    stored = db.session.execute(
        select(IdempotencyKey).where(of_user, IdempotencyKey.key == key)
    ).scalar_one_or_none()
    if stored is not None:
        # A row whose key was lost is of no known request. Its work is done: nothing may be done twice.
        if stored.fingerprint not in request_fingerprints and stored_response(stored) is not None:
            raise ClinicError(
                "idempotency_mismatch", "This Idempotency-Key was used for another request. Send a new key."
            )
        return stored
    row = IdempotencyKey(user_id=user_id, key=key, fingerprint=request_fingerprints[0], created_at=now)
    db.session.add(row)
    db.session.flush()
    return row


def delete_expired() -> None:
    """Delete the expired keys of all users, whose responses nobody can get any more."""
    db.session.execute(delete(IdempotencyKey).where(IdempotencyKey.created_at <= clock.now() - RETENTION))


def finish(row: IdempotencyKey, status: int, headers: dict[str, Any], body: str) -> None:
    """Store the response of the request."""
    row.status = status
    row.response = encryption.encrypt(PURPOSE, json.dumps([headers, body]).encode(), context=_context(row))


def stored_response(row: IdempotencyKey) -> tuple[dict[str, Any], str] | None:
    """Return the headers and the body of the stored response, None if it can no longer be read.

    That is a response from before the encryption, or one whose key was lost.
    """
    if row.response is None:
        return None
    try:
        headers, body = json.loads(encryption.decrypt(PURPOSE, row.response, context=_context(row)))
    except encryption.DecryptionError as error:
        log.error("idempotency_response_unreadable", reason=str(error))  # noqa: TRY400 - no traceback needed
        return None
    return headers, body


def _context(row: IdempotencyKey) -> bytes:
    """Return the context of an encrypted response: it is not valid for another user, key or request."""
    return json.dumps([row.user_id, row.key, row.fingerprint, row.status]).encode()
