"""Health probes, and metrics for Prometheus."""

from __future__ import annotations

import math
import stat
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import text
from werkzeug.test import TestResponse

from extensions import db
from security.password_queue import Group, password_queue
from tests.conftest import settings_for
from tests.support.clinic import Clinic
from tests.support.servers import free_port, start_redis

METRICS_TOKEN = "token of Prometheus"


def is_unavailable(response: TestResponse) -> bool:
    """Return True for a 503 `unavailable` with `Retry-After`."""
    return (
        response.status_code == 503
        and response.get_json(force=True)["error"] == "unavailable"
        and int(response.headers["Retry-After"]) > 0
    )


# --- Probes --------------------------------------------------------------------------------------------


def test_a_healthy_server_is_live_and_ready(clinic: Clinic) -> None:
    live, ready = clinic.nobody.get("/health/live"), clinic.nobody.get("/health/ready")

    assert (live.status_code, live.get_json()) == (200, {"status": "ok"})
    assert ready.status_code == 200
    assert ready.get_json()["database"] == "ok"


@pytest.mark.parametrize(
    "statement", ["UPDATE alembic_version SET version_num = '0000'", "DROP TABLE alembic_version"]
)
def test_a_schema_of_another_version_is_not_ready(clinic: Clinic, statement: str) -> None:
    with clinic.inside() as session:
        session.execute(text(statement))

    assert is_unavailable(clinic.nobody.get("/health/ready"))
    assert clinic.nobody.get("/health/live").status_code == 200


def test_without_a_database_the_server_is_live_but_not_ready() -> None:
    clinic = Clinic(settings_for(f"postgresql://clinic@127.0.0.1:{free_port()}/clinic"))

    assert is_unavailable(clinic.nobody.get("/health/ready"))
    assert clinic.nobody.get("/health/live").status_code == 200
    clinic.close()


@pytest.fixture
def redis_url() -> Iterator[str]:
    """Return the URL of a Redis server for one test."""
    server = start_redis()
    yield server.url
    server.stop()


def test_a_reachable_redis_is_reported_as_ok(make_clinic: Callable[..., Clinic], redis_url: str) -> None:
    ready = make_clinic(redis_url=redis_url).nobody.get("/health/ready")

    assert (ready.status_code, ready.get_json()["redis"]) == (200, "ok")


def test_an_absent_and_an_unreachable_redis_differ(make_clinic: Callable[..., Clinic]) -> None:
    for url, state in ((f"redis://127.0.0.1:{free_port()}/0", "degraded"), (None, "not_configured")):
        ready = make_clinic(redis_url=url).nobody.get("/health/ready")

        assert (ready.status_code, ready.get_json()["redis"]) == (200, state)


def test_probes_have_no_rate_limit(make_clinic: Callable[..., Clinic]) -> None:
    clinic = make_clinic(rate_limit_enabled=True, rate_limit_default="1 per minute")

    assert {clinic.nobody.get("/health/live").status_code for _ in range(4)} == {200}
    assert {clinic.nobody.get("/health/ready").status_code for _ in range(4)} == {200}


# --- Metrics -------------------------------------------------------------------------------------------


def sample_value(response: TestResponse, name: str, **labels: str) -> float:
    """Return the value of a sample, 0 if the metrics do not contain it."""
    for family in text_string_to_metric_families(response.get_data(as_text=True)):
        for sample in family.samples:
            if sample.name == name and labels.items() <= sample.labels.items():
                return float(sample.value)
    return 0.0


def test_only_administrators_read_metrics(clinic: Clinic) -> None:
    assert clinic.admin.get("/metrics").status_code == 200
    assert clinic.nobody.get("/metrics").status_code == 401
    for caller in (clinic.doctor, clinic.receptionist, clinic.technician):
        assert caller.get("/metrics").status_code == 403


