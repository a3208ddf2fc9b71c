"""Requests and responses of the clinic record."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field, StringConstraints

from schemas.base import In, Out, patch_model
from schemas.fields import Email, InstantOut, Line, LocaleName, Name, Phone, Short, Website, clean

MAX_PHONES = 10
MAX_NOTE = 2_000  # characters of a text on invoices
InvoiceNote = Annotated[str, StringConstraints(max_length=MAX_NOTE), clean(MAX_NOTE)]


class ClinicIn(In):
    """The clinic. The currency and the time zone are settings of the server."""

    name: Annotated[Name, Field(examples=["Lakeside Clinic"])]
    legal_name: Name | None = None
    address: Line | None = None
    phones: Annotated[list[Phone], Field(max_length=MAX_PHONES, default_factory=list)]
    email: Email | None = None
    website: Website | None = None
    registration_number: Short | None = None
    tax_number: Short | None = None
    bank_details: InvoiceNote | None = None
    invoice_footer: InvoiceNote | None = None
    locale: LocaleName | None = None


ClinicPatch = patch_model(ClinicIn, "ClinicPatch")


class ClinicOut(Out):
    """The clinic. `logo` is the path of the picture. Members that the role may not see are absent."""

    area: ClassVar[str] = "clinic"

    name: str
    legal_name: str | None
    address: str | None
    phones: list[str]
    phones_e164: list[str | None]
    email: str | None
    website: str | None
    logo: str | None = Field(validation_alias="logo_path")
    registration_number: str | None
    tax_number: str | None = None
    bank_details: str | None = None
    invoice_footer: str | None
    locale: str
    currency: str
    timezone: str
    created_at: InstantOut
    updated_at: InstantOut
