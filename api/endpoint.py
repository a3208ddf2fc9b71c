"""The declaration of an endpoint: permission, request and response models, and errors."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeVar

from pydantic import BaseModel

from api.body_format import JSON, BodyFormat
from api.response_format import LIST_TYPES
from api.serialization import Serializer
from schemas.base import Out
from security.permissions import Permission
from services.listing.spec import ListSpec

Method = TypeVar("Method", bound=Callable[..., Any])


class StepUp(StrEnum):
    """The requests to an endpoint that need a step-up. The value is for the documentation."""

    ALWAYS = "all requests"
    ADMINS = "requests of administrators"
    ACCOUNTS = "requests with `user`, which create a user account"
    EXPORTS = "requests for a file"


@dataclass(frozen=True)
class EndpointSpec:
    """The declaration of one HTTP method of one route.

    The request cycle, the API documentation and the tests read it. The members, in order:

    - `permission`: the caller needs it.
    - `body`: the schema of the request body. PATCH and PUT apply it as a merge patch.
    - `accepts`: the format of the request body. The method gets a body that is neither JSON nor a form as
      the argument `content`, and the file of a multipart form as `upload`.
    - `prepare`: slow work without a transaction, `prepare(path, members, upload)`, after the permission was
      checked. The method gets its result as the argument `prepared`.
    - `query`: the schema of the query string.
    - `list_spec`: the list that the query string filters, sorts and pages. It replaces `query`. The response
      may also be a CSV or XLSX file of all rows.
    - `search`: the list is wrapped in an object with `pagination` and `search_params`.
    - `report`: the endpoint reads from the replica, if one is configured.
    - `many`: the response is an array, without a list.
    - `load`: loads the row of the path, `load(actor, **path, lock=bool)`. It locks the row for a change.
    - `returns`: the serializer or the schema of the response.
    - `resource`: the schema of the row that the body describes, if `returns` is another one.
    - `dry_run_returns`: the schema of the response to `?dry_run=true`, which has status 200.
    - `or_returns`: the schema of another response with the same status.
    - `status`: the status of a success.
    - `media_types`: the media types of a success.
    - `etag`: the response has an `ETag`, although it is no serialized row: a document, or a part of a row.
    - `document_tag`: returns the tag of the document at this path, `document_tag(row)`, which GET shows.
      `If-Match` accepts it in place of the tag of the row.
    - `errors`: codes that this endpoint adds to the common ones, for the documentation.
    - `idempotent`: a POST accepts `Idempotency-Key`.
    - `secret`: the response contains a secret. It is not stored, so a repeat is 409 `already_done`.
    - `step_up`: requests that need a fresh proof of the second factor, if the caller has one.
    - `optional_sign_in`: a public endpoint at which a signed-in caller may do more. It refuses a bad token.
    - `ignores_input`: it succeeds with any body and any query string.
    - `before_enrolment`: open to a caller who must set up a second factor before anything else.
    - `summary`, `description`: the docstring of the method.
    """

    permission: Permission
    body: type[BaseModel] | None = None
    accepts: BodyFormat = JSON
    prepare: Callable[..., Any] | None = None
    query: type[BaseModel] | None = None
    list_spec: ListSpec[Any] | None = None
    search: bool = False
    report: bool = False
    many: bool = False
    load: Callable[..., Any] | None = None
    returns: Serializer | type[Out] | None = None
    resource: type[Out] | None = None
    dry_run_returns: type[Out] | None = None
    or_returns: type[Out] | None = None
    status: int = 200
    media_types: tuple[str, ...] = ("application/json",)
    etag: bool = False
    document_tag: Callable[[Any], str | None] | None = None
    errors: tuple[str, ...] = ()
    idempotent: bool = True
    secret: bool = False
    step_up: StepUp | None = None
    optional_sign_in: bool = False
    ignores_input: bool = False
    before_enrolment: bool = False
    summary: str = ""
    description: str = ""

    @property
    def is_page(self) -> bool:
        """Return True for a page of a browser. Its links get parameters from mail programs."""
        return self.media_types == ("text/html",)

    def reads_members(self, method: str) -> bool:
        """Return True if the body has members, or may have none, as that of most actions."""
        if self.body is not None:
            return True
        return self.accepts is JSON and method not in ("GET", "HEAD") and not self.ignores_input

    def writes_resource(self, method: str) -> bool:
        """Return True for a creation or an update, whose body may contain read-only members."""
        is_write = method in ("PUT", "PATCH") or self.status == 201
        return is_write and self.body is not None and self.body_resource is not None

    @property
    def body_resource(self) -> type[Out] | None:
        """Return the schema of the row that the body describes."""
        if self.resource is not None:
            return self.resource
        return self.returns.out if isinstance(self.returns, Serializer) else self.returns


def endpoint(permission: Permission, **members: Any) -> Callable[[Method], Method]:
    """Declare a method of an `ApiResource` as an endpoint.

    `members` are those of `EndpointSpec`. The first line of the docstring is the summary of the endpoint, the
    rest its description. A method without docstring raises TypeError.
    """

    def declare(method: Method) -> Method:
        docstring = inspect.getdoc(method)
        if not docstring:
            raise TypeError(f"{method.__qualname__} needs a docstring: it is the endpoint's summary")
        summary, _, description = docstring.partition("\n")
        if "list_spec" in members:
            members.setdefault("media_types", LIST_TYPES)
            members.setdefault("step_up", StepUp.EXPORTS)
        spec = EndpointSpec(permission, summary=summary, description=description.strip(), **members)
        method.spec = spec  # type: ignore[attr-defined]
        return method

    return declare
