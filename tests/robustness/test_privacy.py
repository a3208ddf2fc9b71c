"""Canaries: a word of its own in every text that is sent, and afterwards in no log, figure, key or error."""

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
from tests.conftest import ENGINES, NewDatabase, settings_for
from tests.robustness.abuse_targets import (
    Target,
    contents,
    few,
    placed,
    targets,
)
from tests.robustness.conftest import Figures
from tests.robustness.scale import Scale
from tests.support.clinic import Clinic
from tests.support.database import connected
from tests.support.furnished import furnish
from tests.support.servers import (
    AppServer,
    RedisServer,
    start_app,
    start_redis,
)

CANARY = re.compile(r"zq[a-z]{4}qz", re.I)
# Refusals that name rows on purpose, to callers who may read them.
TELLING = ("possible_duplicate", "safety_alert", "insufficient_stock", "appointment_conflict")
# A column keeps what the member of its name said; some are a second form of another.
ENTRIES = {  # plain text for a list is read as its one entry
    "allergies": "substance",
    "conditions": "name",
    "medications": "name",
    "diagnoses": "description",
}
FORMS = ("_fold", "_digits", "_e164", "_hash")


class Canaries:
    """Words that nobody else uses, and where each was sent to."""

    def __init__(self) -> None:
        letters = itertools.product("abcdefghijklmnopqrstuvwxyz", repeat=4)
        self._words = (f"zq{''.join(word)}qz" for word in letters)
        self.sent: dict[str, str] = {}

    def word(self, where: str) -> str:
        """The next one."""
        word = next(self._words)
        self.sent[word] = where
        return word

    def found(self, text_: str, but: tuple[str, ...] = ()) -> set[str]:
        """Those in the text that were not sent as one of `but`, with where they were sent."""
        words = {word: self.sent.get(word, "?") for word in CANARY.findall(text_.lower())}
        return {f"{word} ({where})" for word, where in words.items() if where not in but}


