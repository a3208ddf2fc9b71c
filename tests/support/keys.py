"""Secrets for test applications."""

from __future__ import annotations

import secrets

from config import SECRETS, Settings


def new_secrets() -> dict[str, str]:
    """Return variables with a new random value of each secret."""
    return {name: secrets.token_urlsafe(48) for name in SECRETS}


def secrets_of(settings: Settings) -> dict[str, str]:
    """Return the variables with the secrets of these settings."""
    return {name: getattr(settings, name.lower()) for name in SECRETS}
