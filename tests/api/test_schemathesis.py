"""What the OpenAPI document promises, asked of the application by schemathesis as every role.

The suite asks the same few thousand cases every time. Many more, drawn anew each time, with every phase for
every role, take about half an hour:
`CLINIC_FUZZ_EXAMPLES=50 .venv/bin/python -m pytest tests/api/test_schemathesis.py
-n 2 -o faulthandler_timeout=0`
"""

from __future__ import annotations

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

from api.docs.registry import RegisteredEndpoint, registered_endpoints
from enums import Role
from tests.support.clinic import Caller, Clinic
from tests.support.furnished import Rows, furnish

EXAMPLES = int(os.environ.get("CLINIC_FUZZ_EXAMPLES", "0"))  # 0: the few, fixed ones of the suite
ROLES = ("admin", "doctor", "receptionist", "technician")
ENGINE_OF = {"admin": "sqlite", "doctor": "postgresql", "receptionist": "postgresql", "technician": "sqlite"}
# pydantic's sentences about the form of a value: the document must have told it
FORM = re.compile(
    r"is required$|there is no such member|is not a parameter|must not be blank|not a phone number|"
    r"(input|value|string|list|dictionary|number|tuple|field|url|decimal) (should|required|must|is not)"
)
FEW = 3  # cases of an operation in the suite, for each role
LEAST = 500  # cases of each role, 2,000 in all
SOCKET = ("max_redirects", "verify", "cert", "proxies")


# Each is either what the name of the check cannot know, or what HTTP lets us choose.
CHECKS = {
    # A request that is well formed can still be refused for what it means: a day that does not exist in the
    # clinic's zone, a patient who is not there (422), a version that has passed (412), one that is wanted
    # (428). That no such 422 is about form is judged by `told_form` below.
    "positive_data_acceptance": {
        "expected-statuses": ["2xx", "401", "403", "404", "409", "412", "422", "428"]
    },
    # A deleted row is archived, voided, cancelled or deactivated: it stays to be seen.
    "use_after_free": {"enabled": False},
}


def configuration(found: list[RegisteredEndpoint], role: str) -> SchemathesisConfig:
    """All phases and checks; the same cases every time unless more are asked for.

    Then each operation is asked by every role in `fuzzing` and `stateful`, and by one that may in `examples`
    and `coverage`, where a hundred cases of each are the same whoever asks.
    """
    few = not EXAMPLES
    aliases = [entry for entry in found if entry.is_put_alias and role != "admin"]
    left = [entry for entry in found if not _asks_all(entry, role)]
    off = {"enabled": False}
    cuts = [(aliases, off), (left, {"phases": {"examples": off, "coverage": off}})] if few else []
    return SchemathesisConfig.from_dict(
        {
            **({"seed": 1} if few else {}),
            "generation": {
                "max-examples": EXAMPLES or FEW,
                "deterministic": few,
                "database": "none",
                "no-shrink": few,
            },
            "checks": CHECKS,
            "operations": [
                {"include-name": [f"{entry.method} {entry.path}" for entry in some]} | cut
                for some, cut in cuts
                if some
            ],
        }
    )


def _asks_all(entry: RegisteredEndpoint, role: str) -> bool:
    """Whether it is this role that asks everything there is to ask of an operation."""
    if entry.is_put_alias or (entry.spec.list_spec is not None and entry.path != "/patients"):
        return False  # the code of PATCH, or of another list, once more
    roles = ROLES if entry.public else entry.roles
    return roles[zlib.crc32(entry.operation_id.encode()) % len(roles)] == role


