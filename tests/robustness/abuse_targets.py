"""Every endpoint with a valid example request, and the stored data for comparisons."""

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
from tests.robustness.load_level import LoadLevel
from tests.support.clinic import Clinic
from tests.support.database import connected
from tests.support.furnished import Rows

T = TypeVar("T")
BodyPath = tuple[str | int, ...]
PLACEHOLDER = "@@here@@"  # replaced by JSON text that `json.dumps` cannot write
AUDIT_TABLES = ("audit_logs", "audit_subjects", "audit_heads")  # refusals add audit entries


@dataclass(frozen=True)
class Target:
    """A method of an endpoint, with its example from the OpenAPI document."""

    entry: RegisteredEndpoint
    path: str  # with ids of existing rows
    body: dict[str, Any] | None  # the documented example
    body_paths: tuple[BodyPath, ...]  # of every value of the body
    params: tuple[str, ...]  # query parameters

    def __str__(self) -> str:
        return f"{self.entry.method} {self.entry.path}"


@cache
def _document(app: Flask) -> dict[str, Any]:
    document: dict[str, Any] = app.test_client().get("/openapi.json").get_json()
    return document


def targets(clinic: Clinic, rows: Rows, copy_number: int = 0) -> list[Target]:
    """Return every method of every endpoint, with ids of the rows of `furnish`. PUT aliases are left out."""
    document = _document(clinic.app)
    targets = []
    for entry in registered_endpoints(clinic.app):
        if entry.is_put_alias:
            continue
        operation = document["paths"][entry.path][entry.method.lower()]
        content = operation.get("requestBody", {}).get("content", {}).get("application/json")
        reader = _Reader(document)
        params = [reader.resolve(parameter) for parameter in operation.get("parameters", [])]
        ids = rows[entry.path_ids][copy_number % len(rows[entry.path_ids])] if entry.path_ids else ()
        numbers = iter(ids)
        targets.append(
            Target(
                entry,
                re.sub(r"{\w+}", lambda _name, numbers=numbers: str(next(numbers)), entry.path),
                content["example"] if content else None,
                tuple(reader.body_paths(content["schema"])) if content else (),
                tuple(parameter["name"] for parameter in params if parameter["in"] == "query"),
            )
        )
    return targets


def sample(level: LoadLevel, items: Sequence[T], count: int = 60) -> list[T]:
    """Return all items on the long level, otherwise a sample: the same in every run."""
    if level.long or len(items) <= count:
        return list(items)
    return random.Random(5).sample(items, count)


class _Reader:
    """A reader of the schemas of an OpenAPI document."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.document = document

    def resolve(self, part: dict[str, Any]) -> dict[str, Any]:
        """Follow `$ref`."""
        while "$ref" in part:
            target: Any = self.document
            for name in part["$ref"].removeprefix("#/").split("/"):
                target = target[name]
            part = target
        return part

    def body_paths(self, schema: dict[str, Any], at: BodyPath = ()) -> Iterator[BodyPath]:
        """Yield the path of every value: members, first list elements, and their members."""
        schema = self.resolve(schema)
        if at:
            yield at
        for name, member in schema.get("properties", {}).items():
            yield from self.body_paths(member, (*at, name))
        if "items" in schema:
            yield from self.body_paths(schema["items"], (*at, 0))
        for choice in (*schema.get("anyOf", ()), *schema.get("oneOf", ()), *schema.get("allOf", ())):
            option = self.resolve(choice)
            if "properties" in option or "items" in option:
                yield from list(self.body_paths(option, at))[1:]


def with_value(body: dict[str, Any], path: BodyPath, value: Any) -> dict[str, Any]:
    """Return a copy of the body with the value at the path. Missing lists and objects are added."""
    changed = part = copy.deepcopy(body)
    for step, following in itertools.pairwise(path):
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
        part[path[-1]] = value
    return changed


# --- Stored data ---------------------------------------------------------------------------------------


def contents(url: str) -> dict[str, list[tuple[Any, ...]]]:
    """Return the sorted rows of every table. Without a database file, return nothing."""
    if url.startswith("sqlite") and not Path(url.removeprefix("sqlite:///")).exists():
        return {}
    with connected(url) as engine, engine.connect() as connection:
        names = inspect(connection).get_table_names()
        tables = {name: connection.execute(text(f'SELECT * FROM "{name}"')).all() for name in names}
    return {name: sorted(map(tuple, rows), key=repr) for name, rows in tables.items()}


class TableCounts:
    """The number of rows and the sum of versions by table: a fast test whether data has changed."""

    def __init__(self, engine: Engine) -> None:
        self.connection = engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        parts = [
            f"SELECT count(*), {'sum(version)' if 'version' in table.columns else '0'} FROM {table.name}"
            for table in Base.metadata.sorted_tables
            if table.name not in AUDIT_TABLES
        ]
        self.statement = text(" UNION ALL ".join(parts))

    def __call__(self) -> list[tuple[Any, ...]]:
        return [tuple(row) for row in self.connection.execute(self.statement)]


@contextmanager
def count_tables(url: str) -> Iterator[TableCounts]:
    """Open a connection and yield a function that counts rows and versions."""
    with connected(url) as engine:
        counts = TableCounts(engine)
        yield counts
        counts.connection.close()
