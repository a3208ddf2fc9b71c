"""Requests and responses of messages to patients and of contact preferences."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from enums import MessageChannel, MessageKind, MessageReason, MessageState
from schemas.base import In, OfPatient, Out, patch_model
from schemas.fields import InstantIn, InstantOut


class MessageOut(OfPatient):
    """A message to a patient. Its text is not stored. `reason` explains why it was not sent, or not yet."""

    area: ClassVar[str] = "message"

    id: int
    kind: MessageKind
    channel: MessageChannel
    state: MessageState
    reason: MessageReason | None
    detail: str | None
    recipient: str | None
    locale: str | None
    appointment_id: int | None
    visit_id: int | None
    billing_id: int | None
    appointment_start: InstantOut | None
    send_at: InstantOut
    expires_at: InstantOut
    attempts: int
    provider: str | None
    segments: int | None
    sent_at: InstantOut | None
    delivered_at: InstantOut | None
    created_by_id: int | None
    created_at: InstantOut
    updated_at: InstantOut


class MessageRequest(In):
    """A message about an appointment, sent by hand. Without a channel, the usual one is used."""

    kind: Annotated[
        Literal[MessageKind.BOOKED, MessageKind.MOVED, MessageKind.CANCELLED, MessageKind.REMINDER],
        Field(examples=["reminder"]),
    ] = MessageKind.REMINDER
    channel: Annotated[MessageChannel | None, Field(examples=["sms"])] = None


class _Preferences(In):
    """The channels on which a patient allows messages, and the one that is tried first."""

    email: bool
    sms: bool
    whatsapp: bool
    preferred_channel: MessageChannel | None


ContactPreferencesPatch = patch_model(_Preferences, "ContactPreferencesPatch")


class ContactPreferencesOut(Out):
    """The contact preferences of a patient.

    `stopped` lists the channels on which the owner of the phone number answered STOP. Only START ends that.
    """

    area: ClassVar[str] = "contact_preferences"

    patient_id: int
    email: bool
    sms: bool
    whatsapp: bool
    preferred_channel: MessageChannel | None
    stopped: list[MessageChannel]


class AppointmentAnswer(In):
    """The answer of a patient on the page of an appointment. `start` is the time that the page showed."""

    action: Literal["confirm", "cancel"]
    start: InstantIn | None = None


class Callback(BaseModel):
    """A callback of a gateway, with members of its own."""

    model_config = ConfigDict(extra="allow")
