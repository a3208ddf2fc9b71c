"""Packages, settings, image and composed services, checked in their own files."""

import hashlib
import json
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import REGISTRY

from api.docs.registry import registered_endpoints
from api.metrics import QueueCollector
from app import create_app
from config import SECRETS, Settings, load
from tests.support.keys import new_secrets

ROOT = Path(__file__).resolve().parent.parent
INDEX = "https://pypi.org/simple"
NOT_SERVED = {"deploy", "docs", "instance", "tests", "run.py"}  # what the server does not use
DIGEST = "@sha256:[0-9a-f]{64}"
SETTINGS = {name.upper() for name in Settings.model_fields}
NO_DEFAULTS = {*SECRETS, "METRICS_TOKEN"}
# Settings that the image decides, that the stores of compose.yaml replace, or that are for development.
NOT_COMPOSED = {"HOST", "PORT", "FLASK_ENV", "FLASK_DEBUG", "SUPABASE_URI", "MIGRATION_DATABASE_URI"}


def read(path: str) -> str:
    return (ROOT / path).read_text()


def compose() -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load(read("compose.yaml"))
    return document


def dockerfile_sources() -> set[str]:
    copies = re.findall(r"^COPY (?!--from)(.+) \S+$", read("Dockerfile").replace("\\\n", ""), re.M)
    return {source for copy in copies for source in copy.split()}


def example_settings() -> dict[str, str]:
    return dict(re.findall(r"^([A-Z_]+)=(.*)$", read(".env.example"), re.M))


# --- Packages ---


def test_packages_come_from_the_one_public_index() -> None:
    pipfile, lock = tomllib.loads(read("Pipfile")), json.loads(read("Pipfile.lock"))

    assert pipfile["source"] == [{"url": INDEX, "verify_ssl": True, "name": "pypi"}]
    assert lock["_meta"]["sources"] == pipfile["source"]
    for path in ("Pipfile", "Pipfile.lock", "requirements.txt", "requirements-dev.txt"):
        assert set(re.findall(r"\w+://[^\s\"']*", read(path))) <= {INDEX}, path
    for path in ("requirements.txt", "requirements-dev.txt"):
        assert re.findall(r"^-.*", read(path), re.M) == [], path


def test_the_lock_belongs_to_the_pipfile() -> None:
    pipfile, lock = tomllib.loads(read("Pipfile")), json.loads(read("Pipfile.lock"))

    hashed = {
        "_meta": {"sources": pipfile["source"], "requires": {}},
        "default": pipfile["packages"],
        "develop": pipfile["dev-packages"],
    }
    text = json.dumps(hashed, sort_keys=True, separators=(",", ":"))

    assert lock["_meta"]["hash"]["sha256"] == hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize(
    ("path", "section"), [("requirements.txt", "default"), ("requirements-dev.txt", "develop")]
)
def test_the_requirements_are_the_lock(path: str, section: str) -> None:
    locked = {}
    for name, package in json.loads(read("Pipfile.lock"))[section].items():
        extras = f"[{','.join(package['extras'])}]" if "extras" in package else ""
        markers = f"; {package['markers']}" if "markers" in package else ""
        locked[f"{name}{extras}{package['version']}{markers}"] = set(package["hashes"])

    required = {}
    for line in read(path).splitlines():
        requirement, *hashes = line.split(" --hash=")
        required[requirement] = set(hashes)

    assert required == locked
    assert all(required.values())


# --- Settings ---


def test_the_example_lists_exactly_the_settings() -> None:
    assert set(example_settings()) == SETTINGS


def test_the_example_contains_no_secret() -> None:
    assert {name for name in NO_DEFAULTS if example_settings()[name]} == set()


def test_the_example_shows_the_defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in SETTINGS:
        monkeypatch.delenv(name, raising=False)
    shutil.copy(ROOT / ".env.example", tmp_path / ".env")

    example, defaults = load(tmp_path / ".env").model_dump(), load(tmp_path / "none").model_dump()

    environment_specific = {"allowed_origins", "database_uri", "environment"}
    environment_specific |= {name.lower() for name in SECRETS}
    assert {name: example[name] for name in example.keys() - environment_specific} == {
        name: defaults[name] for name in defaults.keys() - environment_specific
    }
    assert load(tmp_path / ".env").database_url == load(tmp_path / "none").database_url


