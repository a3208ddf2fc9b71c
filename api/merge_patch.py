"""JSON merge patch: drop members that are equal to the stored row."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from api.body_members import IgnoredMembers, drop_read_only, equal_json, read_blanks
from schemas.base import accepted_members


def real_changes(
    model: type[BaseModel],
    resource: type[BaseModel],
    members: Mapping[str, Any],
    stored: Mapping[str, Any],
    ignored: IgnoredMembers,
) -> dict[str, Any]:
    """Return the members that change the row. `stored` is the row as the caller reads it.

    Data grids send whole rows back. A read-only member, or one that equals the stored value, counts as
    absent, also for rules and permissions.
    """
    accepted = accepted_members(model)
    sent = {
        name: value
        for name, value in members.items()
        if not (name in accepted and name in stored and equal_json(value, stored[name]))
    }
    changes = drop_read_only(model, resource, sent, ignored)
    comparable = {name for name in changes if name in accepted and name in stored}
    row = drop_read_only(model, resource, {name: stored[name] for name in comparable}, IgnoredMembers())
    return {
        name: value
        for name, value in changes.items()
        if not (name in comparable and _same_value(model, name, value, row[name]))
    }


def _same_value(model: type[BaseModel], name: str, sent: Any, stored: Any) -> bool:
    """Return True if the schema reads the same value, such as `125` and `"125.00"`."""
    try:
        values = [
            model.model_validate_json(json.dumps(read_blanks(model, {name: value})), strict=True)
            for value in (sent, stored)
        ]
    except ValidationError:
        return False
    return bool(values[0] == values[1])
