"""Entity tags of stored rows, and `If-Match`."""

from __future__ import annotations

from typing import Any

from errors import ClinicError


def etag(row: Any) -> str:
    """Return the strong entity tag of a stored row: its version."""
    return f'"{row.version}"'


def check_if_match(row: Any, header: str | None, document_tag: str | None = None) -> None:
    """Raise 412 `stale_version` unless the header contains the tag of the row or of its document.

    Weak tags never match. A row without a version has no tag, so no tag matches it (RFC 9110, 13.1.1).
    """
    if header is None or header.strip() == "*":
        return
    if not hasattr(row, "version"):
        raise ClinicError("stale_version", "This record has no ETag. Send the request without If-Match.")
    if {etag(row), document_tag}.isdisjoint(part.strip() for part in header.split(",")):
        raise ClinicError("stale_version", "The record has changed since you read it; read it again.")
