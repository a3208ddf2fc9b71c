"""Descriptions of wrong members and parameters in plain words, in place of the messages of pydantic."""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from api.body_members import is_blank
from errors import MAX_ERRORS, MAX_PATH_PART, ClinicError, shorten_path
from schemas.base import accepted_members, missing_choices, nested_models

NEAREST = 3  # names that the refusal of an unknown member suggests

# Type of a pydantic error -> description, with the names of its context
DESCRIPTIONS = {
    "missing": "is required",
    "string_type": "must be a text",
    "string_too_short": "must have at least {min_length} characters",
    "string_too_long": "must have at most {max_length} characters",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "int_parsing_size": "must be a whole number with fewer digits",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "finite_number": "must be a number with fewer digits",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "enum": "must be {expected}",
    "literal_error": "must be {expected}",
    "greater_than": "must be more than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
    "list_type": "must be an array",
    "too_short": "must have at least {min_length} elements",
    "too_long": "must have at most {max_length} elements",
    "model_type": "must be an object",
    "dict_type": "must be an object",
    "model_attributes_type": "must be an object",
    "json_invalid": "contains a number that is too large",
}
BLANK, NULL, UNKNOWN = "must not be blank", "must not be null", "there is no such member"
OTHER = "has a wrong value"  # for a type of error that no schema raises


def describe(
    failure: ValidationError, model: type[BaseModel], members: Mapping[str, Any] | None = None
) -> ClinicError:
    """Return pydantic's errors as a 422, without the values: they may be a patient's data.

    `members` are those of a body. The 422 then also names the members that a rule "one of these" needs.
    """
    errors = failure.errors(include_url=False)
    problems: dict[str, str] = {}
    for number, error in enumerate(errors):
        path, owner = _locate(model, error)
        problems.setdefault(".".join(path) or "body", _describe(error, owner))
        if len(problems) == MAX_ERRORS:
            return wrong_fields(problems, omitted=len(errors) - number - 1)
    for name, problem in missing_choices(model, members or {}):
        if len(problems) < MAX_ERRORS:
            problems.setdefault(name, problem)
    return wrong_fields(problems)


def _locate(model: type[BaseModel], error: ErrorDetails) -> tuple[list[str], type[BaseModel] | None]:
    """Return the path of a wrong member, and the schema of the object that contains it.

    pydantic's location also names validators and the alternatives of a union. They are left out.
    """
    path: list[str] = []
    owner: type[BaseModel] | None = model
    inner: type[BaseModel] | None = model
    location = error["loc"]
    for number, part in enumerate(location):
        is_unknown = error["type"] == "extra_forbidden" and number == len(location) - 1
        if isinstance(part, int):
            path.append(str(part))
        elif is_unknown or (inner is not None and part in accepted_members(inner)):
            path.append(part)
            owner = inner
            inner = nested_models(inner).get(part) if inner is not None else None
    return path, owner


def _describe(error: ErrorDetails, owner: type[BaseModel] | None) -> str:
    kind, value = error["type"], error["input"]
    if kind == "extra_forbidden":
        return _unknown_member(str(error["loc"][-1]), sorted(accepted_members(owner)) if owner else [])
    if kind != "missing" and value is None:
        return NULL
    if is_blank(value):
        return BLANK
    context = error.get("ctx", {})
    if kind == "value_error":
        return str(context["error"])
    return DESCRIPTIONS.get(kind, OTHER).format(**context)


def _unknown_member(name: str, known: list[str]) -> str:
    """Return the refusal of a member, with the nearest names, or with all names."""
    nearest = difflib.get_close_matches(name[:MAX_PATH_PART], known, n=NEAREST)
    if nearest:
        return f"{UNKNOWN}; the nearest are: {', '.join(nearest)}"
    if not known:
        return f"{UNKNOWN}; this request has no members"
    return f"{UNKNOWN}; there are: {', '.join(known)}"


def wrong_fields(errors: dict[str, str], *, omitted: int = 0) -> ClinicError:
    """Return a 422 whose message contains the first fields: many front ends show only the message.

    `omitted` is the number of further problems, which `errors` does not contain.
    """
    first = itertools.islice(errors.items(), 5)
    message = "; ".join(f"{shorten_path(field)}: {problem}" for field, problem in first)
    return ClinicError(
        "validation_failed", message.removesuffix(".") + ".", errors=errors, errors_omitted=omitted
    )
