"""Baseline (b), "driver": a replay of recorded statements with the database driver alone.

`python -m tests.benchmarks.replay URL FILE INDEX...` reads lines `operation seconds` from standard input. It
answers each with a JSON line: {"count": ..., "elapsed_s": ...}. Each index is a connection with its own
recording. A recorded COMMIT becomes a ROLLBACK, so that the statements can run again. One row is committed
instead, so that the replay waits for the disk as the original does.
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

CREATE_COMMITS_TABLE = "CREATE TABLE bench_commits (n INTEGER)"
COMMIT_AT_END = re.compile(r"\bCOMMIT;?\s*$")
COMMIT_ONE_ROW = "INSERT INTO bench_commits VALUES (1)"
# In the copy the audit chains end at other entries, so the conditions on the last entry are removed.
CHAIN_HEAD_CONDITION = re.compile(r"\bnumber = (\$\d+) AND mac = (\$\d+)")

Execute = Callable[[str], Any]


def connect_postgresql(url: str) -> Execute:
    """Connect and return a function that executes a statement and fetches the rows."""
    address = urlsplit(url)
    connection = psycopg2.connect(
        user=address.username, host=parse_qs(address.query)["host"][0], dbname=address.path.lstrip("/")
    )
    connection.autocommit = True
    cursor = connection.cursor()
    # No foreign key checks: recorded ids of rolled back rows do not exist in the copy.
    cursor.execute("SET session_replication_role = replica")
    # A private audit_heads table: otherwise the connections would wait for the row locks of each other.
    cursor.execute("CREATE TEMP TABLE audit_heads (LIKE public.audit_heads INCLUDING ALL)")
    cursor.execute("INSERT INTO audit_heads TABLE public.audit_heads")

    def execute(statement: str) -> None:
        if COMMIT_AT_END.search(statement):  # alone, or at the end of a message
            statement = COMMIT_AT_END.sub("ROLLBACK;", statement) + COMMIT_ONE_ROW
        elif statement.startswith("SET LOCAL "):  # no BEGIN: the message is the transaction
            statement = f"BEGIN;{statement};ROLLBACK;{COMMIT_ONE_ROW}"
        cursor.execute(statement)
        if cursor.description is not None:
            cursor.fetchall()

    return execute


def connect_sqlite(url: str) -> Execute:
    """Connect and return a function that executes a statement and fetches the rows."""
    path = url.removeprefix("sqlite:///")
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    connection.create_function("lower", 1, lambda text: text and str(text).lower(), deterministic=True)
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=30000"):
        connection.execute(f"PRAGMA {pragma}")

    def execute(statement: str) -> None:
        if statement == "COMMIT":
            connection.execute("ROLLBACK")
            statement = COMMIT_ONE_ROW
        connection.execute(statement).fetchall()

    return execute


def main(url: str, file: str, *indexes: str) -> None:
    """Process the lines of standard input."""
    connect = connect_postgresql if url.startswith("postgresql") else connect_sqlite
    recorded = json.loads(Path(file).read_text())
    connections = {int(index): connect(url) for index in indexes}
    for execute in connections.values():
        for statement in recorded["prepared"]:
            execute(CHAIN_HEAD_CONDITION.sub(r"\1::bigint >= 0 AND \2::text IS NOT NULL", statement))

    def repeat(index: int, statements: list[str], end: float) -> int:
        count = 0
        while time.perf_counter() < end:
            for statement in statements:
                connections[index](statement)
            count += 1
        return count

    with ThreadPoolExecutor(len(connections)) as pool:
        for line in sys.stdin:
            name, seconds = line.split()
            started = time.perf_counter()
            end = started + float(seconds)
            futures = [
                pool.submit(repeat, index, recorded["samples"][name][index], end) for index in connections
            ]
            count = sum(future.result() for future in futures)
            print(json.dumps({"count": count, "elapsed_s": time.perf_counter() - started}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
