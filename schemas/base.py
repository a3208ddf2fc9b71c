"""Base classes of request and response models."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

from pydantic import (
    MISSING,
    AfterValidator,
    AliasChoices,
    AliasPath,
    BaseModel,
    ConfigDict,
    Field,
    create_model,
)
from pydantic.fields import FieldInfo


class In(BaseModel):
    """A request body or query. Unknown members are errors. JSON types are strict."""

    model_config = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True)


class Out(BaseModel):
    """A response, read from the attributes of a row. `area` is its key in `security.permissions.HIDDEN`."""

    model_config = ConfigDict(from_attributes=True)


Body = TypeVar("Body", bound=BaseModel)


def patch_model(model: type[Body], name: str, *, without: frozenset[str] = frozenset()) -> type[Body]:
    """Return the merge-patch form of a body (RFC 7396). All members are optional and have no default.

    `null` is valid only where the body allows it, and for a list that may be empty: it empties the list.
    `without` are members that only a creation has.
    """
    members: dict[str, Any] = {
        key: (Annotated[_annotation(field), _documentation(field)] | MISSING, MISSING)
        for key, field in model.model_fields.items()
        if key not in without
    }
    config = ConfigDict(**model.model_config)
    config.pop("json_schema_extra", None)  # required members of a creation
    return create_model(name, __config__=config, __doc__=model.__doc__, **members)  # type: ignore[no-any-return]


def _annotation(field: FieldInfo) -> Any:
    annotation = field.rebuild_annotation()
    if field.default_factory is list:
        return Annotated[annotation | None, AfterValidator(_read_empty_list)]
    return annotation


def _read_empty_list(value: Any) -> Any:
    return [] if value is None else value


def _documentation(field: FieldInfo) -> FieldInfo:
    """Return the documentation of a field, which `rebuild_annotation` loses."""
    documentation: FieldInfo = Field(
        examples=field.examples, description=field.description, json_schema_extra=field.json_schema_extra
    )
    return documentation


def require_any(*choices: str | tuple[str, ...]) -> dict[str, Any]:
    """Return the JSON Schema that requires one of these members with a value other than null.

    A choice may also be several members together. It documents a rule. The service checks it.
    """
    groups = [(choice,) if isinstance(choice, str) else choice for choice in choices]
    return {
        "anyOf": [
            {"required": [*names], "properties": {name: {"not": {"type": "null"}} for name in names}}
            for names in groups
        ]
    }


def missing_choices(model: type[BaseModel], members: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield path and problem of each member that a rule "one of these" needs, also in nested objects.

    The members are those of the first choice. The services check the same rules; this names the members
    together with the other ones that are missing.
    """
    extra: Any = model.model_config.get("json_schema_extra") or {}
    choices: list[list[str]] = [choice["required"] for choice in extra.get("anyOf", ())]
    missing = [[name for name in names if members.get(name) in (None, [])] for names in choices]
    if missing and all(missing):
        others = " or ".join(" and ".join(names) for names in choices[1:])
        yield from ((name, f"is required without {others}") for name in missing[0])
    for name, nested in nested_models(model).items():
        value = members.get(name)
        for number, element in enumerate(value if isinstance(value, list) else [value]):
            if isinstance(element, dict):
                path = f"{name}.{number}" if isinstance(value, list) else name
                yield from ((f"{path}.{inner}", text) for inner, text in missing_choices(nested, element))


# --- Members of a model --------------------------------------------------------------------------------


@cache
def accepted_members(model: type[BaseModel]) -> dict[str, FieldInfo]:
    """Return the fields of a request body by the names of their members, aliases included."""
    members: dict[str, FieldInfo] = {}
    for name, field in model.model_fields.items():
        alias = field.validation_alias
        choices = alias.choices if isinstance(alias, AliasChoices) else [name]
        members |= {str(choice): field for choice in choices}
    return members


@cache
def shown_members(model: type[BaseModel]) -> frozenset[str]:
    """Return the names of the members of a response."""
    return frozenset(model.model_fields) | frozenset(model.model_computed_fields)


@cache
def nested_models(model: type[BaseModel]) -> dict[str, type[BaseModel]]:
    """Return the models of the members that hold an object or a list of objects."""
    models = {name: _model_in(field.annotation) for name, field in model.model_fields.items()}
    return {name: nested for name, nested in models.items() if nested is not None}


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(_model_in, get_args(annotation))), None)


@cache
def nullable_members(model: type[BaseModel]) -> frozenset[str]:
    """Return the names of the members of a request body that may be null."""
    members = accepted_members(model)
    return frozenset(name for name, field in members.items() if _allows_null(field.annotation))


def _allows_null(annotation: Any) -> bool:
    if get_origin(annotation) is Annotated:
        return _allows_null(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return any(map(_allows_null, get_args(annotation)))
    return annotation is type(None)


# --- Parts of responses --------------------------------------------------------------------------------


class PersonRef(Out):
    """A reference to a person: id and name."""

    id: int
    name: str


class DoctorRef(Out):
    """A reference to a doctor: id, name and specialty."""

    id: int
    name: str
    specialty: str


class OfPatient(Out):
    """The patient of a row, as flat members and as an object."""

    patient_id: int
    patient_name: str = Field(validation_alias=AliasPath("patient", "name"))
    patient: PersonRef


class OfDoctor(Out):
    """The doctor of a row, as flat members and as an object."""

    doctor_id: int
    doctor_name: str = Field(validation_alias=AliasPath("doctor", "name"))
    doctor: DoctorRef


class Message(Out):
    """A message for the user."""

    message: str


class CodeWarning(Out):
    """A warning about an ICD-10-CM code: `not_billable` for a header with more specific codes."""

    code: str
    message: str
    icd10: str
