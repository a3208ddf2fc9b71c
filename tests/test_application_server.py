"""The application server: slow clients, stop, reload, metrics, proxies and waiting password checks.

Every test starts the server as an operator does. None has a time limit.
"""

from __future__ import annotations

import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest
import requests

from config import SECRETS, SERVER_THREADS
from models import AuditLog
from tests.conftest import NewDatabase, settings_for
from tests.support.clinic import Clinic
from tests.support.keys import secrets_of
from tests.support.servers import ROOT, AppServer, ServerError, start_app

HEAD = b"POST /auth/login HTTP/1.1\r\nHost: clinic\r\nContent-Type: application/json\r\n"
BODY = b'{"email": "nobody@clinic.example", "password": "not the password"}'
BODY_HEAD = HEAD + b"Content-Length: %d\r\nConnection: close\r\n\r\n" % len(BODY)
TOKEN = "t" * 40
ORIGIN = {"ALLOWED_ORIGINS": "https://clinic.example"}

StartServer = Callable[..., AppServer]


@pytest.fixture
def database(new_database: NewDatabase) -> str:
    """Return a new SQLite database."""
    return new_database("sqlite")


@pytest.fixture
def start(database: str) -> Iterator[StartServer]:
    """Start the application on the database; stopped after the test."""
    with ExitStack() as stack:

        def start_and_register(**options: Any) -> AppServer:
            server = start_app(database, **({"workers": 1} | options))
            stack.callback(server.stop)
            return server

        yield start_and_register


@pytest.fixture(scope="module")
def clinic_of_server(new_database: NewDatabase) -> Iterator[Clinic]:
    """Yield the clinic that `shared_server` serves."""
    clinic = Clinic(settings_for(new_database("sqlite")))
    yield clinic
    clinic.close()


@pytest.fixture(scope="module")
def shared_server(clinic_of_server: Clinic) -> Iterator[AppServer]:
    """Yield one server for the tests that neither stop nor configure it: each start takes 3 s of CPU."""
    settings = clinic_of_server.settings
    environment = secrets_of(settings) | {"AUDIT_HEADS_FILE": str(settings.heads_file)}
    server = start_app(settings.database_url, workers=1, env=environment)
    yield server
    server.stop()


def connect(server: AppServer) -> socket.socket:
    address = urlsplit(server.url)
    return socket.create_connection((address.hostname, address.port or 80))


@contextmanager
def unfinished_requests(server: AppServer, count: int, beginning: bytes) -> Iterator[None]:
    """Hold connections that sent only the beginning of a request."""
    with ExitStack() as stack:
        for _ in range(count):
            client = stack.enter_context(closing(connect(server)))
            client.sendall(beginning)
        yield


def read_all(client: socket.socket) -> bytes:
    return b"".join(iter(lambda: client.recv(65536), b""))


def worker_pids(server: AppServer) -> set[int]:
    return {process.pid for process in psutil.Process(main_pid(server)).children()}


def main_pid(server: AppServer) -> int:
    assert server.process is not None
    assert server.process.process is not None
    return server.process.process.pid


def wait_until(condition: Callable[[], bool]) -> None:
    while not condition():
        time.sleep(0.05)


