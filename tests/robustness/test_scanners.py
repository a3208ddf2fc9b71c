"""Security scanners: sqlmap and wapiti scan the API with the OpenAPI document and find nothing.

Only on the long level. Fixed versions are installed into their own virtual environment.
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
from tests.robustness.load_level import selected_level
from tests.support.clinic import Clinic
from tests.support.furnished import furnish
from tests.support.keys import secrets_of
from tests.support.servers import (
    ROOT,
    AppServer,
    PostgresServer,
    start_app,
)

__test__ = selected_level().long

SCANNERS = ("sqlmap==1.10.10", "wapiti3==3.2.3")
ENVIRONMENT = ROOT / ".venv-scanners"
TIMEOUT_S = 40 * 60  # per scanner
MODULES = "sql,xss,exec,file,crlf,redirect,ldap"  # modules that call no external server
# A scanner must not sign out. The other paths are about the service and have no parameters.
EXCLUDED_PATHS = ("/", "/openapi.json", "/metrics", "/health/live", "/health/ready", "/auth/logout")


@dataclass
class ScanTarget:
    """The application on PostgreSQL, its OpenAPI document, and the token of an admin."""

    server: AppServer
    document: Path
    token: str
    operations: int


@pytest.fixture(scope="module")
def scanners() -> Path:
    """Install the scanners. Return the folder of the programs."""
    stamp = ENVIRONMENT / "installed"
    if not stamp.exists() or stamp.read_text() != "\n".join(SCANNERS):
        subprocess.run([sys.executable, "-m", "venv", ENVIRONMENT], check=True)
        pip = [ENVIRONMENT / "bin" / "pip", "install", "--quiet", *SCANNERS]
        subprocess.run(pip, check=True, capture_output=True)
        stamp.write_text("\n".join(SCANNERS))
    return ENVIRONMENT / "bin"


@pytest.fixture(scope="module")
def scan_target(
    postgres: PostgresServer, postgres_template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ScanTarget]:
    url = postgres.clone(postgres_template)
    clinic = Clinic(settings_for(url, jwt_access_token_expires_minutes=24 * 60))
    furnish(clinic)
    settings = clinic.settings
    server = start_app(
        url,
        workers=2,
        env={
            **secrets_of(settings),
            "AUDIT_HEADS_FILE": str(settings.heads_file),
        },
    )
    document = clinic.nobody.get("/openapi.json").get_json()
    document["servers"] = [{"url": server.url}]
    for path in EXCLUDED_PATHS:
        del document["paths"][path]
    for item in document["paths"].values():
        item.pop("put", None)  # PUT is an alias of PATCH
    file = tmp_path_factory.mktemp("scan_target") / "openapi.json"
    file.write_text(json.dumps(document))
    methods = [method for item in document["paths"].values() for method in item if method != "parameters"]
    yield ScanTarget(server, file, clinic.sign_in("admin").token or "", len(methods))
    server.stop()
    clinic.close()


def run(command: list[object], home: Path) -> str:
    """Run a scanner with the home folder `home`. Return its output."""
    process = subprocess.run(
        ["nice", *map(str, command)],
        env={"HOME": str(home), "PATH": "/usr/bin:/bin", "TERM": "dumb"},
        cwd=home,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert process.returncode == 0, process.stdout[-3000:] + process.stderr[-3000:]
    return process.stdout


def assert_no_server_error(scan_target: ScanTarget) -> dict[str, int]:
    """Return the number of responses by status. Assert that there is no 5xx."""
    statuses = re.findall(r"status=(\d+)", scan_target.server.log())
    counts = {status: statuses.count(status) for status in sorted(set(statuses))}
    assert not [status for status in counts if status >= "500"], counts
    assert counts.get("401", 0) < len(statuses) / 10, counts  # the scanner was signed in
    return counts


def test_sqlmap_finds_nothing(
    scanners: Path, scan_target: ScanTarget, tmp_path: Path, figures: Figures
) -> None:
    output = run(
        [
            scanners / "sqlmap",
            *("--openapi", scan_target.document, "--openapi-base", scan_target.server.url),
            *(
                "-H",
                f"Authorization: Bearer {scan_target.token}",
                "--batch",
                "--disable-coloring",
                "--skip-waf",
            ),
            *("--technique", "BEUS", "--threads", "4", "--flush-session"),
            *("--output-dir", tmp_path / "out", "--results-file", tmp_path / "found.csv"),
        ],
        tmp_path,
    )

    with (tmp_path / "found.csv").open(newline="") as file:
        suspected = list(csv.DictReader(file))
    # sqlmap checks its suspicions again and marks false positives.
    findings = [row for row in suspected if "false positive" not in row["Note(s)"]]
    figures["false positives"] = len(suspected) - len(findings)
    figures["operations"] = output.count("testing URL")
    figures["responses"] = assert_no_server_error(scan_target)
    figures["found"] = len(findings)
    assert findings == []
    assert output.count("testing URL") == scan_target.operations


def test_wapiti_finds_nothing(
    scanners: Path, scan_target: ScanTarget, tmp_path: Path, figures: Figures
) -> None:
    report = tmp_path / "report.json"

    run(
        [
            scanners / "wapiti",
            *("--swagger", scan_target.document, "-u", f"{scan_target.server.url}/", "-d", "1"),
            *("-H", f"Authorization: Bearer {scan_target.token}", "-m", MODULES, "--max-attack-time", "120"),
            *("--no-bugreport", "--flush-session", "--dns-endpoint", "127.0.0.1"),
            *("--store-session", tmp_path / "session", "--store-config", tmp_path / "config"),
            *("-f", "json", "-o", report),
        ],
        tmp_path,
    )

    report_data = json.loads(report.read_text())
    findings = {
        name: rows
        for kind in ("vulnerabilities", "anomalies")
        for name, rows in report_data[kind].items()
        if rows
    }
    figures["pages"] = report_data["infos"]["crawled_pages_nbr"]
    figures["responses"] = assert_no_server_error(scan_target)
    figures["found"] = sum(map(len, findings.values()))
    assert findings == {}
    assert report_data["infos"]["crawled_pages_nbr"] >= scan_target.operations
