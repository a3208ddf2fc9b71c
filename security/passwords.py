"""Password rules and bcrypt hashes.

The rules follow NIST SP 800-63B section 3.1.1: a minimum length and a block list, no composition rules.
An endpoint hashes only in a turn of the queue (`security.password_queue`).
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
from errors import invalid
from extensions import bcrypt
from security.common_passwords import DIGITS_AND_MARKS, is_common
from security.password_queue import HASHING_THREADS

MIN_LENGTH = 12  # characters


def _lower_priority() -> None:
    """Lower the CPU priority of this thread, so that sign-ins do not delay other requests."""
    if sys.platform == "linux":  # on other systems the priority belongs to the process
        niceness = max(10, os.getpriority(os.PRIO_PROCESS, 0))  # only root may lower a niceness
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), niceness)


_executor = ThreadPoolExecutor(HASHING_THREADS, "bcrypt", _lower_priority)


def check_strength(password: str, *, field: str = "password", about: tuple[str, ...] = ()) -> None:
    """Refuse a weak password with 422 `validation_failed` on `field`.

    A password is weak if it has fewer than `MIN_LENGTH` characters, is common, or is one of the texts `about`
    the user, such as the name.
    """
    password = _normalize(password)
    if len(password) < MIN_LENGTH:
        raise invalid(field, f"must have at least {MIN_LENGTH} characters")
    folded = password.casefold()
    if is_common(folded):
        raise invalid(field, "is too common; use several words that do not belong together")
    if any(text.casefold() in (folded, folded.strip(DIGITS_AND_MARKS)) for text in about):
        raise invalid(field, "must not be your name or e-mail address")


def hash_password(password: str) -> str:
    """Return the bcrypt hash.

    bcrypt reads 72 bytes only. So a longer password is hashed with SHA-256 first.
    """
    cost = settings().bcrypt_cost
    hashed: bytes = _run(bcrypt.generate_password_hash, _normalize(password), cost)
    return hashed.decode()


def verify(password_hash: str | None, password: str) -> bool:
    """Return True if the hash is of this password.

    Without a usable hash return False in the same time, so that the time does not show if an account exists.
    """
    cost = settings().bcrypt_cost
    usable = password_hash is not None and password_hash.startswith("$2")
    checked_hash = password_hash if usable else _dummy_hash(cost)
    matches: bool = _run(_check, checked_hash, _normalize(password), cost)
    return matches and usable


def _check(password_hash: str, password: str, cost: int) -> bool:
    """Return True if the hash is of this password, in the time of `cost`.

    A hash from before `BCRYPT_COST` was raised is faster. Its own cost and all costs between, each with the
    double time, take the rest: 1 + (1 + 2 + 4) = 8.
    """
    matches: bool = bcrypt.check_password_hash(password_hash, password)
    for missing in range(int(password_hash.split("$")[2]), cost):
        bcrypt.check_password_hash(_dummy_hash(missing), password)
    return matches


def _run(function: Callable[..., Any], *arguments: Any) -> Any:
    """Return the result of a bcrypt function, computed in a hashing thread."""
    with deadline.paused():
        return _executor.submit(function, *arguments).result()


def _normalize(password: str) -> str:
    # Keyboards send é as one or as two characters. NIST SP 800-63B section 3.1.1.2 requires NFKC.
    return unicodedata.normalize("NFKC", password)


def _dummy_hash(cost: int) -> str:
    """Return a hash that matches no password and costs the same time as a real one."""
    return f"$2b${cost:02d}${'.' * 53}"
