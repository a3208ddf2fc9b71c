"""Requests and responses of letters."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from enums import LetterType
from schemas.base import In, OfDoctor, OfPatient, Out
from schemas.fields import BirthDateOut, DayIn, DayOut, InstantOut, Line, Note, RequiredLine


class LetterIn(In):
    """A letter of a doctor.

    A sick note needs the period and may have a text. A referral needs a text and a recipient, and has no
    period. A certificate needs a text and may have a period.
    """

    type: Annotated[LetterType, Field(examples=["sick_note"])]
    text: Annotated[
        Note | None, Field(description="The text, with its line breaks.", examples=["Please avoid lifting."])
    ] = None
    from_date: Annotated[DayIn | None, Field(description="The first day of the period.")] = None
    to_date: Annotated[DayIn | None, Field(description="The last day of the period, included.")] = None
    recipient: Annotated[
        Line | None,
        Field(description="Name and address, with line breaks.", examples=["Harbour Freight Ltd"]),
    ] = None


class LetterVoidIn(In):
    """The reason for voiding a letter."""

    reason: Annotated[RequiredLine, Field(examples=["Wrong period"])]


class PrintedMembers(Out):
    """The members of patient, doctor and visit that a letter shows. They stay as they were at its issue."""

    patient_name: str
    file_number: str
    date_of_birth: BirthDateOut | None
    doctor_name: str
    specialty: str
    license_number: str
    visited_on: DayOut


class LetterOut(OfPatient, OfDoctor):
    """A letter. Its status is issued or void."""

    area: ClassVar[str] = "letter"

    id: int
    number: str
    visit_id: int
    type: LetterType
    status: str
    issued_on: DayOut
    from_date: DayOut | None
    to_date: DayOut | None
    recipient: str | None
    text: str | None
    printed: PrintedMembers
    voided_at: InstantOut | None
    void_reason: str | None
    created_at: InstantOut
    updated_at: InstantOut
