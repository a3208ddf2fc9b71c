"""JSON merge patch: drop members that are read-only or equal to the stored row."""

from __future__ import annotations

from typing import Any

from api import serialization
from api.endpoint import EndpointSpec
from api.request_context import current_actor
from api.serialization import Serializer


def real_changes(operation: EndpointSpec, members: dict[str, Any], row: Any) -> dict[str, Any]:
    """A merge patch without what is read-only and without what the row already says.

    Grids send whole rows back: those members count as absent, for rules and permissions too.
    """
    if row is None or operation.body is None or not isinstance(operation.returns, Serializer):
        return members
    writable = operation.body.model_fields
    stored = serialization.shown(operation.returns, current_actor(), row)
    return {
        name: value
        for name, value in members.items()
        if (name in writable and not (name in stored and _same(value, stored[name])))
        or (name not in writable and name not in operation.returns.out.model_fields)
    }


def _same(sent: Any, stored: Any) -> bool:
    """Equal as JSON: to Python True is 1, and a member of the wrong type must not pass for an equal one."""
    if isinstance(sent, dict) and isinstance(stored, dict):
        return sent.keys() == stored.keys() and all(_same(sent[name], stored[name]) for name in sent)
    if isinstance(sent, list) and isinstance(stored, list):
        return len(sent) == len(stored) and all(map(_same, sent, stored))
    return isinstance(sent, bool) == isinstance(stored, bool) and bool(sent == stored)
