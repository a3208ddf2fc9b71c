"""Response bodies: rows as JSON by their declared schema, without the fields that the role may not read."""

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
    """The representation of one kind of row.

    `out` is the schema, `computed_fields` the service that computes the fields that are not stored. `entity`
    is the name of the row in the audit log, for rows of a patient's record: reads of them are recorded.
    """

    out: type[Out]
    computed_fields: ComputedFields | None = None
    entity: str | None = None


@dataclass
class EndpointResult:
    """The return value of an endpoint, with status, headers and cookies.

    Without `status` the response has the status of the declaration. `change_cookies` is called with the
    response.
    """

    value: Any
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    change_cookies: Callable[[Response], None] | None = None


@lru_cache
def _adapter(out: type[Out], many: bool) -> TypeAdapter[Any]:
    return TypeAdapter(list[out] if many else out)  # type: ignore[valid-type]


@lru_cache
def excluded_fields(out: type[Out], role: Role | None) -> dict[str, Any]:
    """Return pydantic's `exclude` argument for a role: hidden fields of the schema and of nested schemas."""
    exclude: dict[str, Any] = {}
    hidden_names = hidden(getattr(out, "area", ""), role)
    for name, info in out.model_fields.items():
        if name in hidden_names:
            exclude[name] = True
            continue
        nested, many = _nested_schema(info.annotation)
        inner = excluded_fields(nested, role) if nested is not None else {}
        if inner:
            exclude[name] = {"__all__": inner} if many else inner
    return exclude


def _nested_schema(annotation: Any) -> tuple[type[Out] | None, bool]:
    """Return the schema in a type annotation, and True if it is the element of a list."""
    if isinstance(annotation, type) and issubclass(annotation, Out):
        return annotation, False
    for argument in get_args(annotation):
        schema, many = _nested_schema(argument)
        if schema is not None:
            return schema, many or getattr(annotation, "__origin__", None) is list
    return None, False


def dump(serializer: Serializer, actor: Actor | None, value: Any) -> bytes:
    """Return one row or a list of rows as JSON, without the fields that are hidden from the actor."""
    many = isinstance(value, list)
    if serializer.computed_fields is not None and actor is not None:
        serializer.computed_fields(actor, value if many else [value])
    adapter = _adapter(serializer.out, many)
    model = adapter.validate_python(value, from_attributes=True)
    fields = excluded_fields(serializer.out, actor.role) if actor is not None else {}
    exclude: Any = ({"__all__": fields} if many else fields) if fields else None
    return adapter.dump_json(model, exclude=exclude, by_alias=False)


def dump_dict(serializer: Serializer, actor: Actor, row: Any) -> dict[str, Any]:
    """Return the JSON members of a row, as the actor reads them."""
    members: dict[str, Any] = json.loads(dump(serializer, actor, row))
    return members


def json_response(body: bytes, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return a response with a JSON body."""
    return Response(body, status, headers, mimetype="application/json")


def dump_plain(out: Any, value: Any) -> bytes:
    """Return a value that is not a row as JSON, by its declared schema if it has one."""
    if isinstance(value, BaseModel):
        return value.model_dump_json().encode()
    if out is not None:
        adapter = _adapter(out, isinstance(value, list))
        return adapter.dump_json(adapter.validate_python(value, from_attributes=True))
    return json.dumps(value).encode()
