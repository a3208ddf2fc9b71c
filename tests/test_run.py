"""`make run`: what `run.py` prints and how it stops."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

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


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGHUP])
def test_run_prints_the_first_steps_and_stops_quietly(server: AppServer, stop: signal.Signals) -> None:
    assert server.process is not None
    assert server.process.process is not None

    server.process.process.send_signal(stop)

    assert server.process.process.wait() == 0
    output = server.log()
    assert output.startswith("Load the application ...\n")
    assert "Created the first admin: admin@clinic.com, password: " in output
    assert f"{server.url}/  (open it in a browser)" in output
    assert f"curl -s {server.url}/auth/login" in output
    assert "Traceback" not in output


def test_run_names_another_port_if_the_port_is_busy(server: AppServer, environment: dict[str, str]) -> None:
    second = subprocess.run(
        [sys.executable, "run.py"], cwd=ROOT, env=environment, check=False, capture_output=True, text=True
    )

    assert second.returncode == 1
    assert f"PORT={int(environment['PORT']) + 1} make run" in second.stderr
    assert "Traceback" not in second.stderr
    assert server.answers()
