"""Real proxies for the tests: nginx with the configuration of the project, PgBouncer in transaction mode.

Only the long level needs them. Debian packages: `apt-get install nginx-light pgbouncer`.
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
    """Return the path of a program. ServerError says how to install it."""
    path = shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:{SBIN}")
    if path is None:
        raise ServerError(f"{name} is not installed: apt-get install nginx-light pgbouncer openssl")
    return path


class Proxy(Server):
    """nginx in front of the application, with TLS. `authority` is the file of its CA certificate."""

    def __init__(self, process: ManagedProcess, url: str, authority: Path) -> None:
        super().__init__(process)
        self.url, self.authority = url, authority


def start_nginx(instances: Sequence[AppServer]) -> Proxy:
    """Start nginx with `deploy/nginx.conf`, with these instances, ports and folders."""
    directory = Path(tempfile.mkdtemp(prefix="clinic-nginx-"))
    directory.chmod(0o755)  # its workers run as another user
    certificate, key = directory / "certificate.pem", directory / "key.pem"
    subject = ["-subj", "/CN=clinic", "-addext", "subjectAltName=IP:127.0.0.1"]
    arguments = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *subject]
    subprocess.run(
        [program("openssl"), *arguments, "-keyout", key, "-out", certificate], check=True, capture_output=True
    )
    plain, secure = free_port(), free_port()
    upstreams = " ".join(f"server {instance.url.removeprefix('http://')};" for instance in instances)
    temporary_paths = "".join(
        f"{kind}_temp_path {directory}/{kind};"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    text = (ROOT / "deploy" / "nginx.conf").read_text()
    for pattern, replacement in (
        (r"server app:5000;", upstreams),
        (r"listen 80;", f"listen 127.0.0.1:{plain};"),
        (r"listen 443 ssl;", f"listen 127.0.0.1:{secure} ssl;"),
        (r"http2 on;", ""),  # nginx of Debian does not know the directive
        (r"/run/secrets/certificate;", f"{certificate};"),
        (r"/run/secrets/certificate_key;", f"{key};"),
        (r"/srv/clinic/", f"{ROOT}/"),
        (r"http \{", f"http {{ {temporary_paths}"),
    ):
        text, count = re.subn(pattern, replacement, text)
        assert count == 1, pattern
    configuration = directory / "nginx.conf"
    configuration.write_text(f"daemon off; pid {directory}/pid; error_log stderr warn;\n{text}")

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
    """PgBouncer in front of a PostgreSQL server."""

    def __init__(self, process: ManagedProcess, port: int) -> None:
        super().__init__(process)
        self.port = port

    def url(self, database_url: str) -> str:
        """Return the URL of the database through PgBouncer."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/{make_url(database_url).database}"


def start_pgbouncer(postgres: PostgresServer, pool_size: int) -> Pooler:
    """Start PgBouncer in transaction mode, with `pool_size` connections per database.

    Poolers of hosted PostgreSQL use this mode.
    """
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
