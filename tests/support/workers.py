"""Worker processes with a handler for tests and a short lease: `python -m tests.support.workers LOG ...`."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

from flask.cli import FlaskGroup

from app import create_app
from services import clock
from services.jobs import leases, queue, storage
from services.jobs.registry import HANDLERS
from services.jobs.transactions import transaction
from tests.support.servers import ROOT

KIND = "test.effect"
EFFECT = "test.done"  # a job far in the future: the effect of one attempt
LEASE_S = 2.0


def start_worker(environment: Mapping[str, str], log: Path, *options: str) -> subprocess.Popen[bytes]:
    """Start a worker process. Its handler writes "start NUMBER" and "end NUMBER" to the log."""
    command = [sys.executable, "-m", "tests.support.workers", str(log), *options]
    with log.with_suffix(".output").open("ab") as output:
        return subprocess.Popen(
            command, cwd=ROOT, env=os.environ | dict(environment), stdout=output, stderr=output
        )


def _write(log: Path, line: str) -> None:
    with log.open("a") as file:  # appends of one line are atomic
        file.write(f"{line}\n")


def _handler(log: Path) -> Any:
    def work(payload: dict[str, Any]) -> None:
        _write(log, f"start {payload['number']}")
        time.sleep(payload["seconds"])
        with transaction("job test", finishes_job=True):
            queue.enqueue(EFFECT, payload, run_at=clock.now() + timedelta(days=365))
        _write(log, f"end {payload['number']}")

    return work


def main() -> None:
    """Run `flask jobs run` with the handler."""
    log, *options = sys.argv[1:]
    storage.LEASE = timedelta(seconds=LEASE_S)
    leases.RENEWAL_INTERVAL, leases.CONFIRMATION = 0.3, 1.0
    HANDLERS[KIND] = _handler(Path(log))
    FlaskGroup(create_app=create_app).main(["jobs", "run", *options])


if __name__ == "__main__":
    main()
