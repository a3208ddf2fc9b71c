"""The endpoints of the application, read from its URL map.

The documents of `GET /` and `GET /openapi.json` and the tests of permissions are generated from this list.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

from flask import Flask

from api.endpoint import EndpointSpec
from api.resource import METHODS, ApiResource
from errors import CODES
from security.permissions import TABLE, Permission

# First parts of the paths that belong to the service itself.
SERVICE = ("", "openapi.json", "docs", "health", "metrics")
# First parts of the paths, with their content, in the order of the documentation.
DOMAINS = {
    "service": "Documentation, health and metrics.",
    "auth": "Sign-in, sessions and the account of the signed-in user.",
    "users": "User accounts, for administrators.",
    "clinic": "The clinic: name, contact, logo and locale.",
    "patients": "Patients, their medical history, account and timeline.",
    "audit-logs": "Who read or changed what, for administrators.",
    "emergency-access": "Emergency access to the clinical fields of a patient, and its review.",
    "doctors": "Doctors, their working hours, free slots and time off.",
    "calendar": "The calendars of doctors, for calendar programs.",
    "appointments": "Booking, moving and cancelling appointments.",
    "visits": "The record of a visit, its signature and addenda.",
    "letters": "Sick notes, referrals and certificates of doctors.",
    "treatments": "Treatments of a visit, with the stock that they use.",
    "prescriptions": "Prescriptions with the medication safety check, and dispensing.",
    "inventory": "Inventory items, lots and stock movements.",
    "price-list": "Services and products with their prices.",
    "billings": "Bills, payments, refunds and insurance claims.",
    "analytics": "Reports and key figures.",
    "imports": "Imports of spreadsheets, with dry run and undo, for administrators.",
    "exports": "Whole lists as CSV and XLSX files, which a job writes.",
    "jobs": "Background work, for administrators.",
    "messages": "Messages to patients: settings, texts, and the callbacks of gateways.",
    "a": "The public page to confirm or cancel an appointment.",
    "u": "The public page to end messages.",
    "v": "The public page that shows if a document is genuine.",
}


@dataclass(frozen=True)
class RegisteredEndpoint:
    """One HTTP method of one route."""

    method: str
    path: str  # with {names}
    path_ids: tuple[str, ...]
    path_texts: frozenset[str]  # those of `path_ids` that are no numbers
    spec: EndpointSpec
    resource: type[ApiResource]

    @property
    def domain(self) -> str:
        """Return the first part of the path, which groups the endpoints."""
        first = self.path.strip("/").split("/")[0]
        return "service" if first in SERVICE else first

    @property
    def is_rate_limited(self) -> bool:
        """Return True unless the route is a probe."""
        return not self.path.startswith("/health/")

    @property
    def operation_id(self) -> str:
        """Return a stable id for generated clients: `post_patients`, `get_patients_by_patient_id`."""
        path = re.sub(r"{(\w+)}", r"by_\1", self.path)
        return (self.method.lower() + re.sub(r"[-./]", "_", path)).rstrip("_")

    @property
    def roles(self) -> list[str]:
        """Return the roles with the permission, or `anyone` for a public endpoint."""
        if self.public:
            return ["anyone"]
        return [role.value for role in TABLE[self.spec.permission]]

    @property
    def public(self) -> bool:
        """Return True if the endpoint needs no sign-in."""
        return self.spec.permission is Permission.PUBLIC

    @property
    def unsafe(self) -> bool:
        """Return True if the endpoint may change data."""
        return self.method != "GET"

    @property
    def is_put_alias(self) -> bool:
        """Return True if `PUT` calls the same method as `PATCH`."""
        return self.method == "PUT" and getattr(self.resource, "patch", None) is self.resource.put

    @property
    def checks_version(self) -> bool:
        """Return True if the endpoint accepts `If-Match`."""
        return self.unsafe and self.spec.load is not None

    @property
    def idempotent(self) -> bool:
        """Return True if the endpoint accepts `Idempotency-Key`."""
        return self.method == "POST" and self.spec.idempotent and not self.public

    @cached_property
    def error_codes(self) -> dict[int, list[str]]:
        """Return the possible error codes by status: the common ones and those of the declaration."""
        codes = ["validation_failed", "unavailable"]
        if self.domain != "service":
            codes.append("too_many_requests")
        if self.spec.optional_sign_in:
            codes += ["token_invalid", "token_expired", "token_revoked", "forbidden"]
        if not self.public:
            codes += ["unauthorized", "token_invalid", "token_expired", "token_revoked", "forbidden"]
            if not self.spec.before_enrolment:
                codes.append("mfa_enrolment_required")
        if self.spec.list_spec is not None:
            codes.append("too_many_rows")
        if self.spec.step_up is not None:
            codes.append("step_up_required")
        if self.unsafe:
            codes += ["origin_not_allowed", "conflict"]
        if self.path_ids:
            codes.append("not_found")
        if self.spec.body is not None:
            codes += ["bad_request", "malformed_json", "duplicate_member", "member_name_too_long", "too_deep"]
            codes += ["payload_too_large", "unsupported_media_type"]
        if self.checks_version:
            codes.append("stale_version")
        if self.idempotent:
            codes += ["payload_too_large", "idempotency_mismatch", "request_in_progress", "already_done"]
        by_status: dict[int, list[str]] = {}
        for code in dict.fromkeys([*self.spec.errors, *codes]):
            by_status.setdefault(CODES[code][0], []).append(code)
        return dict(sorted(by_status.items()))


def registered_endpoints(app: Flask) -> list[RegisteredEndpoint]:
    """Return every endpoint in the order of the URL map.

    A route that is not served by an `ApiResource` raises TypeError.
    """
    endpoints = []
    for rule in app.url_map.iter_rules():
        resource = getattr(app.view_functions[rule.endpoint], "view_class", None)
        if resource is None or not issubclass(resource, ApiResource):
            raise TypeError(f"{rule.rule} is not served by an ApiResource")
        path = re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule)
        path_ids = tuple(re.findall(r"{(\w+)}", path))
        texts = frozenset(re.findall(r"<(\w+)>", rule.rule))
        for name in METHODS:
            method = getattr(resource, name, None)
            if method is not None:
                endpoints.append(
                    RegisteredEndpoint(name.upper(), path, path_ids, texts, method.spec, resource)
                )
    return endpoints
