"""Request metrics for Prometheus, over all worker processes."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)
from prometheus_client import REGISTRY as PROCESS_REGISTRY
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from config import settings
from errors import CODES, ClinicError
from services.jobs import figures
from services.messages import figures as message_figures

REQUESTS = Counter("clinic_requests", "Requests answered.", ("method", "route", "status"))
SECONDS = Histogram(
    "clinic_request_seconds",
    "Time to answer.",
    ("route",),
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5),
)
LAST_BACKUP = Gauge(
    "clinic_last_backup_timestamp_seconds",
    "Time of the last complete `flask backup create`, 0 if there is none.",
    multiprocess_mode="mostrecent",
)
LAST_VERIFICATION = Gauge(
    "clinic_last_verification_timestamp_seconds",
    "Time of the last `flask verify` without a violation, 0 if there is none.",
    multiprocess_mode="mostrecent",
)
# Every series exists from the start: `increase()` of Prometheus misses the first count of a new one.
REFUSALS = Counter("clinic_refusals", "Requests refused with 401, 403 or 429.", ("code",))
for _code, (_status, _title) in CODES.items():
    if _status in (401, 403, 429):
        REFUSALS.labels(_code)
BLOCKED_ATTEMPTS = Counter(
    "clinic_blocked_attempts", "Sign-ins and similar attempts that too many failures block."
)
EMERGENCY_ACCESSES = Counter("clinic_emergency_accesses", "Emergency accesses to the record of a patient.")
CONTENT_TYPE = CONTENT_TYPE_LATEST
METHODS = ("GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE")


def record_request(method: str, route: str, status: int, seconds: float) -> None:
    """Count one request and its duration.

    `route` is the URL rule, not the path: metrics must not contain ids. A method that is not in `METHODS`
    counts as `other`, since each label value that a caller invents would be a new time series.
    """
    count, duration = _series(method if method in METHODS else "other", route, status)
    count.inc()
    duration.observe(seconds)


def record_refusal(error: ClinicError) -> None:
    """Count a response of 401, 403 or 429 by its error code."""
    if error.status in (401, 403, 429):
        REFUSALS.labels(error.code).inc()
    if error.blocked_action is not None:
        BLOCKED_ATTEMPTS.inc()


@cache
def _series(method: str, route: str, status: int) -> tuple[Counter, Histogram]:
    return REQUESTS.labels(method, route, str(status)), SECONDS.labels(route)


def exposition() -> bytes:
    """Return the metrics in Prometheus text format, summed over the workers if there are several."""
    LAST_BACKUP.set(_time_of(settings().last_backup_file))
    LAST_VERIFICATION.set(_time_of(settings().last_verification_file))
    registry = CollectorRegistry()
    registry.register(QueueCollector())
    if directory := os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
        _remove_ended_workers(Path(directory))
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return generate_latest(registry)
    return generate_latest(PROCESS_REGISTRY) + generate_latest(registry)


class QueueCollector(Collector):
    """Reads the figures of events, jobs and messages from the database: no process counts them."""

    def describe(self) -> list[Metric]:
        """Return the families without values."""
        return [
            GaugeMetricFamily("clinic_jobs", "Jobs by state and kind.", labels=("state", "kind")),
            GaugeMetricFamily("clinic_oldest_due_job_seconds", "Time since the oldest queued job was due."),
            GaugeMetricFamily("clinic_events_waiting", "Events that are not dispatched, at most 100,000."),
            GaugeMetricFamily("clinic_oldest_waiting_event_seconds", "Age of the oldest waiting event."),
            GaugeMetricFamily(
                "clinic_messages",
                "Messages to patients that were due in the last 24 hours.",
                labels=("state", "channel", "kind"),
            ),
        ]

    def collect(self) -> list[Metric]:
        """Return the families with their values, and none while the database is away."""
        try:
            queue, counts = figures.read(), message_figures.read()
        except (DBAPIError, PoolTimeout):
            return []
        jobs, due, waiting, oldest, messages = self.describe()
        for (state, kind), count in queue.jobs.items():
            jobs.add_sample(jobs.name, {"state": state, "kind": kind}, count)
        due.add_sample(due.name, {}, queue.oldest_due_job)
        waiting.add_sample(waiting.name, {}, queue.waiting_events)
        oldest.add_sample(oldest.name, {}, queue.oldest_waiting_event)
        for (state, channel, kind), count in counts.items():
            messages.add_sample(messages.name, {"state": state, "channel": channel, "kind": kind}, count)
        return [jobs, due, waiting, oldest, messages]


def _time_of(file: Path) -> float:
    try:
        return file.stat().st_mtime
    except OSError:
        return 0.0


def _remove_ended_workers(directory: Path) -> None:
    """Remove the gauges of worker processes that have ended. No server tells the others of their end."""
    for file in directory.glob("gauge_live*_*.db"):
        pid = int(file.stem.rpartition("_")[2])
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            mark_process_dead(pid, str(directory))  # type: ignore[no-untyped-call]