def is_alive(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


@pytest.mark.parametrize("gunicorn", [False, True], ids=["granian", "gunicorn"])
def test_both_servers_serve_and_finish_a_request_in_flight_before_they_stop(
    start: StartServer, gunicorn: bool
) -> None:
    server = start(gunicorn=gunicorn)
    with closing(connect(server)) as client:
        client.sendall(BODY_HEAD + BODY[:10])
        assert requests.get(server.url + "/health/ready").status_code == 200

        psutil.Process(main_pid(server)).terminate()
        time.sleep(0.5)
        client.sendall(BODY[10:])
        response = read_all(client)

    assert response.startswith(b"HTTP/1.1 401 ")
    assert server.process is not None
    assert server.process.process is not None
    assert server.process.process.wait() == 0


def test_slow_headers_occupy_no_thread(shared_server: AppServer) -> None:
    with unfinished_requests(shared_server, 2 * SERVER_THREADS, HEAD):
        assert requests.get(shared_server.url + "/health/ready").status_code == 200


def test_slow_bodies_leave_threads_for_other_requests(shared_server: AppServer) -> None:
    with unfinished_requests(shared_server, SERVER_THREADS - 10, BODY_HEAD + BODY[:10]):
        assert requests.get(shared_server.url + "/health/ready").status_code == 200


@pytest.mark.parametrize("header", [{"CONTENT_LENGTH": "20"}, {"HTTP_TRANSFER_ENCODING": "chunked"}])
def test_a_body_that_the_client_did_not_complete_is_refused(clinic: Clinic, header: dict[str, str]) -> None:
    response = clinic.admin.patch("/auth/me", environ_overrides={"wsgi.input_terminated": True} | header)

    assert (response.status_code, response.get_json()["error"]) == (400, "bad_request")


def test_a_reload_replaces_the_workers_and_loses_no_request(start: StartServer) -> None:
    server = start()
    before = worker_pids(server)
    statuses: Counter[int] = Counter()

    psutil.Process(main_pid(server)).send_signal(signal.SIGHUP)
    while before & worker_pids(server):
        statuses[requests.get(server.url + "/health/ready").status_code] += 1
    statuses[requests.get(server.url + "/health/ready").status_code] += 1

    assert set(statuses) == {200}
    assert len(worker_pids(server)) == 1


@pytest.mark.parametrize("gunicorn", [False, True], ids=["granian", "gunicorn"])
def test_every_line_of_the_log_is_json_without_secrets(start: StartServer, gunicorn: bool) -> None:
    server = start(env={"ENVIRONMENT": "production"} | ORIGIN, gunicorn=gunicorn)
    assert server.process is not None
    secrets = [server.process.options["env"][name] for name in SECRETS]
    before = worker_pids(server)

    psutil.Process(main_pid(server)).send_signal(signal.SIGHUP)
    wait_until(lambda: not before & worker_pids(server) and server.answers())
    requests.get(server.url + "/patients?name=Byron")
    requests.get(server.url + "/calendar/Byron.ics")
    with closing(connect(server)) as client:  # a server quotes a request line that it cannot read
        client.sendall(b"GET /calendar/Byron x HTTP/1.1\r\nHost: clinic\r\n\r\n")
        read_all(client)
    psutil.Process(main_pid(server)).terminate()
    assert server.process.process is not None
    server.process.process.wait()

    log = server.log()
    lines = [json.loads(line) for line in log.splitlines()]
    assert {frozenset({"event", "level", "timestamp"} - line.keys()) for line in lines} == {frozenset()}
    assert any(f"Listening at: {server.url}" in line["event"] for line in lines)
    assert any(line.get("route") == "/patients" and line["status"] == 401 for line in lines)
    assert not any("Python threads" in line["event"] for line in lines)
    assert not any(secret in log for secret in [*secrets, "Byron"])


def test_a_server_that_cannot_load_the_application_says_why_in_json(database: str) -> None:
    with pytest.raises(ServerError) as error:
        start_app(database, workers=1, env={"ENVIRONMENT": "production"} | ORIGIN, application="app:absent")

    lines = [json.loads(line) for line in str(error.value).splitlines()[1:]]
    critical = {line["event"] for line in lines if line["level"] == "critical"}
    assert len(critical) == 1
    assert critical.pop().startswith("Cannot load app:absent: ")


def test_a_reload_reads_code_and_env_file_but_not_the_environment(database: str, tmp_path: Path) -> None:
    tree = tmp_path / "clinic"
    shutil.copytree(ROOT, tree, ignore=shutil.ignore_patterns(".*", "tests", "instance"))
    (tree / ".env").write_text("CURRENCY=EUR\nRATE_LIMIT_DEFAULT=7 per minute\n")
    server = start_app(database, workers=1, env={"CURRENCY": "USD", "RATE_LIMIT_ENABLED": "true"}, cwd=tree)
    before = worker_pids(server)

    def answer() -> tuple[str, str]:
        response = requests.get(server.url + "/")
        return response.json()["currency"], response.headers["RateLimit-Policy"]

    first = answer()
    (tree / ".env").write_text("CURRENCY=EUR\nRATE_LIMIT_DEFAULT=8 per minute\n")
    quotas = tree / "cache" / "quotas.py"
    quotas.write_text(quotas.read_text().replace(";w={", ";window={"))
    psutil.Process(main_pid(server)).send_signal(signal.SIGHUP)
    wait_until(lambda: not before & worker_pids(server) and server.answers())
    second = answer()
    server.stop()

    assert first == ("USD", '"default";q=7;w=60')
    assert second == ("USD", '"default";q=8;window=60')


def test_the_workers_end_when_the_main_process_is_killed(start: StartServer) -> None:
    server = start(workers=2)
    workers = worker_pids(server)

    psutil.Process(main_pid(server)).kill()

    wait_until(lambda: not any(is_alive(pid) for pid in workers))


def test_a_killed_worker_is_replaced_and_its_gauges_end(start: StartServer, tmp_path: Path) -> None:
    server = start(env={"PROMETHEUS_MULTIPROC_DIR": str(tmp_path), "METRICS_TOKEN": TOKEN})
    (worker,) = worker_pids(server)
    assert (tmp_path / f"gauge_livesum_{worker}.db").exists()

    psutil.Process(worker).kill()

    wait_until(lambda: worker not in worker_pids(server) and server.answers())
    assert requests.get(server.url + "/metrics", headers={"Authorization": f"Bearer {TOKEN}"}).ok
    assert [file.stem for file in tmp_path.glob("gauge_livesum_*.db")] == [
        f"gauge_livesum_{pid}" for pid in worker_pids(server)
    ]


def test_a_second_server_on_the_port_does_not_start(shared_server: AppServer) -> None:
    server = shared_server
    assert server.process is not None

    second = subprocess.run(
        [sys.executable, "server.py"],
        cwd=ROOT,
        env=server.process.options["env"],
        check=False,
        capture_output=True,
        text=True,
    )

    assert second.returncode == 1
    assert f"Cannot listen on 127.0.0.1:{urlsplit(server.url).port}: Address already in use." in second.stderr
    assert "Traceback" not in second.stderr


@pytest.mark.parametrize("gunicorn", [False, True], ids=["granian", "gunicorn"])
def test_metrics_are_summed_over_the_workers_and_start_at_zero(
    start: StartServer, tmp_path: Path, gunicorn: bool
) -> None:
    old_file = tmp_path / "counter_1.db"
    old_file.write_bytes(b"of an earlier server")
    server = start(
        workers=2,
        gunicorn=gunicorn,
        env={"PROMETHEUS_MULTIPROC_DIR": str(tmp_path), "METRICS_TOKEN": TOKEN},
    )

    requested = 0
    while requested < 20 or len(list(tmp_path.glob("counter_*.db"))) < 2:  # both workers have counted
        assert requests.get(server.url + "/docs").status_code == 200
        requested += 1

    text = requests.get(server.url + "/metrics", headers={"Authorization": f"Bearer {TOKEN}"}).text
    count = re.search(r'^clinic_requests_total\{.*route="/docs".*\} (\S+)$', text, re.M)
    assert count is not None
    assert float(count[1]) == requested
    assert not old_file.exists()


def test_the_server_believes_no_header_about_the_address_of_the_caller(
    clinic_of_server: Clinic, shared_server: AppServer
) -> None:
    headers = {
        "Authorization": f"Bearer {clinic_of_server.admin.token}",
        "X-Forwarded-For": "10.0.0.1, 203.0.113.7",
        "X-Real-IP": "10.0.0.2",
        "Forwarded": "for=10.0.0.3",
    }

    response = requests.post(shared_server.url + "/patients", json={"name": "Ada"}, headers=headers)

    assert response.status_code == 201
    with clinic_of_server.inside() as session:
        newest = session.query(AuditLog.address).order_by(AuditLog.id.desc()).first()
    assert newest.address == "127.0.0.1"


def test_waiting_password_checks_are_limited_and_leave_threads_for_other_requests(start: StartServer) -> None:
    server = start(env={"BCRYPT_COST": "12", "PASSWORD_CHECK_QUEUE": "5"})

    def sign_in(number: int) -> requests.Response:
        credentials = {"email": f"n{number}@clinic.example", "password": "not the password"}
        return requests.post(server.url + "/auth/login", json=credentials)

    with ThreadPoolExecutor(2 * SERVER_THREADS) as pool:
        attempts = [pool.submit(sign_in, number) for number in range(2 * SERVER_THREADS)]
        read = requests.get(server.url + "/health/ready")
        responses = [attempt.result() for attempt in attempts]

    assert read.status_code == 200
    statuses = Counter(response.status_code for response in responses)
    assert set(statuses) == {401, 503}
    assert statuses[401] >= 5
    assert {response.headers.get("Retry-After") for response in responses if response.status_code == 503} == {
        "2"
    }
