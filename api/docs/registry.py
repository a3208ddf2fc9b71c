"""What the application declares, collected from its URL map: the one source of `GET /`, the OpenAPI document
and the permission-matrix test."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

from flask import Flask

from api.endpoint import EndpointSpec
from api.resource import METHODS, ApiResource
from errors import CODES
from security.permissions import TABLE, Permission

# What stands at the root of the path space is about the service itself.
SERVICE = ("", "openapi.json", "health", "metrics")


@dataclass(frozen=True)
class RegisteredEndpoint:
    """One method of one route."""

    method: str
    path: str  # with {names}
    path_ids: tuple[str, ...]
    spec: EndpointSpec
    resource: type[ApiResource]

    @property
    def domain(self) -> str:
        """The first part of the path: what the endpoint is about."""
        first = self.path.strip("/").split("/")[0]
        return "service" if first in SERVICE else first

    @property
    def name(self) -> str:
        """A stable id for generated clients: `post_patients`, `get_patients_by_patient_id`."""
        words = [
            f"by_{part[1:-1]}" if part.startswith("{") else part for part in self.path.strip("/").split("/")
        ]
        return "_".join([self.method.lower(), *words]).replace("-", "_").replace(".", "_").rstrip("_")

    @property
    def roles(self) -> list[str]:
        """Who may ask; `anyone` where nobody has to sign in."""
        if self.public:
            return ["anyone"]
        return [role.value for role in TABLE[self.spec.permission]]

    @property
    def public(self) -> bool:
        """Whether nobody has to sign in."""
        return self.spec.permission is Permission.PUBLIC

    @property
    def unsafe(self) -> bool:
        """Whether it may change something."""
        return self.method != "GET"

    @property
    def is_put_alias(self) -> bool:
        """Whether `PUT` is but another name of `PATCH` here."""
        return self.method == "PUT" and getattr(self.resource, "patch", None) is self.resource.put

    @property
    def checks_version(self) -> bool:
        """Whether `If-Match` is judged."""
        return self.unsafe and self.spec.load is not None

    @property
    def idempotent(self) -> bool:
        """Whether `Idempotency-Key` is honoured."""
        return self.method == "POST" and self.spec.idempotent and not self.public

    @cached_property
    def error_codes(self) -> dict[int, list[str]]:
        """The error codes it can answer, by status: those every such endpoint has, and its own."""
        spec = self.spec
        codes = ["validation_failed", "unavailable"]
        if self.domain != "service":
            codes.append("too_many_requests")
        if not self.public:
            codes += ["unauthorized", "token_invalid", "token_expired", "token_revoked", "forbidden"]
        if self.unsafe:
            codes += ["origin_not_allowed", "conflict"]
        if self.path_ids:
            codes.append("not_found")
        if spec.body is not None:
            codes += ["bad_request", "malformed_json", "duplicate_member", "too_deep"]
            codes += ["payload_too_large", "unsupported_media_type"]
        if self.checks_version:
            codes.append("stale_version")
        if self.idempotent:
            codes += ["payload_too_large", "idempotency_mismatch", "request_in_progress"]
        found: dict[int, list[str]] = {}
        for code in dict.fromkeys([*spec.errors, *codes]):
            found.setdefault(CODES[code][0], []).append(code)
        return dict(sorted(found.items()))


def registered_endpoints(app: Flask) -> list[RegisteredEndpoint]:
    """Every endpoint in the order of the URL map. A route that is no `ApiResource` is a mistake."""
    found = []
    for rule in app.url_map.iter_rules():
        resource = getattr(app.view_functions[rule.endpoint], "view_class", None)
        if resource is None or not issubclass(resource, ApiResource):
            raise TypeError(f"{rule.rule} is not served by an ApiResource")
        path = re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule)
        ids = tuple(re.findall(r"{(\w+)}", path))
        for method in METHODS:
            handler = getattr(resource, method, None)
            if handler is not None:
                found.append(RegisteredEndpoint(method.upper(), path, ids, handler.spec, resource))
    return found
