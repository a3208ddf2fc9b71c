"""Comparison with another checkout of the project: both are measured in turns, over HTTP only.

The other checkout runs in its own folder with its own start command, its own migrations and a copy of the
filled database, on the same PostgreSQL server. Only the Python environment is shared. The two checkouts must
agree on the API and the format of the tokens. A newer schema is downgraded for the other checkout.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import create_engine, text

from tests.benchmarks.client import Sample, send_load
from tests.benchmarks.environment import WORKERS, FilledDatabase, RunningApp, connect
from tests.benchmarks.measure import WARM_UP_S, median_ratio, milliseconds, p99
from tests.benchmarks.operations import Operation
from tests.support.servers import ROOT, AppServer, ManagedProcess, free_port, start_app, start_redis

START_COMMAND = (sys.executable, "-m", "gunicorn", "-c", "gunicorn.conf.py", "app:create_app()")
FLASK_DB = (sys.executable, "-m", "flask", "--app", "app", "db")


@dataclass
class Measurement:
    """One operation of one checkout. Rates are responses per second, one per round."""

    app: RunningApp
    operation: Operation
    sample: Sample = field(default_factory=Sample)
    rates: list[float] = field(default_factory=list)

    def measure(self, seconds: float) -> Sample:
        """Send requests over all connections for `seconds`."""
        return send_load(
            self.app.connections,
            lambda index: self.operation.next_request(index).encode(),
            self.operation.on_response,
            seconds,
            self.operation.status,
        )

    def measure_round(self, seconds: float) -> None:
        """Measure one round and add it to the figures."""
        sample = self.measure(seconds)
        self.sample.merge(sample)
        self.rates.append(sample.rate)


def compare_checkouts(
    database: FilledDatabase,
    other_folder: Path,
    operations: Sequence[type[Operation]],
    *,
    rounds: int,
    seconds: float,
) -> dict[str, Any]:
    """Return the figures of both checkouts by operation, and the memory of their workers at the end."""
    assert database.postgres is not None, "the comparison needs PostgreSQL"
    with ExitStack() as stack:
        other_url = database.clone()
        database.postgres.checkpoint()
        this_server = start_app(database.url, database.redis_url, WORKERS, database.settings)
        stack.callback(this_server.stop)
        redis = start_redis(database.folder / "other-redis.sock")
        stack.callback(redis.stop)
        other_settings = {
            "DATABASE_URI": other_url,
            "REDIS_URL": redis.url,
            "AUDIT_HEADS_FILE": str(database.folder / "other-heads.json"),
        }
        other_server = start_checkout(other_folder, database.settings | other_settings)
        stack.callback(other_server.stop)
        this_app, other_app = connect(this_server), connect(other_server)
        pairs = [
            (
                Measurement(this_app, operation(database.data)),
                Measurement(other_app, operation(database.data)),
            )
            for operation in operations
        ]
        for pair in pairs:
            for measurement in pair:
                measurement.measure(min(seconds, WARM_UP_S))
        for number in range(rounds):
            for pair in pairs:
                for measurement in pair if number % 2 else reversed(pair):
                    measurement.measure_round(seconds)
        return {
            "operations": {this.operation.name: summarize(this, other) for this, other in pairs},
            "memory_mb": round(this_app.memory_mb(), 1),
            "other_memory_mb": round(other_app.memory_mb(), 1),
            "memory_ratio": round(this_app.memory_mb() / other_app.memory_mb(), 3),
        }


def start_checkout(folder: Path, settings: dict[str, str]) -> AppServer:
    """Bring the database to the schema of another checkout and start its application in its folder."""
    port = free_port()
    environment = {
        "PATH": os.defpath,
        "HOST": "127.0.0.1",
        "PORT": str(port),
        "WEB_CONCURRENCY": str(WORKERS),
        **settings,
    }
    newest = max(path.name[:4] for path in (folder / "migrations" / "versions").glob("[0-9]*.py"))
    if newest < max(path.name[:4] for path in (ROOT / "migrations" / "versions").glob("[0-9]*.py")):
        _forget_keys_of_entries(settings["DATABASE_URI"])
        subprocess.run(
            (*FLASK_DB, "downgrade", newest), cwd=ROOT, env=environment, check=True, capture_output=True
        )
    subprocess.run((*FLASK_DB, "upgrade"), cwd=folder, env=environment, check=True, capture_output=True)
    server = AppServer(None, f"http://127.0.0.1:{port}")
    server.process = ManagedProcess(
        list(START_COMMAND),
        Path(tempfile.mkdtemp(prefix="clinic-app-")),
        server.answers,
        cwd=folder,
        env=environment,
    )
    server.start()
    return server


def _forget_keys_of_entries(url: str) -> None:
    """Remove the key ids of the audit entries. With them, migration 0023 refuses to be downgraded.

    The entries can then no longer be verified, which no measured operation does.
    """
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text("SET session_replication_role = replica"))  # without the triggers of the log
        connection.execute(text("UPDATE audit_logs SET key_id = NULL"))
    engine.dispose()


def summarize(this: Measurement, other: Measurement) -> dict[str, Any]:
    """Return the figures of one operation. A ratio is the figure of this checkout to that of the other."""
    this_p99, other_p99 = p99(milliseconds(this.sample)), p99(milliseconds(other.sample))
    return {
        "title": this.operation.title,
        "requests_per_second": round(statistics.median(this.rates), 1),
        "other_requests_per_second": round(statistics.median(other.rates), 1),
        "rate_ratio": median_ratio(this.rates, other.rates),
        "p99_ms": round(this_p99, 2),
        "other_p99_ms": round(other_p99, 2),
        "p99_ratio": round(this_p99 / other_p99, 3),
    }