def test_gunicorn_listens_at_the_configured_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOST", "127.0.0.9")
    monkeypatch.setenv("PORT", "5099")
    monkeypatch.setenv("WEB_CONCURRENCY", "3")
    for name, value in new_secrets().items():
        monkeypatch.setenv(name, value)

    gunicorn = runpy.run_path(str(ROOT / "gunicorn.conf.py"))

    assert (gunicorn["bind"], gunicorn["workers"], gunicorn["worker_class"]) == (
        "127.0.0.9:5099",
        3,
        "gthread",
    )


@pytest.mark.parametrize(
    "start_worker",
    [
        "import runpy; runpy.run_path('gunicorn.conf.py')['post_worker_init'](None)",
        "import server; server.load_application('app:create_app')",
    ],
    ids=["gunicorn", "granian"],
)
def test_a_worker_excludes_its_loaded_objects_from_garbage_collection(start_worker: str) -> None:
    frozen = subprocess.run(
        [sys.executable, "-c", f"import gc; {start_worker}; print(gc.get_freeze_count())"],
        cwd=ROOT,
        env=os.environ | new_secrets(),
        capture_output=True,
        text=True,
        check=True,
    ).stdout

    assert int(frozen) > 1_000


# --- The image ---


def test_the_image_contains_every_source_of_the_server() -> None:
    directories = {
        path.name
        for path in ROOT.iterdir()
        if path.is_dir() and not path.name.startswith((".", "__")) and any(path.rglob("*.*"))
    }
    sources = ({path.name for path in ROOT.glob("*.py")} | directories) - NOT_SERVED

    copied = dockerfile_sources()

    assert copied - {"requirements.txt"} == sources
    assert set(re.findall(r"^!(.+)$", read(".dockerignore"), re.M)) == copied


def test_the_build_context_excludes_files_by_default() -> None:
    rules = [line for line in read(".dockerignore").splitlines() if line and not line.startswith("#")]

    assert rules[0] == "*"


def test_the_image_runs_the_server_without_root_and_without_secrets() -> None:
    text = read("Dockerfile")

    [image] = set(re.findall(r"^FROM (\S+)", text, re.M))
    assert re.fullmatch(rf"python:3\.11-slim{DIGEST}", image)
    assert re.findall(r"^USER (\S+)", text, re.M) == ["clinic"]
    assert "--require-hashes -r requirements.txt" in text
    assert "/health/live" in text[text.index("HEALTHCHECK") :]
    assert not re.search(r"(_KEY|PASSWORD|TOKEN|_URI)\b", text)


# --- The composed services ---


def test_only_the_proxy_publishes_ports() -> None:
    services = compose()["services"]

    published = {name for name, service in services.items() if service.get("ports")}

    assert set(services) == {"app", "migrate", "worker", "postgres", "redis", "nginx"}
    assert published == {"nginx"}
    assert compose()["networks"]["back"]["internal"] is True
    assert services["postgres"]["networks"] == services["redis"]["networks"] == ["back"]


def test_every_service_rotates_its_log() -> None:
    assert {service["logging"]["driver"] for service in compose()["services"].values()} == {"local"}


def test_every_service_has_a_health_check() -> None:
    services = compose()["services"]

    for name in ("postgres", "redis", "nginx"):
        assert services[name]["healthcheck"]["test"], name
        assert ":" in services[name]["image"], name
    assert services["app"]["depends_on"]["migrate"] == {"condition": "service_completed_successfully"}
    assert services["nginx"]["depends_on"]["app"] == {"condition": "service_healthy"}


