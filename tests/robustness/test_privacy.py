"""Privacy: unique words in every sent text (canaries) must not reach logs, metrics, Redis or errors."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
import redis
import requests
from sqlalchemy import text

import config
from services.patients import search_column
from tests.conftest import ENGINES, NewDatabase, settings_for
from tests.robustness.abuse_targets import (
    Target,
    contents,
    sample,
    targets,
    with_value,
)
from tests.robustness.conftest import Figures
from tests.robustness.load_level import LoadLevel
from tests.support.clinic import Clinic
from tests.support.database import connected
from tests.support.furnished import furnish
from tests.support.keys import secrets_of
from tests.support.servers import (
    AppServer,
    RedisServer,
    start_app,
    start_redis,
)

CANARY = re.compile(r"zq[a-z]{4}qz", re.I)
# Refusals that show rows on purpose, to callers who may read them.
CODES_WITH_ROWS = ("possible_duplicate", "safety_alert", "insufficient_stock", "appointment_conflict")
# Text in place of a list becomes the only element of the list: member -> column of the element.
ELEMENT_COLUMNS = {
    "allergies": "substance",
    "conditions": "name",
    "medications": "name",
    "diagnoses": "description",
}
DERIVED_SUFFIXES = ("_fold", "_key", "_digits", "_e164", "_hash")


class Canaries:
    """Unique words, and the place where each was sent."""

    def __init__(self) -> None:
        letters = itertools.product("abcdefghijklmnopqrstuvwxyz", repeat=4)
        self._words = (f"zq{''.join(word)}qz" for word in letters)
        self.sent: dict[str, str] = {}

    def word(self, where: str) -> str:
        """Return a new word."""
        word = next(self._words)
        self.sent[word] = where
        return word

    def find(self, text_: str, exclude: tuple[str, ...] = ()) -> set[str]:
        """Return the words in the text with their places, except those of excluded places."""
        words = {word: self.sent.get(word, "?") for word in CANARY.findall(text_.lower())}
        return {f"{word} ({where})" for word, where in words.items() if where not in exclude}


class Deployment:
    """The application with Redis, rate limits and SQL echo."""

    def __init__(self, url: str, redis_server: RedisServer, production: bool) -> None:
        self.url, self.redis = url, redis_server
        self.clinic = Clinic(settings_for(url))
        settings = self.clinic.settings
        self.server: AppServer = start_app(
            url,
            redis_server.url,
            workers=2,
            env={
                "ENVIRONMENT": "production" if production else "development",
                **secrets_of(settings),
                "AUDIT_HEADS_FILE": str(settings.heads_file),
                "SQLALCHEMY_ECHO": "true",
                "RATE_LIMIT_ENABLED": "true",
                "RATE_LIMIT_DEFAULT": "100000 per minute",
                "RATE_LIMIT_LOGIN_ADDRESS": "1000 per minute",
                "TRUSTED_PROXIES": "1",
            },
        )
        self.session = requests.Session()
        self.refusals: list[tuple[str, str]] = []  # code and body

    def send(self, method: str, path: str, body: Any = None, token: str | None = None, **headers: str) -> Any:
        """Send a request as the admin. Keep the refusals."""
        headers.setdefault("Authorization", f"Bearer {token or self.clinic.admin.token}")
        response = self.session.request(
            method, self.server.url + path, json=body, headers=headers, timeout=30
        )
        if response.status_code >= 400:
            self.refusals.append((response.json()["error"], response.text))
        return response

    def redis_contents(self) -> str:
        """Return every key of Redis with its value."""
        with redis.Redis.from_url(self.redis.url) as client:
            lines = []
            for key in client.scan_iter():
                lines.append(repr(key))
                with suppress(redis.ResponseError):
                    lines.append(repr(client.get(key)))
                with suppress(redis.ResponseError):
                    lines.append(repr(client.lrange(key, 0, -1)))
                with suppress(redis.ResponseError):
                    lines.append(repr(client.zrange(key, 0, -1)))
        return "\n".join(lines)

    def close(self) -> None:
        self.server.stop()
        self.clinic.close()


@pytest.fixture(params=ENGINES)
def deployment(request: pytest.FixtureRequest, new_database: NewDatabase) -> Iterator[Deployment]:
    redis_server = start_redis()
    deployment = Deployment(
        new_database(request.param), redis_server, production=request.param == "postgresql"
    )
    yield deployment
    deployment.close()
    redis_server.stop()


def send_in_bodies(
    deployment: Deployment, canaries: Canaries, endpoints: list[Target], level: LoadLevel
) -> None:
    """Send a canary in every member of every body, with an idempotency key, also with a wrong type."""
    members = [(target, path) for target in endpoints for path in target.body_paths]
    for target, body_path in sample(level, members, 50):
        where = f"{target} {'.'.join(map(str, body_path))}"
        kinds = [canaries.word(where), f"{canaries.word(where)}@clinic.example", [canaries.word(where)]]
        for value in kinds[: 3 if level.long else 2]:
            body = with_value(target.body or {}, body_path, value)
            key = {"Idempotency-Key": canaries.word("Idempotency-Key")} if target.entry.idempotent else {}
            for _ in range(2):  # the second is a retry
                deployment.send(target.entry.method, target.path, body, **key)


def send_in_queries(
    deployment: Deployment, canaries: Canaries, endpoints: list[Target], level: LoadLevel
) -> None:
    """Send a canary in every query parameter, in paths, and as the name of a parameter and of a member."""
    params = [
        (target, name) for target in endpoints if target.entry.method == "GET" for name in target.params
    ]
    for target, name in sample(level, params, 30):
        deployment.send("GET", f"{target.path}?{name}={canaries.word(f'{target} ?{name}')}")
    for path in ("/patients", "/patients/search", "/nowhere", "/patients/1"):
        deployment.send("GET", f"{path}?{canaries.word('a name')}=1")
        deployment.send("GET", f"{path}/{canaries.word('a path')}")
        deployment.send("POST", path, {canaries.word("a member"): 1})


def sign_in_with(deployment: Deployment, canaries: Canaries) -> list[str]:
    """Send passwords and tokens to every endpoint that takes them. Return those that must not be stored."""
    password, wrong, weak = (f"{canaries.word(kind)} harbour 4711" for kind in ("password", "wrong", "weak"))
    user = {"name": canaries.word("name"), "email": f"{canaries.word('email')}@clinic.example"}
    deployment.send("POST", "/users", user | {"password": password, "role": "doctor"})
    pair = deployment.send("POST", "/auth/login", {"email": user["email"], "password": password}).json()
    deployment.send("POST", "/auth/login", {"email": user["email"], "password": wrong})
    deployment.send(
        "POST", "/auth/login", {"email": f"{canaries.word('unknown')}@clinic.example", "password": wrong}
    )
    deployment.send("POST", "/auth/register", user | {"password": weak})
    passwords = {"current_password": wrong, "new_password": weak}
    deployment.send("POST", "/auth/change-password", passwords, token=pair["access_token"])
    deployment.send(
        "POST", "/auth/reset-password", {"token": canaries.word("one-time token"), "new_password": weak}
    )
    deployment.send("GET", "/auth/me", token=canaries.word("token"))
    deployment.send("GET", "/auth/me", Cookie=f"access_token_cookie={canaries.word('cookie')}")
    deployment.send("POST", "/auth/refresh-token", {"refresh_token": pair["refresh_token"]})
    deployment.send("POST", "/auth/logout", token=pair["access_token"])
    return [
        password,
        wrong,
        weak,
        *(pair[name].rsplit(".", 1)[1] for name in ("access_token", "refresh_token")),
    ]


# A database error whose message contains the row. Unexpected errors are logged.
FAILING = {
    "postgresql": (
        "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION 'cannot do this with %', NEW; END $$",
        "CREATE TRIGGER fails BEFORE INSERT OR UPDATE ON patients FOR EACH ROW EXECUTE FUNCTION fail()",
    ),
    "sqlite": tuple(
        f"CREATE TRIGGER fails_{event} BEFORE {event} ON patients BEGIN SELECT json(NEW.name); END"
        for event in ("INSERT", "UPDATE")
    ),
}


def break_the_database(deployment: Deployment, canaries: Canaries) -> None:
    """Cause unexpected errors for an insert and an update."""
    with connected(deployment.url) as engine, engine.begin() as connection:
        for statement in FAILING[engine.dialect.name]:
            connection.execute(text(statement))
    for method, path in (("POST", "/patients"), ("PATCH", "/patients/1"), ("POST", "/patients")):
        words = {name: canaries.word(f"broken {path} {name}") for name in ("name", "address", "review_notes")}
        response = deployment.send(method, path, words)
        assert (response.status_code, response.json()["error"]) == (500, "internal_error")


def misplaced_words(deployment: Deployment, canaries: Canaries) -> set[str]:
    """Return the canaries in columns that do not belong to the member where they were sent."""
    misplaced = set()
    for table, rows in contents(deployment.url).items():
        with connected(deployment.url) as engine, engine.connect() as connection:
            names = list(connection.execute(text(f'SELECT * FROM "{table}"')).keys())
        for row in rows:
            for name, value in zip(names, row, strict=True):
                for word in set(CANARY.findall(str(value).lower())):
                    if not _belongs(table, name, canaries.sent.get(word, "")):
                        misplaced.add(f"{table}.{name}: {word} ({canaries.sent.get(word)})")
    return misplaced


def _belongs(table: str, column: str, where: str) -> bool:
    if (table, column) == ("patients", "search_fold"):
        return any(_belongs(table, field, where) for field in search_column.FIELDS)
    for suffix in DERIVED_SUFFIXES:
        column = column.removesuffix(suffix)
    if table == "idempotency_keys":  # the stored response is encrypted
        return column == "key"
    if table == "audit_logs":  # the name of the user
        return column == "user_name" and where in ("name", "PATCH /auth/me name")
    last = where.rpartition(" ")[2].removesuffix(".0").rpartition(".")[2]
    return column.split("_")[-1] in re.split(r"[\W_]+", where.lower()) or ELEMENT_COLUMNS.get(last) == column


def test_personal_data_is_stored_only_in_its_column(
    deployment: Deployment, level: LoadLevel, figures: Figures
) -> None:
    canaries = Canaries()

    endpoints = targets(deployment.clinic, furnish(deployment.clinic))
    send_in_bodies(deployment, canaries, endpoints, level)
    send_in_queries(deployment, canaries, endpoints, level)
    secrets = sign_in_with(deployment, canaries)
    break_the_database(deployment, canaries)
    config.use(deployment.clinic.settings)
    metrics = deployment.send("GET", "/metrics").text
    log = deployment.server.log()
    redis_data = deployment.redis_contents()
    # The message about an unknown member or parameter contains its name.
    refusals = "\n".join(body for code, body in deployment.refusals if code not in CODES_WITH_ROWS)
    everything = "\n".join([log, redis_data, metrics, repr(contents(deployment.url))])

    figures["canaries"] = len(canaries.sent)
    figures["bytes of log"] = len(log)
    assert "INSERT INTO" in log  # the echo is on
    assert "/patients/<int:patient_id>" in metrics
    assert len(redis_data) > 100
    for name, text_ in {"log": log, "metrics": metrics, "Redis": redis_data}.items():
        assert canaries.find(text_) == set(), name
    assert canaries.find(refusals, exclude=("a name", "a member")) == set()
    assert [secret for secret in secrets if secret in everything] == []
    assert misplaced_words(deployment, canaries) == set()
