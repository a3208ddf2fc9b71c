"""Base classes of request and response models."""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

from pydantic import MISSING, AliasPath, BaseModel, ConfigDict, Field, create_model
from pydantic.fields import FieldInfo


class In(BaseModel):
    """A body. A member that the resource does not have is an error."""

    model_config = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True)


class Out(BaseModel):
    """An answer, read from a row's attributes. `area` names its line in `security.permissions.HIDDEN`."""

    model_config = ConfigDict(from_attributes=True)


Body = TypeVar("Body", bound=BaseModel)


def partial(model: type[Body], name: str, *, without: frozenset[str] = frozenset()) -> type[Body]:
    """The merge-patch form of a body: every member optional, `null` allowed only where it was.

    Defaults are dropped: an absent member is unchanged. `without` names members that only a creation has.
    """
    members: dict[str, Any] = {
        key: (Annotated[field.rebuild_annotation(), _told(field)] | MISSING, MISSING)
        for key, field in model.model_fields.items()
        if key not in without
    }
    config = ConfigDict(**model.model_config)
    config.pop("json_schema_extra", None)  # says what a creation needs
    return create_model(name, __config__=config, __doc__=model.__doc__, **members)  # type: ignore[no-any-return]


def _told(field: FieldInfo) -> FieldInfo:
    """What a rebuilt annotation has lost: the words for the documents."""
    found: FieldInfo = Field(
        examples=field.examples, description=field.description, json_schema_extra=field.json_schema_extra
    )
    return found


def given(*names: str) -> dict[str, Any]:
    """For the documents: at least one of these members has to be there, and not null."""
    return {
        "anyOf": [{"required": [name], "properties": {name: {"not": {"type": "null"}}}} for name in names]
    }


# --- Parts of responses --------------------------------------------------------------------------------


class PersonRef(Out):
    """A neighbour by id and name."""

    id: int
    name: str


class DoctorRef(Out):
    """A doctor as another row's neighbour."""

    id: int
    name: str
    specialty: str


class OfPatient(Out):
    """A row that belongs to a patient, whom it names flat and nested."""

    patient_id: int
    patient_name: str = Field(validation_alias=AliasPath("patient", "name"))
    patient: PersonRef


class OfDoctor(Out):
    """A row that belongs to a doctor, whom it names flat and nested."""

    doctor_id: int
    doctor_name: str = Field(validation_alias=AliasPath("doctor", "name"))
    doctor: DoctorRef


class Message(Out):
    """A plain sentence."""

    message: str