def test_the_composed_server_gets_known_settings_and_no_default_secret() -> None:
    environment = compose()["services"]["app"]["environment"]

    assert set(environment) <= SETTINGS
    assert environment["ENVIRONMENT"] == "production"
    for name in (*SECRETS, "ALLOWED_ORIGINS"):
        assert environment[name] == f"${{{name}:?}}"
    assert environment["DATABASE_URI"].startswith("postgresql://clinic_app:${POSTGRES_SERVER_PASSWORD:?}@")
    assert environment["REDIS_URL"] == "redis://:${REDIS_PASSWORD:?}@redis:6379/0"


def test_every_setting_of_the_environment_reaches_the_composed_server() -> None:
    services = compose()["services"]

    for name in ("app", "worker", "migrate"):
        environment = services[name]["environment"]
        assert SETTINGS - environment.keys() <= NOT_COMPOSED, name
        fixed = {key for key, value in environment.items() if f"${{{key}:" not in value}
        assert fixed - {"MIGRATION_DATABASE_URI", "TMPDIR"} == {
            *("ENVIRONMENT", "DATABASE_URI", "REDIS_URL", "AUDIT_HEADS_FILE", "TRUSTED_PROXIES")
        }
        assert not environment["WEB_CONCURRENCY"].endswith(":-}"), "gunicorn ends if it is empty"


def test_only_migrations_connect_as_the_owner_of_the_tables() -> None:
    services = compose()["services"]
    owner = {
        name: service.get("environment", {}).get("MIGRATION_DATABASE_URI")
        for name, service in services.items()
    }

    assert {name for name, url in owner.items() if url} == {"migrate"}
    assert owner["migrate"].startswith("postgresql://clinic:${POSTGRES_PASSWORD:?}@")
    assert services["migrate"]["environment"].items() >= services["app"]["environment"].items()
    assert (
        "./deploy/server-role.sh:/docker-entrypoint-initdb.d/server-role.sh:ro"
        in services["postgres"]["volumes"]
    )
    assert unit("clinic-migrate.service")["Service"]["EnvironmentFile"] == ["-/srv/clinic/.env.migrate"]
    assert unit("clinic.service")["Unit"]["Requires"] == ["clinic-migrate.service"]
    for name in ("clinic", "clinic-worker", "clinic-verify", "clinic-backup"):
        assert "EnvironmentFile" not in unit(f"{name}.service")["Service"]


def test_every_service_has_limits_and_an_image_by_digest() -> None:
    for name, service in compose()["services"].items():
        assert service["mem_limit"], name
        assert service["pids_limit"], name
        if "build" not in service:
            assert re.search(rf"{DIGEST}$", service["image"]), name


def test_redis_requires_its_password() -> None:
    redis = compose()["services"]["redis"]

    command = redis["command"]
    assert command[command.index("--requirepass") + 1] == "${REDIS_PASSWORD:?}"
    assert redis["environment"]["REDISCLI_AUTH"] == "${REDIS_PASSWORD:?}"


@pytest.mark.parametrize("path", ["deploy/nginx.conf", "deploy/nginx-site.conf"])
def test_the_proxy_limits_the_requests_of_an_address(path: str) -> None:
    zone, shared = (
        "limit_req_zone $binary_remote_addr zone=clinic:10m rate=50r/s;",
        read("deploy/nginx-locations.conf"),
    )

    assert zone in read(path)
    assert "limit_req zone=clinic burst=300 nodelay;" in shared
    assert '"error":"too_many_requests"' in shared


def test_the_proxy_overwrites_the_forwarded_address_of_the_client() -> None:
    proxy = read("deploy/nginx-locations.conf")

    assert compose()["services"]["app"]["environment"]["TRUSTED_PROXIES"] == "1"
    assert re.findall(r"X-Forwarded-For (\S+);", proxy) == ["$remote_addr"]
    assert re.findall(r"X-Forwarded-Proto (\S+);", proxy) == ["$scheme"]


