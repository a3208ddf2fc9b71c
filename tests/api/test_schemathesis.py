"""The OpenAPI document, tested against the application by schemathesis as every role.

The suite runs the same few thousand cases every time. More cases, different ones each time, with every phase
for every role, take about half an hour:
`CLINIC_FUZZ_EXAMPLES=50 .venv/bin/python -m pytest tests/api/test_schemathesis.py
-n 2 -o faulthandler_timeout=0`
"""

from __future__ import annotations

import json
import os
import re
import zlib
from collections import Counter, defaultdict
from typing import Any

import pytest
import schemathesis
from schemathesis.auths import AuthProvider
from schemathesis.config import SchemathesisConfig
from schemathesis.engine import events, from_schema
from schemathesis.hooks import HookContext
from schemathesis.transport.wsgi import WSGITransport

from api.body_members import is_blank
from api.docs.registry import RegisteredEndpoint, registered_endpoints
from api.field_errors import BLANK, DESCRIPTIONS, UNKNOWN
from enums import Role
from tests.support.clinic import Caller, Clinic
from tests.support.furnished import Rows, furnish

EXAMPLES = int(os.environ.get("CLINIC_FUZZ_EXAMPLES", "0"))  # 0: the fixed cases of the suite
ROLES = ("admin", "doctor", "receptionist", "technician")
ENGINE_OF = {"admin": "sqlite", "doctor": "postgresql", "receptionist": "postgresql", "technician": "sqlite"}
# The role that runs `fuzzing` besides each main role: on the other engine.
SECOND_ROLE = {
    "admin": "doctor",
    "doctor": "technician",
    "technician": "receptionist",
    "receptionist": "admin",
}
# Descriptions of the format of a value, which the document must contain. Services also refuse a null.
FORMAT_MESSAGE = re.compile(
    "|".join(
        re.sub(r"\{(ge|gt|le|lt|min_length|max_length)\}", r"-?[0-9.]+", text).replace("{expected}", "'.*")
        + "$"
        for text in DESCRIPTIONS.values()
    )
    + f"|{BLANK}|{UNKNOWN}|is not a parameter|not a phone number"
)
EXAMPLES_IN_SUITE = 2  # cases of each operation and role
MIN_CASES = 500  # cases of each role, 2,000 in total
SOCKET_OPTIONS = ("max_redirects", "verify", "cert", "proxies")


# Exceptions to the checks of schemathesis, with their reasons.
CHECKS = {
    # A well-formed request may still be refused: a time that does not exist in the clinic's time zone or a
    # patient who does not exist (422), an old version (412), a missing version (428). `documented_format`
    # below checks that such a 422 is not about the format.
    "positive_data_acceptance": {
        "expected-statuses": ["2xx", "401", "403", "404", "409", "412", "422", "428"]
    },
    # A large body is refused before it is read.
    "negative_data_rejection": {
        "expected-statuses": ["400", "401", "403", "404", "405", "409", "413", "415", "422", "428", "429"]
    },
    # A deleted row is archived, voided, cancelled or deactivated. It can still be read.
    "use_after_free": {"enabled": False},
}


def configuration(endpoints: list[RegisteredEndpoint], role: str) -> SchemathesisConfig:
    """Return a configuration with all phases and checks. In the suite, the cases are the same every time.

    In the suite, every role runs `stateful` for each operation, and two roles run `fuzzing`. One permitted
    role runs `examples` and, for half of the operations, `coverage`, whose hundred cases do not depend on the
    role. The long run has all phases for every operation and role.
    """
    in_suite = not EXAMPLES
    off = {"enabled": False}
    # One entry for all operations with the same options: schemathesis compares an operation with every entry.
    exceptions: dict[str, list[str]] = defaultdict(list)
    for endpoint in endpoints if in_suite else ():
        phases = {} if _runs_all_phases(endpoint, role) else {"examples": off, "coverage": off}
        if zlib.crc32(endpoint.operation_id.encode()) % 8 >= len(ROLES):
            phases["coverage"] = off
        if role not in (_main_role(endpoint), SECOND_ROLE[_main_role(endpoint)]):
            phases["fuzzing"] = off
        options = off if endpoint.is_put_alias and role != "admin" else {"phases": phases}
        exceptions[json.dumps(options, sort_keys=True)].append(f"{endpoint.method} {endpoint.path}")
    return SchemathesisConfig.from_dict(
        {
            **({"seed": 1} if in_suite else {}),
            "generation": {
                "max-examples": EXAMPLES or EXAMPLES_IN_SUITE,
                "deterministic": in_suite,
                "database": "none",
                "no-shrink": in_suite,
            },
            "checks": CHECKS,
            "operations": [
                {"include-name": names} | json.loads(options) for options, names in exceptions.items()
            ],
        }
    )


