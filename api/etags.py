"""ETags of stored records, and `If-Match`."""

from __future__ import annotations

from typing import Any

from errors import ClinicError


def etag(row: Any) -> str:
    """The strong validator of the stored record."""
    return f'"{row.version}"'


def check_if_match(row: Any, header: str | None) -> None:
    """412 unless one of the versions named is the stored one; weak validators never match."""
    if header is None or header.strip() == "*":
        return
    if etag(row) not in [part.strip() for part in header.split(",")]:
        raise ClinicError("stale_version", "The record has changed since you read it; read it again.")
