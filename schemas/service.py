"""Responses of the health checks."""

from __future__ import annotations

from typing import Literal

from schemas.base import Out


class LiveOut(Out):
    """Liveness: the process answers."""

    status: Literal["ok"]


class ReadyOut(Out):
    """Readiness. Redis may be `degraded`: then each process counts its own rate limits."""

    status: Literal["ok"]
    database: Literal["ok"]
    redis: Literal["ok", "degraded"]
