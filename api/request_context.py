"""The state of one request."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from flask import g, request

from api.body_format import JSON, BodyFormat, Upload
from api.body_members import IgnoredMembers
from errors import ClinicError
from security.permissions import Actor
from security.tokens import Claims

SAFE_METHODS = ("GET", "HEAD", "OPTIONS")


@dataclass
class RequestContext:
    """The state of one request, created when it begins and stored as `flask.g.context`.

    `address` is the IP address of the caller, as the audit log records it, and `network` the network that the
    limits count. `token` holds the claims of a
    genuine access token, `token_error` the refusal of another one. `revoked` is the answer of Redis for the
    token's session. `actor` is the verified caller, None before that and for visitors. `session_idle` says
    that the last use of the session must be noted. `row` is the loaded row that the path names.
    `body_format` is the format of the body that the endpoint accepts. `body` holds the members of the body,
    None before `request_body.body_members` decoded it, and `upload` its file. `ignored` holds its read-only
    members.
    """

    request_id: str
    started: float
    address: str
    network: str
    token: Claims | None = None
    token_error: ClinicError | None = None
    token_from_cookie: bool = False
    revoked: bool = False
    actor: Actor | None = None
    session_idle: bool = False
    path: dict[str, Any] = field(default_factory=dict)
    row: Any = None
    body_format: BodyFormat = JSON
    body: dict[str, Any] | None = None
    upload: Upload | None = None
    ignored: IgnoredMembers = field(default_factory=IgnoredMembers)

    @property
    def route(self) -> str:
        """Return method and URL rule, such as `GET /patients/<int:patient_id>`."""
        return f"{request.method} {request.url_rule}"


def current_context() -> RequestContext:
    """Return the state of the current request."""
    context: RequestContext = g.context
    return context


def current_actor() -> Actor:
    """Return the signed-in user of the current request, or raise 401."""
    actor = current_context().actor
    if actor is None:
        raise ClinicError("unauthorized", "Sign in first.")
    return actor


def set_actor(actor: Actor) -> None:
    """Set the user who proved their identity on a public route: the audit log names them."""
    current_context().actor = actor


def visitor() -> Actor:
    """Return an actor without user, with the address and the id of the request."""
    context = current_context()
    return Actor(
        None, "", None, address=context.address, network=context.network, request_id=context.request_id
    )
