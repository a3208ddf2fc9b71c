"""Values of imported rows as JSON, so that the schemas of the API can read and restore them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date
from decimal import Decimal
from typing import Any, TypeVar

from pydantic import BaseModel

from api import request_body

Model = TypeVar("Model", bound=BaseModel)


def validated(model: type[Model], members: Mapping[str, Any]) -> Model:
    """Return the members of a row as the schema, or raise 422 with each wrong member."""
    return request_body.validate(model, {name: _json_value(value) for name, value in members.items()})


def validated_values(model: type[BaseModel], members: Mapping[str, Any]) -> dict[str, Any]:
    """Return the members of a row as the values of the schema, or raise 422 with each wrong member."""
    return validated(model, members).model_dump()


def validated_changes(model: type[BaseModel], members: Mapping[str, Any]) -> dict[str, Any]:
    """Return the given members of a row as values of the schema of an update, or raise 422."""
    return validated(model, members).model_dump(exclude_unset=True)


def stored_members(row: Any, names: Iterable[str]) -> dict[str, Any]:
    """Return members of a stored row as JSON."""
    return {name: _json_value(getattr(row, name)) for name in names}


def _json_value(value: Any) -> Any:
    if isinstance(value, date):
        return value.isoformat()
    return format(value, "f") if isinstance(value, Decimal) else value
