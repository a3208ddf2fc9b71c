"""Metrics of the connection pools."""

from __future__ import annotations

import math

from prometheus_client import Gauge
from sqlalchemy import Engine, QueuePool, event

IN_USE = Gauge(
    "clinic_database_connections_in_use",
    "Database connections in use, in all workers.",
    ("database",),
    multiprocess_mode="livesum",
)
MAXIMUM = Gauge(
    "clinic_database_connections_max",
    "Database connections that all workers may open.",
    ("database",),
    multiprocess_mode="livesum",
)


def observe(engine: Engine, name: str) -> None:
    """Keep the metrics of the engine's pool up to date."""
    if not isinstance(engine.pool, QueuePool):
        return
    is_limited = engine.pool.size() > 0
    MAXIMUM.labels(name).set(engine.pool.size() + engine.pool._max_overflow if is_limited else math.inf)
    in_use = IN_USE.labels(name)

    def count(returned: int) -> None:
        pool = engine.pool  # after a fork it is another one
        if isinstance(pool, QueuePool):
            in_use.set(pool.checkedout() - returned)

    event.listen(engine, "checkout", lambda *_arguments: count(0))
    event.listen(engine, "checkin", lambda *_arguments: count(1))  # before the pool gets it back