@pytest.mark.parametrize("path", ["deploy/nginx.conf", "deploy/nginx-site.conf"])
def test_both_proxies_share_the_locations_and_log_no_request(path: str) -> None:
    proxy, shared = read(path), "/srv/clinic/deploy/nginx-locations.conf"

    assert f"include {shared};" in proxy
    assert f"./deploy/nginx-locations.conf:{shared}:ro" in compose()["services"]["nginx"]["volumes"]
    assert set(re.findall(r"access_log (\w+);", proxy)) == {"off"}
    assert re.findall(r"error_log \S+ (\w+);", proxy) == ["crit"]


def test_the_proxy_logs_nothing_about_paths_with_secrets() -> None:
    blocks = dict(re.findall(r"^location (.+?) {\n(.+?)^}", read("deploy/nginx-locations.conf"), re.M | re.S))
    (pattern,) = [name.removeprefix("~ ") for name in blocks if name.startswith("~ ")]

    assert "access_log off;" in blocks[f"~ {pattern}"]
    assert "error_log /dev/null crit;" in blocks[f"~ {pattern}"]
    assert "proxy_pass http://clinic;" in blocks[f"~ {pattern}"]
    pages = ("/a/token", "/u/token", "/v/token")
    for path in ("/calendar/token.ics", *pages, "/messages/callbacks/http/secret"):
        assert re.match(pattern, path)
    assert not any(re.match(pattern, path) for path in ("/appointments/1.ics", "/messages", "/users", "/"))


def test_the_proxy_passes_every_body_that_the_application_accepts() -> None:
    proxy = read("deploy/nginx-locations.conf")
    (general,) = re.findall(r"^client_max_body_size (\d+)m;", proxy, re.M)
    imports = re.search(r"^location /imports {\n    client_max_body_size (\d+)m;", proxy, re.M)
    sizes = {
        location: max(
            endpoint.spec.accepts.limit
            for endpoint in registered_endpoints(create_app())
            if endpoint.path.startswith("/imports") == (location == "imports")
        )
        for location in ("imports", "others")
    }

    assert imports is not None
    assert sizes["others"] < int(general) * 1024**2
    assert sizes["imports"] < int(imports[1]) * 1024**2


def test_the_proxy_of_debian_uses_no_newer_directive() -> None:
    site = read("deploy/nginx-site.conf")

    assert "http2 on" not in site  # nginx 1.25; Debian 12 has 1.22
    assert len(re.findall(r"listen \S+ ssl http2;", site)) == 2


# --- systemd ---


def unit(name: str) -> dict[str, dict[str, list[str]]]:
    """Return the sections of a unit, with all values of each option."""
    sections: dict[str, dict[str, list[str]]] = {}
    for line in read(f"deploy/{name}").splitlines():
        if line.startswith("["):
            section = sections.setdefault(line.strip("[]"), {})
        elif line and not line.startswith("#"):
            option, _, value = line.partition("=")
            section.setdefault(option, []).append(value)
    return sections


@pytest.mark.parametrize(
    "name", ["clinic", "clinic-migrate", "clinic-worker", "clinic-verify", "clinic-backup"]
)
def test_every_unit_runs_existing_code_without_rights(name: str) -> None:
    service = unit(f"{name}.service")["Service"]
    own = {"Type", "KillMode", "TimeoutStopSec", "Restart", "RestartSec", "ReadWritePaths", "EnvironmentFile"}
    commands = [value for option, values in service.items() if option.startswith("Exec") for value in values]

    shared = {
        option: values for option, values in service.items() if option not in own and option[:4] != "Exec"
    }
    assert shared["User"] == ["clinic"]
    assert shared["ProtectSystem"] == ["strict"]
    assert shared["CapabilityBoundingSet"] == [""]
    assert shared == {option: unit("clinic.service")["Service"].get(option) for option in shared}
    for command in commands:
        words = shlex.split(command)
        program = words[0].removeprefix("/srv/clinic/")
        assert program in (".venv/bin/python", ".venv/bin/flask", "deploy/backup.sh", "/bin/kill"), command
        if program.endswith("flask"):
            assert words[1:3] == ["--app", "app"]
            assert create_app().test_cli_runner().invoke(args=[*words[3:5], "--help"]).exit_code == 0, command
        elif program.endswith("python") and words[1] != "-c":
            assert (ROOT / words[1]).exists()


