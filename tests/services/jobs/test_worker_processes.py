"""Worker processes on one database: kill -9, SIGTERM, `--once`."""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from enums import JobState
from models import Job
from services import integrity_checks
from services.jobs import queue
from tests.support.clinic import Clinic
from tests.support.workers import EFFECT, KIND, WorkerProcess, start_worker

Start = Callable[..., WorkerProcess]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Return the log of the handlers of all workers."""
    file = tmp_path / "log"
    file.touch()
    return file


@pytest.fixture
def start(clinic: Clinic, log: Path) -> Iterator[Start]:
    """Return a function that starts a worker on the database of the clinic. All are killed at the end."""
    processes = []
    settings = clinic.settings
    environment = {
        "DATABASE_URI": settings.database_url,
        "JWT_SECRET_KEY": settings.jwt_secret_key,
        "AUDIT_KEY": settings.audit_key,
        "AUDIT_HEADS_FILE": str(settings.heads_file),
    }

    def start_one(*options: str) -> WorkerProcess:
        processes.append(start_worker(environment, log, *options))
        return processes[-1]

    yield start_one
    for process in processes:
        process.kill()
        process.wait()


def add(clinic: Clinic, count: int, seconds: float) -> None:
    with clinic.inside():
        for number in range(count):
            queue.enqueue(KIND, {"number": number, "seconds": seconds})


def starts(log: Path) -> list[str]:
    return [line for line in log.read_text().splitlines() if line.startswith("start ")]


def wait_for(condition: Callable[[], Any]) -> None:
    """Wait until the condition holds. The test runner ends a test that never does."""
    while not condition():
        time.sleep(0.02)


def states(clinic: Clinic, kind: str = KIND) -> Counter[JobState]:
    with clinic.inside() as session:
        return Counter(session.scalars(select(Job.state).where(Job.kind == kind)))


def running(clinic: Clinic, worker: WorkerProcess) -> int:
    """Return the number of jobs that the worker runs."""
    with clinic.inside() as session:
        name = Job.locked_by.contains(f":{worker.pid}:")
        return int(session.scalar(select(func.count()).where(Job.state == JobState.RUNNING, name)))


def test_killed_workers_lose_no_job_and_no_effect_happens_twice(clinic: Clinic, start: Start) -> None:
    add(clinic, 40, 0.3)
    victim, _other = start(), start()

    wait_for(lambda: running(clinic, victim) == 4)
    victim.kill()
    victim.wait()
    start()
    wait_for(lambda: states(clinic) == {JobState.DONE: 40})

    with clinic.inside() as session:
        effects = Counter(
            job.payload["number"] for job in session.scalars(select(Job).where(Job.kind == EFFECT))
        )
        assert effects == Counter(range(40))
        assert list(integrity_checks.violations()) == []
        repeated = session.scalars(select(Job.id).where(Job.kind == KIND, Job.attempts > 1)).all()
    assert repeated  # the kill interrupted some jobs


def test_sigterm_finishes_the_running_jobs_and_once_runs_the_others(
    clinic: Clinic, start: Start, log: Path
) -> None:
    add(clinic, 8, 1.0)
    worker = start()
    wait_for(lambda: len(starts(log)) == 4)

    worker.send_signal(signal.SIGTERM)

    assert worker.wait() == 0
    assert states(clinic) == {JobState.DONE: 4, JobState.QUEUED: 4}
    assert start("--once").wait() == 0
    assert states(clinic) == {JobState.DONE: 8}
    assert states(clinic, EFFECT) == {JobState.QUEUED: 8}
    assert "Traceback" not in log.with_suffix(".output").read_text()
