"""The worker of events and jobs as a child process of the server, for `make run`.

In production the service manager starts `flask jobs run` beside the server and restarts it after a failure.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
from pathlib import Path

STOP_TIMEOUT_S = 30  # for the running jobs; later ones run again after their lease
RESTART_DELAY_S = 2.0  # a worker that cannot start must not keep a processor busy
ROOT = Path(__file__).resolve().parent

log = logging.getLogger("_granian")  # the log of the server


class WorkerProcess:
    """One worker, which is started again if it ends. It ends with `stop`, and if the server was killed."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[bytes] | None = None
        self.is_stopping = threading.Event()
        self.lock = threading.Lock()  # no start after a stop

    def start(self) -> None:
        """Start the worker, and a thread that watches it."""
        process = self._launch()
        threading.Thread(target=self._watch, args=(process,), name="worker watch", daemon=True).start()

    def _launch(self) -> subprocess.Popen[bytes] | None:
        """Start the worker. Ctrl-C in the terminal reaches the server only, which stops it."""
        command = [sys.executable, "-m", "flask", "--app", "app", "jobs", "run", "--parent", str(os.getpid())]
        with self.lock:
            if self.is_stopping.is_set():
                return None
            self.process = subprocess.Popen(command, cwd=ROOT, start_new_session=True)  # noqa: S603 - no input
            return self.process

    def _watch(self, process: subprocess.Popen[bytes] | None) -> None:
        while process is not None:
            status = process.wait()
            if self.is_stopping.is_set():
                return
            log.error("The worker of jobs has ended with status %s. It is started again.", status)
            self.is_stopping.wait(RESTART_DELAY_S)
            process = self._launch()

    def stop(self) -> None:
        """Let the worker finish its running jobs, and wait for its end."""
        with self.lock:
            self.is_stopping.set()
            process = self.process
        if process is None:
            return
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
