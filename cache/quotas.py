"""The limits that the current request was counted with, for the headers of its response.

The counters record here what they know after the request. Commands record nothing.
"""

from __future__ import annotations

import math
from contextvars import ContextVar
from typing import NamedTuple


class Quota(NamedTuple):
    """The state of one limit after a request. `seconds` is the time until the limit allows more."""

    policy: str
    amount: int
    window: int
    remaining: int
    seconds: float

    @property
    def whole_seconds(self) -> int:
        """Return the time until the limit allows more in whole seconds, at least 1."""
        return max(1, math.ceil(self.seconds))


_quotas: ContextVar[dict[str, Quota] | None] = ContextVar("quotas", default=None)


def start() -> None:
    """Start to record the limits of a request."""
    _quotas.set({})


def clear() -> None:
    """Record nothing after the end of a request."""
    _quotas.set(None)


def record(quota: Quota) -> None:
    """Record the state of a limit. It replaces an earlier state of the same policy."""
    quotas = _quotas.get()
    if quotas is not None:
        quotas[quota.policy] = quota


def is_recorded(policy: str) -> bool:
    """Return True if the current request was counted with this limit already."""
    return policy in (_quotas.get() or {})


def headers() -> dict[str, str]:
    """Return `RateLimit-Policy` and `RateLimit` (draft-ietf-httpapi-ratelimit-headers-11)."""
    quotas = (_quotas.get() or {}).values()
    if not quotas:
        return {}
    return {
        "RateLimit-Policy": ", ".join(
            f'"{quota.policy}";q={quota.amount};w={quota.window}' for quota in quotas
        ),
        "RateLimit": ", ".join(
            f'"{quota.policy}";r={quota.remaining};t={quota.whole_seconds}' for quota in quotas
        ),
    }
