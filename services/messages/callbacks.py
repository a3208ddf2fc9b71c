"""Callbacks of gateways: delivery receipts, and answers such as STOP.

Gateways name the members of their callbacks differently. The tables below list the names and words that are
understood; docs/messages.md explains them. Everything else is ignored: a gateway repeats a callback that was
not answered with 2xx, so an unknown message is no error.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Iterator, Mapping
from typing import Any

from sqlalchemy import select

from config import settings
from enums import MessageChannel, MessageReason, MessageState
from extensions import db
from models import Message, Patient
from services import clock
from services.audit import audit_log
from services.messages import preferences
from services.patients import phones
from services.rows import for_update
from services.search_key import search_key

MAX_DEPTH = 8  # levels of nested objects that are searched
# Names of members without case, _ and -.
ID_NAMES = ("messageid", "msgid", "messagesid", "smssid", "messageuuid", "smsid", "id", "batchid")
STATUS_NAMES = ("status", "messagestatus", "smsstatus", "deliverystatus", "dlrstatus", "groupname")
SENDER_NAMES = ("from", "sender", "msisdn", "fromnumber", "originator", "waid")
TEXT_NAMES = ("text", "body", "message", "content", "messagebody")
VALUE_NAMES = frozenset((*STATUS_NAMES, *TEXT_NAMES))
VALUE_KEYS = ("groupName", "body", "text")  # of such an object; WhatsApp: {"text": {"body": "STOP"}}
# Words of a status without case, _, - and blanks.
DELIVERED = frozenset(
    "delivered delivrd success successful read deliveredtohandset deliveredtoterminal".split()
)
UNDELIVERED = frozenset(
    "failed failure undelivered undeliverable undeliv notdelivered deliveryfailed rejected rejectd expired "
    "absentsubscriber unsubscribed blocked blacklisted canceled cancelled deleted error invalid".split()
)
# Answers, as search keys: without case and accents.
STOP_WORDS = frozenset(
    map(
        search_key,
        (
            *("STOP", "STOPALL", "STOP ALL", "UNSUBSCRIBE", "QUIT", "END", "OPT OUT", "OPTOUT"),
            *("REVOKE", "CANCEL"),  # of American law too: 47 CFR 64.1200(a)(10)
            *("ACHA", "SIMAMA", "SIMAMISHA", "SITISHA", "KOMESHA"),
            *("ARRET", "ARRÊT", "ARRETER", "ARRÊTER", "DESABONNER", "DÉSABONNEMENT"),
            *("توقف", "أوقف", "اوقف", "إيقاف", "ايقاف", "قف", "إلغاء الاشتراك", "الغاء الاشتراك"),
            *("ALTO", "PARAR", "BAJA", "DETENER", "CANCELAR SUSCRIPCION"),
            *("PARE", "PARA", "SAIR", "CANCELAR INSCRICAO"),
        ),
    )
)
START_WORDS = frozenset(
    map(
        search_key,
        (
            *("START", "UNSTOP", "SUBSCRIBE", "OPT IN", "OPTIN"),
            *("ANZA", "ANZISHA"),
            *("DEBUT", "DÉBUT", "DEMARRER", "DÉMARRER", "COMMENCER"),
            *("ابدأ", "ابدا", "اشتراك", "بدء"),
            *("INICIAR", "INICIO", "EMPEZAR", "ALTA"),
            *("COMEÇAR", "INICIAR", "VOLTAR"),
        ),
    )
)
# A receipt may arrive before the result of the call is stored, and receipts may arrive in any order.
BEFORE_RECEIPT = (MessageState.SENDING, MessageState.SENT, MessageState.UNKNOWN, MessageState.FAILED)


def is_genuine(channel: MessageChannel, secret: str) -> bool:
    """Return True if the secret of the path is the one in the settings. The time does not depend on it."""
    expected = getattr(settings(), f"{channel}_callback_secret", None)
    return bool(expected) and hmac.compare_digest(str(expected).encode(), secret.encode())


def receive(channel: MessageChannel, body: Mapping[str, Any]) -> None:
    """Apply every delivery receipt and every STOP or START in a callback."""
    for members in _objects(body, MAX_DEPTH):
        sender, text = _first(members, SENDER_NAMES), _first(members, TEXT_NAMES)
        if sender is not None and text is not None:
            _receive_answer(channel, sender, text)
            continue
        message_id, status = _first(members, ID_NAMES), _first(members, STATUS_NAMES)
        if message_id is not None and status is not None:
            _receive_receipt(channel, message_id, status)


def _objects(value: Any, depth: int) -> Iterator[dict[str, Any]]:
    """Yield each object in the body, with its names in plain form. Objects that are a value are no objects.

    Such a value is the status of Infobip, `{"status": {"groupName": "DELIVERED", "id": 5}}`.
    """
    if depth <= 0:
        return
    if isinstance(value, Mapping):
        members = {_plain(name): part for name, part in value.items()}
        yield members
        parts = [part for name, part in members.items() if name not in VALUE_NAMES]
    else:
        parts = value if isinstance(value, list) else []
    for part in parts:
        yield from _objects(part, depth - 1)


def _plain(text: str) -> str:
    return re.sub(r"[\s_-]", "", text).lower()


def _first(members: Mapping[str, Any], names: tuple[str, ...]) -> str | None:
    for name in names:
        value = members.get(name)
        if isinstance(value, Mapping):
            value = next((value[key] for key in VALUE_KEYS if key in value), None)
        if isinstance(value, (str, int)) and not isinstance(value, bool) and str(value).strip():
            return str(value)
    return None


# --- Receipts ------------------------------------------------------------------------------------------


def _receive_receipt(channel: MessageChannel, message_id: str, status: str) -> None:
    word = _plain(status)
    if word not in DELIVERED | UNDELIVERED:
        return  # on its way
    statement = select(Message).where(Message.channel == channel, Message.provider_message_id == message_id)
    for message in db.session.scalars(for_update(statement.order_by(Message.id))):
        if message.state not in BEFORE_RECEIPT:
            continue
        if word in DELIVERED:
            message.state, message.reason = MessageState.DELIVERED, None
            message.delivered_at = clock.now()
            message.sent_at = message.sent_at or clock.now()
            audit_log.set_action(message, "deliver")
        elif message.state is not MessageState.FAILED:
            message.state, message.reason = MessageState.FAILED, MessageReason.UNDELIVERED
            message.detail = word[:100]
            audit_log.set_action(message, "fail")


# --- Answers -------------------------------------------------------------------------------------------


def _receive_answer(channel: MessageChannel, sender: str, text: str) -> None:
    number = sender_number(sender)
    if number is None:
        return
    answer = " ".join(re.sub(r"[^\w\s]", " ", search_key(text[:200])).split())
    if answer in STOP_WORDS:
        preferences.stop(channel, number)
    elif answer in START_WORDS:
        preferences.start(channel, number)


def sender_number(text: str) -> str | None:
    """Return the E.164 form of a sender, that of a patient if it has several.

    Gateways leave out the `+` of international numbers, which then look like national ones.
    """
    text = text.strip().removeprefix("whatsapp:")
    candidates = [phones.e164(text)]
    if text.isdecimal() and not text.startswith("0"):
        candidates.append(phones.e164(f"+{phones.digits(text)}"))
    numbers = [number for number in candidates if number is not None]
    statement = select(Patient.phone_e164).where(Patient.phone_e164.in_(numbers)).limit(1)
    return db.session.scalar(statement) or next(iter(numbers), None)
