"""The permission table, checked on every endpoint as every role and without sign-in."""

from __future__ import annotations

import re
from typing import Any

import pytest
from flask import Flask
from flask_restful import Resource

from api.docs.registry import RegisteredEndpoint, registered_endpoints
from api.endpoint import endpoint
from api.resource import ApiResource
from app import create_app
from enums import Role
from security.permissions import TABLE, Permission
from tests.conftest import settings_for
from tests.support.clinic import Caller, Clinic

CALLERS = ("admin", "doctor", "receptionist", "technician", "nobody", "deactivated")
FORBIDDEN_MESSAGE = "Your role may not do this."


def path_of(registered: RegisteredEndpoint) -> str:
    """Return the path with ids of rows that do not exist: only the role decides."""
    return re.sub(r"{\w+}", "987654", registered.path)


def expected(registered: RegisteredEndpoint, caller: str) -> str:
    """Return the expected result by the permission table: `allowed`, `401` or `403`."""
    if registered.spec.permission is Permission.PUBLIC:
        return "allowed"
    if caller in ("nobody", "deactivated"):
        return "401"
    return "allowed" if Role(caller) in TABLE[registered.spec.permission] else "403"


def new_caller(clinic: Clinic, name: str) -> Caller:
    """Return a caller with a new session."""
    if name == "nobody":
        return clinic.nobody
    return clinic.sign_in("admin", active=False) if name == "deactivated" else clinic.sign_in(name)


def actual(registered: RegisteredEndpoint, caller: Caller) -> str:
    """Return the result of a request: `401`, `403`, or `allowed` for everything else."""
    spec = registered.spec
    body: Any = {} if spec.body is not None and not spec.accepts.has_file else None
    response = caller.send(registered.method, path_of(registered), body)
    assert response.status_code < 500, (registered.method, registered.path, response.get_data(as_text=True))
    if registered.spec.permission is Permission.PUBLIC:
        return "allowed"  # a public route checks credentials in the body, not the caller
    if response.status_code == 401 and response.get_json()["error"] in ("unauthorized", "token_revoked"):
        return "401"
    if response.status_code == 403 and response.get_json()["message"].startswith(FORBIDDEN_MESSAGE):
        return "403"
    return "allowed"


@pytest.mark.parametrize("name", CALLERS)
def test_every_endpoint_follows_the_permission_table(clinic: Clinic, name: str) -> None:
    endpoints = registered_endpoints(clinic.app)

    # a new session for each endpoint: some endpoints end the session
    results = {
        f"{registered.method} {registered.path}": (
            actual(registered, new_caller(clinic, name)),
            expected(registered, name),
        )
        for registered in endpoints
    }

    assert len(endpoints) > 70
    assert {route: pair for route, pair in results.items() if pair[0] != pair[1]} == {}


def test_a_method_without_declaration_fails_the_import() -> None:
    with pytest.raises(TypeError, match="declares no permission"):

        class Undeclared(ApiResource):
            """Route `/undeclared`."""

            def get(self) -> None:
                """Return nothing."""


def test_a_permission_that_is_not_in_the_table_fails_the_import(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(TABLE, Permission.AUDIT_READ)

    with pytest.raises(TypeError, match="not in the table"):

        class Unlisted(ApiResource):
            """Route `/unlisted`."""

            @endpoint(Permission.AUDIT_READ)
            def get(self) -> None:
                """Return nothing."""


def test_a_route_without_declaration_stops_the_application(database_url: str) -> None:
    app = create_app(settings_for(database_url))

    class PlainResource(Resource):
        def get(self) -> str:
            return "anything"

    app.add_url_rule("/plain", view_func=PlainResource.as_view("plain"))

    with pytest.raises(TypeError, match="/plain"):
        registered_endpoints(app)


def test_every_permission_is_in_the_table() -> None:
    assert set(TABLE) == set(Permission)


def test_every_route_is_a_registered_endpoint(clinic: Clinic) -> None:
    app: Flask = clinic.app

    routed = {
        (method, re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule))
        for rule in app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }

    assert routed == {(registered.method, registered.path) for registered in registered_endpoints(app)}
