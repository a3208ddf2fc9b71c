"""Whether the clinic is well: probes, and the figures for Prometheus."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import text
from werkzeug.test import TestResponse

from tests.conftest import settings_for
from tests.support.clinic import Clinic
from tests.support.servers import free_port, start_redis

TOKEN = "a token that only the scraper knows"


def unavailable(answer: TestResponse) -> bool:
    """Whether it is the 503 that says when to come back."""
    return (
        answer.status_code == 503
        and answer.get_json(force=True)["error"] == "unavailable"
        and int(answer.headers["Retry-After"]) > 0
    )


# --- Probes --------------------------------------------------------------------------------------------


def test_a_clinic_that_is_well_is_live_and_ready(clinic: Clinic) -> None:
    live, ready = clinic.nobody.get("/health/live"), clinic.nobody.get("/health/ready")

    assert (live.status_code, live.get_json()) == (200, {"status": "ok"})
    assert ready.status_code == 200
    assert ready.get_json()["database"] == "ok"


@pytest.mark.parametrize(
    "statement", ["UPDATE alembic_version SET version_num = '0000'", "DROP TABLE alembic_version"]
)
def test_another_versions_schema_is_not_ready(clinic: Clinic, statement: str) -> None:
    with clinic.inside() as session:
        session.execute(text(statement))

    assert unavailable(clinic.nobody.get("/health/ready"))
    assert clinic.nobody.get("/health/live").status_code == 200


def test_without_its_database_the_clinic_lives_but_is_not_ready() -> None:
    clinic = Clinic(settings_for(f"postgresql://clinic@127.0.0.1:{free_port()}/clinic"))

    assert unavailable(clinic.nobody.get("/health/ready"))
    assert clinic.nobody.get("/health/live").status_code == 200
    clinic.close()


@pytest.fixture
def redis_url() -> Iterator[str]:
    """A Redis server of one test."""
    server = start_redis()
    yield server.url
    server.stop()


def test_with_redis_the_clinic_says_so(make_clinic: Callable[..., Clinic], redis_url: str) -> None:
    ready = make_clinic(redis_url=redis_url).nobody.get("/health/ready")

    assert (ready.status_code, ready.get_json()["redis"]) == (200, "ok")


def test_an_unreachable_or_absent_redis_keeps_nobody_out(make_clinic: Callable[..., Clinic]) -> None:
    for url in (f"redis://127.0.0.1:{free_port()}/0", None):
        ready = make_clinic(redis_url=url).nobody.get("/health/ready")

        assert (ready.status_code, ready.get_json()["redis"]) == (200, "degraded")


def test_probes_are_never_limited(make_clinic: Callable[..., Clinic]) -> None:
    clinic = make_clinic(rate_limit_enabled=True, rate_limit_default="1 per minute")

    assert {clinic.nobody.get("/health/live").status_code for _ in range(4)} == {200}
    assert {clinic.nobody.get("/health/ready").status_code for _ in range(4)} == {200}


# --- Figures -------------------------------------------------------------------------------------------


def figure(answer: TestResponse, name: str, **labels: str) -> float:
    """One sample of an exposition; 0 where there is none."""
    for family in text_string_to_metric_families(answer.get_data(as_text=True)):
        for sample in family.samples:
            if sample.name == name and labels.items() <= sample.labels.items():
                return float(sample.value)
    return 0.0


def test_the_figures_are_an_admins(clinic: Clinic) -> None:
    assert clinic.admin.get("/metrics").status_code == 200
    assert clinic.nobody.get("/metrics").status_code == 401
    for caller in (clinic.doctor, clinic.receptionist, clinic.technician):
        assert caller.get("/metrics").status_code == 403


def test_the_scraper_has_a_token_of_its_own_for_nothing_else(make_clinic: Callable[..., Clinic]) -> None:
    clinic = make_clinic(metrics_token=TOKEN)

    def get(path: str, token: str) -> TestResponse:
        return clinic.nobody.get(path, headers={"Authorization": f"Bearer {token}"})

    assert get("/metrics", TOKEN).status_code == 200
    assert get("/metrics", TOKEN + "x").status_code == 401
    assert get("/patients", TOKEN).status_code == 401
    assert clinic.admin.get("/metrics").status_code == 200


def test_an_empty_token_is_no_token(make_clinic: Callable[..., Clinic]) -> None:
    clinic = make_clinic(metrics_token=None)

    assert clinic.nobody.get("/metrics", headers={"Authorization": "Bearer "}).status_code == 401


def test_requests_are_counted_by_route_and_never_by_id(clinic: Clinic) -> None:
    row = clinic.patient()["id"]
    labels = {"method": "GET", "route": "/patients/<int:patient_id>", "status": "200"}
    before = figure(clinic.admin.get("/metrics"), "clinic_requests_total", **labels)

    clinic.admin.get(f"/patients/{row}")
    after = clinic.admin.get("/metrics")

    assert after.content_type.startswith("text/plain")
    assert figure(after, "clinic_requests_total", **labels) == before + 1
    assert figure(after, "clinic_request_seconds_count", route="/patients/<int:patient_id>") > 0
    assert f'"/patients/{row}"' not in after.get_data(as_text=True)


def test_methods_that_callers_make_up_make_no_series(clinic: Clinic) -> None:
    clinic.nobody.send("BREW", "/patients")

    answer = clinic.admin.get("/metrics")

    assert "BREW" not in answer.get_data(as_text=True)
    assert figure(answer, "clinic_requests_total", method="other", status="405") > 0
