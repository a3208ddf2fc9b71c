"""JSON Schemas, parameters and examples of the endpoints, for the API documentation."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

from pydantic import BaseModel, TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core.core_schema import ModelSchema

from api.docs.example_values import EMPTY, VALUES
from api.docs.examples import VARIABLES, example_of
from api.docs.registry import RegisteredEndpoint
from api.endpoint import EndpointSpec
from api.list_files import MAX_ROWS
from api.list_query import MAX_TEXT
from api.response_format import LIST_FORMATS
from api.serialization import Serializer
from enums import Role
from schemas.fields import MAX_ID
from security.permissions import HIDDEN_OF_OTHERS, hidden
from services.listing.spec import MAX_PER_PAGE, Kind, ListSpec

REF = "#/components/schemas/{model}"
Schema = dict[str, Any]
PAGINATION_MEMBERS = ("page", "per_page", "total_count", "total_pages")
COMMON: Schema = {  # schemas without a pydantic model
    "Pagination": {
        "type": "object",
        "properties": {name: {"type": "integer"} for name in PAGINATION_MEMBERS},
        "required": list(PAGINATION_MEMBERS),
    }
}

# --- Schemas -------------------------------------------------------------------------------------------


class DocumentedSchema(GenerateJsonSchema):
    """The schema generator of pydantic, without titles, and with the fields that are hidden from roles."""

    def field_title_should_be_set(self, _schema: Any) -> bool:
        """Return False: a title would only repeat the name of the field."""
        return False

    def model_schema(self, schema: ModelSchema) -> JsonSchemaValue:
        """Return the schema of a model. A field that is hidden from a role is not required."""
        json_schema = super().model_schema(schema)
        area = getattr(schema["cls"], "area", "")
        required = json_schema.get("required", [])
        for name, member in json_schema.get("properties", {}).items():
            readers = _hidden_from(area, name)
            if readers and name in required:
                required.remove(name)
                json_schema["properties"][name] = member | {"description": f"Absent for {readers}."}
        return json_schema


@cache
def _generated(kind: Any, *, output: bool) -> str:
    """Return the JSON Schema of a type as text: endpoints share types, and two documents contain each."""
    return json.dumps(
        TypeAdapter(kind).json_schema(
            mode="serialization" if output else "validation",
            ref_template=REF,
            schema_generator=DocumentedSchema,
            union_format="any_of",
        )
    )


def schema_of(kind: Any, *, output: bool, definitions: Schema) -> Schema:
    """Return the JSON Schema of a type, and add the schemas that it refers to to `definitions`.

    Two different schemas with the same name raise TypeError.
    """
    schema: Schema = json.loads(_generated(kind, output=output))
    referenced = schema.pop("$defs", {})
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        referenced[kind.__name__] = schema
        schema = {"$ref": REF.format(model=kind.__name__)}
    for name, part in referenced.items():
        if definitions.setdefault(name, part) != part:
            raise TypeError(f"two schemas have the name {name}")
    return schema


def response_schema(spec: EndpointSpec, definitions: Schema) -> Schema:
    """Return the schema of a successful response."""
    returns = spec.returns
    if returns is None:
        return {"type": "object"}
    row = schema_of(
        returns.out if isinstance(returns, Serializer) else returns, output=True, definitions=definitions
    )
    if spec.list_spec is None:
        return {"type": "array", "items": row} if spec.many else row
    rows = {"type": "array", "items": row}
    if not spec.search:
        return rows
    return {
        "type": "object",
        "properties": {
            spec.list_spec.name: rows,
            "pagination": {"$ref": REF.format(model="Pagination")},
            "search_params": {"type": "object", "description": "The query parameters of the request."},
        },
        "required": [spec.list_spec.name, "pagination", "search_params"],
    }


# --- Parameters ----------------------------------------------------------------------------------------

AMOUNT = {"type": "string", "pattern": r"^-?[0-9]{1,12}(\.[0-9]{1,2})?$", "examples": ["125.00"]}
UNIT_COST = {"type": "string", "pattern": r"^-?[0-9]{1,10}(\.[0-9]{1,4})?$", "examples": ["0.0125"]}
DAY = {"type": "string", "format": "date", "examples": ["2026-03-02"]}
INSTANT = {"type": "string", "format": "date-time", "examples": ["2026-03-02T09:00:00Z"]}
DAY_OR_INSTANT = {"anyOf": [DAY, INSTANT]}
KIND_SCHEMAS: dict[Kind, Schema] = {
    Kind.ID: {"type": "integer", "minimum": 0, "maximum": MAX_ID, "examples": [1]},
    Kind.INTEGER: {"type": "integer", "minimum": -MAX_ID, "maximum": MAX_ID},
    Kind.BOOLEAN: {"type": "boolean", "examples": [True]},
    Kind.TEXT: {"type": "string", "maxLength": MAX_TEXT},
    Kind.DAY: DAY,
    Kind.INSTANT: DAY_OR_INSTANT,
    Kind.MONEY: AMOUNT,
    Kind.UNIT_COST: UNIT_COST,
    Kind.DECIMAL: AMOUNT,
}
PAGING_PARAMETERS: dict[str, tuple[Schema, str]] = {
    "page": (
        {"type": "integer", "minimum": 1, "maximum": 10_000_000, "examples": [1]},
        "The page number, from 1.",
    ),
    "per_page": (
        {"type": "integer", "minimum": 1, "maximum": MAX_PER_PAGE, "default": 20},
        "Rows of a page.",
    ),
    "sort_order": ({"type": "string", "enum": ["asc", "desc"], "default": "asc"}, "The sort order."),
    "after": (
        {"type": "integer", "minimum": 0, "maximum": MAX_ID, "examples": [100]},
        "Only rows with a greater id, sorted by id: for reading a whole list page by page.",
    ),
}
FORMAT_PARAMETERS: dict[str, tuple[Schema, str]] = {
    "format": (
        {"type": "string", "enum": list(LIST_FORMATS), "default": "json"},
        f"A file contains all rows, at most {MAX_ROWS:,}. The parameters of pages are then 422. The header "
        "`Accept` may name the media type instead.",
    ),
}
SEARCH_PARAMETERS: dict[str, tuple[Schema, str]] = {
    "q": (KIND_SCHEMAS[Kind.TEXT] | {"examples": ["zawadi"]}, "Words of names and numbers."),
}
DATE_PARAMETERS: dict[str, tuple[Schema, str]] = {
    "start_date": (DAY_OR_INSTANT, "Only rows with this main date or a later one."),
    "end_date": (
        DAY_OR_INSTANT,
        "Only rows before this end by their main date. A date is included, a date-time is not.",
    ),
}
CALENDAR_PARAMETERS: dict[str, tuple[Schema, str]] = {
    "start": (
        DAY_OR_INSTANT,
        "Only rows that end after this. With `start` and `end`, the default `per_page` is 1000.",
    ),
    "end": (DAY_OR_INSTANT, "Only rows that start before this. A date is included, a date-time is not."),
    "timeZone": (
        {"type": "string", "examples": ["Africa/Nairobi"]},
        "The IANA time zone of date-times without an offset. Default: the zone of the clinic.",
    ),
}
SHARED_PARAMETERS = PAGING_PARAMETERS | FORMAT_PARAMETERS | SEARCH_PARAMETERS | DATE_PARAMETERS


def parameters(endpoint: RegisteredEndpoint) -> list[Schema]:
    """Return the path, query and header parameters of an endpoint in OpenAPI form."""
    return [
        *_path_parameters(endpoint),
        *query_parameters(endpoint.spec),
        *_header_parameters(endpoint),
    ]


def query_parameters(spec: EndpointSpec) -> list[Schema]:
    """Return the query parameters of an endpoint."""
    if spec.list_spec is not None:
        return _list_parameters(spec.list_spec)
    if spec.query is None:
        return []
    schema = spec.query.model_json_schema(schema_generator=DocumentedSchema)
    definitions = schema.get("$defs", {})
    return [
        parameter(
            name,
            _inline(member, definitions),
            member.get("description", ""),
            required=name in schema.get("required", []),
        )
        for name, member in schema["properties"].items()
    ]


def _inline(member: Schema, definitions: Schema) -> Schema:
    """Return the schema of a parameter without references and without null: a query string has no null."""
    if "$ref" in member:
        referenced = definitions[_schema_name(member)]
        return {name: value for name, value in referenced.items() if name not in ("title", "description")}
    schema = {name: value for name, value in member.items() if name != "description"}
    if schema.get("default", ...) is None:
        del schema["default"]
    choices = [
        _inline(choice, definitions) for choice in schema.pop("anyOf", []) if choice.get("type") != "null"
    ]
    if len(choices) == 1:
        return choices[0] | schema
    return {"anyOf": choices} | schema if choices else schema


def _list_parameters(list_spec: ListSpec[Any]) -> list[Schema]:
    shared = PAGING_PARAMETERS | FORMAT_PARAMETERS
    sortable = {"type": "string", "enum": sorted(list_spec.columns), "default": "id"}
    summary = "The column to sort by. Equal values are sorted by id."
    if list_spec.newest_first:
        summary += " Without it, the newest rows are first."
    for name, column in list_spec.columns.items():
        if column.max_rows is not None:
            summary += f" `{name}`: at most {column.max_rows:,} matching rows."
    for name, reason in list_spec.excluded.items():
        summary += f" `{name}` cannot sort or filter: {reason}."
    shared["sort_by"] = (sortable, summary)
    if list_spec.text is not None:
        shared |= SEARCH_PARAMETERS
    if list_spec.main_date is not None:
        shared |= DATE_PARAMETERS
    if list_spec.overlaps is not None:
        shared |= CALENDAR_PARAMETERS
    described = [parameter(name, schema, summary) for name, (schema, summary) in shared.items()]
    for name, column in sorted(list_spec.columns.items()):
        if name in list_spec.filters or name in shared:
            continue
        suffixes = ["_ne"] + ["_gte", "_lte"] * (column.kind is not Kind.BOOLEAN)
        suffixes += ["_like"] * (column.kind is Kind.TEXT)
        summary = f"Equal to one of the values. Also {', '.join(name + suffix for suffix in suffixes)}."
        summary += _refused_to(list_spec, name)
        described.append(parameter(name, _kind_schema(column.kind, column.values), summary))
    for name, condition in sorted(list_spec.filters.items()):
        summary = condition.summary + " Only once." * condition.once
        summary += _refused_to(list_spec, condition.guards or name)
        described.append(parameter(name, _kind_schema(condition.kind, condition.values), summary))
    return described


def _kind_schema(kind: Kind, values: tuple[str, ...]) -> Schema:
    return {"type": "string", "enum": list(values)} if values else KIND_SCHEMAS[kind]


def _refused_to(list_spec: ListSpec[Any], field: str) -> str:
    """Return a sentence about the roles that may not filter by a field, or an empty text."""
    readers = _hidden_from(list_spec.area, field)
    return f" Not for {readers}: 403." if readers else ""


def _hidden_from(area: str, field: str) -> str:
    """Return the roles that may not read a field, or an empty text."""
    roles = [role.value for role in Role if field in hidden(area, role)]
    if field in HIDDEN_OF_OTHERS.get(area, ()):
        roles.append("doctor (rows of other doctors)")
    return " and ".join(roles)


def parameter(name: str, schema: Schema, summary: str, *, required: bool = False) -> Schema:
    """Return one query parameter in OpenAPI form. Its schema has an example."""
    choices = schema.get("anyOf", [schema])
    if not any(keyword in choice for choice in choices for keyword in ("examples", "enum")):
        schema = schema | {"examples": [example(schema, {}, name)]}
    return {"name": name, "in": "query", "required": required, "description": summary, "schema": schema}


ID_SCHEMA: Schema = {"type": "integer", "minimum": 1, "maximum": MAX_ID}


def _path_parameters(endpoint: RegisteredEndpoint) -> list[Schema]:
    stated = example_of(endpoint)
    described = []
    for name in endpoint.path_ids:
        words = name.removesuffix("_id").replace("_", " ")
        is_text = name in endpoint.path_texts
        member: Schema = {
            "name": name,
            "in": "path",
            "required": True,
            "description": f"The {words}." if is_text else f"The id of the {words}.",
            "schema": {"type": "string", "minLength": 1} if is_text else ID_SCHEMA,
        }
        if name in stated.variables:
            member["description"] += f" The example needs {VARIABLES[stated.variables[name]]}."
        else:
            member["example"] = stated.ids.get(name, 1)
        described.append(member)
    return described


def _header_parameters(endpoint: RegisteredEndpoint) -> list[Schema]:
    headers = []
    if endpoint.checks_version:
        summary = "The ETag of the row as it was read. 412 if the row has changed since."
        headers.append(_header("If-Match", summary, {"type": "string"}))
    if endpoint.idempotent:
        summary = "The same key with the same request gets the first response again, for a day."
        if endpoint.spec.secret:
            summary = "The same key with the same request is 409 `already_done`, for a day."
        schema = {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[ -~]+$"}
        headers.append(_header("Idempotency-Key", summary, schema))
    return headers


def _header(name: str, summary: str, schema: Schema) -> Schema:
    schema = {"examples": [VALUES[name]]} | schema
    return {"name": name, "in": "header", "required": False, "description": summary, "schema": schema}


# --- Examples ------------------------------------------------------------------------------------------

TEXT_EXAMPLES = {"date": "2026-03-02", "date-time": "2026-03-02T09:00:00Z", "uri-reference": "about:blank"}
MAX_EXAMPLE_DEPTH = 3  # deeper lists are empty in examples


def example(schema: Schema, definitions: Schema, name: str = "", depth: int = 0) -> Any:
    """Return an example value of the schema of the member `name`."""
    if "$ref" in schema and not schema.get("examples"):
        return example(definitions[_schema_name(schema)], definitions, name, depth)
    choices = schema.get("anyOf") or schema.get("oneOf") or schema.get("allOf")
    if name in EMPTY and {"type": "null"} in (choices or ()):
        return None
    for keyword in ("examples", "enum"):
        if schema.get(keyword):
            return schema[keyword][0]
    if "const" in schema:
        return schema["const"]
    if choices:
        return example(choices[0], definitions, name, depth)
    kind = schema.get("type")
    if kind == "object":
        members = schema.get("properties", {})
        return {key: example(member, definitions, key, depth + 1) for key, member in members.items()}
    if kind == "array":
        has_element = "items" in schema and depth < MAX_EXAMPLE_DEPTH
        return [example(schema["items"], definitions, name, depth + 1)] if has_element else []
    return _scalar_example(schema, name)


def _scalar_example(schema: Schema, name: str) -> Any:
    """Return the value of the member by its name, if it fits, or else a value of the type."""
    kind = schema.get("type")
    types: dict[str, Any] = {"string": str, "integer": int, "number": (int, float)}
    value = VALUES.get(name)
    if isinstance(value, types.get(str(kind), ())) and "format" not in schema:
        return value
    scalars = {"integer": schema.get("minimum", 1), "number": schema.get("minimum", 1), "boolean": True}
    return scalars.get(str(kind), TEXT_EXAMPLES.get(schema.get("format", ""), "text"))


def body_example(endpoint: RegisteredEndpoint, definitions: Schema) -> Any:
    """Return the example of the body of an endpoint: by default, a body of the required members."""
    stated = example_of(endpoint).body
    if stated is not None:
        return stated
    reference = schema_of(endpoint.spec.body, output=False, definitions=definitions)
    schema = definitions[_schema_name(reference)]
    names = schema.get("required") or list(schema.get("properties", {}))[:1]
    return {name: example(schema["properties"][name], definitions, name) for name in names}


def _schema_name(reference: Schema) -> str:
    name: str = reference["$ref"].rsplit("/", 1)[1]
    return name
