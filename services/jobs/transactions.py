"""Transactions of worker processes. Together with `api.request_cycle` this is the only place that commits."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from database import deadline
from database.failures import is_transient
from enums import Role
from extensions import db
from security.permissions import Actor
from services.audit import audit_log
from services.jobs import storage
from services.jobs.failures import LeaseLost

Result = TypeVar("Result")

DATABASE_ERRORS = (DBAPIError, PoolTimeout)
RETRY_INTERVAL = 1.0  # seconds
ATTEMPTS = 8  # of one transaction
LONGEST_WAIT = 2.0  # seconds between two of these attempts
WORKER = Actor(None, "job worker", Role.ADMIN)


@contextmanager
def transaction(operation: str, *, finishes_job: bool = False, actor: Actor = WORKER) -> Iterator[Actor]:
    """Run one transaction as the system user "job worker", or as the user of a job.

    The audit entries name `operation`.

    Inside the handler of a job the transaction is committed only if its worker still has the lease, and
    raises `LeaseLost` otherwise. With `finishes_job` the job is done in the same transaction: its effect
    happens exactly once. Do not call another server inside the block.
    """
    claim = storage.current_claim.get()
    try:
        yield actor
        db.session.flush()
        if claim is not None and not (storage.finish(claim) if finishes_job else storage.hold(claim)):
            raise LeaseLost
        audit_log.append_pending(actor, operation)
        db.session.commit()
        if claim is not None:
            claim.is_finished = claim.is_finished or finishes_job
    finally:
        db.session.remove()  # rolls back what is not committed


def with_retries(call: Callable[[], Result]) -> Result:
    """Call a function that runs one transaction, and again after an error that another one caused."""
    for attempt in range(ATTEMPTS - 1):
        try:
            return call()
        except Exception as error:
            if not is_transient(error):
                raise
            time.sleep(random.uniform(0.5, 1.0) * min(0.05 * 2**attempt, LONGEST_WAIT))  # noqa: S311 - no secret
    return call()


def keep_trying(store: Callable[[], Result]) -> Result:
    """Call a function that stores a result in a transaction, and return its value.

    While the database is away, call it again for the time of a lease: the result is known to nobody else.
    """
    last = time.monotonic() + storage.LEASE.total_seconds()
    while True:
        try:
            return store()
        except DATABASE_ERRORS:
            if time.monotonic() > last:
                raise
            time.sleep(RETRY_INTERVAL)


@contextmanager
def rolled_back_transaction() -> Iterator[Actor]:
    """Run one transaction as the system user "job worker", and roll it back."""
    try:
        yield WORKER
    finally:
        db.session.remove()


@contextmanager
def queue_transaction() -> Iterator[None]:
    """Run one short transaction on the tables of jobs and events, with the time limits of a request."""
    deadline.start()
    try:
        yield
        db.session.commit()
    finally:
        db.session.remove()
        deadline.clear()