def test_the_metrics_token_opens_only_metrics(make_clinic: Callable[..., Clinic]) -> None:
    clinic = make_clinic(metrics_token=METRICS_TOKEN)

    def get(path: str, token: str) -> TestResponse:
        return clinic.nobody.get(path, headers={"Authorization": f"Bearer {token}"})

    assert get("/metrics", METRICS_TOKEN).status_code == 200
    assert get("/metrics", METRICS_TOKEN + "x").status_code == 401
    assert get("/patients", METRICS_TOKEN).status_code == 401
    assert clinic.admin.get("/metrics").status_code == 200


def test_wrong_metrics_tokens_are_limited_and_not_audited(make_clinic: Callable[..., Clinic]) -> None:
    clinic = make_clinic(
        metrics_token=METRICS_TOKEN, rate_limit_enabled=True, rate_limit_default="5 per minute"
    )

    def get(path: str, token: str) -> int:
        return clinic.nobody.get(path, headers={"Authorization": f"Bearer {token}"}).status_code

    wrong = [get("/metrics", f"wrong {number}") for number in range(8)]
    elsewhere = [get("/patients", "wrong") for _ in range(3)]
    right = [get("/metrics", METRICS_TOKEN) for _ in range(8)]

    assert wrong == [401] * 5 + [429] * 3
    assert elsewhere == [429] * 3
    assert right == [200] * 8
    assert clinic.admin.get("/audit-logs").get_json() == []


def test_junk_tokens_write_no_more_entries_than_the_limit(make_clinic: Callable[..., Clinic]) -> None:
    clinic = make_clinic(rate_limit_enabled=True, rate_limit_default="4 per minute")
    paths = ("/patients", "/auth/me", "/auth/register", "/auth/logout", "/patients/1", "/nowhere")

    for path in paths * 2:
        method = "POST" if path.startswith("/auth/") and path != "/auth/me" else "GET"
        clinic.nobody.send(
            method, path, {} if method == "POST" else None, headers={"Authorization": "Bearer x"}
        )

    assert len(clinic.admin.get("/audit-logs").get_json()) <= 4


def test_an_empty_bearer_token_is_refused(make_clinic: Callable[..., Clinic]) -> None:
    clinic = make_clinic(metrics_token=None)

    assert clinic.nobody.get("/metrics", headers={"Authorization": "Bearer "}).status_code == 401


def test_requests_are_counted_by_route_without_ids(clinic: Clinic) -> None:
    patient_id = clinic.patient()["id"]
    labels = {"method": "GET", "route": "/patients/<int:patient_id>", "status": "200"}
    before = sample_value(clinic.admin.get("/metrics"), "clinic_requests_total", **labels)

    clinic.admin.get(f"/patients/{patient_id}")
    after = clinic.admin.get("/metrics")

    assert after.content_type.startswith("text/plain")
    assert sample_value(after, "clinic_requests_total", **labels) == before + 1
    assert sample_value(after, "clinic_request_seconds_count", route="/patients/<int:patient_id>") > 0
    assert f'"/patients/{patient_id}"' not in after.get_data(as_text=True)


def test_an_unknown_method_gets_no_time_series_of_its_own(clinic: Clinic) -> None:
    clinic.nobody.send("BREW", "/patients")

    response = clinic.admin.get("/metrics")

    assert "BREW" not in response.get_data(as_text=True)
    assert sample_value(response, "clinic_requests_total", method="other", status="405") > 0


def test_the_metrics_show_the_connections_in_use(database_url: str, engine_name: str) -> None:
    clinic = Clinic(settings_for(database_url, metrics_token=METRICS_TOKEN))  # a new pool sets its maximum

    def read() -> TestResponse:
        return clinic.nobody.get("/metrics", headers={"Authorization": f"Bearer {METRICS_TOKEN}"})

    def in_use() -> float:
        return sample_value(read(), "clinic_database_connections_in_use", database="primary")

    with clinic.app.app_context(), db.engine.connect():
        one = in_use()
        with db.engine.connect():
            two = in_use()

    assert (one, two, in_use()) == (1, 2, 0)
    maximum = sample_value(read(), "clinic_database_connections_max", database="primary")
    assert maximum == (20 if engine_name == "postgresql" else math.inf)
    clinic.close()


