"""Request metrics for Prometheus, over all worker processes."""

from __future__ import annotations

import os
from functools import cache

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client import REGISTRY as PROCESS_REGISTRY
from prometheus_client.multiprocess import MultiProcessCollector

REQUESTS = Counter("clinic_requests", "Requests answered.", ("method", "route", "status"))
SECONDS = Histogram(
    "clinic_request_seconds",
    "Time to answer.",
    ("route",),
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5),
)
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


@cache
def _series(method: str, route: str, status: int) -> tuple[Counter, Histogram]:
    return REQUESTS.labels(method, route, str(status)), SECONDS.labels(route)


def exposition() -> bytes:
    """Return the metrics in Prometheus text format, summed over the workers if there are several."""
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return generate_latest(registry)
    return generate_latest(PROCESS_REGISTRY)
