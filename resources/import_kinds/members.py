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


def stored_members(row: Any, names: Iterable[str]) -> dict[str, Any]:
    """Return members of a stored row as JSON."""
    return {name: _json_value(getattr(row, name)) for name in names}


def _json_value(value: Any) -> Any:
    if isinstance(value, date):
        return value.isoformat()
    return format(value, "f") if isinstance(value, Decimal) else value
