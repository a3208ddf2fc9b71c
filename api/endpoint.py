"""The declaration of an endpoint: permission, request and response models, and errors."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel

from api.serialization import Serializer
from schemas.base import Out
from security.permissions import Permission
from services.listing.spec import ListSpec

Method = TypeVar("Method", bound=Callable[..., Any])


@dataclass(frozen=True)
class EndpointSpec:
    """What one method of one route declares; read by the dispatcher, the documents and the tests.

    `loads` fetches the row that the path names, `loads(actor, **path, lock=bool)`; `body` is the schema of
    what comes in, a merge patch where the method is PATCH; `params` the schema of a query string, `lists`
    the listing that reads it instead; `returns` how the answer is shown, `many` that it is an array;
    `dry_run_returns` what `?dry_run=true` answers in its place, with 200.
    `search` wraps the list in an envelope. A `report` is read from the replica, where there is one. `errors`
    adds codes that only this operation answers, for the documents.
    """

    permission: Permission
    body: type[BaseModel] | None = None
    params: type[BaseModel] | None = None
    lists: ListSpec[Any] | None = None
    search: bool = False
    report: bool = False
    many: bool = False
    loads: Callable[..., Any] | None = None
    returns: Serializer | type[Out] | None = None
    dry_run_returns: type[Out] | None = None
    status: int = 200
    media: tuple[str, ...] = ("application/json",)
    errors: tuple[str, ...] = ()
    idempotent: bool = True  # a POST that honours Idempotency-Key
    summary: str = ""
    description: str = ""


def endpoint(permission: Permission, **declared: Any) -> Callable[[Method], Method]:
    """Declare a method of an `ApiResource`. Its docstring is the operation's summary."""

    def decorate(method: Method) -> Method:
        text = inspect.getdoc(method)
        if not text:
            raise TypeError(f"{method.__qualname__} needs a docstring: it is the endpoint's summary")
        summary, _, description = text.partition("\n")
        operation = EndpointSpec(permission, summary=summary, description=description.strip(), **declared)
        method.operation = operation  # type: ignore[attr-defined]
        return method

    return decorate
