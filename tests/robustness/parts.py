"""The parts a clinic runs behind: nginx with the project's own configuration, PgBouncer in transaction mode.

Both are Debian's packages, and the long form alone needs them: `apt-get install nginx-light pgbouncer`.
"""

from __future__ import annotations

import os
import pwd
import re
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path

import psycopg2
from sqlalchemy.engine import make_url

from tests.support.servers import (
    ROOT,
    AppServer,
    ManagedProcess,
    PostgresServer,
    Server,
    ServerError,
    free_port,
)

SBIN = "/usr/sbin:/usr/local/sbin"


def program(name: str) -> str:
    """Where a program lies; ServerError says how to get it."""
    found = shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:{SBIN}")
    if found is None:
        raise ServerError(f"{name} is not installed: apt-get install nginx-light pgbouncer openssl")
    return found


class Proxy(Server):
    """nginx in front of the application, over TLS; `authority` is the file that vouches for it."""

    def __init__(self, process: ManagedProcess, url: str, authority: Path) -> None:
        super().__init__(process)
        self.url, self.authority = url, authority


def start_nginx(instances: Sequence[AppServer]) -> Proxy:
    """The project's `deploy/nginx.conf`, with these instances and places of its own."""
    directory = Path(tempfile.mkdtemp(prefix="clinic-nginx-"))
    directory.chmod(0o755)  # its workers run as another user
    certificate, key = directory / "certificate.pem", directory / "key.pem"
    subject = ["-subj", "/CN=clinic", "-addext", "subjectAltName=IP:127.0.0.1"]
    made = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *subject]
    subprocess.run(
        [program("openssl"), *made, "-keyout", key, "-out", certificate], check=True, capture_output=True
    )
    plain, secure = free_port(), free_port()
    upstreams = " ".join(f"server {one.url.removeprefix('http://')};" for one in instances)
    places = "".join(
        f"{kind}_temp_path {directory}/{kind};"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    told = (ROOT / "deploy" / "nginx.conf").read_text()
    for theirs, ours in (
        (r"server app:5000;", upstreams),
        (r"listen 80;", f"listen 127.0.0.1:{plain};"),
        (r"listen 443 ssl;", f"listen 127.0.0.1:{secure} ssl;"),
        (r"http2 on;", ""),  # Debian's is older than the word
        (r"/run/secrets/certificate;", f"{certificate};"),
        (r"/run/secrets/certificate_key;", f"{key};"),
        (r"http \{", f"http {{ {places}"),
    ):
        told, count = re.subn(theirs, ours, told)
        assert count == 1, theirs
    configuration = directory / "nginx.conf"
    configuration.write_text(f"daemon off; pid {directory}/pid; error_log stderr warn;\n{told}")

    def ready() -> bool:
        with suppress(OSError), closing(socket.create_connection(("127.0.0.1", secure), timeout=1)):
            return True
        return False

    process = ManagedProcess(
        [program("nginx"), "-e", "stderr", "-p", str(directory), "-c", str(configuration)], directory, ready
    )
    process.start()
    return Proxy(process, f"https://127.0.0.1:{secure}", certificate)


class Pooler(Server):
    """PgBouncer before a PostgreSQL server."""

    def __init__(self, process: ManagedProcess, port: int) -> None:
        super().__init__(process)
        self.port = port

    def url(self, database_url: str) -> str:
        """The address of the same database through the pooler."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/{make_url(database_url).database}"


def start_pgbouncer(postgres: PostgresServer, pool_size: int) -> Pooler:
    """Transaction mode, as the poolers of hosted PostgreSQL run, with `pool_size` connections a database."""
    directory, port = Path(tempfile.mkdtemp(prefix="clinic-pgbouncer-")), free_port()
    host = postgres.admin.query.get("host", postgres.admin.host)
    configuration = directory / "pgbouncer.ini"
    configuration.write_text(
        f"[databases]\n* = host={host} port={postgres.admin.port or 5432} user=postgres\n"
        "[pgbouncer]\npool_mode = transaction\nauth_type = any\n"
        f"listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n"
        f"default_pool_size = {pool_size}\nmax_client_conn = 500\nquery_wait_timeout = 10\n"
    )
    command = [program("pgbouncer"), str(configuration)]
    if os.geteuid() == 0:  # it refuses to run as root
        nobody = pwd.getpwnam("nobody")
        for path in (directory, configuration):
            os.chown(path, nobody.pw_uid, nobody.pw_gid)
        command[1:1] = ["-u", "nobody"]

    def ready() -> bool:
        with (
            suppress(psycopg2.OperationalError),
            closing(psycopg2.connect(host="127.0.0.1", port=port, user="postgres", dbname="postgres")),
        ):
            return True
        return False

    process = ManagedProcess(command, directory, ready)
    process.start()
    return Pooler(process, port)
