"""The application server: `python server.py` serves the application with granian.

SIGTERM and SIGINT stop it after the requests in flight. SIGHUP replaces the workers one after the other: the
new ones load the code and `.env` again, but keep the environment. The supported alternative is
`gunicorn -c gunicorn.conf.py 'app:create_app()'`.
"""

from __future__ import annotations

import argparse
import ctypes
import logging
import signal
import socket
import sys
from functools import partial
from typing import Any

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C during the imports prints no traceback

import structlog
from granian import Granian
from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.log import LogLevels
from werkzeug.utils import import_string

import config
import gc_freeze
import metrics_directory
from api.logging import server_config
from config import SERVER_THREADS, Settings, SettingsError
from worker_process import WorkerProcess

APPLICATION = "app:create_app"
MAX_CONNECTIONS = 1024  # per worker; an idle or slow connection costs no thread
KEEP_ALIVE_MS = 75_000  # above a reverse proxy's 60 s, which would otherwise reuse a connection that closes
MAX_HEAD = 64 * 1024  # bytes of request line and headers
STOP_TIMEOUT_S = 30  # for the requests in flight
RELOAD_INTERVAL_S = 10.0  # from the start of a new worker to the end of the old one; loading takes about 2 s
PR_SET_PDEATHSIG = 1  # prctl(2)
# `load_application` imports them again: after SIGHUP the main process may have an old version.
IMPORTED_BY_MAIN_PROCESS = ("config", "config_keys", "config_messages", "api", "api.logging")


def main() -> None:
    """Serve until a signal ends it."""
    parser = argparse.ArgumentParser(prog="python server.py", description=__doc__.partition("\n")[0])
    parser.add_argument("application", nargs="?", default=APPLICATION, help="module:factory to serve")
    parser.add_argument("--stop-on-hangup", action="store_true", help="let SIGHUP stop the server")
    parser.add_argument("--with-worker", action="store_true", help="run one worker of jobs beside the server")
    arguments = parser.parse_args()
    try:
        settings = config.load()
        check_address(settings.host, settings.port)
    except SettingsError as problems:
        raise SystemExit(f"The settings are wrong:\n{problems}") from None
    except OSError as problem:
        raise SystemExit(f"Cannot listen on {settings.host}:{settings.port}: {problem.strerror}.") from None
    serve(
        settings,
        arguments.application,
        stop_on_hangup=arguments.stop_on_hangup,
        with_worker=arguments.with_worker,
    )


def check_address(host: str, port: int) -> None:
    """Raise OSError if nothing can listen there, or another process does.

    Granian would not notice the other process: it sets SO_REUSEPORT, so both would get some of the requests.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))


def serve(settings: Settings, application: str, *, stop_on_hangup: bool, with_worker: bool) -> None:
    """Start the workers and wait for a signal."""
    # 40 threads were measured: they wait for the database or for a turn to hash
    logging.getLogger("_granian").addFilter(lambda record: "Python threads" not in record.getMessage())
    server = Granian(
        application,
        address=settings.host,
        port=settings.port,
        interface=Interfaces.WSGI,
        http=HTTPModes.http1,
        websockets=False,
        workers=settings.web_concurrency,
        blocking_threads=SERVER_THREADS,
        backpressure=MAX_CONNECTIONS,
        http1_settings=HTTP1Settings(header_read_timeout=KEEP_ALIVE_MS, max_buffer_size=MAX_HEAD),
        respawn_failed_workers=True,
        workers_kill_timeout=STOP_TIMEOUT_S,
        respawn_interval=RELOAD_INTERVAL_S,
        # `make run` shows only errors; the application logs the requests
        log_level=LogLevels.info if settings.production else LogLevels.error,
        log_dictconfig=server_config("_granian", production=settings.production),
    )
    if stop_on_hangup:
        server.on_startup(partial(signal.signal, signal.SIGHUP, server.signal_handler_interrupt))
    server.on_shutdown(metrics_directory.prepare())
    if with_worker:
        worker = WorkerProcess()
        server.on_startup(worker.start)
        server.on_shutdown(worker.stop)
    server.serve(target_loader=load_application)


def load_application(target: str) -> Any:
    """Create the application of one worker. Runs in the worker process."""
    # The handlers of the main process were inherited: they would lose a signal that arrives while we load.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    if sys.platform == "linux":  # a worker whose main process was killed would keep the port
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    for name in IMPORTED_BY_MAIN_PROCESS:
        sys.modules.pop(name, None)
    try:
        application = import_string(target)()
    except Exception as error:
        # for example wrong settings in `.env` after SIGHUP
        logging.getLogger("_granian").critical("Cannot load %s: %s", target, error, exc_info=True)
        raise SystemExit(1) from None
    gc_freeze.freeze_loaded_objects()
    structlog.get_logger().info("worker ready")
    return application


if __name__ == "__main__":
    main()
