"""The provider for development: it writes messages to the log. In production it logs the reference only."""

from __future__ import annotations

import re

import structlog

from config import settings
from services.messages.providers import OutgoingMessage, Receipt

log = structlog.get_logger()
# A log must not contain the token of a link.
_TOKEN = re.compile(r"(?<=/[au]/)[A-Za-z0-9_-]+")


class LogProvider:
    """Write messages to the log instead of sending them."""

    name = "log"

    def send(self, message: OutgoingMessage) -> Receipt:
        """Log the message. It always succeeds."""
        if settings().production:
            log.info("message", reference=message.reference)
        else:
            text = _TOKEN.sub("...", message.text)
            log.info(
                "message",
                reference=message.reference,
                recipient=message.recipient,
                subject=message.subject,
                text=text,
            )
        return Receipt()
