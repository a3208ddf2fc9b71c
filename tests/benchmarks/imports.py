"""The import of a spreadsheet of patients by a worker, and other requests meanwhile.

Run `python -m tests.benchmarks.imports ROWS [ENGINE]`.

It prints the rows a second of the dry run, the import and the undo, the memory of the worker, and the latency
of other requests before and meanwhile.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from datetime import date, timedelta
from typing import Any

import psutil
import requests

from tests.benchmarks.environment import WORKERS, filled_database
from tests.benchmarks.exports import QUIET_S, SAMPLE_S, Load, started_worker
from tests.support.imports import csv_file
from tests.support.servers import start_app

PATIENTS = 1_000  # on file before the import
FIRST_BIRTH, DAYS = date(1900, 1, 1), 45_000
COLUMNS = ("ID", "File No", "Full Name", "Sex", "DOB", "Phone", "Allergies")
FIRST = "Amina Wanjiku John Peter Halima Grace Otieno Njeri Yusuf Zawadi Baraka Neema Juma Asha Salim".split()
LAST = "Kamau Mwangi Odhiambo Kiprop Hassan Achieng Mutua Wekesa Cherono Omondi Abdi Nyambura Karanja".split()


def people(rows: int) -> Iterator[tuple[Any, ...]]:
    """Yield the rows of a file of patients. No two resemble each other: few share a day of birth."""
    for n in range(rows):
        name = f"{FIRST[n % len(FIRST)]} {LAST[n // 7 % len(LAST)]}"
        born = (FIRST_BIRTH + timedelta(days=n % DAYS)).isoformat()
        yield n, f"IMP-{n}", name, "FM"[n % 2], born, f"+2547{n:08}", "Penicillin" if n % 10 == 0 else ""


def run(url: str, token: str, path: str, body: dict[str, Any] | None, worker: psutil.Process) -> Any:
    """Start a run and wait for its end. Print its rate, and return the import."""
    headers = {"Authorization": f"Bearer {token}"}
    number, memory = path.split("/")[2], worker.memory_info().rss
    started = time.monotonic()
    response = requests.post(url + path, json=body, headers=headers, timeout=60)
    assert response.status_code == 202, response.text
    row = response.json()
    while row["state"] in ("checking", "applying", "undoing"):
        time.sleep(SAMPLE_S)
        memory = max(memory, worker.memory_info().rss)
        row = requests.get(f"{url}/imports/{number}", headers=headers, timeout=60).json()
    seconds = time.monotonic() - started
    counts = {name: row[name] for name in ("ready", "applied", "skipped", "refused", "undone") if row[name]}
    rate = round(row["rows"] / seconds)
    print(f"{path}: {seconds:.1f} s, {rate} rows/s, at most {memory // 10**6} MB, {counts}", flush=True)
    return row


def measure(engine: str, rows: int) -> None:
    """Print the figures of one engine."""
    with filled_database(engine, PATIENTS, seed=1) as database, started_worker(database) as worker:
        server = start_app(database.url, database.redis_url, WORKERS, database.settings)
        try:
            tokens = [pair.access_token for pair in database.data.tokens]
            load = Load(server.url, tokens, database.data.patients)
            with load.running():
                time.sleep(QUIET_S)
            print(engine, f"p99 of other requests: quiet {load.p99_ms} ms", flush=True)
            started = time.monotonic()
            response = requests.post(
                f"{server.url}/imports",
                data={"kind": "patients", "source": "benchmark", "on_error": "skip"},
                files={"file": ("people.csv", csv_file(COLUMNS, people(rows)))},
                headers={"Authorization": f"Bearer {tokens[-1]}"},
                timeout=120,
            )
            assert response.status_code == 201, response.text
            row = response.json()
            print(f"upload: {time.monotonic() - started:.1f} s")
            for action in ("dry-run", "apply", "undo"):
                body = {"digest": row["digest"]} if action == "apply" else None
                with load.running():
                    row = run(server.url, tokens[-1], f"/imports/{row['id']}/{action}", body, worker)
                print(f"p99 {load.p99_ms} ms, longest {max(load.latencies_s) * 1000:.0f} ms", flush=True)
        finally:
            server.stop()


def main() -> None:
    """Measure both engines, or the named one."""
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else 50_000
    for engine in sys.argv[2:] or ("postgresql", "sqlite"):
        measure(engine, rows)


if __name__ == "__main__":
    main()
