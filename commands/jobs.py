"""`flask jobs`: the worker process."""

from __future__ import annotations

import os
import signal

import click
from flask import current_app
from flask.cli import AppGroup

from services.jobs.worker import Worker

jobs = AppGroup("jobs", help="Run the worker of events and jobs.")
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@jobs.command("run")
@click.option("--once", is_flag=True, help="Do all that is due, then end.")
@click.option("--parent", type=int, hidden=True, help="End when this process is not the parent.")
def run(once: bool, parent: int | None) -> None:
    """Dispatch events and run jobs until SIGTERM, SIGINT or SIGHUP.

    The jobs that run then are finished first; a second signal ends them at once, and they run again later.
    Several workers on several hosts may run at the same time.
    """
    application = current_app._get_current_object()  # type: ignore[attr-defined]
    worker = Worker(
        application.app_context,
        once=once,
        is_orphan=lambda: parent is not None and os.getppid() != parent,
    )

    def stop(_signal: int, _frame: object) -> None:
        worker.stop()
        for number in SIGNALS:
            signal.signal(number, signal.SIG_DFL)

    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup ignores SIGHUP
            signal.signal(number, stop)
    worker.run()
