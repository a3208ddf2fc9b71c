"""Request bodies: strict JSON or a form, without text that cannot be stored, validated by its schema."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from typing import Any, TypeVar

from flask import request
from pydantic import BaseModel, ValidationError

from api import json_syntax
from api.body_format import JSON, MULTIPART, Upload, decode_form, decode_multipart
from api.body_members import read_blanks
from api.field_errors import describe, wrong_fields
from api.request_context import current_context
from errors import MAX_ERRORS, ClinicError
from security.sanitize import text_problem

Model = TypeVar("Model", bound=BaseModel)

MAX_DEPTH = 32  # levels of nesting


def raw_body() -> bytes:
    """Return the bytes of the body, or raise 413 for more than the endpoint accepts."""
    accepted = current_context().body_format
    too_large = ClinicError("payload_too_large", f"Send at most {accepted.size()}.")
    if (request.content_length or 0) > accepted.limit:
        raise too_large
    request.max_content_length = accepted.limit + 1  # a chunked body has no Content-Length
    body = request.get_data(cache=True)
    # A server may pass on the part of a body that it got before the client disconnected. An empty body would
    # then read as an empty object, and optional members would be lost.
    is_cut_short = len(body) < (request.content_length or 0)
    if is_cut_short or (not body and "Transfer-Encoding" in request.headers):
        raise ClinicError("bad_request", "The body is incomplete. Send the whole request again.")
    if len(body) > accepted.limit:
        raise too_large
    return body


def body_members(*, accepts_null: bool = False) -> dict[str, Any]:
    """Return the members of the body: one JSON object, or the fields of a form. An empty body has no members.

    The body is decoded once for each request and kept as `RequestContext.body`. A loader that must lock more
    rows than the path names reads their ids there, before the body is validated. Raises 400 for a body that
    is not one strict JSON object or form, 413 for a large one, and 415 for another media type.
    `accepts_null`: HTTP clients such as axios send `null` with a request without data.
    """
    context = current_context()
    if context.body is None:
        context.body = _decode(raw_body(), accepts_null=accepts_null)
    return context.body


def _decode(body: bytes, *, accepts_null: bool) -> dict[str, Any]:
    if not body:
        return {}
    _check_media_type()
    if request.mimetype == MULTIPART:
        fields, current_context().upload = decode_multipart(body, _boundary())
        return dict(fields)
    if not request.mimetype.endswith("json"):
        return dict(decode_form(body, request.mimetype_params.get("charset", "utf-8")))
    try:
        value = json_syntax.decode(body)
    except RecursionError:
        raise ClinicError("too_deep", f"Nest at most {MAX_DEPTH} levels.") from None
    if value is None and accepts_null:
        return {}
    if not isinstance(value, dict):
        raise ClinicError("malformed_json", f"The body must be one JSON object, not {_kind(value)}.")
    _check_depth(value, MAX_DEPTH)
    return value


def _boundary() -> str:
    return request.mimetype_params.get("boundary", "")


def uploaded_file() -> Upload:
    """Return the file of a multipart form, or raise 400 without one."""
    upload = current_context().upload
    if upload is None:
        raise ClinicError("bad_request", f"Send a file with Content-Type: {MULTIPART}.")
    return upload


def comparable_body() -> bytes:
    """Return the bytes by which a repeated request is recognised.

    A client writes a new boundary for each multipart form. It stands only between the parts.
    """
    body = raw_body()
    boundary = _boundary() if request.mimetype == MULTIPART else ""
    return body.replace(boundary.encode(), b"boundary") if boundary else body


def body_content() -> bytes:
    """Return a body that has no members, such as an image, as it was sent.

    Raises 400 without one, 413 for a large one, and 415 for another media type.
    """
    body = raw_body()
    if not body:
        accepted = " or ".join(current_context().body_format.media_types)
        raise ClinicError("bad_request", f"Send a body with Content-Type: {accepted}.")
    _check_media_type()
    return body


def _check_media_type() -> None:
    """Raise 415 for a media type that the endpoint does not accept."""
    accepted = current_context().body_format
    if not accepted.accepts(request.mimetype):
        kind = "JSON" if accepted.media_types == JSON.media_types else "a body"
        raise ClinicError(
            "unsupported_media_type", f"Send {kind} with Content-Type: {' or '.join(accepted.media_types)}."
        )


def _kind(value: Any) -> str:
    """Return the name of a JSON value that is not an object."""
    if value is None:
        return "null"
    names = {list: "an array", str: "a text", bool: "true or false"}
    return names.get(type(value), "a number")


def _check_depth(value: Any, levels: int) -> None:
    """Raise 400 for an object or array that is nested more than `levels` deep."""
    if levels == 0:
        raise ClinicError("too_deep", f"Nest at most {MAX_DEPTH} levels.")
    for part in value.values() if isinstance(value, dict) else value:
        if isinstance(part, (dict, list)):
            _check_depth(part, levels - 1)


def _check_texts(members: dict[str, Any]) -> None:
    """Raise 422 for names and texts that cannot be stored.

    A path is built only for a problem: the paths of all elements of a body of 100 kB can take gigabytes.
    """
    problems = _text_problems(members, [])
    first = dict(itertools.islice(problems, MAX_ERRORS))
    if first:
        raise wrong_fields(first, omitted=sum(1 for _ in problems))


def _text_problems(value: Any, path: list[str]) -> Iterator[tuple[str, str]]:
    """Yield path and description of each text that cannot be stored. `path` leads to `value`."""
    if isinstance(value, str):
        problem = text_problem(value)
        if problem:
            yield ".".join(path), problem
    elif isinstance(value, dict):
        for name, member in value.items():
            if text_problem(name):
                yield ".".join(path) or "body", "a member name contains characters that cannot be stored"
            else:
                yield from _text_problems_below(name, member, path)
    elif isinstance(value, list):
        for index, element in enumerate(value):
            if isinstance(element, (str, dict, list)):
                yield from _text_problems_below(str(index), element, path)


def _text_problems_below(name: str, value: Any, path: list[str]) -> Iterator[tuple[str, str]]:
    path.append(name)
    yield from _text_problems(value, path)
    path.pop()


def validate(model: type[Model], members: dict[str, Any]) -> Model:
    """Return the members as the declared schema, or raise 422 with each wrong member."""
    _check_texts(members)
    read = read_blanks(model, members)
    try:
        return model.model_validate_json(json.dumps(read), strict=True)
    except ValidationError as error:
        raise describe(error, model, read) from None


def validate_query(model: type[Model], members: dict[str, str]) -> Model:
    """Return a query string as its declared schema, or raise 422 with each wrong parameter.

    A blank text in an optional parameter counts as absent.
    """
    given = {name: text for name, text in read_blanks(model, members).items() if text is not None}
    try:
        return model.model_validate_strings(given)
    except ValidationError as error:
        raise describe(error, model) from None