def _runs_all_phases(endpoint: RegisteredEndpoint, role: str) -> bool:
    """Return True if this role runs all phases for an operation in the suite."""
    if endpoint.is_put_alias or (endpoint.spec.list_spec is not None and endpoint.path != "/patients"):
        return False  # the same code as PATCH, or as another list
    return _main_role(endpoint) == role


def _main_role(endpoint: RegisteredEndpoint) -> str:
    """Return the permitted role that runs the most phases for an operation in the suite."""
    roles = ROLES if endpoint.public else endpoint.roles
    return roles[zlib.crc32(endpoint.operation_id.encode()) % len(roles)]


class RoleSession:
    """The session of one role, which replaces some generated ids by ids of existing rows."""

    def __init__(self, clinic: Clinic, role: str) -> None:
        self.clinic, self.role = clinic, Role(role)
        self.rows: Rows = furnish(clinic)
        self.caller: Caller = clinic.caller(role)
        self.may_have_ended = False

    def token(self) -> str:
        """Return the access token. Sign in again if a generated request has ended the session."""
        if self.may_have_ended and self.caller.get("/auth/me").status_code != 200:
            self.caller = self.clinic.sign_in(self.role)
        self.may_have_ended = False
        return self.caller.token or ""

    def use_existing_rows(self, case: Any) -> None:
        """Replace most ids of a well-formed case by ids of existing rows."""
        if case.meta is None or not case.meta.generation.mode.is_positive:
            return
        names = tuple(re.findall(r"{(\w+)}", case.operation.path))
        if names in self.rows and case.path_parameters:
            number = case.path_parameters[names[-1]]
            if isinstance(number, int) and number % 8:
                ids = self.rows[names][number % len(self.rows[names])]
                case.path_parameters.update(zip(names, ids, strict=True))
        if "If-Match" in case.headers and len(case.headers["If-Match"]) % 4:
            case.headers["If-Match"] = "*"
        if isinstance(case.query, dict):
            case.query.update(self._with_existing_ids(case.query))
        if isinstance(case.body, dict):
            case.body = self._with_existing_ids(case.body)

    def _with_existing_ids(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self._with_existing_ids(element) for element in value]
        if not isinstance(value, dict):
            return value
        return {
            name: self.rows[(name,)][member % len(self.rows[(name,)])][0]
            if (name,) in self.rows and isinstance(member, int) and member % 8
            else self._with_existing_ids(member)
            for name, member in value.items()
        }


def _contains_blank(value: Any) -> bool:
    if isinstance(value, dict | list):
        return any(map(_contains_blank, value.values() if isinstance(value, dict) else value))
    return is_blank(value)


