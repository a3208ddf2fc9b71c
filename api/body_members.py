"""Members of a request body before validation: blank texts, read-only members, and hidden members.

Front ends clone rows and send whole rows back. The schema of the body has the members that a client may
write, the schema of the response those that it reads. A member of the response alone is read-only: it is
ignored on creation and on update. These rules apply to nested objects too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import MISSING, BaseModel
from pydantic.fields import FieldInfo

from column_types import is_blank_text
from errors import MAX_ERRORS, ClinicError
from schemas.base import accepted_members, nested_models, nullable_members, shown_members
from security.permissions import Actor, hidden

Path = tuple[str | int, ...]


@dataclass
class IgnoredMembers:
    """The read-only members of a body: their paths and their values.

    `stored` is the row of an update, as the caller read it. A creation has none: its values are compared with
    the new row.
    """

    values: dict[Path, Any] = field(default_factory=dict)
    stored: Mapping[str, Any] | None = None

    def changed(self, created: Any) -> str:
        """Return the names for `X-Ignored-Members`: values that differ from the row, or that are hidden."""
        row = created if self.stored is None else self.stored
        names = (
            ".".join(map(str, path))
            for path, value in self.values.items()
            if not _has_value(row, path, value)
        )
        return ", ".join(list(names)[:MAX_ERRORS])


def _has_value(row: Any, path: Path, value: Any) -> bool:
    try:
        for part in path:
            row = row[part]
    except (KeyError, IndexError, TypeError):  # hidden, or not in the row
        return False
    return equal_json(value, row)


def drop_read_only(
    model: type[BaseModel],
    resource: type[BaseModel],
    members: Mapping[str, Any],
    ignored: IgnoredMembers,
    path: Path = (),
) -> dict[str, Any]:
    """Return the members without the read-only ones, which are added to `ignored`.

    A member that neither schema has stays: validation refuses it.
    """
    accepted, shown = accepted_members(model), shown_members(resource)
    kept = {}
    for name, value in members.items():
        if name in accepted:
            kept[name] = _drop_below(model, resource, name, value, ignored, (*path, name))
        elif name in shown:
            ignored.values[(*path, name)] = value
        else:
            kept[name] = value
    return kept


def _drop_below(
    model: type[BaseModel],
    resource: type[BaseModel],
    name: str,
    value: Any,
    ignored: IgnoredMembers,
    path: Path,
) -> Any:
    inner, shown = nested_models(model).get(name), nested_models(resource).get(name)
    if inner is None or shown is None:
        return value
    if isinstance(value, dict):
        return drop_read_only(inner, shown, value, ignored, path)
    if isinstance(value, list):
        return [
            drop_read_only(inner, shown, element, ignored, (*path, number))
            if isinstance(element, dict)
            else element
            for number, element in enumerate(value)
        ]
    return value


def read_blanks(model: type[BaseModel], members: Mapping[str, Any]) -> dict[str, Any]:
    """Return the members with null for blank texts, without null where the default applies.

    A blank text in a member that must have a value stays. Validation refuses it.
    """
    accepted, nullable, nested = accepted_members(model), nullable_members(model), nested_models(model)
    read: dict[str, Any] = {}
    for name, value in members.items():
        info, inner = accepted.get(name), nested.get(name)
        if info is not None and (value is None or is_blank(value)):
            if name in nullable:
                read[name] = None
            elif not _has_default(info):
                read[name] = value
        elif inner is not None and isinstance(value, dict):
            read[name] = read_blanks(inner, value)
        elif inner is not None and isinstance(value, list):
            read[name] = [
                read_blanks(inner, element) if isinstance(element, dict) else element for element in value
            ]
        else:
            read[name] = value
    return read


def _has_default(info: FieldInfo) -> bool:
    return not info.is_required() and info.default is not MISSING


def is_blank(value: Any) -> bool:
    """Return True for a text without a visible character."""
    return isinstance(value, str) and is_blank_text(value)


def refuse_hidden(
    model: type[BaseModel], resource: type[BaseModel], members: Mapping[str, Any], actor: Actor, *, own: bool
) -> None:
    """Raise 403 for members that the caller may not read, whatever their value."""
    names = hidden(getattr(resource, "area", ""), actor.role, own=own)
    refused = sorted(names & accepted_members(model).keys() & members.keys())
    if refused:
        problems = dict.fromkeys(refused, "your role may not read or change this")
        raise ClinicError("forbidden", f"Leave out {', '.join(refused)}.", errors=problems)


def equal_json(sent: Any, stored: Any) -> bool:
    """Compare two JSON values, also their types: in Python 1 equals True. A blank text equals null."""
    if isinstance(sent, dict) and isinstance(stored, dict):
        return sent.keys() == stored.keys() and all(equal_json(sent[name], stored[name]) for name in sent)
    if isinstance(sent, list) and isinstance(stored, list):
        return len(sent) == len(stored) and all(map(equal_json, sent, stored))
    if stored is None and is_blank(sent):
        return True
    return isinstance(sent, bool) == isinstance(stored, bool) and bool(sent == stored)
