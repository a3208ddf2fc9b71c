"""The JSON Schemas, parameters and examples of what endpoints take and answer, for the documents."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core.core_schema import ModelSchema

from api.docs.registry import Entry
from api.endpoint import EndpointSpec
from api.list_query import MAX_TEXT
from api.serialization import Serializer
from enums import Role
from schemas.fields import MAX_ID
from security.permissions import hidden
from services.listing.spec import MAX_PER_PAGE, Kind, ListSpec

REF = "#/components/schemas/{model}"
Schema = dict[str, Any]
PAGES = ("page", "per_page", "total_count", "total_pages")
COMMON: Schema = {  # what no class of ours stands for
    "Pagination": {
        "type": "object",
        "properties": {name: {"type": "integer"} for name in PAGES},
        "required": list(PAGES),
    }
}

# --- Schemas -------------------------------------------------------------------------------------------


class DocumentedSchema(GenerateJsonSchema):
    """pydantic's JSON Schema, without titles that repeat the names, and with what each role does not see."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False

    def model_schema(self, schema: ModelSchema) -> JsonSchemaValue:
        found = super().model_schema(schema)
        area = getattr(schema["cls"], "area", "")
        absent = {
            name: [role.value for role in Role if name in hidden(area, role)]
            for name in found.get("properties", {})
        }
        for name, roles in absent.items():
            if roles and name in found.get("required", []):
                found["required"].remove(name)
                found["properties"][name] = {
                    **found["properties"][name],
                    "description": f"Absent for {' and '.join(roles)}.",
                }
        return found


def schema_of(kind: Any, *, output: bool, definitions: Schema) -> Schema:
    """The JSON Schema of a type, its parts put into `definitions`."""
    schema = TypeAdapter(kind).json_schema(
        mode="serialization" if output else "validation",
        ref_template=REF,
        schema_generator=DocumentedSchema,
        union_format="any_of",
    )
    found = schema.pop("$defs", {})
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        found[kind.__name__] = schema
        schema = {"$ref": REF.format(model=kind.__name__)}
    for name, part in found.items():
        if definitions.setdefault(name, part) != part:
            raise TypeError(f"two schemas are called {name}")
    return schema


def answer_schema(operation: EndpointSpec, definitions: Schema) -> Schema:
    """What a success answers."""
    returns = operation.returns
    if returns is None:
        return {"type": "object"}
    row = schema_of(
        returns.out if isinstance(returns, Serializer) else returns, output=True, definitions=definitions
    )
    if operation.lists is None:
        return {"type": "array", "items": row} if operation.many else row
    rows = {"type": "array", "items": row}
    if not operation.search:
        return rows
    return {
        "type": "object",
        "properties": {
            operation.lists.name: rows,
            "pagination": {"$ref": REF.format(model="Pagination")},
            "search_params": {"type": "object", "description": "The query, as it was read."},
        },
        "required": [operation.lists.name, "pagination", "search_params"],
    }


# --- Parameters ----------------------------------------------------------------------------------------

AMOUNT = {"type": "string", "pattern": r"^-?[0-9]{1,10}(\.[0-9]{1,2})?$", "examples": ["125.00"]}
DAY = {"type": "string", "format": "date", "examples": ["2026-03-02"]}
INSTANT = {"type": "string", "format": "date-time", "examples": ["2026-03-02T09:00:00Z"]}
MOMENT = {"anyOf": [DAY, INSTANT]}
KIND_SCHEMAS: dict[Kind, Schema] = {
    Kind.ID: {"type": "integer", "minimum": 0, "maximum": MAX_ID, "examples": [1]},
    Kind.INTEGER: {"type": "integer", "minimum": -MAX_ID, "maximum": MAX_ID},
    Kind.BOOLEAN: {"type": "boolean"},
    Kind.TEXT: {"type": "string", "maxLength": MAX_TEXT},
    Kind.DAY: DAY,
    Kind.INSTANT: MOMENT,
    Kind.MONEY: AMOUNT,
    Kind.DECIMAL: AMOUNT,
}
PAGING: dict[str, tuple[Schema, str]] = {
    "page": ({"type": "integer", "minimum": 1, "maximum": 10_000_000}, "Which page, from 1."),
    "per_page": (
        {"type": "integer", "minimum": 1, "maximum": MAX_PER_PAGE, "default": 20},
        "Rows on a page.",
    ),
    "sort_order": ({"type": "string", "enum": ["asc", "desc"], "default": "asc"}, "Which way to sort."),
    "after": (
        {"type": "integer", "minimum": 0, "maximum": MAX_ID},
        "Rows with a greater id, by id: for steady walks.",
    ),
}
SEARCHED: dict[str, tuple[Schema, str]] = {
    "q": (KIND_SCHEMAS[Kind.TEXT], "Words in names and numbers."),
}
BOUNDS: dict[str, tuple[Schema, str]] = {
    "start_date": (MOMENT, "From here on, by the list's main date."),
    "end_date": (MOMENT, "To here, by the list's main date: a date is included, a date-time is not."),
}
SHARED = PAGING | SEARCHED | BOUNDS


def parameters(entry: Entry) -> list[Schema]:
    """Everything an endpoint takes beside its body, as OpenAPI parameters."""
    return [*_path_parameters(entry), *query_parameters(entry.operation), *_header_parameters(entry)]


