"""What the application declares, collected from its URL map: the one source of `GET /`, the OpenAPI document
and the permission-matrix test."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from flask import Flask
from pydantic import BaseModel, TypeAdapter
from pydantic.json_schema import GenerateJsonSchema

from resources.answers import View
from resources.base import METHODS, ApiResource, Operation
from security.permissions import TABLE, Permission
from services.listing import MAX_PER_PAGE, Kind, Listing

REF = "#/components/schemas/{model}"


@dataclass(frozen=True)
class Entry:
    """One method of one route."""

    method: str
    path: str  # with {names}
    path_ids: tuple[str, ...]
    operation: Operation
    resource: type[ApiResource]

    @property
    def domain(self) -> str:
        """The first part of the path: what the endpoint is about."""
        return self.path.strip("/").split("/")[0] or "root"

    @property
    def name(self) -> str:
        """A stable id for generated clients: `post_patients`, `get_patients_by_id`."""
        words = [
            f"by_{part[1:-1]}" if part.startswith("{") else part for part in self.path.strip("/").split("/")
        ]
        return "_".join([self.method.lower(), *words]).replace("-", "_").replace(".", "_").rstrip("_")

    @property
    def roles(self) -> list[str]:
        """Who may ask; `anyone` where nobody has to sign in."""
        if self.operation.permission is Permission.PUBLIC:
            return ["anyone"]
        return [role.value for role in TABLE[self.operation.permission]]


def entries(app: Flask) -> list[Entry]:
    """Every endpoint in the order of the URL map. A route that is no `ApiResource` is a mistake."""
    found = []
    for rule in app.url_map.iter_rules():
        resource = getattr(app.view_functions[rule.endpoint], "view_class", None)
        if resource is None or not issubclass(resource, ApiResource):
            raise TypeError(f"{rule.rule} is not served by an ApiResource")
        path = re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule)
        for method in METHODS:
            handler = getattr(resource, method, None)
            if handler is not None:
                found.append(
                    Entry(
                        method.upper(), path, tuple(re.findall(r"{(\w+)}", path)), handler.operation, resource
                    )
                )
    return found


# --- Schemas -------------------------------------------------------------------------------------------


def schema_of(kind: Any, *, output: bool, definitions: dict[str, Any]) -> dict[str, Any]:
    """The JSON Schema of a type, its parts put into `definitions`."""
    schema = TypeAdapter(kind).json_schema(
        mode="serialization" if output else "validation",
        ref_template=REF,
        schema_generator=GenerateJsonSchema,
        union_format="any_of",
    )
    for name, part in schema.pop("$defs", {}).items():
        definitions[name] = part
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        definitions[kind.__name__] = schema
        return {"$ref": REF.format(model=kind.__name__)}
    return schema


def answer_schema(operation: Operation, definitions: dict[str, Any]) -> dict[str, Any]:
    """What a success answers."""
    returns = operation.returns
    if returns is None:
        return {}
    row = schema_of(
        returns.out if isinstance(returns, View) else returns, output=True, definitions=definitions
    )
    if operation.lists is None:
        return {"type": "array", "items": row} if operation.many else row
    rows = {"type": "array", "items": row}
    if not operation.search:
        return rows
    numbers = {name: {"type": "integer"} for name in ("page", "per_page", "total_count", "total_pages")}
    return {
        "type": "object",
        "properties": {
            operation.lists.name: rows,
            "pagination": {"type": "object", "properties": numbers, "required": list(numbers)},
            "search_params": {"type": "object"},
        },
        "required": [operation.lists.name, "pagination", "search_params"],
    }


# --- Parameters ----------------------------------------------------------------------------------------

KIND_SCHEMAS: dict[Kind, dict[str, Any]] = {
    Kind.ID: {"type": "integer", "minimum": 0},
    Kind.INTEGER: {"type": "integer"},
    Kind.BOOLEAN: {"type": "boolean"},
    Kind.TEXT: {"type": "string", "maxLength": 200},
    Kind.DAY: {"type": "string", "format": "date"},
    Kind.INSTANT: {"type": "string", "format": "date-time"},
    Kind.MONEY: {"type": "string", "pattern": r"^-?[0-9]{1,10}(\.[0-9]{1,2})?$"},
    Kind.DECIMAL: {"type": "string", "pattern": r"^-?[0-9]{1,10}(\.[0-9]{1,2})?$"},
}


def query_parameters(operation: Operation) -> list[dict[str, Any]]:
    """The query string an endpoint takes, as OpenAPI parameters."""
    if operation.lists is not None:
        return _list_parameters(operation.lists)
    if operation.params is None:
        return []
    schema = operation.params.model_json_schema(mode="validation")
    return [
        _parameter(name, member, member.get("description", ""), required=name in schema.get("required", []))
        for name, member in schema["properties"].items()
    ]


def _list_parameters(listing: Listing[Any]) -> list[dict[str, Any]]:
    columns = sorted(listing.columns)
    found = [
        _parameter("page", {"type": "integer", "minimum": 1, "maximum": 10_000}, "Which page, from 1."),
        _parameter(
            "per_page", {"type": "integer", "minimum": 1, "maximum": MAX_PER_PAGE}, "Rows a page (20)."
        ),
        _parameter("sort_by", {"type": "string", "enum": columns}, "A column; ties are broken by id."),
        _parameter("sort_order", {"type": "string", "enum": ["asc", "desc"]}, "asc or desc."),
        _parameter("after", {"type": "integer", "minimum": 0}, "Rows with a greater id: for steady walks."),
    ]
    if listing.text is not None:
        found.append(_parameter("q", KIND_SCHEMAS[Kind.TEXT], "Words in names and numbers."))
    if listing.main_date is not None:
        day = {"anyOf": [{"type": "string", "format": "date"}, {"type": "string", "format": "date-time"}]}
        found.append(_parameter("start_date", day, f"From here on, by {listing.main_date}."))
        found.append(_parameter("end_date", day, "To here: a date is included, a date-time is not."))
    for name, (kind, _column, values) in sorted(listing.columns.items()):
        schema = {"type": "string", "enum": list(values)} if values else KIND_SCHEMAS[kind]
        found.append(
            _parameter(name, schema, f"Equal; also {name}_ne, _gte, _lte" + ", _like." * (kind is Kind.TEXT))
        )
    for name, wanted in sorted(listing.filters.items()):
        schema = (
            {"type": "string", "enum": list(wanted.values)} if wanted.values else KIND_SCHEMAS[wanted.kind]
        )
        found.append(_parameter(name, schema, wanted.summary))
    return found


def _parameter(name: str, schema: dict[str, Any], summary: str, *, required: bool = False) -> dict[str, Any]:
    return {"name": name, "in": "query", "required": required, "description": summary, "schema": schema}


# --- Examples ------------------------------------------------------------------------------------------


def example(schema: dict[str, Any], definitions: dict[str, Any], depth: int = 0) -> Any:
    """A plausible value of a schema, for readers of the documents."""
    if "$ref" in schema:
        return example(definitions[schema["$ref"].rsplit("/", 1)[1]], definitions, depth)
    for given in ("examples", "enum"):
        if schema.get(given):
            return schema[given][0]
    if "const" in schema:
        return schema["const"]
    choices = schema.get("anyOf") or schema.get("oneOf")
    if choices:
        return example(choices[0], definitions, depth)
    kind = schema.get("type")
    if kind == "object":
        members = schema.get("properties", {}) if depth < 3 else {}
        return {name: example(member, definitions, depth + 1) for name, member in members.items()}
    if kind == "array":
        return [example(schema["items"], definitions, depth + 1)] if "items" in schema and depth < 3 else []
    dates = {"date": "2026-03-02", "date-time": "2026-03-02T09:00:00Z", "email": "john@example.com"}
    texts = dates.get(schema.get("format", ""), "text"[: schema.get("maxLength", 4)])
    numbers = {"integer": schema.get("minimum", 1), "number": schema.get("minimum", 1), "boolean": True}
    return texts if kind == "string" else numbers.get(str(kind))


def needed_example(body: type[BaseModel], definitions: dict[str, Any]) -> dict[str, Any]:
    """The smallest body that a creation takes: what `required` names."""
    schema = body.model_json_schema(ref_template=REF)
    definitions |= schema.pop("$defs", {})
    names = schema.get("required") or list(schema.get("properties", {}))[:1]
    return {name: example(schema["properties"][name], definitions) for name in names}
