"""What the service tells of itself."""

from __future__ import annotations

from typing import Literal

from schemas.base import Out


class LiveOut(Out):
    """The process answers."""

    status: Literal["ok"]


class ReadyOut(Out):
    """Requests can be served. Without Redis they are too, `degraded`: each process counts its own limits."""

    status: Literal["ok"]
    database: Literal["ok"]
    redis: Literal["ok", "degraded"]
