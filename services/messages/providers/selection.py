"""The provider of each channel, by the settings."""

from __future__ import annotations

from config import settings
from enums import MessageChannel
from services.messages.providers import Provider
from services.messages.providers.http import HttpProvider
from services.messages.providers.log import LogProvider
from services.messages.providers.smtp import SmtpProvider


def provider_of(channel: MessageChannel) -> Provider:
    """Return the provider of a channel. Without a mail server or a gateway, messages are only logged."""
    if channel is MessageChannel.EMAIL:
        server = settings().mail_server
        return LogProvider() if server is None else SmtpProvider(server)
    gateway = settings().gateway(channel.value)
    return LogProvider() if gateway is None else HttpProvider(gateway)
