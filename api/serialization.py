"""Shaping answers: rows through their declared schema, less what the role may not see, as JSON bytes."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, get_args

from flask import Response
from pydantic import BaseModel, TypeAdapter

from enums import Role
from schemas.base import Out
from security.permissions import Actor, hidden

ComputedFields = Callable[[Actor, Sequence[Any]], None]


@dataclass(frozen=True)
class Serializer:
    """How rows of one kind are shown: the schema, and the service that computes what is not stored.

    `entity` is the row's name in the audit where it is part of a patient's record; reads are then noted.
    """

    out: type[Out]
    computed_fields: ComputedFields | None = None
    entity: str | None = None


@dataclass
class Answer:
    """A value with what HTTP says beside it."""

    value: Any
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    decorate: Callable[[Response], None] | None = None  # cookies


@lru_cache
def _adapter(out: type[Out], many: bool) -> TypeAdapter[Any]:
    return TypeAdapter(list[out] if many else out)  # type: ignore[valid-type]


@lru_cache
def unseen(out: type[Out], role: Role | None) -> dict[str, Any]:
    """What pydantic leaves out for this role: hidden fields here and in nested rows."""
    spec: dict[str, Any] = {}
    secret = hidden(getattr(out, "area", ""), role)
    for name, info in out.model_fields.items():
        if name in secret:
            spec[name] = True
            continue
        nested, many = _nested(info.annotation)
        inner = unseen(nested, role) if nested is not None else {}
        if inner:
            spec[name] = {"__all__": inner} if many else inner
    return spec


def _nested(annotation: Any) -> tuple[type[Out] | None, bool]:
    if isinstance(annotation, type) and issubclass(annotation, Out):
        return annotation, False
    for argument in get_args(annotation):
        found, many = _nested(argument)
        if found is not None:
            return found, many or getattr(annotation, "__origin__", None) is list
    return None, False


def dump(view: Serializer, actor: Actor | None, value: Any) -> bytes:
    """One row or a list of them as JSON."""
    many = isinstance(value, list)
    if view.computed_fields is not None and actor is not None:
        view.computed_fields(actor, value if many else [value])
    adapter = _adapter(view.out, many)
    shaped = adapter.validate_python(value, from_attributes=True)
    spec = unseen(view.out, actor.role) if actor is not None else {}
    exclude: Any = ({"__all__": spec} if many else spec) if spec else None
    return adapter.dump_json(shaped, exclude=exclude, by_alias=False)


def shown(view: Serializer, actor: Actor, row: Any) -> dict[str, Any]:
    """The row as this caller reads it, for comparing with what it sends back."""
    found: dict[str, Any] = json.loads(dump(view, actor, row))
    return found


def json_response(body: bytes, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """The bytes as an answer."""
    return Response(body, status, headers, mimetype="application/json")


def dump_plain(out: Any, value: Any) -> bytes:
    """A value that is not a row, through its declared type where there is one."""
    if isinstance(value, BaseModel):
        return value.model_dump_json().encode()
    if out is not None:
        adapter = _adapter(out, isinstance(value, list))
        return adapter.dump_json(adapter.validate_python(value, from_attributes=True))
    return json.dumps(value).encode()
