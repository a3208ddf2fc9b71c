"""Responses of the health checks."""

from __future__ import annotations

from typing import Literal

from schemas.base import Out


class LiveOut(Out):
    """Liveness: the process answers."""

    status: Literal["ok"]


class ReadyOut(Out):
    """Readiness.

    `degraded`: Redis is configured but away, and each process counts its own rate limits.
    `not_configured`: there is no `REDIS_URL`.
    """

    status: Literal["ok"]
    database: Literal["ok"]
    redis: Literal["ok", "degraded", "not_configured"]
