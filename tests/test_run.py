"""`make run`: what `run.py` prints and how it stops."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psutil
import pytest

from tests.support.keys import new_secrets
from tests.support.servers import ROOT, AppServer, ManagedProcess, free_port


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Return the settings of a new SQLite database and a free port."""
    return {
        "PORT": str(free_port()),
        "WEB_CONCURRENCY": "1",
        "DATABASE_URI": f"sqlite:///{tmp_path}/clinic.db",
        **new_secrets(),
        "AUDIT_HEADS_FILE": str(tmp_path / "audit-heads.json"),
        "BCRYPT_COST": "4",
    }


@pytest.fixture
def server(environment: dict[str, str]) -> Iterator[AppServer]:
    """Run `run.py` until it serves."""
    server = AppServer(None, f"http://127.0.0.1:{environment['PORT']}")
    directory = Path(tempfile.mkdtemp(prefix="clinic-run-"))
    server.process = ManagedProcess(
        [sys.executable, "run.py"], directory, server.answers, cwd=ROOT, env=environment
    )
    server.start()
    yield server
    server.stop()


def assert_stops_quietly(server: AppServer, stop: signal.Signals) -> None:
    """Check that a signal stops the server without a traceback."""
    assert server.process is not None
    assert server.process.process is not None
    server.process.process.send_signal(stop)
    assert server.process.process.wait() == 0
    assert "Traceback" not in server.log()


def test_run_prints_the_first_steps_and_a_hang_up_stops_it(server: AppServer) -> None:
    assert_stops_quietly(server, signal.SIGHUP)

    output = server.log()
    assert output.startswith("Load the application ...\n")
    assert "Created the first admin: admin@clinic.com, password: " in output
    assert f"{server.url}/  (open it in a browser)" in output
    assert f"curl -s {server.url}/auth/login" in output


def test_run_names_another_port_if_the_port_is_busy(server: AppServer, environment: dict[str, str]) -> None:
    """The first server answers until Ctrl-C stops it."""
    second = subprocess.run(
        [sys.executable, "run.py"], cwd=ROOT, env=environment, check=False, capture_output=True, text=True
    )

    assert second.returncode == 1
    assert f"PORT={int(environment['PORT']) + 1} make run" in second.stderr
    assert "Traceback" not in second.stderr
    assert server.answers()
    assert_stops_quietly(server, signal.SIGINT)


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGKILL])
def test_run_starts_one_worker_which_ends_with_the_server(
    server: AppServer, environment: dict[str, str], stop: signal.Signals
) -> None:
    """The worker dispatches the event of the first admin. It notices that a killed server is gone.

    A worker that was killed is started again.
    """
    assert server.process is not None
    assert server.process.process is not None
    process = psutil.Process(server.process.process.pid)
    (worker,) = [child for child in process.children() if "jobs" in child.cmdline()]
    path = environment["DATABASE_URI"].removeprefix("sqlite:///")
    with closing(sqlite3.connect(path)) as connection:
        while connection.execute("SELECT 1 FROM events WHERE dispatched_at IS NULL").fetchone():
            time.sleep(0.05)
        assert connection.execute("SELECT type FROM events").fetchall() == [("user.created",)]

    worker.kill()
    worker.wait(60)
    while not (others := [child for child in process.children() if "jobs" in child.cmdline()]):
        time.sleep(0.05)
    process.send_signal(stop)

    _, alive = psutil.wait_procs([*others, process], timeout=60)
    assert alive == []
    assert "The worker of jobs has ended with status -9. It is started again." in server.log()
    assert "Traceback" not in server.log()