class House:
    """The application as production runs it, on one engine, with Redis, limits and SQL echo."""

    def __init__(self, url: str, store: RedisServer, production: bool) -> None:
        self.url, self.store = url, store
        self.clinic = Clinic(settings_for(url))
        settings = self.clinic.settings
        self.server: AppServer = start_app(
            url,
            store.url,
            workers=2,
            env={
                "ENVIRONMENT": "production" if production else "development",
                "JWT_SECRET_KEY": settings.jwt_secret_key,
                "AUDIT_KEY": settings.audit_key,
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
        """One request of the admin's; refusals are kept."""
        headers.setdefault("Authorization", f"Bearer {token or self.clinic.admin.token}")
        answer = self.session.request(method, self.server.url + path, json=body, headers=headers, timeout=30)
        if answer.status_code >= 400:
            self.refusals.append((answer.json()["error"], answer.text))
        return answer

    def redis_contents(self) -> str:
        """Every key of Redis with its value."""
        with redis.Redis.from_url(self.store.url) as client:
            told = []
            for key in client.scan_iter():
                told.append(repr(key))
                with suppress(redis.ResponseError):
                    told.append(repr(client.get(key)))
                with suppress(redis.ResponseError):
                    told.append(repr(client.lrange(key, 0, -1)))
                with suppress(redis.ResponseError):
                    told.append(repr(client.zrange(key, 0, -1)))
        return "\n".join(told)

    def close(self) -> None:
        self.server.stop()
        self.clinic.close()


@pytest.fixture(params=ENGINES)
def house(request: pytest.FixtureRequest, new_database: NewDatabase) -> Iterator[House]:
    store = start_redis()
    made = House(new_database(request.param), store, production=request.param == "postgresql")
    yield made
    made.close()
    store.stop()


def send_in_bodies(house: House, canaries: Canaries, found: list[Target], scale: Scale) -> None:
    """A canary at each place of each body, with a retry key, and as the wrong kind of value."""
    places = [(one, place) for one in found for place in one.places]
    for target, place in few(scale, places, 50):
        where = f"{target} {'.'.join(map(str, place))}"
        kinds = [canaries.word(where), f"{canaries.word(where)}@clinic.example", [canaries.word(where)]]
        for value in kinds[: 3 if scale.long else 2]:
            body = placed(target.body or {}, place, value)
            key = {"Idempotency-Key": canaries.word("Idempotency-Key")} if target.entry.idempotent else {}
            for _ in range(2):  # the second is a retry
                house.send(target.entry.method, target.path, body, **key)


def send_in_queries(house: House, canaries: Canaries, found: list[Target], scale: Scale) -> None:
    """A canary in each parameter, in paths, and as the name of a parameter and of a member."""
    params = [(one, name) for one in found if one.entry.method == "GET" for name in one.params]
    for target, name in few(scale, params, 30):
        house.send("GET", f"{target.path}?{name}={canaries.word(f'{target} ?{name}')}")
    for path in ("/patients", "/patients/search", "/nowhere", "/patients/1"):
        house.send("GET", f"{path}?{canaries.word('a name')}=1")
        house.send("GET", f"{path}/{canaries.word('a path')}")
        house.send("POST", path, {canaries.word("a member"): 1})


def sign_in_with(house: House, canaries: Canaries) -> list[str]:
    """Passwords and tokens in every place that takes one; what must be stored nowhere at all."""
    password, wrong, weak = (f"{canaries.word(kind)} harbour 4711" for kind in ("password", "wrong", "weak"))
    user = {"name": canaries.word("name"), "email": f"{canaries.word('email')}@clinic.example"}
    house.send("POST", "/users", user | {"password": password, "role": "doctor"})
    pair = house.send("POST", "/auth/login", {"email": user["email"], "password": password}).json()
    house.send("POST", "/auth/login", {"email": user["email"], "password": wrong})
    house.send(
        "POST", "/auth/login", {"email": f"{canaries.word('unknown')}@clinic.example", "password": wrong}
    )
    house.send("POST", "/auth/register", user | {"password": weak})
    passwords = {"current_password": wrong, "new_password": weak}
    house.send("POST", "/auth/change-password", passwords, token=pair["access_token"])
    house.send(
        "POST", "/auth/reset-password", {"token": canaries.word("one-time token"), "new_password": weak}
    )
    house.send("GET", "/auth/me", token=canaries.word("token"))
    house.send("GET", "/auth/me", Cookie=f"access_token_cookie={canaries.word('cookie')}")
    house.send("POST", "/auth/refresh-token", {"refresh_token": pair["refresh_token"]})
    house.send("POST", "/auth/logout", token=pair["access_token"])
    return [
        password,
        wrong,
        weak,
        *(pair[name].rsplit(".", 1)[1] for name in ("access_token", "refresh_token")),
    ]


# A database that fails with words of its own about the row: what nobody foresaw is logged.
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


def break_the_database(house: House, canaries: Canaries) -> None:
    """Failures that nobody foresaw, on creation and on change."""
    with connected(house.url) as engine, engine.begin() as connection:
        for statement in FAILING[engine.dialect.name]:
            connection.execute(text(statement))
    for method, path in (("POST", "/patients"), ("PATCH", "/patients/1"), ("POST", "/patients")):
        words = {name: canaries.word(f"broken {path} {name}") for name in ("name", "address", "review_notes")}
        answer = house.send(method, path, words)
        assert (answer.status_code, answer.json()["error"]) == (500, "internal_error")


def misplaced(house: House, canaries: Canaries) -> set[str]:
    """Canaries in columns that are not those of the members they were sent as."""
    found = set()
    for table, rows in contents(house.url).items():
        with connected(house.url) as engine, engine.connect() as connection:
            names = list(connection.execute(text(f'SELECT * FROM "{table}"')).keys())
        for row in rows:
            for name, value in zip(names, row, strict=True):
                for word in set(CANARY.findall(str(value).lower())):
                    if not _belongs(table, name, canaries.sent.get(word, "")):
                        found.add(f"{table}.{name}: {word} ({canaries.sent.get(word)})")
    return found


def _belongs(table: str, column: str, where: str) -> bool:
    for form in FORMS:
        column = column.removesuffix(form)
    if table == "idempotency_keys":  # it keeps the first answer, to give it again
        return column in ("key", "body")
    if table == "audit_logs":  # who did it
        return column == "user_name" and where in ("name", "PATCH /auth/me name")
    last = where.rpartition(" ")[2].removesuffix(".0").rpartition(".")[2]
    return column.split("_")[-1] in re.split(r"[\W_]+", where.lower()) or ENTRIES.get(last) == column


def test_no_canary_leaves_its_column(house: House, scale: Scale, figures: Figures) -> None:
    canaries = Canaries()

    found = targets(house.clinic, furnish(house.clinic))
    send_in_bodies(house, canaries, found, scale)
    send_in_queries(house, canaries, found, scale)
    secrets = sign_in_with(house, canaries)
    break_the_database(house, canaries)
    config.use(house.clinic.settings)
    figures_page = house.send("GET", "/metrics").text
    log = house.server.log()
    kept = house.redis_contents()
    # an unknown member or parameter is named to whoever sent it
    silent = "\n".join(body for code, body in house.refusals if code not in TELLING)
    everything = "\n".join([log, kept, figures_page, repr(contents(house.url))])

    figures["canaries"] = len(canaries.sent)
    figures["bytes of log"] = len(log)
    assert "INSERT INTO" in log  # the echo is on
    assert "/patients/<int:patient_id>" in figures_page
    assert len(kept) > 100
    for name, told in {"log": log, "metrics": figures_page, "Redis": kept}.items():
        assert canaries.found(told) == set(), name
    assert canaries.found(silent, but=("a name", "a member")) == set()
    assert [secret for secret in secrets if secret in everything] == []
    assert misplaced(house, canaries) == set()
