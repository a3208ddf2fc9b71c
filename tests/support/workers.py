"""Worker processes with a handler for tests and a short lease.

They are forked from one process that has imported the application: an import takes 2 s of CPU.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping
from datetime import timedelta
from multiprocessing import get_context
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


_forks = get_context("forkserver")
_forks.set_forkserver_preload(["app"])


class WorkerProcess(_forks.Process):
    """A process with the methods of `subprocess.Popen` that the tests need."""

    def wait(self) -> int | None:
        """Wait for the end and return the exit status."""
        self.join()
        return self.exitcode

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal to the process, which has not ended."""
        os.kill(self.pid, number)


def start_worker(environment: Mapping[str, str], log: Path, *options: str) -> WorkerProcess:
    """Start a worker process. Its handler writes "start NUMBER" and "end NUMBER" to the log."""
    process = WorkerProcess(target=_run, args=(os.environ | dict(environment), log, options))
    process.start()
    return process


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


def _run(environment: dict[str, str], log: Path, options: tuple[str, ...]) -> None:
    """Run `flask jobs run` with the handler."""
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(ROOT)
    with log.with_suffix(".output").open("ab") as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    storage.LEASE = timedelta(seconds=LEASE_S)
    leases.RENEWAL_INTERVAL, leases.CONFIRMATION = 0.3, 1.0
    HANDLERS[KIND] = _handler(log)
    FlaskGroup(create_app=create_app).main(["jobs", "run", *options])
