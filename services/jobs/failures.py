"""The exceptions by which a handler ends an attempt of a job without success.

Their reasons are stored and shown to administrators: they contain no data of a patient.
"""

from __future__ import annotations

from datetime import timedelta


class RetryLater(Exception):  # noqa: N818 - an instruction to the worker, not an error
    """The job must run again: after the given time, otherwise after the usual back-off."""

    def __init__(self, reason: str, after: timedelta | None = None) -> None:
        super().__init__(reason)
        self.reason, self.after = reason, after


class Dead(Exception):  # noqa: N818 - an instruction to the worker, not an error
    """The job cannot succeed. It waits for an administrator."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class LeaseLost(Exception):  # noqa: N818 - an instruction to the worker, not an error
    """Another worker has taken the job over. The transaction of this attempt is rolled back."""
