"""Requests of documents on paper."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class DocumentQuery(BaseModel):
    """Language and paper of a document."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    locale: Annotated[
        str | None,
        Field(
            max_length=35,
            description="The language (en, sw, fr, ar, es, pt), also with a country as in `en_KE`. "
            "Default: the language of the patient, then that of the clinic.",
        ),
    ] = None
    paper: Annotated[
        Literal["a4", "a5", "letter"] | None,
        Field(description="The paper. Default: the usual one of the country."),
    ] = None


class BillingDocumentQuery(DocumentQuery):
    """A document of a bill."""

    type: Annotated[Literal["invoice"], Field(description="The kind of the document.")] = "invoice"
