"""Invalid values in every member of every body, in queries, paths and headers.

They are refused as problem+json, or they are harmless. No response is a 5xx or shows an implementation
detail. A refused request stores nothing.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import pytest
from werkzeug.test import TestResponse

from errors import CODES
from tests.robustness.abuse_targets import (
    PLACEHOLDER,
    BodyPath,
    Target,
    count_tables,
    targets,
    with_value,
)
from tests.robustness.abuse_values import (
    HEADERS,
    JSON,
    NAMES,
    NEVER,
    TEXTS,
)
from tests.robustness.conftest import Figures
from tests.robustness.load_level import LoadLevel
from tests.support.clinic import Clinic
from tests.support.furnished import COPIES, furnish

PAGES = ("/a/", "/u/", "/v/")  # public pages, whose errors are pages
INTERNAL_WORDS = ("Traceback", "sqlalchemy", "psycopg2", "sqlite3", "SELECT ", "INSERT INTO", 'File "')


@dataclass(frozen=True, slots=True)
class InvalidRequest:
    """A request with one invalid value. The body is created when it is sent, because some are long."""

    target: Target
    kind: str  # of the value
    value: str = ""
    body_path: BodyPath | None = None  # in the documented body; () is the whole body
    member: str | None = None  # an additional member
    query: str = ""
    path: str | None = None
    header: str = ""
    never: bool = False  # it must be refused

    def __str__(self) -> str:
        where = self.body_path or self.member or self.query or self.path or self.header
        return f"{self.target} {where!r} {self.kind}: {self.value[:100]!r}"

    @property
    def body(self) -> bytes | None:
        """The request body."""
        if self.target.body is None:
            return None
        if self.body_path == ():
            return self.value.encode("utf-8", "surrogatepass")
        if self.body_path is None:
            additional = {} if self.member is None else {self.member: 1}
            return json.dumps(self.target.body | additional).encode()
        text = json.dumps(with_value(self.target.body, self.body_path, PLACEHOLDER))
        return text.replace(f'"{PLACEHOLDER}"', self.value).encode("utf-8", "surrogatepass")


UNKNOWN_NAME = "an unknown name"


def escape(text: str) -> str:
    """Return the text as a part of a URL."""
    return quote(text, safe="", errors="surrogateescape")


def in_bodies(target: Target) -> Iterator[InvalidRequest]:
    """Yield every invalid value for every member and for the whole body, and unknown members."""
    if target.body is None:
        return
    for body_path in ((), *target.body_paths):
        for kind, values in JSON.items():
            for value in values:
                yield InvalidRequest(target, kind, value, body_path, never=kind in NEVER)
    for name in NAMES:
        yield InvalidRequest(target, UNKNOWN_NAME, member=name, never=True)


def in_queries(target: Target) -> Iterator[InvalidRequest]:
    """Yield every invalid text for every parameter, repeated parameters, and unknown parameters."""
    for name in target.params:
        for kind, texts in TEXTS.items():
            for text in texts:
                yield InvalidRequest(target, kind, text, query=f"?{escape(name)}={escape(text)}")
        yield InvalidRequest(target, "twice", query=f"?{name}=1&{name}=a")
    for name in NAMES:
        yield InvalidRequest(target, UNKNOWN_NAME, query=f"?{escape(name)}=1", never=True)
    yield InvalidRequest(target, "a broken query", query="?%ff%fe=%zz&=&&a", never=True)


def in_paths(target: Target) -> Iterator[InvalidRequest]:
    """Yield every invalid text in place of the last id."""
    if not target.entry.path_ids:
        return
    start, _, end = target.entry.path.partition("{" + target.entry.path_ids[-1] + "}")
    start = start.replace("{" + target.entry.path_ids[0] + "}", "1")
    for kind, texts in TEXTS.items():
        for text in texts:
            yield InvalidRequest(target, kind, text, path=start + escape(text) + end)


def in_headers(target: Target) -> Iterator[InvalidRequest]:
    """Yield the headers that the application reads, with invalid values."""
    for name, values in HEADERS.items():
        for value in values:
            yield InvalidRequest(target, "a header", value, header=name)


class Sender:
    """An admin who sends invalid requests, signs in again after a sign-out, and records the problems."""

    def __init__(self, clinic: Clinic, stored: Callable[[], list[tuple[Any, ...]]]) -> None:
        self.clinic, self.stored = clinic, stored
        self.caller = clinic.admin
        self.before = stored()
        self.statuses: Counter[int] = Counter()
        self.problems: list[str] = []

    def send(self, request: InvalidRequest) -> None:
        """Send the request and check the response."""
        response = self._send(request)
        if response.status_code == 401 and self.caller.get("/auth/me").status_code == 401:
            self.caller = self.clinic.sign_in("admin")
            self.before = self.stored()
            response = self._send(request)
        self.statuses[response.status_code] += 1
        after = self.stored()
        problem = self._problem(request, response, after)
        if problem:
            self.problems.append(f"{request}\n    -> {response.status_code} {problem}")
        self.before = after

    def _send(self, request: InvalidRequest) -> TestResponse:
        body = request.body
        headers = {} if body is None else {"Content-Type": "application/json"}
        if request.header:
            headers[request.header] = request.value
        path = (request.path or request.target.path) + request.query
        return self.caller.send(request.target.entry.method, path, data=body, headers=headers)

    def _problem(
        self, request: InvalidRequest, response: TestResponse, after: list[tuple[Any, ...]]
    ) -> str | None:
        status = response.status_code
        if status < 400:
            return "accepted" if request.never else None
        text = response.get_data(as_text=True)
        if status >= 500:
            return f"server error: {text[:300]}"
        if request.target.path.startswith(PAGES):
            return None if response.mimetype == "text/html" else f"no page: {text[:300]}"
        problem = response.get_json(silent=True)
        if response.mimetype != "application/problem+json" or not isinstance(problem, dict):
            return f"not problem+json: {text[:300]}"
        if CODES.get(problem.get("error", ""), (0,))[0] != status or problem["message"] != problem["detail"]:
            return f"not valid problem+json: {problem}"
        shown = [word for word in INTERNAL_WORDS if word in text and word not in str(request)]
        if shown:
            return f"shows {shown}: {text[:300]}"
        return None if after == self.before else "refused, but data has changed"


def all_requests(endpoints: list[Target]) -> dict[str, list[InvalidRequest]]:
    """Return all invalid requests by the part with the invalid value."""
    makers = {"bodies": in_bodies, "queries": in_queries, "paths": in_paths, "headers": in_headers}
    return {
        name: [request for target in endpoints for request in make(target)] for name, make in makers.items()
    }


# Percent of the requests: bodies have the most members.
SHARES = {"bodies": 60, "queries": 28, "paths": 6, "headers": 6}


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_invalid_values_are_refused_or_harmless(
    make_clinic: Callable[..., Clinic], level: LoadLevel, figures: Figures, engine_name: str
) -> None:
    clinic = make_clinic(clinic_timezone="Europe/Berlin", allowed_origins=("https://front.example",))
    rows, rng = furnish(clinic), random.Random(f"{engine_name} 11")
    copies = range(COPIES if level.long else 1)
    candidates = all_requests([target for number in copies for target in targets(clinic, rows, number)])
    requests = [
        request
        for name, group in candidates.items()
        for request in rng.sample(group, min(len(group), level.bad_values // 2 * SHARES[name] // 100))
    ]
    rng.shuffle(requests)

    with count_tables(clinic.settings.database_url) as stored:
        sender = Sender(clinic, stored)
        for request in requests:
            sender.send(request)

    figures["requests"] = sum(sender.statuses.values())
    figures["refused"] = sum(count for status, count in sender.statuses.items() if status >= 400)
    figures["server errors"] = sum(count for status, count in sender.statuses.items() if status >= 500)
    assert sender.problems == [], "\n".join(sender.problems[:20])
    assert len(requests) >= level.bad_values * 0.45