def load_schema(clinic: Clinic, role: str) -> Any:
    """Return the schema that the application serves, for requests of the role."""
    session = RoleSession(clinic, role)
    schema = schemathesis.openapi.from_wsgi(
        "/openapi.json", clinic.app, config=configuration(registered_endpoints(clinic.app), role)
    )

    class SignedIn(AuthProvider):
        def get(self, case: Any, context: Any) -> str:
            return session.token()

        def set(self, case: Any, data: str, context: Any) -> None:
            case.headers["Authorization"] = f"Bearer {data}"

    def map_case(context: HookContext, case: Any) -> Any:
        session.use_existing_rows(case)
        return case

    def filter_case(context: HookContext, case: Any) -> bool:
        # A blank text in an optional member means null. The document does not have this alternative, because
        # every optional member of a generated client would also be a text.
        return (
            case.meta is None
            or case.meta.generation.mode.is_positive
            or not _contains_blank([case.body, case.query])
        )

    def after_call(context: HookContext, case: Any, response: Any) -> None:
        session.may_have_ended = session.may_have_ended or response.status_code == 401

    schema.auth(refresh_interval=None)(SignedIn)
    schema.hook(map_case)
    schema.hook(filter_case)
    schema.hook(after_call)
    return schema


@schemathesis.check
def documented_format(ctx: Any, response: Any, case: Any) -> None:
    """Check that a 422 to a well-formed request is not about a format that the document omits."""
    if case.meta is None or not case.meta.generation.mode.is_positive or response.status_code != 422:
        return
    if "json" not in response.headers["content-type"][0]:
        return  # a public page
    problems = response.json().get("errors", {})
    undocumented = {field: text for field, text in problems.items() if FORMAT_MESSAGE.match(text)}
    assert not undocumented, f"not in the document: {undocumented}"


class Results:
    """The number of cases and responses of a run, and its failures."""

    def __init__(self) -> None:
        self.cases: Counter[str] = Counter()
        self.statuses: Counter[int] = Counter()
        self.failures: dict[str, list[str]] = defaultdict(list)

    def add(self, event: Any) -> None:
        """Count the cases of one scenario and store its failures."""
        if isinstance(event, events.NonFatalError | events.FatalError):
            self.failures[f"error {getattr(event, 'label', '')}"].append(
                str(getattr(event, "value", None) or event.exception)
            )
        if not isinstance(event, events.ScenarioFinished):
            return
        recorder = event.recorder
        for interaction in recorder.interactions.values():
            self.cases[event.phase.value] += 1
            if interaction.response is not None:
                self.statuses[interaction.response.status_code] += 1
        for case_id, checks in recorder.checks.items():
            for check in checks:
                if check.failure_info is not None:
                    failure = _describe(recorder.interactions[case_id], check.failure_info.failure)
                    self.failures[f"{check.name}: {event.label}"].append(failure)

    def report(self) -> str:
        """Return two examples of each kind of failure."""
        return "\n".join(
            f"== {kind} ({len(failures)})\n" + "\n".join(failures[:2])
            for kind, failures in sorted(self.failures.items())
        )


def _describe(interaction: Any, failure: Any) -> str:
    request, response = interaction.request, interaction.response
    body = (request.body or b"")[:400]
    outcome = (response.status_code, response.content[:400]) if response is not None else None
    return f"{request.method} {request.uri} {body!r} -> {outcome}\n{failure.message}"


@pytest.fixture
def without_socket_options(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drop socket options of a request: the WSGI client has no sockets."""
    original = WSGITransport.send

    def send(self: WSGITransport, case: Any, **options: Any) -> Any:
        case.headers["Accept-Encoding"] = "identity"  # this transport decodes nothing
        return original(
            self, case, **{name: value for name, value in options.items() if name not in SOCKET_OPTIONS}
        )

    monkeypatch.setattr(WSGITransport, "send", send)


@pytest.mark.parametrize(("role", "engine_name"), ENGINE_OF.items())
@pytest.mark.uncounted  # thousands of requests: counting their lines takes as long again
def test_the_application_follows_the_document_for_each_role(
    clinic: Clinic, role: str, without_socket_options: None, record_property: Any
) -> None:
    schema, results = load_schema(clinic, role), Results()

    for event in from_schema(schema).execute():
        results.add(event)

    record_property("cases", sum(results.cases.values()))
    assert not results.failures, results.report()
    assert results.statuses[500] == 0
    assert {"fuzzing", "coverage", "stateful"} <= set(results.cases)
    assert sum(results.cases.values()) >= MIN_CASES
