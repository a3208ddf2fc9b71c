"""What there is to attack: every route with a row to name and a body that would do, and what is stored."""

from __future__ import annotations

import copy
import itertools
import random
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from flask import Flask
from sqlalchemy import Engine, inspect, text

from api.docs.registry import RegisteredEndpoint, registered_endpoints
from models import Base
from tests.robustness.scale import Scale
from tests.support.clinic import Clinic
from tests.support.database import connected
from tests.support.furnished import Rows

T = TypeVar("T")
Place = tuple[str | int, ...]
HERE = "@@here@@"  # stands in a body for a value that JSON writers refuse to write
TOLD = ("audit_logs", "audit_subjects", "audit_heads")  # refusals are written down


@dataclass(frozen=True)
class Target:
    """One method of one route, with what the document says of it."""

    entry: RegisteredEndpoint
    path: str  # of rows that are there
    body: dict[str, Any] | None  # the documented example
    places: tuple[Place, ...]  # of every value in the body
    params: tuple[str, ...]  # of the query

    def __str__(self) -> str:
        return f"{self.entry.method} {self.entry.path}"


@cache
def _document(app: Flask) -> dict[str, Any]:
    document: dict[str, Any] = app.test_client().get("/openapi.json").get_json()
    return document


def targets(clinic: Clinic, rows: Rows, copy_number: int = 0) -> list[Target]:
    """Every method of every route but the aliases, on the rows of `furnish`."""
    document = _document(clinic.app)
    found = []
    for entry in registered_endpoints(clinic.app):
        if entry.is_put_alias:
            continue
        told = document["paths"][entry.path][entry.method.lower()]
        content = told.get("requestBody", {}).get("content", {}).get("application/json")
        reader = _Reader(document)
        params = [reader.resolved(one) for one in told.get("parameters", [])]
        ids = rows[entry.path_ids][copy_number % len(rows[entry.path_ids])] if entry.path_ids else ()
        numbers = iter(ids)
        found.append(
            Target(
                entry,
                re.sub(r"{\w+}", lambda _name, numbers=numbers: str(next(numbers)), entry.path),
                content["example"] if content else None,
                tuple(reader.places(content["schema"])) if content else (),
                tuple(one["name"] for one in params if one["in"] == "query"),
            )
        )
    return found


def few(scale: Scale, everything: Sequence[T], count: int = 60) -> list[T]:
    """All in the long form; in the short one a sample, the same every time."""
    if scale.long or len(everything) <= count:
        return list(everything)
    return random.Random(5).sample(everything, count)


class _Reader:
    """Walks the schemas of an OpenAPI document."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.document = document

    def resolved(self, part: dict[str, Any]) -> dict[str, Any]:
        """The part that a reference names."""
        while "$ref" in part:
            found: Any = self.document
            for name in part["$ref"].removeprefix("#/").split("/"):
                found = found[name]
            part = found
        return part

    def places(self, schema: dict[str, Any], at: Place = ()) -> Iterator[Place]:
        """Where a body of the schema has values: each member, the first of each list, what is in them."""
        schema = self.resolved(schema)
        if at:
            yield at
        for name, member in schema.get("properties", {}).items():
            yield from self.places(member, (*at, name))
        if "items" in schema:
            yield from self.places(schema["items"], (*at, 0))
        for choice in (*schema.get("anyOf", ()), *schema.get("oneOf", ()), *schema.get("allOf", ())):
            choice = self.resolved(choice)
            if "properties" in choice or "items" in choice:
                yield from list(self.places(choice, at))[1:]


def placed(body: dict[str, Any], place: Place, value: Any) -> dict[str, Any]:
    """The body with the value at the place; lists and objects on the way are made where there are none."""
    found = part = copy.deepcopy(body)
    for step, following in itertools.pairwise(place):
        inner: Any = part[step] if isinstance(part, dict) and step in part else None
        if isinstance(part, list):
            inner = part[0] if part else None
        if not isinstance(inner, list if isinstance(following, int) else dict):
            inner = [] if isinstance(following, int) else {}
        if isinstance(part, list):
            part[:1] = [inner]
        else:
            part[step] = inner
        part = inner
    if isinstance(part, list):
        part[:1] = [value]
    else:
        part[place[-1]] = value
    return found


# --- What is stored ------------------------------------------------------------------------------------


def contents(url: str, but: tuple[str, ...] = ()) -> dict[str, list[tuple[Any, ...]]]:
    """All rows of all tables, sorted; nothing where there is no database."""
    if url.startswith("sqlite") and not Path(url.removeprefix("sqlite:///")).exists():
        return {}
    with connected(url) as engine, engine.connect() as connection:
        names = set(inspect(connection).get_table_names()) - set(but)
        found = {name: connection.execute(text(f'SELECT * FROM "{name}"')).all() for name in names}
    return {name: sorted(map(tuple, rows), key=repr) for name, rows in found.items()}


class Witness:
    """Tells quickly whether anything was stored: how many rows each table has, in which versions."""

    def __init__(self, engine: Engine) -> None:
        self.connection = engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        parts = [
            f"SELECT count(*), {'sum(version)' if 'version' in table.columns else '0'} FROM {table.name}"
            for table in Base.metadata.sorted_tables
            if table.name not in TOLD
        ]
        self.statement = text(" UNION ALL ".join(parts))

    def __call__(self) -> list[tuple[Any, ...]]:
        return [tuple(row) for row in self.connection.execute(self.statement)]


@contextmanager
def witness(url: str) -> Iterator[Witness]:
    """A witness of the database at `url`, on a connection of its own."""
    with connected(url) as engine:
        made = Witness(engine)
        yield made
        made.connection.close()
