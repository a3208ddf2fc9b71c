"""`Idempotency-Key`: the first answer is stored with its effect, and answers the same request again.

Key row, effect and answer share one transaction, so that a crash leaves either all or nothing: a key cannot
be wedged. A second caller waits on the unique index until the first has committed or rolled back.
"""

from __future__ import annotations

import hashlib
from datetime import timedelta
from typing import Any

from sqlalchemy import delete, select

from errors import ClinicError, invalid
from extensions import db
from models import IdempotencyKey
from services import clock

KEPT = timedelta(hours=24)
MAX_LENGTH = 255


def fingerprint(method: str, path: str, body: bytes) -> str:
    """What makes two requests the same one."""
    return hashlib.sha256(b"\n".join((method.encode(), path.encode(), body))).hexdigest()


def begin(user_id: int, key: str, wanted: str) -> IdempotencyKey:
    """The key's row: with an answer to replay, or new and ours to fill by `finish`.

    Raises 422 where the key was used for another request. A key whose first request still runs makes the
    insert wait; the database's lock timeout ends the wait.
    """
    if not 1 <= len(key) <= MAX_LENGTH or not key.isprintable():
        raise invalid("Idempotency-Key", f"must have 1 to {MAX_LENGTH} printable characters")
    now = clock.now()
    own = IdempotencyKey.user_id == user_id
    db.session.execute(delete(IdempotencyKey).where(own, IdempotencyKey.created_at <= now - KEPT))
    found = db.session.execute(
        select(IdempotencyKey).where(own, IdempotencyKey.key == key)
    ).scalar_one_or_none()
    if found is not None:
        if found.fingerprint != wanted:
            raise ClinicError(
                "idempotency_mismatch", "This Idempotency-Key was used for another request; take a new one."
            )
        return found
    row = IdempotencyKey(user_id=user_id, key=key, fingerprint=wanted, created_at=now)
    db.session.add(row)
    db.session.flush()
    return row


def finish(row: IdempotencyKey, status: int, headers: dict[str, Any], body: str) -> None:
    """Keep the answer beside the effect."""
    row.status, row.headers, row.body = status, headers, body
