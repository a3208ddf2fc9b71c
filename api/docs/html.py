"""The HTML page of `GET /`: a Jinja template that loads nothing. Its search script is in the page."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup, escape

from api.html_templates import environment_of, source_hash
from schemas.fields import MAX_ID

Row = dict[str, Any]
Schemas = Mapping[str, Any]
# Keywords of JSON Schema, in words.
LIMITS = {
    "minimum": "at least {}",
    "exclusiveMinimum": "more than {}",
    "maximum": "at most {}",
    "minLength": "minimum length {}",
    "maxLength": "maximum length {}",
    "minItems": "minimum number {}",
    "maxItems": "maximum number {}",
}
TEMPLATES = environment_of(Path(__file__).parent / "templates")
CSP = (
    f"default-src 'none'; script-src {source_hash(TEMPLATES, 'search.js')}; "
    f"style-src {source_hash(TEMPLATES, 'style.css')}; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
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


def _search_text(endpoint: Mapping[str, Any]) -> str:
    """Return the text in which the search of the page looks for words."""
    parts = [endpoint["method"], endpoint["path"], endpoint["summary"], *endpoint["roles"]]
    return " ".join([*parts, endpoint.get("description", "")]).lower().replace("`", "")


def _words(name: str) -> str:
    """Return the name of a limit or convention as words. A variable of a curl line keeps its form."""
    return name if name.startswith("$") else name.replace("_", " ")


def _parameter_rows(parameters: Sequence[Mapping[str, Any]]) -> list[Row]:
    return [
        _row(f"{each['name']} ({each['in']})", each["schema"], {}, each["description"]) for each in parameters
    ]


def _body_rows(reference: Mapping[str, str], schemas: Schemas) -> list[Row]:
    """Return one row for each member of a body, the required ones first."""
    schema = schemas[_schema_name(reference)]
    required = schema.get("required", [])
    rows = [
        _row(name, member, schemas, member.get("description", ""), required=name in required)
        for name, member in schema.get("properties", {}).items()
    ]
    return sorted(rows, key=lambda row: not row["required"])


def _row(
    name: str, schema: Mapping[str, Any], schemas: Schemas, description: str, *, required: bool = False
) -> Row:
    return {
        "name": name,
        "type": _short_type(schema, schemas),
        "limits": _limits(schema, schemas),
        "description": description,
        "required": required,
    }


def _short_type(schema: Mapping[str, Any], schemas: Schemas) -> str:
    if "$ref" in schema:
        return _short_type(schemas[_schema_name(schema)], schemas)
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(_short_type(choice, schemas) for choice in schema["anyOf"]))
    if schema.get("type") == "array":
        return f"list of {_short_type(schema['items'], schemas)}" if "items" in schema else "list"
    return str(schema.get("format") or schema.get("type", "anything"))


def _limits(schema: Mapping[str, Any], schemas: Schemas) -> str:
    """Return the values, the default and the limits of a schema, as text."""
    if "$ref" in schema:
        return _limits(schemas[_schema_name(schema)], schemas)
    if "enum" in schema:
        texts = [" | ".join(str(value) for value in schema["enum"])]
    elif schema.get("type") == "object":
        texts = [", ".join(schema.get("properties", {}))]
    else:
        limits = {keyword: schema[keyword] for keyword in LIMITS if keyword in schema}
        texts = [LIMITS[key].format(value) for key, value in limits.items() if abs(value) < MAX_ID]
    parts = [*schema.get("anyOf", ()), *([schema["items"]] if "items" in schema else [])]
    texts += [_limits(part, schemas) for part in parts]
    if schema.get("default") not in (None, [], {}):
        texts.append(f"default {str(schema['default']).lower()}")
    return "; ".join(dict.fromkeys(text for text in texts if text))


def _schema_name(reference: Mapping[str, str]) -> str:
    return reference["$ref"].rsplit("/", 1)[1]


TEMPLATES.filters |= {
    "anchor": _anchor,
    "body_rows": _body_rows,
    "code_spans": _code_spans,
    "indented_json": _indented_json,
    "parameter_rows": _parameter_rows,
    "search_text": _search_text,
    "words": _words,
}