@pytest.mark.parametrize("name", ["clinic-verify", "clinic-backup"])
def test_the_nightly_units_have_a_timer(name: str) -> None:
    timer = unit(f"{name}.timer")

    assert unit(f"{name}.service")["Service"]["Type"] == ["oneshot"]
    assert re.fullmatch(r"\*-\*-\* 0[1-5]:\d\d:00", timer["Timer"]["OnCalendar"][0])
    assert timer["Timer"]["Persistent"] == ["yes"]
    assert timer["Install"]["WantedBy"] == ["timers.target"]


FLASK = """#!/bin/sh
echo "$@" >>commands
case "$*" in *"$FAIL"*) exit 1;; *create*) touch "$5";; esac
"""


@pytest.mark.parametrize(("failing", "kept"), [("no command", False), ("create", True), ("check", True)])
def test_old_backups_are_deleted_only_after_a_good_one(tmp_path: Path, failing: str, kept: bool) -> None:
    script, flask = tmp_path / "deploy" / "backup.sh", tmp_path / ".venv" / "bin" / "flask"
    for file, text in ((script, read("deploy/backup.sh")), (flask, FLASK)):
        file.parent.mkdir(parents=True)
        file.write_text(text)
        file.chmod(0o755)
    folder = tmp_path / "backups"
    folder.mkdir()
    for name, days in (("clinic-old.backup", 32), ("clinic-new.backup", 20), ("other", 90)):
        (folder / name).touch()
        os.utime(folder / name, (time.time() - days * 86400,) * 2)

    result = subprocess.run([script, folder, "30"], env=os.environ | {"FAIL": failing}, check=False)

    assert (result.returncode != 0) == kept
    assert (folder / "clinic-old.backup").exists() == kept
    assert (folder / "clinic-new.backup").exists()
    assert (folder / "other").exists()
    if not kept:
        create, check = (tmp_path / "commands").read_text().splitlines()
        assert create.replace("create", "check") == check
        assert re.search(r"/clinic-\d{4}-\d\d-\d\dT\d{6}Z\.backup$", create)


# --- Operations ---


def test_the_alert_rules_use_metrics_that_exist() -> None:
    rules = yaml.safe_load(read("deploy/alerts.yml"))["groups"][0]["rules"]
    families = {family.name for family in [*REGISTRY.collect(), *QueueCollector().describe()]}

    used = {name for rule in rules for name in re.findall(r"\bclinic_\w+", rule["expr"])}

    assert {name.removesuffix("_total") for name in used} <= families
    assert {rule["alert"] for rule in rules} >= {"ClinicNotReady", "ClinicRefusals", "ClinicBackupTooOld"}


def test_the_documented_settings_of_the_containers_are_complete_and_written_once(tmp_path: Path) -> None:
    block = re.search(r"^\(\n.*?^\)\n", read("docs/operations.md"), re.M | re.S)
    assert block is not None
    required = set(re.findall(r"\$\{(\w+):\?\}", read("compose.yaml"))) - {"NAME"}

    first = subprocess.run(["sh", "-c", block[0]], cwd=tmp_path, check=False)
    written = (tmp_path / ".env").read_text()
    second = subprocess.run(["sh", "-c", block[0]], cwd=tmp_path, check=False, capture_output=True)

    assert (first.returncode, second.returncode == 0) == (0, False)
    assert (tmp_path / ".env").read_text() == written
    assert (tmp_path / ".env").stat().st_mode & 0o777 == 0o600
    assert {line.partition("=")[0] for line in written.splitlines()} == required


def test_no_documented_command_overwrites_settings() -> None:
    for path in ("README.md", "docs/operations.md", "CONTRIBUTING.md"):
        for block in re.findall(r"^```bash\n(.*?)^```", read(path), re.M | re.S):
            assert not re.search(r"\bcp\b(?! -n).*\.env\b", block), block
            if re.search(r"(?<!>)>\s*\S*\.env\b", block):
                assert re.search(r"\bset -\w*C\b", block), block