class Desk:
    """One role's requests on their way: known ids for some of the generated, a session that lasts."""

    def __init__(self, clinic: Clinic, role: str) -> None:
        self.clinic, self.role = clinic, Role(role)
        self.rows: Rows = furnish(clinic)
        self.caller: Caller = clinic.caller(role)
        self.doubted = False

    def token(self) -> str:
        """The access token of a session, a new one where a generated request has ended it."""
        if self.doubted and self.caller.get("/auth/me").status_code != 200:
            self.caller = self.clinic.sign_in(self.role)
        self.doubted = False
        return self.caller.token or ""

    def known(self, case: Any) -> None:
        """Lead a well-formed case to rows that are there, most of the time."""
        if case.meta is None or not case.meta.generation.mode.is_positive:
            return
        names = tuple(re.findall(r"{(\w+)}", case.operation.path))
        if names in self.rows and case.path_parameters:
            drawn = case.path_parameters[names[-1]]
            if isinstance(drawn, int) and drawn % 8:
                found = self.rows[names][drawn % len(self.rows[names])]
                case.path_parameters.update(zip(names, found, strict=True))
        if "If-Match" in case.headers and len(case.headers["If-Match"]) % 4:
            case.headers["If-Match"] = "*"
        if isinstance(case.query, dict):
            case.query.update(self._existing(case.query))
        if isinstance(case.body, dict):
            case.body = self._existing(case.body)

    def _existing(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self._existing(one) for one in value]
        if not isinstance(value, dict):
            return value
        return {
            name: self.rows[(name,)][member % len(self.rows[(name,)])][0]
            if (name,) in self.rows and isinstance(member, int) and member % 8
            else self._existing(member)
            for name, member in value.items()
        }


def prepared(clinic: Clinic, role: str) -> Any:
    """The schema as the application serves it, asked by the role."""
    desk = Desk(clinic, role)
    schema = schemathesis.openapi.from_wsgi(
        "/openapi.json", clinic.app, config=configuration(registered_endpoints(clinic.app), role)
    )

    class SignedIn(AuthProvider):
        def get(self, case: Any, context: Any) -> str:
            return desk.token()

        def set(self, case: Any, data: str, context: Any) -> None:
            case.headers["Authorization"] = f"Bearer {data}"

    def map_case(context: HookContext, case: Any) -> Any:
        desk.known(case)
        return case

    def after_call(context: HookContext, case: Any, response: Any) -> None:
        desk.doubted = desk.doubted or response.status_code == 401

    schema.auth(refresh_interval=None)(SignedIn)
    schema.hook(map_case)
    schema.hook(after_call)
    return schema


@schemathesis.check
def told_form(ctx: Any, response: Any, case: Any) -> None:
    """A 422 to a well-formed request is about its meaning: of its form the document must have told."""
    if case.meta is None or not case.meta.generation.mode.is_positive or response.status_code != 422:
        return
    problems = response.json().get("errors", {})
    untold = {field: told for field, told in problems.items() if FORM.match(told)}
    assert not untold, f"the document does not tell: {untold}"


class Tally:
    """What a run found."""

    def __init__(self) -> None:
        self.cases: Counter[str] = Counter()
        self.statuses: Counter[int] = Counter()
        self.failures: dict[str, list[str]] = defaultdict(list)

    def take(self, event: Any) -> None:
        """Count the cases of one scenario and keep its failures."""
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
                    told = _told(recorder.interactions[case_id], check.failure_info.failure)
                    self.failures[f"{check.name}: {event.label}"].append(told)

    def report(self) -> str:
        """Two examples of each kind of failure."""
        return "\n".join(
            f"== {kind} ({len(told)})\n" + "\n".join(told[:2]) for kind, told in sorted(self.failures.items())
        )


def _told(interaction: Any, failure: Any) -> str:
    request, response = interaction.request, interaction.response
    body = (request.body or b"")[:400]
    answer = (response.status_code, response.content[:400]) if response is not None else None
    return f"{request.method} {request.uri} {body!r} -> {answer}\n{failure.message}"


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """The WSGI transport hands a probe's socket settings to a client that has no sockets."""
    original = WSGITransport.send

    def send(self: WSGITransport, case: Any, **options: Any) -> Any:
        return original(self, case, **{name: value for name, value in options.items() if name not in SOCKET})

    monkeypatch.setattr(WSGITransport, "send", send)


TALLIES = pytest.StashKey[dict[str, int]]()


@pytest.mark.parametrize(("role", "engine_name"), ENGINE_OF.items())
def test_the_document_holds_for_each_role(
    clinic: Clinic, role: str, in_process: None, record_property: Any
) -> None:
    schema, tally = prepared(clinic, role), Tally()

    for event in from_schema(schema).execute():
        tally.take(event)

    record_property("cases", sum(tally.cases.values()))
    assert not tally.failures, tally.report()
    assert tally.statuses[500] == 0
    assert {"fuzzing", "coverage", "stateful"} <= set(tally.cases)
    assert sum(tally.cases.values()) >= LEAST
