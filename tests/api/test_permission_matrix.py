"""Who may do what, asked of every method of every route as every role, and as nobody."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask
from flask_restful import Resource

from api.docs.registry import RegisteredEndpoint, registered_endpoints
from api.endpoint import endpoint
from api.resource import ApiResource
from enums import Role
from security.permissions import TABLE, Permission
from tests.support.clinic import Caller, Clinic

MakeClinic = Callable[..., Clinic]

CALLERS = ("admin", "doctor", "receptionist", "technician", "nobody", "deactivated")
# what a route answers to somebody whose role may: anything but "who are you" and "your role may not"
REFUSED = "Your role may not do this."


def address(entry: RegisteredEndpoint) -> str:
    """The path with ids that exist nowhere: the question is the role, not the row."""
    return re.sub(r"{\w+}", "987654", entry.path)


def expected(entry: RegisteredEndpoint, caller: str) -> str:
    """What the one table says: `in`, `401` or `403`."""
    if entry.spec.permission is Permission.PUBLIC:
        return "in"
    if caller in ("nobody", "deactivated"):
        return "401"
    return "in" if Role(caller) in TABLE[entry.spec.permission] else "403"


def caller_of(clinic: Clinic, who: str) -> Caller:
    """Somebody who has just signed in as `who`."""
    if who == "nobody":
        return clinic.nobody
    return clinic.sign_in("admin", active=False) if who == "deactivated" else clinic.sign_in(who)


def answered(entry: RegisteredEndpoint, caller: Caller) -> str:
    """What the route says in fact."""
    body: Any = {} if entry.spec.body is not None else None
    answer = caller.send(entry.method, address(entry), body)
    assert answer.status_code < 500, (entry.method, entry.path, answer.get_data(as_text=True))
    if entry.spec.permission is Permission.PUBLIC:
        return "in"  # such a route judges what it is given, not who asks
    if answer.status_code == 401 and answer.get_json()["error"] in ("unauthorized", "token_revoked"):
        return "401"
    if answer.status_code == 403 and answer.get_json()["message"] == REFUSED:
        return "403"
    return "in"


@pytest.mark.parametrize("who", CALLERS)
def test_every_route_answers_each_role_as_the_table_says(clinic: Clinic, who: str) -> None:
    found = registered_endpoints(clinic.app)

    # a new session for every route, since some routes end theirs
    told = {
        f"{entry.method} {entry.path}": (answered(entry, caller_of(clinic, who)), expected(entry, who))
        for entry in found
    }

    assert len(found) > 70
    assert {route: pair for route, pair in told.items() if pair[0] != pair[1]} == {}


def test_a_method_without_declaration_cannot_be_written() -> None:
    with pytest.raises(TypeError, match="declares no permission"):

        class Forgotten(ApiResource):
            """/forgotten"""

            def get(self) -> None:
                """Nobody said who may."""


def test_a_permission_outside_the_table_cannot_be_declared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(TABLE, Permission.AUDIT_READ)

    with pytest.raises(TypeError, match="not in the table"):

        class Unlisted(ApiResource):
            """/unlisted"""

            @endpoint(Permission.AUDIT_READ)
            def get(self) -> None:
                """Its permission has no row."""


def test_a_route_that_bypasses_the_framework_stops_the_application(make_clinic: MakeClinic) -> None:
    app: Flask = make_clinic().app

    class Loose(Resource):
        def get(self) -> str:
            return "anything"

    app.add_url_rule("/loose", view_func=Loose.as_view("loose"))

    with pytest.raises(TypeError, match="/loose"):
        registered_endpoints(app)


def test_every_permission_of_the_enum_has_a_row() -> None:
    assert set(TABLE) == set(Permission)


def test_nothing_is_routed_outside_the_catalogue(clinic: Clinic) -> None:
    app: Flask = clinic.app

    routed = {
        (method, re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule))
        for rule in app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }

    assert routed == {(entry.method, entry.path) for entry in registered_endpoints(app)}
