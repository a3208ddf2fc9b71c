"""The rate at which one worker drains due jobs, and its memory: `python -m tests.benchmarks.jobs JOBS`.

Ctrl-C ends the drain of one engine, and the benchmark goes on with the next one.
"""

from __future__ import annotations

import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

import psutil
from sqlalchemy import select

from app import create_app
from enums import JobState
from extensions import db
from models import Job
from services import clock
from services.jobs.registry import HANDLERS
from services.jobs.worker import Worker
from tests.conftest import settings_for
from tests.support.database import migrate
from tests.support.servers import start_postgres

KIND = "benchmark"
BATCH = 5_000


def drain(url: str, count: int) -> dict[str, float]:
    """Add the jobs and run a worker until none is due. Return jobs a second and resident megabytes.

    Each tenth is printed. An interrupted drain returns the figures of the jobs until then.
    """
    migrate(url)
    app = create_app(settings_for(url))
    memory = psutil.Process()
    done, lock = [0], threading.Lock()
    samples = [memory.memory_info().rss]

    def work(_payload: dict[str, int]) -> None:
        with lock:
            done[0] += 1
            number = done[0]
        if number % (count // 10) == 0:
            samples.append(memory.memory_info().rss)
            rate = number / (time.perf_counter() - started)
            print(f"  {number} jobs, {rate:.0f} a second, {samples[-1] / 1e6:.0f} MB", flush=True)

    HANDLERS[KIND] = work
    now = clock.now()
    with app.app_context():
        for first in range(0, count, BATCH):
            rows = [
                {"kind": KIND, "payload": {"number": number}, "state": "queued", "run_at": now}
                | {"attempts": 0, "created_at": now}
                for number in range(first, min(first + BATCH, count))
            ]
            db.session.execute(Job.__table__.insert(), rows)
            db.session.commit()
        db.session.remove()
    started = time.perf_counter()
    worker = Worker(app.app_context, once=True)
    signal.signal(signal.SIGINT, lambda _signal, _frame: worker.stop())
    worker.run()
    seconds = time.perf_counter() - started
    with app.app_context():
        states = Counter(db.session.scalars(select(Job.state)))
        assert done[0] == states[JobState.DONE], (done, states)
    return {
        "jobs": done[0],
        "jobs_per_second": round(done[0] / seconds, 1),
        "seconds": round(seconds, 1),
        "start_mb": round(samples[0] / 1e6, 1),
        "end_mb": round(samples[-1] / 1e6, 1),
    }


def main() -> None:
    """Measure both engines, on disk."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    folder = Path(tempfile.mkdtemp(prefix="clinic-jobs-"))
    server = start_postgres(durable=True)
    try:
        print("postgresql", drain(server.create(), count), flush=True)
        print("sqlite", drain(f"sqlite:///{folder / 'clinic.db'}", count), flush=True)
    finally:
        server.stop()
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
