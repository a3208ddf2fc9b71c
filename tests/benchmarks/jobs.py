"""The rate at which one worker drains due jobs, and its memory: `python -m tests.benchmarks.jobs JOBS`."""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from pathlib import Path

import psutil

from app import create_app
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
    """Add the jobs and run a worker until none is due. Return jobs a second and resident megabytes."""
    migrate(url)
    app = create_app(settings_for(url))
    memory = psutil.Process()
    done = [0]
    samples: list[int] = []

    def work(_payload: dict[str, int]) -> None:
        done[0] += 1
        if done[0] % (count // 10) == 0:
            samples.append(memory.memory_info().rss)

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
    Worker(app.app_context, once=True).run()
    seconds = time.perf_counter() - started
    assert done[0] == count, done
    return {
        "jobs_per_second": round(count / seconds, 1),
        "seconds": round(seconds, 1),
        "first_tenth_mb": round(samples[0] / 1e6, 1),
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
