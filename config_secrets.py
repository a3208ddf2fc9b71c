"""The secrets of the settings: which there are, which are too weak, and how development generates them."""

from __future__ import annotations

import fcntl
import os
import re
import secrets
from collections.abc import Mapping
from pathlib import Path

from dotenv import dotenv_values, set_key

# Each of them is the current key of a ring. Earlier keys, which only verify and decrypt, are in a variable of
# their own with the ending S_PREVIOUS.
SECRETS = ("JWT_SECRET_KEY", "AUDIT_KEY", "DATA_KEY", "BACKUP_KEY")
PREVIOUS = "S_PREVIOUS"
MIN_SECRET_BYTES = 32  # RFC 7518 section 3.2: at least as long as the hash output
# Words in the secrets of examples and tutorials. A random secret loses few characters without them.
GUESSABLE_WORDS = re.compile(
    "your|change|secret|example|default|password|jwt|super|key|token|here|this|that|value|very|long|string|"
    "random|replace|with|please|must|should|least|bytes|characters|character|secure|insecure|production|"
    "development|dev|testing|test|flask|clinic|management|system|server|backend|local|only|not|use|for|the|"
    "and|app|own|audit|in|is|it|at|be|me|my|to|of|or|do|a|1234567890|123456789|12345678|12345|1234|123|"
    "[-_ .!]",
    re.I,
)
MIN_DISTINCT = 8  # different characters that are left without those words


class SettingsError(Exception):
    """Invalid settings: one line per environment variable, which never contains its value."""


def is_guessable(secret: str) -> bool:
    """Return True for a secret that consists of words of examples and few other characters."""
    return len(set(GUESSABLE_WORDS.sub("", secret))) < MIN_DISTINCT


def non_empty(values: Mapping[str, str | None]) -> dict[str, str]:
    """Return the variables that have a value."""
    return {name: value for name, value in values.items() if value and value.strip()}


def development_secrets(env_file: Path, names: list[str]) -> dict[str, str]:
    """Return these secrets from `env_file`. Generate the missing ones and store them there.

    Raises `SettingsError` if they cannot be stored.
    """
    stored = non_empty(dotenv_values(env_file))
    if any(name not in stored for name in names):
        try:
            stored = _store_secrets(env_file, names)
        except OSError as failure:
            missing = ", ".join(name for name in names if name not in stored)
            raise SettingsError(f"{missing}: missing, and cannot be stored: {failure}") from None
    return {name: stored[name] for name in names}


def _store_secrets(env_file: Path, names: list[str]) -> dict[str, str]:
    """Generate the missing secrets in `env_file`, readable by its owner only. Return its variables."""
    folder = os.open(env_file.parent, os.O_RDONLY)
    try:
        # Of several processes that start together, one generates the secrets. The lock is on the folder:
        # set_key replaces the file, so that a lock on the file would stay with the old one.
        fcntl.flock(folder, fcntl.LOCK_EX)
        env_file.touch(mode=0o600)
        for name in names:
            if name not in non_empty(dotenv_values(env_file)):
                set_key(env_file, name, secrets.token_urlsafe(48), quote_mode="never")
        env_file.chmod(0o600)
        return non_empty(dotenv_values(env_file))
    finally:
        os.close(folder)  # releases the lock
