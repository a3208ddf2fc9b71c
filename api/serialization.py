"""Response bodies: rows as JSON by their declared schema, without the fields that the role may not read."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from flask import Response
from pydantic import BaseModel, TypeAdapter

from enums import Role
from schemas.base import Out, nested_models
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


def excluded_fields(row: Out, actor: Actor, patient_id: int | None) -> dict[str, Any]:
    """Return pydantic's `exclude` argument for a row: the fields that are hidden from the actor."""
    if not _hides_any(type(row), actor.role):
        return {}
    own, emergency = actor.owns(getattr(row, "doctor_id", None)), patient_id in actor.emergency_patients
    fields = hidden(getattr(row, "area", ""), actor.role, own=own, emergency=emergency)
    names = fields & type(row).model_fields.keys()
    exclude: dict[str, Any] = dict.fromkeys(names, True)
    for name in nested_models(type(row)).keys() - names:
        value = getattr(row, name)
        if isinstance(value, list):
            inner: dict[Any, Any] = _excluded_from_rows(value, actor, [patient_id] * len(value))
        else:
            inner = excluded_fields(value, actor, patient_id) if value is not None else {}
        if inner:
            exclude[name] = inner
    return exclude


def _excluded_from_rows(
    rows: Sequence[Out], actor: Actor, patient_ids: Sequence[int | None]
) -> dict[int, Any]:
    excluded = {
        number: excluded_fields(row, actor, patient_id)
        for number, (row, patient_id) in enumerate(zip(rows, patient_ids, strict=True))
    }
    return {number: fields for number, fields in excluded.items() if fields}


@lru_cache
def _hides_any(out: type[Out], role: Role | None) -> bool:
    """Return True if a row of the schema, or a nested one, may have a field that is hidden from the role."""
    names = hidden(getattr(out, "area", ""), role, own=False)
    return not names.isdisjoint(out.model_fields) or any(
        _hides_any(nested, role) for nested in nested_models(out).values()
    )


def dump(serializer: Serializer, actor: Actor | None, value: Any) -> bytes:
    """Return one row or a list of rows as JSON, without the fields that are hidden from the actor."""
    many = isinstance(value, list)
    if serializer.computed_fields is not None and actor is not None:
        serializer.computed_fields(actor, value if many else [value])
    adapter = _adapter(serializer.out, many)
    model = adapter.validate_python(value, from_attributes=True)
    exclude: Any = None
    if actor is not None:
        # of the row, not of the response: the details of a timeline do not repeat their patient
        patient_ids = [getattr(row, "patient_id", None) for row in (value if many else [value])]
        exclude = (
            _excluded_from_rows(model, actor, patient_ids)
            if many
            else excluded_fields(model, actor, patient_ids[0])
        )
    return adapter.dump_json(model, exclude=exclude or None, by_alias=False)


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
