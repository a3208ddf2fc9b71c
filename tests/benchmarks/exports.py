"""The export of a whole list by a job, and other requests meanwhile.

Run `python -m tests.benchmarks.exports ROWS [ENGINE]`.

It prints the rows a second, the memory of the worker, and the latency of other requests before and during the
export. `ROWS` are appointments: `flask demo grow` generates five for each patient.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import quantiles
from typing import Any

import psutil
import requests

from tests.benchmarks.environment import WORKERS, FilledDatabase, filled_database
from tests.support.servers import ROOT, start_app

PATH = "/appointments"
ROWS_OF_A_PATIENT = 5
QUIET_S = 30.0
CLIENTS = 4
PAUSE_S = 0.05  # of a client between two requests: the server is not saturated
SAMPLE_S = 0.5


@dataclass
class Load:
    """Clients that read and write other records, as users of the clinic do, and their latencies."""

    url: str
    tokens: list[str]
    patients: int
    latencies_s: list[float] = field(default_factory=list)
    is_stopping: bool = False

    def _run(self, number: int) -> None:
        session, rng = requests.Session(), random.Random(number)
        session.headers["Authorization"] = f"Bearer {self.tokens[number]}"
        while not self.is_stopping:
            patient = f"{self.url}/patients/{rng.randint(1, self.patients)}"
            started = time.perf_counter()
            if rng.random() < 0.2:
                response = session.patch(patient, json={"address": f"{rng.random()} Road"}, timeout=60)
            else:
                response = session.get(rng.choice((patient, f"{self.url}/appointments")), timeout=60)
            self.latencies_s.append(time.perf_counter() - started)
            assert response.status_code == 200, response.text
            time.sleep(PAUSE_S)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Send requests during the block."""
        self.latencies_s.clear()
        self.is_stopping = False
        threads = [threading.Thread(target=self._run, args=(number,)) for number in range(CLIENTS)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self.is_stopping = True
            for thread in threads:
                thread.join()

    @property
    def p99_ms(self) -> float:
        """Return the latency that one request in a hundred exceeds."""
        return round(quantiles(self.latencies_s, n=100)[98] * 1000, 1)


@contextmanager
def started_worker(database: FilledDatabase) -> Iterator[psutil.Process]:
    """Start a worker process on the database."""
    environment = {"PATH": os.defpath, "REDIS_URL": database.redis_url or "", **database.settings}
    command = [sys.executable, "-m", "flask", "--app", "app", "jobs", "run"]
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.DEVNULL)
    try:
        yield psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait(timeout=60)


def export(url: str, token: str, file_format: str, worker: psutil.Process) -> dict[str, Any]:
    """Let the worker write the whole list. Return the rate and the memory of the worker."""
    headers = {"Authorization": f"Bearer {token}"}
    memory = [worker.memory_info().rss]
    started = time.monotonic()
    body = {"path": PATH, "format": file_format}
    response = requests.post(f"{url}/exports", json=body, headers=headers, timeout=60)
    assert response.status_code == 202, response.text
    row = response.json()
    while row["state"] in ("queued", "running"):
        time.sleep(SAMPLE_S)
        memory.append(worker.memory_info().rss)
        row = requests.get(f"{url}/exports/{row['id']}", headers=headers, timeout=60).json()
    assert row["state"] == "ready", row
    seconds = time.monotonic() - started
    half = memory[len(memory) // 4 : len(memory) // 2] or memory
    return {
        "rows": row["count"],
        "megabytes": round(row["size"] / 1e6, 1),
        "seconds": round(seconds, 1),
        "rows_per_second": round(row["count"] / seconds),
        "memory_before_mb": round(memory[0] / 1e6),
        "memory_second_quarter_mb": round(max(half) / 1e6),
        "memory_highest_mb": round(max(memory) / 1e6),
    }


def measure(engine: str, rows: int) -> None:
    """Print the figures of both formats on one engine."""
    patients = -(-rows // ROWS_OF_A_PATIENT)
    with filled_database(engine, patients, seed=1) as database, started_worker(database) as worker:
        server = start_app(database.url, database.redis_url, WORKERS, database.settings)
        try:
            tokens = [pair.access_token for pair in database.data.tokens]
            load = Load(server.url, tokens, database.data.patients)
            with load.running():
                time.sleep(QUIET_S)
            quiet = load.p99_ms
            for file_format in ("csv", "xlsx"):
                with load.running():
                    figures = export(server.url, tokens[-1], file_format, worker)
                print(engine, file_format, figures, flush=True)
                print(
                    f"p99 of other requests: quiet {quiet} ms, during the export {load.p99_ms} ms, "
                    f"{load.p99_ms / quiet:.1f} times",
                    flush=True,
                )
        finally:
            server.stop()


def main() -> None:
    """Measure one engine, or both."""
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else 50_000
    for engine in sys.argv[2:] or ("postgresql", "sqlite"):
        measure(engine, rows)


if __name__ == "__main__":
    main()
