"""Settings of keys: the secrets of production and development, and whether this is production."""

from __future__ import annotations

import json
import re
from typing import Any, Literal

from pydantic import BaseModel, ValidationInfo, field_validator

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
Environment = Literal["development", "production", "testing"]


class KeySettings(BaseModel):
    """The environment and the keys.

    `environment` and `flask_env` come first: the checks of the keys read them.
    """

    environment: Environment | None = None
    flask_env: Environment = "development"
    jwt_secret_key: str = ""
    audit_key: str = ""
    data_key: str = ""
    backup_key: str = ""
    jwt_secret_keys_previous: tuple[str, ...] = ()
    audit_keys_previous: tuple[str, ...] = ()
    data_keys_previous: tuple[str, ...] = ()
    backup_keys_previous: tuple[str, ...] = ()

    def __repr_args__(self) -> list[tuple[str | None, Any]]:
        """Return nothing: a log or a debugger must not show secrets."""
        return []

    @property
    def production(self) -> bool:
        """Return True if one of the two variables is `production`: the stricter one wins."""
        return "production" in (self.environment, self.flask_env)

    @field_validator("environment", "flask_env", mode="before")
    @classmethod
    def _to_lower_case(cls, value: Any) -> Any:
        return value.strip().lower() if isinstance(value, str) else value

    @field_validator(*map(str.lower, SECRETS))
    @classmethod
    def _check_secret(cls, value: str, info: ValidationInfo) -> str:
        if len(value.encode()) < MIN_SECRET_BYTES:
            raise ValueError(f"missing or shorter than {MIN_SECRET_BYTES} bytes")
        if in_production(info):
            if _is_guessable(value):
                raise ValueError("a well-known or guessable value; use a random one")
            same = [name for name in SECRETS if info.data.get(name.lower()) == value]
            if same:
                raise ValueError(f"the same value as {same[0]}; use a random one of its own")
        return value

    @field_validator(*(name.lower() + PREVIOUS.lower() for name in SECRETS), mode="before")
    @classmethod
    def _read_keys(cls, value: Any) -> Any:
        if isinstance(value, str):
            try:
                value = json.loads(value)
            except (ValueError, RecursionError):
                value = None
        if not isinstance(value, list | tuple) or not all(isinstance(key, str) for key in value):
            raise ValueError('write a JSON array of earlier keys, such as ["key", "key"]')
        return tuple(value)

    @field_validator(*(name.lower() + PREVIOUS.lower() for name in SECRETS))
    @classmethod
    def _check_keys(cls, value: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        current = (info.field_name or "").removesuffix(PREVIOUS.lower())
        others = SECRETS if in_production(info) else [current]
        taken = {info.data.get(name.lower()) for name in others}
        for number, key in enumerate(value, 1):
            if len(key.encode()) < MIN_SECRET_BYTES:
                raise ValueError(f"entry {number} is shorter than {MIN_SECRET_BYTES} bytes")
            if in_production(info) and _is_guessable(key):
                raise ValueError(f"entry {number} is a well-known or guessable value")
            if key in taken or key in value[: number - 1]:
                raise ValueError(f"entry {number} is also a current key or an entry before; remove it")
        return value


def _is_guessable(secret: str) -> bool:
    return len(set(GUESSABLE_WORDS.sub("", secret))) < MIN_DISTINCT


def in_production(info: ValidationInfo) -> bool:
    """Return True if the checks of production apply."""
    # An invalid variable is absent from `info.data`. Then the strict checks of production apply.
    return "production" in (info.data.get(name, "production") for name in ("environment", "flask_env"))
