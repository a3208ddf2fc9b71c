"""Requests of documents on paper."""

from __future__ import annotations

import re
from datetime import date
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator

from schemas.fields import DayIn, Id, parse_day


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

    type: Annotated[
        Literal["invoice", "receipt", "credit_note"],
        Field(description="The kind of the document. A receipt lists all payments of the bill."),
    ] = "invoice"
    credit_note_id: Annotated[
        Id | None,
        Field(description="The credit note. It is required for `type=credit_note` if the bill has several."),
    ] = None

    @model_validator(mode="after")
    def _check_credit_note(self) -> Self:
        if self.credit_note_id is not None and self.type != "credit_note":
            raise ValueError("credit_note_id: send it together with type=credit_note")
        return self


class StatementQuery(DocumentQuery):
    """An account statement of all days, or of a range of days."""

    start_date: Annotated[
        DayIn | None, Field(description="The first day. Default: the day of the first posting.")
    ] = None
    end_date: Annotated[DayIn | None, Field(description="The last day, included. Default: today.")] = None


def _parse_month(value: Any) -> Any:
    """Return the first day of a month."""
    if not isinstance(value, str) or not re.fullmatch(_MONTH, value):
        raise ValueError("must be a month as YYYY-MM")
    return parse_day(f"{value}-01")


_MONTH = "[0-9]{4}-(0[1-9]|1[0-2])"


class MonthlyReportQuery(DocumentQuery):
    """The report of a month."""

    month: Annotated[
        Annotated[
            date,
            BeforeValidator(_parse_month),
            WithJsonSchema({"type": "string", "pattern": f"^{_MONTH}$", "examples": ["2026-11"]}),
        ]
        | None,
        Field(description="The month. Default: the last complete month."),
    ] = None
