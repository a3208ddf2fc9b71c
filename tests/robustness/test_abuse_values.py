"""Bad values in every field of every body, in queries, paths and headers: refused in one shape, or harmless.

Never a 5xx, never a word about the machinery, and a refused request leaves nothing behind.
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
    HERE,
    Place,
    Target,
    placed,
    targets,
    witness,
)
from tests.robustness.abuse_values import (
    HEADERS,
    JSON,
    NAMES,
    NEVER,
    TEXTS,
)
from tests.robustness.conftest import Figures
from tests.robustness.scale import Scale
from tests.support.clinic import Clinic
from tests.support.furnished import COPIES, furnish

MACHINERY = ("Traceback", "sqlalchemy", "psycopg2", "sqlite3", "SELECT ", "INSERT INTO", 'File "')


@dataclass(frozen=True, slots=True)
class Attack:
    """One request with one bad value; its body is only written when it is sent, since some are long."""

    target: Target
    kind: str  # of the value
    value: str = ""
    place: Place | None = None  # in the documented body; () is the whole of it
    member: str | None = None  # a further one of the body
    query: str = ""
    path: str | None = None
    header: str = ""
    never: bool = False  # whether it must be refused

    def __str__(self) -> str:
        where = self.place or self.member or self.query or self.path or self.header
        return f"{self.target} {where!r} {self.kind}: {self.value[:100]!r}"

    @property
    def body(self) -> bytes | None:
        """What is sent."""
        if self.target.body is None:
            return None
        if self.place == ():
            return self.value.encode("utf-8", "surrogatepass")
        if self.place is None:
            further = {} if self.member is None else {self.member: 1}
            return json.dumps(self.target.body | further).encode()
        text = json.dumps(placed(self.target.body, self.place, HERE))
        return text.replace(f'"{HERE}"', self.value).encode("utf-8", "surrogatepass")


NAME = "a name that is none"


def escaped(text: str) -> str:
    """The text as a part of an address."""
    return quote(text, safe="", errors="surrogateescape")


def in_bodies(one: Target) -> Iterator[Attack]:
    """Every class of value at every place of the body, as the whole body, and names that it does not have."""
    if one.body is None:
        return
    for place in ((), *one.places):
        for kind, values in JSON.items():
            for value in values:
                yield Attack(one, kind, value, place, never=kind in NEVER)
    for name in NAMES:
        yield Attack(one, NAME, member=name, never=True)


def in_queries(one: Target) -> Iterator[Attack]:
    """Every class of text in every parameter, each parameter twice, and names that it does not have."""
    for name in one.params:
        for kind, texts in TEXTS.items():
            for text in texts:
                yield Attack(one, kind, text, query=f"?{escaped(name)}={escaped(text)}")
        yield Attack(one, "twice", query=f"?{name}=1&{name}=a")
    for name in NAMES:
        yield Attack(one, NAME, query=f"?{escaped(name)}=1", never=True)
    yield Attack(one, "a broken query", query="?%ff%fe=%zz&=&&a", never=True)


def in_paths(one: Target) -> Iterator[Attack]:
    """Every class of text in place of the last id."""
    if not one.entry.path_ids:
        return
    start, _, end = one.entry.path.partition("{" + one.entry.path_ids[-1] + "}")
    start = start.replace("{" + one.entry.path_ids[0] + "}", "1")
    for kind, texts in TEXTS.items():
        for text in texts:
            yield Attack(one, kind, text, path=start + escaped(text) + end)


def in_headers(one: Target) -> Iterator[Attack]:
    """Headers that are read somewhere, with what nobody sends."""
    for name, values in HEADERS.items():
        for value in values:
            yield Attack(one, "a header", value, header=name)


class Attacker:
    """An admin who sends what nobody should, signs in again when thrown out, and notes what went wrong."""

    def __init__(self, clinic: Clinic, stored: Callable[[], list[tuple[Any, ...]]]) -> None:
        self.clinic, self.stored = clinic, stored
        self.caller = clinic.admin
        self.before = stored()
        self.statuses: Counter[int] = Counter()
        self.problems: list[str] = []

    def send(self, one: Attack) -> None:
        """Send it and judge the answer."""
        answer = self._send(one)
        if answer.status_code == 401 and self.caller.get("/auth/me").status_code == 401:
            self.caller = self.clinic.sign_in("admin")
            self.before = self.stored()
            answer = self._send(one)
        self.statuses[answer.status_code] += 1
        after = self.stored()
        problem = self._problem(one, answer, after)
        if problem:
            self.problems.append(f"{one}\n    -> {answer.status_code} {problem}")
        self.before = after

    def _send(self, one: Attack) -> TestResponse:
        body = one.body
        headers = {} if body is None else {"Content-Type": "application/json"}
        if one.header:
            headers[one.header] = one.value
        path = (one.path or one.target.path) + one.query
        return self.caller.send(one.target.entry.method, path, data=body, headers=headers)

    def _problem(self, one: Attack, answer: TestResponse, after: list[tuple[Any, ...]]) -> str | None:
        status, text = answer.status_code, answer.get_data(as_text=True)
        if status < 400:
            return "taken" if one.never else None
        if status >= 500:
            return f"server error: {text[:300]}"
        told = answer.get_json(silent=True)
        if answer.mimetype != "application/problem+json" or not isinstance(told, dict):
            return f"not in the one shape: {text[:300]}"
        if CODES.get(told.get("error", ""), (0,))[0] != status or told["message"] != told["detail"]:
            return f"not in the one shape: {told}"
        shown = [word for word in MACHINERY if word in text and word not in str(one)]
        if shown:
            return f"tells of {shown}: {text[:300]}"
        return None if after == self.before else "refused, and something is stored"


def every_attack(found: list[Target]) -> dict[str, list[Attack]]:
    """All attacks by where the value is."""
    makers = {"bodies": in_bodies, "queries": in_queries, "paths": in_paths, "headers": in_headers}
    return {name: [attack for one in found for attack in make(one)] for name, make in makers.items()}


# Of each hundred requests so many go there: bodies have the most places.
SHARES = {"bodies": 60, "queries": 28, "paths": 6, "headers": 6}


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_bad_values_anywhere_are_refused_or_harmless(
    make_clinic: Callable[..., Clinic], scale: Scale, figures: Figures, engine_name: str
) -> None:
    clinic = make_clinic(clinic_timezone="Europe/Berlin", allowed_origins=("https://front.example",))
    rows, chance = furnish(clinic), random.Random(f"{engine_name} 11")
    copies = range(COPIES if scale.long else 1)
    every = every_attack([one for number in copies for one in targets(clinic, rows, number)])
    chosen = [
        attack
        for name, attacks in every.items()
        for attack in chance.sample(attacks, min(len(attacks), scale.bad_values // 2 * SHARES[name] // 100))
    ]
    chance.shuffle(chosen)

    with witness(clinic.settings.database_url) as stored:
        attacker = Attacker(clinic, stored)
        for attack in chosen:
            attacker.send(attack)

    figures["requests"] = sum(attacker.statuses.values())
    figures["refused"] = sum(count for status, count in attacker.statuses.items() if status >= 400)
    figures["server errors"] = sum(count for status, count in attacker.statuses.items() if status >= 500)
    assert attacker.problems == [], "\n".join(attacker.problems[:20])
    assert len(chosen) >= scale.bad_values * 0.45
