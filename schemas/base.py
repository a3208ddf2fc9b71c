"""Base classes of request and response models."""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

from pydantic import MISSING, AliasPath, BaseModel, ConfigDict, Field, create_model
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

    `null` is valid only where the body allows it. `without` are members that only a creation has.
    """
    members: dict[str, Any] = {
        key: (Annotated[field.rebuild_annotation(), _documentation(field)] | MISSING, MISSING)
        for key, field in model.model_fields.items()
        if key not in without
    }
    config = ConfigDict(**model.model_config)
    config.pop("json_schema_extra", None)  # required members of a creation
    return create_model(name, __config__=config, __doc__=model.__doc__, **members)  # type: ignore[no-any-return]


def _documentation(field: FieldInfo) -> FieldInfo:
    """Return the documentation of a field, which `rebuild_annotation` loses."""
    documentation: FieldInfo = Field(
        examples=field.examples, description=field.description, json_schema_extra=field.json_schema_extra
    )
    return documentation


def require_any(*names: str) -> dict[str, Any]:
    """Return the JSON Schema that requires one of these members with a value other than null.

    It documents a rule. The service checks it.
    """
    return {
        "anyOf": [{"required": [name], "properties": {name: {"not": {"type": "null"}}}} for name in names]
    }


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
