"""README's path from login to a paid bill, as a newcomer types it, against a running server."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.clinic import Clinic
from tests.support.keys import secrets_of
from tests.support.servers import ROOT, start_app

README = (ROOT / "README.md").read_text(encoding="utf-8")
PASSWORD = "quiet harbour under seven stars"


def block(heading: str) -> str:
    """Return the first bash block under a heading."""
    match = re.search(rf"## {heading}\n.*?```bash\n(.*?)```", README, re.S)
    assert match, heading
    return match[1]


@pytest.fixture
def shell(tmp_path: Path) -> dict[str, str]:
    """Return an environment in which `curl` is a test program."""
    curl = tmp_path / "curl"
    curl.write_text(f'#!/bin/sh\nexec {sys.executable} {ROOT / "tests" / "support" / "curl.py"} "$@"\n')
    curl.chmod(0o755)
    return {"PATH": f"{tmp_path}:{Path(sys.executable).parent}:/usr/bin:/bin"}


def test_the_path_from_login_to_a_paid_bill_works_as_written(
    clinic: Clinic, database_url: str, shell: dict[str, str]
) -> None:
    settings = clinic.settings
    secrets = secrets_of(settings)
    made = subprocess.run(
        [
            sys.executable,
            "create_admin.py",
            "--name",
            "Ada",
            "--email",
            "admin@clinic.com",
            "--password-stdin",
        ],
        cwd=ROOT,
        env=secrets | {"DATABASE_URI": database_url},
        input=PASSWORD,
        text=True,
        capture_output=True,
        timeout=300,
        check=False,
    )
    assert made.returncode == 0, made.stderr
    server = start_app(database_url, workers=1, env=secrets)

    script = block("From login to a paid bill").replace("http://localhost:5000", server.url)
    ran = subprocess.run(
        ["/bin/bash", "-euo", "pipefail", "-c", script],
        env=shell | {"PASSWORD": PASSWORD},
        text=True,
        capture_output=True,
        timeout=300,
        check=False,
    )
    server.stop()

    assert ran.returncode == 0, ran.stdout + ran.stderr
    last = json.loads(ran.stdout.strip().splitlines()[-1])
    assert (last["status"], last["balance"], last["amount_paid"]) == ("paid", "0.00", "125.00")


def test_every_make_target_that_readme_names_exists() -> None:
    named = set(re.findall(r"`?make ([a-z]+)", README))
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))

    assert named
    assert named <= targets


def test_every_file_that_the_documents_name_exists() -> None:
    documents = [*ROOT.glob("*.md"), *sorted((ROOT / "docs").rglob("*.md"))]
    folders = (
        "api|cache|commands|data|database|deploy|docs|migrations|resources|schemas|security|services|tests"
    )
    missing = {
        f"{document.name}: {name}"
        for document in documents
        for name in re.findall(rf"`((?:{folders})/[\w./-]+)`", document.read_text(encoding="utf-8"))
        if not (ROOT / name).exists()
    }

    assert missing == set()


def test_every_relative_link_of_the_documents_has_a_target() -> None:
    documents = [*ROOT.glob("*.md"), *sorted((ROOT / "docs").rglob("*.md"))]
    broken = {
        f"{document.name}: {target}"
        for document in documents
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", document.read_text(encoding="utf-8"))
        if not (document.parent / target).exists()
    }

    assert broken == set()