def test_the_metrics_show_the_waiting_password_checks(clinic: Clinic) -> None:
    def waiting() -> float:
        return sample_value(clinic.admin.get("/metrics"), "clinic_password_checks_waiting")

    def wait_for_a_turn() -> None:
        with clinic.app.app_context(), password_queue.turn(Group("network")):
            pass

    with ThreadPoolExecutor() as threads:
        with password_queue.turn(Group("network")):  # a group has one place while others are free
            turns = [threads.submit(wait_for_a_turn) for _ in range(3)]
            while (during := waiting()) < 3:
                time.sleep(0.01)
        for turn in turns:
            turn.result()

    assert (during, waiting()) == (3, 0)


def test_the_metrics_show_the_last_backup(clinic: Clinic, tmp_path: Path) -> None:
    last = "clinic_last_backup_timestamp_seconds"
    runner = clinic.app.test_cli_runner()
    before = sample_value(clinic.admin.get("/metrics"), last)

    failed = runner.invoke(args=["backup", "create", str(tmp_path / "nowhere" / "file")])
    after_failure = sample_value(clinic.admin.get("/metrics"), last)
    written = runner.invoke(args=["backup", "create", str(tmp_path / "file")])
    after = sample_value(clinic.admin.get("/metrics"), last)

    assert (failed.exit_code, written.exit_code) == (1, 0)
    assert before == after_failure == 0
    assert after == clinic.settings.last_backup_file.stat().st_mtime > 0
    assert stat.S_IMODE(clinic.settings.last_backup_file.stat().st_mode) == 0o600


def test_a_backup_whose_time_cannot_be_recorded_is_complete(clinic: Clinic, tmp_path: Path) -> None:
    clinic.settings.last_backup_file.symlink_to(tmp_path / "nowhere" / "file")

    written = clinic.app.test_cli_runner().invoke(args=["backup", "create", str(tmp_path / "backup")])

    assert written.exit_code == 0
    assert "The metrics do not show this run." in written.output
    assert (tmp_path / "backup").exists()


def test_refusals_blocked_attempts_and_emergency_accesses_are_counted(
    make_clinic: Callable[..., Clinic],
) -> None:
    clinic = make_clinic(rate_limit_enabled=True, rate_limit_login_account="2 per 15 minutes")
    patient = clinic.patient()["id"]
    names = {
        "forbidden": ("clinic_refusals_total", {"code": "forbidden"}),
        "wrong": ("clinic_refusals_total", {"code": "invalid_credentials"}),
        "limited": ("clinic_refusals_total", {"code": "too_many_requests"}),
        "blocked": ("clinic_blocked_attempts_total", {}),
        "emergency": ("clinic_emergency_accesses_total", {}),
    }

    def read() -> dict[str, float]:
        metrics = clinic.admin.get("/metrics")
        return {key: sample_value(metrics, name, **labels) for key, (name, labels) in names.items()}

    before = read()
    clinic.receptionist.get("/users")
    for _attempt in range(3):
        clinic.nobody.post("/auth/login", {"email": "x@clinic.example", "password": "wrong"})
    key = {"Idempotency-Key": "ward-0002", "Authorization": f"Bearer {clinic.receptionist.token}"}
    for _attempt in range(2):  # the second one is a replay
        path = f"/patients/{patient}/emergency-access"
        clinic.receptionist.post(path, {"reason": "Unconscious"}, headers=key)
    clinic.receptionist.post(path, {"reason": " "})
    after = read()

    counted = {name: after[name] - before[name] for name in names}
    assert counted == {"forbidden": 1, "wrong": 2, "limited": 1, "blocked": 1, "emergency": 1}


def test_every_series_of_refusals_exists_from_the_start(clinic: Clinic) -> None:
    text = clinic.admin.get("/metrics").get_data(as_text=True)

    for code in ("forbidden", "too_many_requests", "invalid_credentials", "account_inactive"):
        assert f'clinic_refusals_total{{code="{code}"}}' in text
