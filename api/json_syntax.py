"""Strict JSON: no member twice, no NaN, and errors with line, column and the text at this place."""

from __future__ import annotations

import json
import re
from typing import Any

from errors import ClinicError, shorten_path

MAX_NAME = 100  # characters of a member name
MAX_EXACT_FLOAT = 2**53  # up to here a float represents every whole number
_TOKEN = re.compile(r"[\w.+-]{1,20}|\S")
_STRING_OR_CONSTANT = re.compile(r'"(?:[^"\\]|\\.)*"|(NaN|-?Infinity)')
_LONG_NUMBER = re.compile(r'"(?:[^"\\]|\\.)*"|(-?[0-9]{1000})')

# Message of Python's JSON reader -> what is wrong in this place
PROBLEMS = {
    "Expecting value": "expected a value",
    "Expecting property name enclosed in double quotes": "expected a member name in double quotes",
    "Expecting ':' delimiter": "expected a colon",
    "Expecting ',' delimiter": "expected a comma or the end of the object or array",
    "Illegal trailing comma before end of object": "expected no comma before the end of the object",
    "Illegal trailing comma before end of array": "expected no comma before the end of the array",
    "Extra data": "expected the end of the body",
    "Unterminated string starting at": "which begins a text without a closing quote",
    "Invalid control character at": "expected an escape such as \\n",
    "Invalid \\escape": "which is not an escape of JSON",
    "Invalid \\uXXXX escape": "expected four hexadecimal digits after \\u",
}


def decode(body: bytes) -> Any:
    """Return the value of a JSON text. Raise 400 with the place of the first error."""
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        before = body[: error.start].decode("utf-8")
        place = _place(before + "?", len(before))
        raise _malformed(
            f"The body is not UTF-8. {place}: found the byte {body[error.start]:#04x}."
        ) from None
    try:
        return _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise _malformed_at(text, error.pos, PROBLEMS.get(error.msg, "which is not JSON")) from None
    except _Constant:
        raise _malformed_at(text, _find(_STRING_OR_CONSTANT, text), "expected null or a number") from None
    except ValueError:  # Python reads integers of at most 4,300 digits
        raise _malformed_at(text, _find(_LONG_NUMBER, text), "a number with too many digits") from None


class _Constant(Exception):  # noqa: N818 - it is a signal of the reader, not an error
    """NaN or Infinity, which Python's JSON reader accepts."""


def _refuse_constant(_name: str) -> Any:
    raise _Constant


def _unique_members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members: dict[str, Any] = {}
    for name, value in pairs:
        if name in members:
            problem = f"The member {shorten_path(name)} appears twice in an object. Send it once."
            raise ClinicError("duplicate_member", problem)
        members[name] = value
    if any(len(name) > MAX_NAME for name in members):
        raise ClinicError("member_name_too_long", f"Use at most {MAX_NAME} characters in a member name.")
    return members


def _parse_number(text: str) -> float | int:
    """Parse a number with a fraction or an exponent. JSON has one number type: 30.0 is a whole number."""
    value = float(text)
    return int(value) if value.is_integer() and abs(value) <= MAX_EXACT_FLOAT else value


_DECODER = json.JSONDecoder(
    object_pairs_hook=_unique_members, parse_constant=_refuse_constant, parse_float=_parse_number
)


def _find(pattern: re.Pattern[str], text: str) -> int:
    """Return the position of the first match of the pattern's group, which is outside of texts."""
    return next((match.start() for match in pattern.finditer(text) if match[1]), 0)


def _place(text: str, position: int) -> str:
    line = text.count("\n", 0, position) + 1
    return f"Line {line}, column {position - text.rfind(chr(10), 0, position)}"


def _malformed_at(text: str, position: int, problem: str) -> ClinicError:
    token = _TOKEN.match(text, position)
    if token is not None:
        found = token[0]
    else:
        found = "a space or line break" if position < len(text) else "the end of the body"
    return _malformed(f"The body is not valid JSON. {_place(text, position)}: found {found}, {problem}.")


def _malformed(message: str) -> ClinicError:
    return ClinicError("malformed_json", message)
