"""`make run`: prepare the database, create the first admin, then serve on this machine.

The server starts one worker of events and jobs, and ends it with itself.

One process migrates and creates the admin, because loading the application takes a second. The server then
replaces this process.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends the process without a traceback
    print("Load the application ...", flush=True)

import flask_migrate

import config
import server
from app import create_app
from config import Settings, SettingsError
from create_admin import FIRST_EMAIL, create_first_admin

SERVER = Path(server.__file__)

FIRST_STEPS = """
Start the server on {url} ...

Documentation   {url}/  (open it in a browser)
Sign in         curl -s {url}/auth/login -H 'Content-Type: application/json' \\
                  -d '{{"email": "{email}", "password": "PASSWORD"}}'
Use the API     curl -s {url}/patients -H 'Authorization: Bearer ACCESS_TOKEN'
Sample data     make demo
Stop            Ctrl-C
"""


def main() -> None:
    """Prepare the database and start the server."""
    try:
        settings = config.load()
    except SettingsError as problems:
        raise SystemExit(f"The settings are wrong:\n{problems}") from None
    check_port(settings)
    app = create_app(settings)
    with app.app_context():
        print("Upgrade the database to the newest schema ...", flush=True)
        flask_migrate.upgrade()
        print(create_first_admin(), flush=True)
    url = f"http://{settings.host}:{settings.port}"
    print(FIRST_STEPS.format(url=url, email=FIRST_EMAIL), flush=True)
    os.execv(sys.executable, [sys.executable, str(SERVER), "--stop-on-hangup", "--with-worker"])  # noqa: S606 - the server replaces this process


def check_port(settings: Settings) -> None:
    """End with the command that takes another port, if the port is busy."""
    try:
        server.check_address(settings.host, settings.port)
    except OSError as problem:
        other = settings.port + 1 if settings.port < 65535 else 5000
        raise SystemExit(
            f"Cannot listen on port {settings.port}: {problem.strerror}. "
            f"Choose another one: PORT={other} make run"
        ) from None


if __name__ == "__main__":
    main()
