"""sqlmap and wapiti, led by the project's own OpenAPI document, find nothing.

The long form alone: they are installed, in fixed versions, into an environment of their own beside the tests.
"""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import settings_for
from tests.robustness.conftest import Figures
from tests.robustness.scale import chosen
from tests.support.clinic import Clinic
from tests.support.furnished import furnish
from tests.support.servers import (
    ROOT,
    AppServer,
    PostgresServer,
    start_app,
)

__test__ = chosen().long

SCANNERS = ("sqlmap==1.10.10", "wapiti3==3.2.3")
ENVIRONMENT = ROOT / ".venv-scanners"
LIMIT_S = 40 * 60  # of one scanner
MODULES = "sql,xss,exec,file,crlf,redirect,ldap"  # those that call no server of somebody else
# A scanner that signs itself out finds nothing; the rest tells of the service and takes no parameter.
LEFT_OUT = ("/", "/openapi.json", "/metrics", "/health/live", "/health/ready", "/auth/logout")


@dataclass
class Scanned:
    """The application on PostgreSQL, its document as scanners read it, and an admin's token."""

    server: AppServer
    document: Path
    token: str
    operations: int


@pytest.fixture(scope="module")
def scanners() -> Path:
    """Where the scanners' programs lie."""
    stamp = ENVIRONMENT / "installed"
    if not stamp.exists() or stamp.read_text() != "\n".join(SCANNERS):
        subprocess.run([sys.executable, "-m", "venv", ENVIRONMENT], check=True)
        pip = [ENVIRONMENT / "bin" / "pip", "install", "--quiet", *SCANNERS]
        subprocess.run(pip, check=True, capture_output=True)
        stamp.write_text("\n".join(SCANNERS))
    return ENVIRONMENT / "bin"


@pytest.fixture(scope="module")
def scanned(
    postgres: PostgresServer, postgres_template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Scanned]:
    url = postgres.clone(postgres_template)
    clinic = Clinic(settings_for(url, jwt_access_token_expires_minutes=24 * 60))
    furnish(clinic)
    settings = clinic.settings
    server = start_app(
        url,
        workers=2,
        env={
            "JWT_SECRET_KEY": settings.jwt_secret_key,
            "AUDIT_KEY": settings.audit_key,
            "AUDIT_HEADS_FILE": str(settings.heads_file),
        },
    )
    document = clinic.nobody.get("/openapi.json").get_json()
    document["servers"] = [{"url": server.url}]
    for path in LEFT_OUT:
        del document["paths"][path]
    for item in document["paths"].values():
        item.pop("put", None)  # the code of PATCH once more
    file = tmp_path_factory.mktemp("scanned") / "openapi.json"
    file.write_text(json.dumps(document))
    methods = [method for item in document["paths"].values() for method in item if method != "parameters"]
    yield Scanned(server, file, clinic.sign_in("admin").token or "", len(methods))
    server.stop()
    clinic.close()


def run(command: list[object], home: Path) -> str:
    """What a scanner says; it keeps its notes in `home`."""
    done = subprocess.run(
        ["nice", *map(str, command)],
        env={"HOME": str(home), "PATH": "/usr/bin:/bin", "TERM": "dumb"},
        cwd=home,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def assert_no_server_error(scanned: Scanned) -> dict[str, int]:
    """How often each status was answered; never 5xx."""
    told = re.findall(r"status=(\d+)", scanned.server.log())
    counted = {status: told.count(status) for status in sorted(set(told))}
    assert not [status for status in counted if status >= "500"], counted
    assert counted.get("401", 0) < len(told) / 10, counted  # it was signed in nearly all the time
    return counted


def test_sqlmap_finds_nothing(scanners: Path, scanned: Scanned, tmp_path: Path, figures: Figures) -> None:
    told = run(
        [
            scanners / "sqlmap",
            *("--openapi", scanned.document, "--openapi-base", scanned.server.url),
            *("-H", f"Authorization: Bearer {scanned.token}", "--batch", "--disable-coloring", "--skip-waf"),
            *("--technique", "BEUS", "--threads", "4", "--flush-session"),
            *("--output-dir", tmp_path / "out", "--results-file", tmp_path / "found.csv"),
        ],
        tmp_path,
    )

    with (tmp_path / "found.csv").open(newline="") as file:
        told_of = list(csv.DictReader(file))
    # it looks again at what it suspects, and says so where that was an honest answer to another question
    found = [row for row in told_of if "false positive" not in row["Note(s)"]]
    figures["suspected, and cleared by sqlmap itself"] = len(told_of) - len(found)
    figures["operations"] = told.count("testing URL")
    figures["answers"] = assert_no_server_error(scanned)
    figures["found"] = len(found)
    assert found == []
    assert told.count("testing URL") == scanned.operations


def test_wapiti_finds_nothing(scanners: Path, scanned: Scanned, tmp_path: Path, figures: Figures) -> None:
    report = tmp_path / "report.json"

    run(
        [
            scanners / "wapiti",
            *("--swagger", scanned.document, "-u", f"{scanned.server.url}/", "-d", "1"),
            *("-H", f"Authorization: Bearer {scanned.token}", "-m", MODULES, "--max-attack-time", "120"),
            *("--no-bugreport", "--flush-session", "--dns-endpoint", "127.0.0.1"),
            *("--store-session", tmp_path / "session", "--store-config", tmp_path / "config"),
            *("-f", "json", "-o", report),
        ],
        tmp_path,
    )

    told = json.loads(report.read_text())
    found = {
        name: rows for kind in ("vulnerabilities", "anomalies") for name, rows in told[kind].items() if rows
    }
    figures["pages"] = told["infos"]["crawled_pages_nbr"]
    figures["answers"] = assert_no_server_error(scanned)
    figures["found"] = sum(map(len, found.values()))
    assert found == {}
    assert told["infos"]["crawled_pages_nbr"] >= scanned.operations
