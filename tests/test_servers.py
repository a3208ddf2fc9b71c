"""The PostgreSQL and Redis servers of the tests: freeze, stop, and end without leftovers."""

import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import redis

from tests.support.servers import ROOT, start_redis

STARTER = """
import os, signal
from tests.support.servers import start_redis

server = start_redis()
print(server.process.process.pid, server.process.directory, flush=True)
server.freeze()
os.kill(os.getpid(), signal.SIGKILL)
"""


def has_ended(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_a_server_ends_with_the_process_that_started_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TEST_REDIS_URL", raising=False)

    starter = subprocess.run(
        [sys.executable, "-c", STARTER], cwd=ROOT, check=False, capture_output=True, text=True
    )

    pid, directory = starter.stdout.split()
    while not has_ended(int(pid)) or Path(directory).exists():
        time.sleep(0.05)


def test_a_frozen_redis_does_not_answer_until_it_is_resumed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TEST_REDIS_URL", raising=False)
    server = start_redis()
    client = redis.Redis.from_url(server.url, socket_timeout=0.2, retry=None)
    client.set("patient", "here")

    server.freeze()

    with pytest.raises(redis.TimeoutError):
        client.get("patient")
    server.thaw()
    assert redis.Redis.from_url(server.url).get("patient") == b"here"
    server.stop()
    assert not server.answers()
