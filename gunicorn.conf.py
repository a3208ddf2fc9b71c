"""How the server runs: `gunicorn -c gunicorn.conf.py 'app:create_app()'`.

The settings are checked here, before a worker starts. Workers are not preloaded: each opens its own
connections and starts its own threads.
"""

import gc
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from config import SettingsError, load

try:
    _settings = load()
except SettingsError as problems:
    raise SystemExit(f"The settings are wrong:\n{problems}") from None

METRICS = "PROMETHEUS_MULTIPROC_DIR"

bind = f"{_settings.host}:{_settings.port}"
worker_class = "gthread"
workers = _settings.web_concurrency
threads = 40  # more than the database pool of one worker: whoever waits for bcrypt needs no connection
timeout = 60  # seconds without a sign of life before a worker is replaced
graceful_timeout = 30  # seconds that requests in flight have after SIGTERM
keepalive = 75  # seconds: longer than a reverse proxy's 60, which else reuses a connection as it closes
limit_request_line = 8190  # bytes: lists take their filters, as JSON, in the query
# One place decides whose word about the caller's address and scheme counts: TRUSTED_PROXIES.
forwarded_allow_ips = ""
# The heartbeat must not wait for a disk.
worker_tmp_dir = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108
accesslog = None  # the application writes one line per request, with its request id
control_socket_disable = True  # it would be one per user, and two servers would fight for it


def on_starting(server: Any) -> None:
    """Give the workers an empty directory in which they add up their metrics."""
    if chosen := os.environ.get(METRICS):
        directory = Path(chosen)
        directory.mkdir(parents=True, exist_ok=True)
        for stale in directory.glob("*.db"):
            stale.unlink()
    else:
        server.own_metrics = os.environ[METRICS] = tempfile.mkdtemp(prefix="clinic-metrics-")


def post_worker_init(_worker: Any) -> None:
    """Keep the garbage collector off what stays for good: 110 ms, again and again amid long lists."""
    gc.collect()
    gc.freeze()


def child_exit(_server: Any, worker: Any) -> None:
    """Forget the gauges of a worker that ended; its counters stay in the sums."""
    from prometheus_client import multiprocess

    multiprocess.mark_process_dead(worker.pid)


def on_exit(server: Any) -> None:
    """Leave nothing behind."""
    if own := getattr(server, "own_metrics", None):
        shutil.rmtree(own, ignore_errors=True)
