"""The state of one request: the caller, the declaration and the loaded row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

from flask import Request, g, request

from api.endpoint import EndpointSpec
from errors import ClinicError
from security.permissions import Actor

Proxied = TypeVar("Proxied")
SAFE = ("GET", "HEAD", "OPTIONS")


@dataclass
class RequestContext:
    """One request on its way: who asks for what."""

    request: Request
    operation: EndpointSpec
    path: dict[str, Any]
    route: str
    actor: Actor | None = None
    idle: bool = False  # the session's last use is older than a minute
    key: Any = None
    row: Any = None
    foretold: bool = False  # the entry of this read goes with the row, in one message that is the transaction


def behind(proxy: Proxied) -> Proxied:
    """What `request` and `g` stand for, which they look up anew each time, to be asked several times."""
    found: Proxied = proxy._get_current_object()  # type: ignore[attr-defined]
    return found


def current_actor() -> Actor:
    """The signed-in user of this request."""
    actor: Actor | None = g.actor
    if actor is None:
        raise ClinicError("unauthorized", "Sign in first.")
    return actor


def act_as(actor: Actor) -> None:
    """Somebody proved on a public route who they are: the audit names them."""
    g.actor = actor


def visitor() -> Actor:
    """Nobody that we know, at the address the request came from."""
    return Actor(None, "", None, address=request.remote_addr, request_id=g.request_id)


def audited_actor(call: RequestContext) -> Actor:
    """Whom the audit names."""
    return g.actor or call.actor or visitor()