def query_parameters(operation: EndpointSpec) -> list[Schema]:
    """The query string an endpoint takes."""
    if operation.lists is not None:
        return _list_parameters(operation.lists)
    if operation.params is None:
        return []
    schema = operation.params.model_json_schema(schema_generator=DocumentedSchema)
    definitions = schema.get("$defs", {})
    return [
        parameter(
            name,
            _inlined(member, definitions),
            member.get("description", ""),
            required=name in schema.get("required", []),
        )
        for name, member in schema["properties"].items()
    ]


def _inlined(member: Schema, definitions: Schema) -> Schema:
    """A parameter's schema with its parts in place, and without null, which a query string cannot say."""
    if "$ref" in member:
        told = definitions[member["$ref"].rsplit("/", 1)[1]]
        return {name: value for name, value in told.items() if name not in ("title", "description")}
    found = {name: value for name, value in member.items() if name != "description"}
    if found.get("default", ...) is None:
        del found["default"]
    choices = [_inlined(one, definitions) for one in found.pop("anyOf", []) if one.get("type") != "null"]
    if len(choices) == 1:
        return choices[0] | found
    return {"anyOf": choices} | found if choices else found


def _list_parameters(listing: ListSpec[Any]) -> list[Schema]:
    found = [parameter(name, *told) for name, told in PAGING.items()]
    sortable = {"type": "string", "enum": sorted(listing.columns), "default": "id"}
    found.append(parameter("sort_by", sortable, "Which column to sort by; ties are broken by id."))
    if listing.text is not None:
        found += [parameter(name, *told) for name, told in SEARCHED.items()]
    if listing.main_date is not None:
        found += [parameter(name, *told) for name, told in BOUNDS.items()]
    for name, (kind, _column, values) in sorted(listing.columns.items()):
        if name in listing.filters or (name in BOUNDS and listing.main_date is not None):
            continue
        suffixes = ["_ne", "_gte", "_lte"] + ["_like"] * (kind is Kind.TEXT)
        told = f"Equal to this, or to one of several; also {', '.join(name + end for end in suffixes)}."
        found.append(parameter(name, _kind_schema(kind, values), told + _kept_from(listing, name)))
    for name, wanted in sorted(listing.filters.items()):
        told = wanted.summary + _kept_from(listing, wanted.guards or name)
        found.append(parameter(name, _kind_schema(wanted.kind, wanted.values), told))
    return found


def _kind_schema(kind: Kind, values: tuple[str, ...]) -> Schema:
    return {"type": "string", "enum": list(values)} if values else KIND_SCHEMAS[kind]


def _kept_from(listing: ListSpec[Any], name: str) -> str:
    roles = [role.value for role in Role if name in hidden(listing.area, role)]
    return f" Not for {' and '.join(roles)}: 403." if roles else ""


def parameter(name: str, schema: Schema, summary: str, *, required: bool = False) -> Schema:
    """One parameter of a query string."""
    return {"name": name, "in": "query", "required": required, "description": summary, "schema": schema}


def _path_parameters(entry: Entry) -> list[Schema]:
    schema = {"type": "integer", "minimum": 1, "maximum": MAX_ID, "examples": [1]}
    return [
        {
            "name": name,
            "in": "path",
            "required": True,
            "description": f"The id of the {name.removesuffix('_id').replace('_', ' ')}.",
            "schema": schema,
        }
        for name in entry.path_ids
    ]


def _header_parameters(entry: Entry) -> list[Schema]:
    found = []
    if entry.versioned:
        told = "The ETag that was read, where the row has one: 412 where it has changed since."
        found.append(_header("If-Match", told, {"type": "string", "examples": ['"1"']}))
    if entry.idempotent:
        told = "The same key and request get the first answer again, for a day."
        schema = {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[ -~]+$"}
        found.append(_header("Idempotency-Key", told, schema))
    return found


def _header(name: str, summary: str, schema: Schema) -> Schema:
    return {"name": name, "in": "header", "required": False, "description": summary, "schema": schema}


# --- Examples ------------------------------------------------------------------------------------------

TEXTS = {"date": "2026-03-02", "date-time": "2026-03-02T09:00:00Z", "email": "john@example.com"}


DEEP = 3  # below this a list's example is empty


def example(schema: Schema, definitions: Schema, depth: int = 0) -> Any:
    """A plausible value of a schema, for readers of the documents."""
    if "$ref" in schema and not schema.get("examples"):
        return example(definitions[schema["$ref"].rsplit("/", 1)[1]], definitions, depth)
    for given in ("examples", "enum"):
        if schema.get(given):
            return schema[given][0]
    if "const" in schema:
        return schema["const"]
    choices = schema.get("anyOf") or schema.get("oneOf") or schema.get("allOf")
    if choices:
        return example(choices[0], definitions, depth)
    kind = schema.get("type")
    if kind == "object":
        members = schema.get("properties", {})
        return {name: example(member, definitions, depth + 1) for name, member in members.items()}
    if kind == "array":
        filled = "items" in schema and depth < DEEP
        return [example(schema["items"], definitions, depth + 1)] if filled else []
    if kind == "string":
        return TEXTS.get(schema.get("format", ""), "text"[: schema.get("maxLength", 4)])
    numbers = {"integer": schema.get("minimum", 1), "number": schema.get("minimum", 1), "boolean": True}
    return numbers.get(str(kind))


def body_example(body: type[BaseModel], definitions: Schema) -> Any:
    """What to send: the body's own example, else the smallest one, of what it requires."""
    schema = definitions[schema_of(body, output=False, definitions=definitions)["$ref"].rsplit("/", 1)[1]]
    if schema.get("examples"):
        return schema["examples"][0]
    names = schema.get("required") or list(schema.get("properties", {}))[:1]
    return {name: example(schema["properties"][name], definitions) for name in names}
