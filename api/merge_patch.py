"""JSON merge patch: drop members that are read-only or equal to the stored row."""

from __future__ import annotations

from typing import Any

from api import serialization
from api.endpoint import EndpointSpec
from api.request_context import current_actor
from api.serialization import Serializer


def real_changes(spec: EndpointSpec, members: dict[str, Any], row: Any) -> dict[str, Any]:
    """Return the members that change the row.

    Data grids send whole rows back. A read-only member, or one that equals the row as the caller reads it,
    counts as absent, also for rules and permissions. An unknown member stays: validation refuses it.
    """
    if row is None or spec.body is None or not isinstance(spec.returns, Serializer):
        return members
    writable, readable = spec.body.model_fields, spec.returns.out.model_fields
    stored = serialization.dump_dict(spec.returns, current_actor(), row)
    return {
        name: value
        for name, value in members.items()
        if (name in writable and not (name in stored and _equal_json(value, stored[name])))
        or (name not in writable and name not in readable)
    }


def _equal_json(sent: Any, stored: Any) -> bool:
    """Compare two JSON values, also their types: in Python 1 equals True."""
    if isinstance(sent, dict) and isinstance(stored, dict):
        return sent.keys() == stored.keys() and all(_equal_json(sent[name], stored[name]) for name in sent)
    if isinstance(sent, list) and isinstance(stored, list):
        return len(sent) == len(stored) and all(map(_equal_json, sent, stored))
    return isinstance(sent, bool) == isinstance(stored, bool) and bool(sent == stored)
