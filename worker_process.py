"""The worker of events and jobs as a child process of the server, for `make run`.

In production the service manager starts `flask jobs run` beside the server and restarts it after a failure.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

STOP_TIMEOUT_S = 30  # for the running jobs; later ones run again after their lease
ROOT = Path(__file__).resolve().parent


class WorkerProcess:
    """One worker. It ends with `stop`, and by itself if the server was killed."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the worker. Ctrl-C in the terminal reaches the server only, which stops it."""
        command = [sys.executable, "-m", "flask", "--app", "app", "jobs", "run", "--parent", str(os.getpid())]
        self.process = subprocess.Popen(command, cwd=ROOT, start_new_session=True)  # noqa: S603 - no input

    def stop(self) -> None:
        """Let the worker finish its running jobs, and wait for its end."""
        if self.process is None:
            return
        self.process.terminate()
        try:
            self.process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
