"""Reading a request's body: strict JSON, one object, and nothing in it that could not be stored."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from typing import Any, TypeVar

from flask import request
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from errors import MAX_ERRORS, ClinicError, shorten_path
from security.sanitize import text_problem

Model = TypeVar("Model", bound=BaseModel)

MAX_BODY = 256 * 1024  # bytes
MAX_DEPTH = 32
MAX_NAME = 100  # characters of a member name
EXACT = 2**53  # up to here a float holds every whole number


def raw_body() -> bytes:
    """The body's bytes, 413 above `MAX_BODY`."""
    if (request.content_length or 0) > MAX_BODY:
        raise ClinicError("payload_too_large", f"Send at most {MAX_BODY // 1024} KiB.")
    request.max_content_length = MAX_BODY + 1  # a body in chunks does not say how long it will be
    raw = request.get_data(cache=True)
    # A server may pass on the part of a body that it got before the client disconnected. An empty body would
    # then read as an empty object, and optional members would be lost.
    cut_short = len(raw) < (request.content_length or 0)
    if cut_short or (not raw and "Transfer-Encoding" in request.headers):
        raise ClinicError("bad_request", "The body is incomplete. Send the whole request again.")
    if len(raw) > MAX_BODY:
        raise ClinicError("payload_too_large", f"Send at most {MAX_BODY // 1024} KiB.")
    return raw


def json_object() -> dict[str, Any]:
    """The body as one JSON object; an empty body is an empty object."""
    raw = raw_body()
    if not raw:
        return {}
    if request.mimetype != "application/json" and not request.mimetype.endswith("+json"):
        raise ClinicError("unsupported_media_type", "Send JSON with Content-Type: application/json.")
    try:
        value = _DECODER.decode(raw.decode("utf-8"))
    except RecursionError:
        raise ClinicError("too_deep", f"Nest at most {MAX_DEPTH} levels.") from None
    except UnicodeDecodeError:
        raise ClinicError("malformed_json", "The body must be UTF-8.") from None
    except ValueError as problem:
        where = f" (line {problem.lineno})" if isinstance(problem, json.JSONDecodeError) else ""
        raise ClinicError("malformed_json", f"The body is not valid JSON{where}.") from None
    if not isinstance(value, dict):
        raise ClinicError("malformed_json", "The body must be one JSON object.")
    _inspect(value)
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ClinicError("duplicate_member", "A member may appear only once in an object.")
    return members


def _number(text: str) -> float | int:
    """JSON knows one kind of number: 30.0 is a whole one."""
    value = float(text)
    return int(value) if value.is_integer() and abs(value) <= EXACT else value


def _constant(name: str) -> Any:
    raise ClinicError("malformed_json", f"{name} is not JSON.")


_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_constant, parse_float=_number)


def _inspect(members: dict[str, Any]) -> None:
    """Raise 400 or 422 for a body that is nested too deeply, or has a name or a text that cannot be stored.

    A path is built for a problem only: a body of 100 kB may have so many elements under so long names that
    the paths of all would take gigabytes.
    """
    problems = _problems(members, [], 1)
    first = dict(itertools.islice(problems, MAX_ERRORS))
    if first:
        raise wrong_fields(first, omitted=sum(1 for _ in problems))


def _problems(value: Any, path: list[str], depth: int) -> Iterator[tuple[str, str]]:
    """Yield path and description of each text that cannot be stored. `path` leads to `value`."""
    if depth > MAX_DEPTH + 1:
        raise ClinicError("too_deep", f"Nest at most {MAX_DEPTH} levels.")
    if isinstance(value, str):
        problem = text_problem(value)
        if problem:
            yield ".".join(path), problem
    elif isinstance(value, dict):
        for name, member in value.items():
            if len(name) > MAX_NAME:
                raise ClinicError(
                    "member_name_too_long", f"Use at most {MAX_NAME} characters in a member name."
                )
            if text_problem(name):
                yield ".".join(path) or "body", "a member's name holds characters that cannot be stored"
            else:
                yield from _problems_below(name, member, path, depth)
    elif isinstance(value, list):
        for index, element in enumerate(value):
            yield from _problems_below(str(index), element, path, depth)


def _problems_below(name: str, value: Any, path: list[str], depth: int) -> Iterator[tuple[str, str]]:
    if isinstance(value, (str, dict, list)) or depth > MAX_DEPTH:
        path.append(name)
        yield from _problems(value, path, depth + 1)
        path.pop()


def validate(model: type[Model], members: dict[str, Any]) -> Model:
    """The members as the declared schema, or 422 naming each wrong one."""
    try:
        return model.model_validate_json(json.dumps(members), strict=True)
    except ValidationError as failure:
        raise wrong_fields(field_errors(failure)) from None


def field_errors(failure: ValidationError) -> dict[str, str]:
    """pydantic's errors as field path -> sentence; never with the value, which may be a patient's."""
    found: dict[str, str] = {}
    for error in failure.errors(include_input=False, include_url=False, include_context=True):
        path = ".".join(str(part) for part in error["loc"]) or "body"
        found.setdefault(path, _sentence(error))
    return found


def _sentence(error: ErrorDetails) -> str:
    if error["type"] == "extra_forbidden":
        return "there is no such member"
    if error["type"] == "missing":
        return "is required"
    message = error["msg"].removeprefix("Value error, ")
    return message[:1].lower() + message[1:]


def wrong_fields(errors: dict[str, str], *, omitted: int = 0) -> ClinicError:
    """Return a 422 whose message names the first fields, since front ends show nothing else.

    `omitted` counts further problems that `errors` does not contain.
    """
    first = itertools.islice(errors.items(), 5)
    shown = "; ".join(f"{shorten_path(field)}: {problem}" for field, problem in first)
    message = shown + ("." if not shown.endswith(".") else "")
    return ClinicError("validation_failed", message, errors=errors, errors_omitted=omitted)


def validate_query(model: type[Model], members: dict[str, str]) -> Model:
    """A query string as its declared schema: text read leniently, 422 naming each wrong parameter."""
    try:
        return model.model_validate_strings(members)
    except ValidationError as failure:
        raise wrong_fields(field_errors(failure)) from None
