"""Endpoints of messages to patients, of contact preferences, and of the callbacks of gateways."""

from __future__ import annotations

from dataclasses import replace

from pydantic import BaseModel

from api.body_format import FORM, BodyFormat
from api.endpoint import endpoint
from api.request_context import current_actor, set_actor, visitor
from api.resource import ApiResource
from api.serialization import EndpointResult, Serializer
from enums import MessageChannel
from errors import not_found
from models import Appointment, ContactPreferences, Message
from schemas.base import Message as Notice
from schemas.message import (
    Callback,
    ContactPreferencesOut,
    ContactPreferencesPatch,
    MessageOut,
    MessageRequest,
)
from security.permissions import Permission
from services.listing.spec import ListQuery, Page
from services.messages import callbacks, messages, preferences
from services.scheduling import appointments

MESSAGE = Serializer(MessageOut, entity="message")
PREFERENCES = Serializer(
    ContactPreferencesOut, computed_fields=preferences.add_computed_fields, entity="contact_preferences"
)
CALLBACK = BodyFormat((FORM, "application/json"), 64 * 1024)


class MessageList(ApiResource):
    """Route `/messages`."""

    @endpoint(Permission.MESSAGES_READ, list_spec=messages.LIST, returns=MESSAGE)
    def get(self, query: ListQuery) -> Page[Message]:
        """List messages to patients. `start_date` and `end_date` limit the time of sending."""
        return messages.find(current_actor(), query)


class MessageItem(ApiResource):
    """Route `/messages/<message_id>`."""

    @endpoint(Permission.MESSAGES_READ, load=messages.get, returns=MESSAGE)
    def get(self, row: Message) -> Message:
        """Show a message to a patient."""
        return row


class MessageCancel(ApiResource):
    """Route `/messages/<message_id>/cancel`."""

    @endpoint(Permission.MESSAGES_WRITE, load=messages.get, returns=MESSAGE, errors=("invalid_transition",))
    def post(self, row: Message) -> Message:
        """Cancel a queued message."""
        return messages.cancel(row)


class AppointmentMessages(ApiResource):
    """Route `/appointments/<appointment_id>/messages`."""

    @endpoint(
        Permission.MESSAGES_WRITE,
        load=appointments.get,
        body=MessageRequest,
        returns=MESSAGE,
        status=201,
        errors=("conflict", "patient_inactive", "already_done"),
    )
    def post(self, row: Appointment, data: MessageRequest) -> EndpointResult:
        """Send a message about an appointment now, or when the quiet hours end.

        The response says if the message is queued, or suppressed because the patient has no address or does
        not allow it.
        """
        message = messages.send_now(current_actor(), row, kind=data.kind, channel=data.channel)
        return EndpointResult(message, headers={"Location": f"/messages/{message.id}"})


class PatientContactPreferences(ApiResource):
    """Route `/patients/<patient_id>/contact-preferences`."""

    @endpoint(Permission.MESSAGES_READ, load=preferences.get, returns=PREFERENCES)
    def get(self, row: ContactPreferences) -> ContactPreferences:
        """Show the channels on which a patient allows messages."""
        return row

    @endpoint(
        Permission.MESSAGES_WRITE, load=preferences.get, body=ContactPreferencesPatch, returns=PREFERENCES
    )
    def patch(self, row: ContactPreferences, data: BaseModel) -> ContactPreferences:
        """Change the channels on which a patient allows messages."""
        return preferences.update(current_actor(), row, **data.model_dump())


class MessageCallback(ApiResource):
    """Route `/messages/callbacks/<provider>/<secret>`."""

    @endpoint(Permission.PUBLIC, body=Callback, accepts=CALLBACK, returns=Notice)
    def post(self, provider: str, secret: str, data: Callback) -> dict[str, str]:
        """Receive delivery receipts and answers such as STOP from the gateway of `sms` or `whatsapp`."""
        channel = MessageChannel(provider) if provider in preferences.PHONE_CHANNELS else None
        if channel is None or not callbacks.is_genuine(channel, secret):
            raise not_found("callback")
        set_actor(replace(visitor(), name="gateway"))
        callbacks.receive(channel, data.model_dump())
        return {"message": "The callback was received."}
