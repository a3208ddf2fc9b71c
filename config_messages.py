"""Settings of messages to patients: mail server, gateways of SMS and WhatsApp, and their callbacks."""

from __future__ import annotations

import json
import re
from email.headerregistry import Address
from email.utils import parseaddr
from functools import cached_property
from typing import Any, Literal
from urllib.parse import parse_qsl, unquote, urlsplit

from pydantic import BaseModel, ValidationInfo, field_validator

ProviderName = Literal["log", "http"]
MIN_CALLBACK_SECRET = 32  # characters: the secret is a part of the URL of the callback
SMTP_PORTS = {"smtp": 587, "smtps": 465}
PLACEHOLDERS = ("to", "to_digits", "text", "id")
_PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_ID_PATH = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")
GATEWAY_FIELDS = {
    name: tuple(f"{channel}_{name}" for channel in ("sms", "whatsapp"))
    for name in ("provider", "http_url", "http_headers", "http_body", "http_id_path", "callback_secret")
}


class MailServer(BaseModel):
    """The mail server of `SMTP_URL`."""

    host: str
    port: int
    implicit_tls: bool
    user: str | None
    password: str | None


class Gateway(BaseModel):
    """The request that sends a message through an HTTP gateway, and the path of the message id in its answer.

    `body` is a JSON object, or the fields of a form. Its texts contain placeholders such as `{to}`.
    """

    url: str
    headers: dict[str, str]
    body: dict[str, Any]
    is_form: bool
    id_path: tuple[str, ...]


