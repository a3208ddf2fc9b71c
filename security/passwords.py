"""Passwords: bcrypt, the length that counts, and the ones everybody tries first.

NIST SP 800-63B section 3.1.1: length and a block list, no composition rules.
"""

from __future__ import annotations

import os
import sys
import threading
import unicodedata
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from config import settings
from database import deadline
from errors import ClinicError, invalid
from extensions import bcrypt
from security.common_passwords import is_common

MIN_LENGTH = 12  # characters


def _step_back() -> None:
    """Let every other thread go first: whoever tries passwords keeps nobody else waiting."""
    if sys.platform == "linux":  # where a thread has a priority of its own
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 10)


# bcrypt is all CPU, outside the interpreter's lock: more at once than this only slow each other down
HASHING_THREADS = 2
_hashers = ThreadPoolExecutor(HASHING_THREADS, "bcrypt", _step_back)
_pending = 0  # hashes that run or wait
_pending_lock = threading.Lock()


def check_strength(password: str, *, field: str = "password", about: tuple[str, ...] = ()) -> None:
    """422 unless the password is long enough, not a common one, and not in `about`, such as one's name."""
    password = _normal(password)
    if len(password) < MIN_LENGTH:
        raise invalid(field, f"must have at least {MIN_LENGTH} characters")
    folded = password.casefold()
    if is_common(folded):
        raise invalid(field, "is too common; take several words that nobody would guess together")
    if any(word.casefold() in (folded, folded.strip("0123456789!?.-_ ")) for word in about):
        raise invalid(field, "must not be your name or e-mail address")


def hash_password(password: str) -> str:
    """The bcrypt hash. Longer passwords than bcrypt's 72 bytes are hashed with SHA-256 first, not cut."""
    cost = settings().bcrypt_cost
    hashed: bytes = _run(bcrypt.generate_password_hash, _normal(password), cost)
    return hashed.decode()


def verify(password_hash: str | None, password: str) -> bool:
    """Whether the password is the hash's; without a usable hash it takes the same time and is False.

    503 `unavailable` while `PASSWORD_CHECK_QUEUE` other checks wait.
    """
    usable = password_hash is not None and password_hash.startswith("$2")
    against = password_hash if usable else _dummy()
    found: bool = _run(bcrypt.check_password_hash, against, _normal(password))
    return found and usable


def raise_if_queue_full() -> None:
    """Raise 503 `unavailable` if `PASSWORD_CHECK_QUEUE` hashes of this process wait already."""
    if _pending >= HASHING_THREADS + settings().password_check_queue:
        raise ClinicError("unavailable", "Too many sign-ins at this moment. Try again.", retry_after=2)


def _run(function: Callable[..., Any], *arguments: Any) -> Any:
    """Return the result of a bcrypt function, computed in a hashing thread."""
    global _pending
    with _pending_lock:
        raise_if_queue_full()  # each waiting hash holds a thread of the server
        _pending += 1
    try:
        with deadline.paused():
            return _hashers.submit(function, *arguments).result()
    finally:
        with _pending_lock:
            _pending -= 1


def _normal(password: str) -> str:
    # one keyboard sends é as one character, another as two; NIST SP 800-63B section 3.1.1.2 asks for NFKC
    return unicodedata.normalize("NFKC", password)


def _dummy() -> str:
    """A hash of nothing that costs what a real one costs."""
    return f"$2b${settings().bcrypt_cost:02d}${'.' * 53}"
