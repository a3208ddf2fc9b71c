"""Yardstick (b): recorded statements through the driver alone.

`python -m tests.benchmarks.replay URL FILE PLACE...` reads lines `operation seconds` and answers each with
a line of JSON: {"count": ..., "elapsed_s": ...}. Each place is a connection, which repeats its own
recording. What was committed is rolled back, so that it can be done again, and one row is
committed in its place,
which waits for the disk as the whole would.
"""

from __future__ import annotations

import json
import re
import sqlite3
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import psycopg2

COMMITS = "CREATE TABLE bench_commits (n INTEGER)"
COMMITTING = re.compile(r"\bCOMMIT;?\s*$")
COMMIT = "INSERT INTO bench_commits VALUES (1)"
# A chain does not end in the copy where it ended when that was recorded: what asks for it is not asked for.
ENDS = re.compile(r"\bnumber = (\$\d+) AND mac = (\$\d+)")

Execute = Callable[[str], Any]


def connect_postgresql(url: str) -> Execute:
    """How one connection runs a statement and fetches what it answers."""
    place = urlsplit(url)
    connection = psycopg2.connect(
        user=place.username, host=parse_qs(place.query)["host"][0], dbname=place.path.lstrip("/")
    )
    connection.autocommit = True
    cursor = connection.cursor()
    # keys that were given out when the statements were recorded are not given out again
    cursor.execute("SET session_replication_role = replica")
    # heads of its own: the chain whose end was recorded is not the one that is locked when that is repeated
    cursor.execute("CREATE TEMP TABLE audit_heads (LIKE public.audit_heads INCLUDING ALL)")
    cursor.execute("INSERT INTO audit_heads TABLE public.audit_heads")

    def execute(statement: str) -> None:
        if COMMITTING.search(statement):  # by itself, or at the end of a longer message
            statement = COMMITTING.sub("ROLLBACK;", statement) + COMMIT
        elif statement.startswith("SET LOCAL "):  # without BEGIN: the message is a transaction
            statement = f"BEGIN;{statement};ROLLBACK;{COMMIT}"
        cursor.execute(statement)
        if cursor.description is not None:
            cursor.fetchall()

    return execute


def connect_sqlite(url: str) -> Execute:
    """How one connection runs a statement and fetches what it answers."""
    path = url.removeprefix("sqlite:///")
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    connection.create_function("lower", 1, lambda text: text and str(text).lower(), deterministic=True)
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=30000"):
        connection.execute(f"PRAGMA {pragma}")

    def execute(statement: str) -> None:
        if statement == "COMMIT":
            connection.execute("ROLLBACK")
            statement = COMMIT
        connection.execute(statement).fetchall()

    return execute


def main(url: str, file: str, *places: str) -> None:
    """Serve the lines of standard input."""
    connect = connect_postgresql if url.startswith("postgresql") else connect_sqlite
    recorded = json.loads(Path(file).read_text())
    connections = {int(place): connect(url) for place in places}
    for execute in connections.values():
        for statement in recorded["prepared"]:
            execute(ENDS.sub(r"\1::bigint >= 0 AND \2::text IS NOT NULL", statement))

    def work(place: int, statements: list[str], until: float) -> int:
        count = 0
        while time.perf_counter() < until:
            for statement in statements:
                connections[place](statement)
            count += 1
        return count

    with ThreadPoolExecutor(len(connections)) as pool:
        for line in sys.stdin:
            name, seconds = line.split()
            began = time.perf_counter()
            until = began + float(seconds)
            working = [
                pool.submit(work, place, recorded["samples"][name][place], until) for place in connections
            ]
            count = sum(each.result() for each in working)
            print(json.dumps({"count": count, "elapsed_s": time.perf_counter() - began}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