class DeliverySettings(BaseModel):
    """The settings of messages. They do not depend on the environment."""

    smtp_url: str | None = None  # unset: e-mail is only logged
    mail_from: str | None = None
    sms_provider: ProviderName = "log"
    sms_http_url: str | None = None
    sms_http_headers: str | None = None
    sms_http_body: str | None = None
    sms_http_id_path: str | None = None
    sms_callback_secret: str | None = None
    whatsapp_provider: ProviderName = "log"
    whatsapp_http_url: str | None = None
    whatsapp_http_headers: str | None = None
    whatsapp_http_body: str | None = None
    whatsapp_http_id_path: str | None = None
    whatsapp_callback_secret: str | None = None

    @cached_property
    def mail_server(self) -> MailServer | None:
        """Return the mail server, or None without `SMTP_URL`."""
        return None if self.smtp_url is None else _read_smtp_url(self.smtp_url)

    @cached_property
    def sender(self) -> Address:
        """Return name and address of the sender of e-mail. The name is empty if `MAIL_FROM` has none."""
        return _read_sender(self.mail_from or "clinic@localhost")

    def gateway(self, channel: str) -> Gateway | None:
        """Return the HTTP gateway of `sms` or `whatsapp`, or None if its messages are only logged."""
        if getattr(self, f"{channel}_provider") != "http":
            return None
        headers = _read_headers(getattr(self, f"{channel}_http_headers") or "{}")
        body, is_form = _read_body(getattr(self, f"{channel}_http_body"))
        path = getattr(self, f"{channel}_http_id_path")
        return Gateway(
            url=getattr(self, f"{channel}_http_url"),
            headers=headers,
            body=body,
            is_form=is_form,
            id_path=tuple(path.split(".")) if path else (),
        )

    @field_validator("smtp_url")
    @classmethod
    def _check_smtp_url(cls, value: str | None) -> str | None:
        if value is not None:
            _read_smtp_url(value)
        return value

    @field_validator("mail_from")
    @classmethod
    def _check_mail_from(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is None:
            if info.data.get("smtp_url") is not None:
                raise ValueError("required with SMTP_URL, such as clinic@example.com")
            return None
        _read_sender(value)
        return value

    @field_validator(*GATEWAY_FIELDS["provider"], mode="before")
    @classmethod
    def _read_provider(cls, value: Any) -> Any:
        return value.strip().lower() if isinstance(value, str) else value

    @field_validator(*GATEWAY_FIELDS["http_url"])
    @classmethod
    def _check_gateway_url(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is None:
            _require_for_http(info)
            return None
        _http_url(value, "write the address of the gateway, such as https://gateway.example/send")
        return value

    @field_validator(*GATEWAY_FIELDS["http_headers"])
    @classmethod
    def _check_headers(cls, value: str | None) -> str | None:
        if value is not None:
            _read_headers(value)
        return value

    @field_validator(*GATEWAY_FIELDS["http_body"])
    @classmethod
    def _check_body(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is None:
            _require_for_http(info)
            return None
        _read_body(value)
        return value

    @field_validator(*GATEWAY_FIELDS["http_id_path"])
    @classmethod
    def _check_id_path(cls, value: str | None) -> str | None:
        if value is not None and not _ID_PATH.fullmatch(value):
            raise ValueError("write names and positions with dots, such as messages.0.id")
        return value

    @field_validator(*GATEWAY_FIELDS["callback_secret"])
    @classmethod
    def _check_callback_secret(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(rf"[A-Za-z0-9_-]{{{MIN_CALLBACK_SECRET},200}}", value):
            raise ValueError(f"use {MIN_CALLBACK_SECRET} to 200 random letters, digits, - and _")
        return value


def _require_for_http(info: ValidationInfo) -> None:
    channel = str(info.field_name).split("_", 1)[0]
    if info.data.get(f"{channel}_provider") == "http":
        raise ValueError(f"required with {channel.upper()}_PROVIDER=http")


def _http_url(value: str, advice: str) -> Any:
    try:
        url = urlsplit(value)
        port_is_valid = url.port is None or url.port > 0
    except ValueError:
        raise ValueError(advice) from None
    if url.scheme not in ("http", "https") or not url.hostname or not port_is_valid or "@" in url.netloc:
        raise ValueError(advice)
    if not re.fullmatch(r"[\x21-\x7e]+", value):
        raise ValueError("write it in ASCII without blanks: names in their xn-- form")
    return url


def _read_smtp_url(value: str) -> MailServer:
    try:
        url = urlsplit(value)
        port = url.port
    except ValueError:
        url, port = urlsplit(""), None
    if url.scheme not in SMTP_PORTS or not url.hostname or url.path not in ("", "/") or url.query:
        raise ValueError(
            "write smtp://user:password@host:port or smtps://...; in a password write %40 for @, %3A for : "
            "and %2F for /"
        )
    if (url.username is None) != (url.password is None):
        raise ValueError("give user and password, or neither")
    return MailServer(
        host=url.hostname,
        port=port or SMTP_PORTS[url.scheme],
        implicit_tls=url.scheme == "smtps",
        user=None if url.username is None else unquote(url.username),
        password=None if url.password is None else unquote(url.password),
    )


def _read_sender(value: str) -> Address:
    advice = "write an address such as clinic@example.com or Clinic <clinic@example.com>"
    name, address = parseaddr(value)
    if not address or re.search(r"[\x00-\x1f\x7f]", value):
        raise ValueError(advice)
    try:
        sender = Address(name, addr_spec=address)
    except (ValueError, IndexError):  # IndexError: a fault of the parser of the standard library
        raise ValueError(advice) from None
    if not sender.domain or not sender.username:
        raise ValueError(advice)
    return sender


def _read_headers(value: str) -> dict[str, str]:
    advice = 'write a JSON object with texts in ASCII, such as {"apiKey": "..."}'
    try:
        headers = json.loads(value)
        pairs = list(headers.items())
    except (ValueError, AttributeError):
        raise ValueError(advice) from None
    for name, text in pairs:
        if not _HEADER_NAME.fullmatch(name) or not re.fullmatch(r"[\x20-\x7e]*", str(text)):
            raise ValueError(advice)
    return {name: str(text) for name, text in pairs}


def _read_body(value: str) -> tuple[dict[str, Any], bool]:
    """Return the template of a request: a JSON object, or the fields of a form. True means a form."""
    is_form = not value.lstrip().startswith("{")
    try:
        body = (
            dict(parse_qsl(value, strict_parsing=True, keep_blank_values=True))
            if is_form
            else json.loads(value)
        )
    except ValueError:
        raise ValueError("write a JSON object or a form such as to={to}&text={text}") from None
    texts = list(_texts(body))
    names = {name for text in texts for name in _PLACEHOLDER.findall(text)}
    if unknown := names - set(PLACEHOLDERS):
        raise ValueError(f"unknown placeholder {', '.join(sorted(unknown))}; use {', '.join(PLACEHOLDERS)}")
    if "text" not in names or not names & {"to", "to_digits"}:
        raise ValueError("must contain the placeholders {to} or {to_digits}, and {text}")
    return body, is_form


def _texts(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [text for part in parts for text in _texts(part)]


def fill(template: Any, values: dict[str, str]) -> Any:
    """Return a template with the placeholders in its texts replaced. A value is never read as a template."""
    if isinstance(template, str):
        return _PLACEHOLDER.sub(lambda match: values[match[1]], template)
    if isinstance(template, dict):
        return {name: fill(part, values) for name, part in template.items()}
    if isinstance(template, list):
        return [fill(part, values) for part in template]
    return template
