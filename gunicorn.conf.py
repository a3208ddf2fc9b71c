"""Settings of gunicorn, the alternative to server.py: `gunicorn -c gunicorn.conf.py 'app:create_app()'`.

The settings are checked here, before a worker starts. The application is not preloaded: each worker opens its
own connections and starts its own threads.
"""

import os
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import gc_freeze
import metrics_directory
from api.logging import server_config
from config import SERVER_THREADS, SettingsError, load

try:
    _settings = load()
except SettingsError as problems:
    raise SystemExit(f"The settings are wrong:\n{problems}") from None

bind = f"{_settings.host}:{_settings.port}"
worker_class = "gthread"
workers = _settings.web_concurrency
threads = SERVER_THREADS
timeout = 60  # seconds without a heartbeat before a worker is replaced
graceful_timeout = 30  # seconds for the requests in flight after SIGTERM
keepalive = 75  # seconds: above a reverse proxy's 60, which would otherwise reuse a connection that closes
limit_request_line = 8190  # bytes: list filters are JSON in the query
# Only TRUSTED_PROXIES decides which proxies may name the caller's address and scheme.
forwarded_allow_ips = ""
# The heartbeat must not wait for a disk.
worker_tmp_dir = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108
logconfig_dict = server_config("gunicorn.error", production=_settings.production)
accesslog = None  # the application logs one line per request, with its request id
control_socket_disable = True  # there is one per user: two servers would use the same


def on_starting(server: Any) -> None:
    """Prepare the directory of the metrics."""
    server.remove_metrics = metrics_directory.prepare()


def post_worker_init(_worker: Any) -> None:
    """Exclude the loaded application from garbage collection."""
    gc_freeze.freeze_loaded_objects()


def on_exit(server: Any) -> None:
    """Remove the directory of the metrics if it is temporary."""
    server.remove_metrics()
