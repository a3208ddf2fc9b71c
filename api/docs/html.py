"""The HTML page of `GET /`: a Jinja template that loads nothing, from this host or from others."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def source_hash(template: str) -> str:
    """Return the hash by which a policy permits the style or script of a template inside a page."""
    digest = hashlib.sha256(TEMPLATES.get_template(template).render().encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


CSP = (
    f"default-src 'none'; style-src {source_hash('style.css')}; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)


def render(document: Mapping[str, Any]) -> str:
    """Return the document of `GET /` as HTML with every text escaped. Send it with the header `CSP`."""
    return TEMPLATES.get_template("index.html").render(document)


def _anchor(heading: str) -> str:
    return heading.replace(" ", "-")


def _code_spans(text: Any) -> Markup:
    """Return a text with its parts between backticks as `code` elements."""
    parts = str(text).split("`")
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if index % 2 else escape(part)
        for index, part in enumerate(parts)
    )


def _indented_json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)


def _body_members(reference: Mapping[str, str], schemas: Mapping[str, Any]) -> dict[str, str]:
    """Return name -> short type of each member of a body schema."""
    schema = schemas[_schema_name(reference)]
    required = schema.get("required", [])
    return {
        name: _short_type(member) + (", required" if name in required else "")
        for name, member in schema.get("properties", {}).items()
    }


def _short_type(schema: Mapping[str, Any]) -> str:
    if "$ref" in schema:
        return _schema_name(schema)
    if "enum" in schema:
        return " | ".join(str(value) for value in schema["enum"])
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(_short_type(choice) for choice in schema["anyOf"]))
    if schema.get("type") == "array":
        return f"list of {_short_type(schema['items'])}" if "items" in schema else "list"
    return str(schema.get("format") or schema.get("type", "anything"))


def _schema_name(reference: Mapping[str, str]) -> str:
    return reference["$ref"].rsplit("/", 1)[1]


TEMPLATES.filters |= {
    "anchor": _anchor,
    "body_members": _body_members,
    "code_spans": _code_spans,
    "indented_json": _indented_json,
}
