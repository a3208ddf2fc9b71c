"""The worker: it dispatches events and runs due jobs until it is stopped.

The main thread dispatches, claims, renews leases and takes over the jobs of workers that have ended. The
handlers run in threads. A claimed job starts immediately, so the worker never holds more jobs than threads.
Of the kinds of one group (`registry.GROUPS`), one job runs at a time.
"""

from __future__ import annotations

import os
import secrets
import socket
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import structlog

from extensions import db
from services.jobs import dispatcher, housekeeping, leases, storage
from services.jobs.failures import Dead, LeaseLost, RetryLater
from services.jobs.leases import LeaseWatch
from services.jobs.registry import GROUPS, HANDLERS, URGENT
from services.jobs.storage import Claim
from services.jobs.transactions import DATABASE_ERRORS, keep_trying, queue_transaction

log = structlog.get_logger()

THREADS = 4  # handlers of one worker that run at the same time
POLL_INTERVAL = 1.0  # seconds between two looks at the queue
REPORT_INTERVAL = 0.2  # seconds between two reports about a job that this process waits for
HOUSEKEEPING_INTERVAL = 3600.0  # seconds


class Worker:
    """One worker process. `context` returns an application context, which each thread needs.

    With `once` the worker ends when nothing is due. It also ends if `is_orphan` returns True.
    """

    def __init__(
        self,
        context: Callable[[], AbstractContextManager[Any]],
        *,
        once: bool = False,
        is_orphan: Callable[[], bool] = lambda: False,
    ) -> None:
        self.context, self.once, self.is_orphan = context, once, is_orphan
        self.name = f"{socket.gethostname()[:60]}:{os.getpid()}:{secrets.token_hex(4)}"
        self.running: dict[Future[None], Claim] = {}
        self.watch = LeaseWatch()
        self.is_stopping = False
        self.is_drained = self.must_confirm = self.has_more = False
        self.next_look = self.next_query = self.next_renewal = self.next_cleaning = 0.0

    def stop(self) -> None:
        """Start no more jobs, and end when the running ones have ended."""
        self.is_stopping = True

    def run(self) -> None:
        """Work until `stop` is called; with `once`, until nothing is due."""
        log.info("worker_started", worker=self.name)
        with self.context(), ThreadPoolExecutor(THREADS, "job") as pool:
            while self.running or not (self.is_stopping or (self.once and self.is_drained)):
                has_progress = self._step(pool)
                self._collect(has_progress=has_progress)
        log.info("worker_ended", worker=self.name)

    def run_one(self, job_id: int, report: Callable[[], None]) -> None:
        """Run one job in this process, and call `report` while it runs. Another worker may run it instead.

        Returns when the job is done, dead, or waits for another attempt.
        """
        with self.context(), ThreadPoolExecutor(1, "job") as pool:
            with queue_transaction():
                claims = storage.claim(self.name, 1, job_id=job_id)
            for claim in claims:
                self.running[pool.submit(self._perform, claim)] = claim
            while self.running or storage.is_running(job_id):
                self._renew()
                report()
                if not self.running:
                    time.sleep(REPORT_INTERVAL)
                ended, _ = wait(self.running, REPORT_INTERVAL, FIRST_COMPLETED)
                for future in ended:
                    del self.running[future]

    def _step(self, pool: ThreadPoolExecutor) -> bool:
        """Renew the leases and do what is due. Return True if there was something to do."""
        self.is_stopping = self.is_stopping or self.is_orphan()
        try:
            self._renew()
            return not self.is_stopping and self._work(pool)
        except DATABASE_ERRORS as error:
            # no traceback each second while the database is away
            log.error("worker_waits_for_database", failure=type(error).__name__)  # noqa: TRY400
        except Exception:
            log.exception("worker_failed")
        return False

    def _work(self, pool: ThreadPoolExecutor) -> bool:
        """Dispatch events and start due jobs. Return True if there was something to do."""
        must_confirm = self._take_over()
        busy_groups = {GROUPS.get(claim.kind) for claim in self.running.values()}
        busy_kinds = [kind for kind, group in GROUPS.items() if group in busy_groups]
        events, due = self._look(busy_kinds)
        self.is_drained = not (events or due or must_confirm or self.running)
        has_progress = events and dispatcher.dispatch_batch() > 0
        free = THREADS - len(self.running)
        if due and free:
            with queue_transaction():
                claims = storage.claim(self.name, free, except_kinds=busy_kinds, groups=GROUPS, urgent=URGENT)
            for claim in claims:
                self.running[pool.submit(self._perform, claim)] = claim
            self.has_more = len(claims) == free
            has_progress = has_progress or bool(claims)
        return self._clean() or has_progress

    def _look(self, busy_kinds: Sequence[str]) -> tuple[bool, bool]:
        """Return whether events wait, and whether jobs are due.

        While the queue is full, each look costs as much as a job. So it is done once in an interval.
        """
        now = time.monotonic()
        if self.has_more and now < self.next_query:
            return False, True
        self.has_more, self.next_query = False, now + POLL_INTERVAL
        return storage.has_work(busy_kinds)

    def _collect(self, *, has_progress: bool) -> None:
        """Forget the ended jobs. Wait for a moment if there is nothing else to do."""
        can_go_on = has_progress and len(self.running) < THREADS
        if self.running:
            ended, _ = wait(self.running, 0 if can_go_on else POLL_INTERVAL, FIRST_COMPLETED)
            for future in ended:
                del self.running[future]
        elif not has_progress and not self.is_stopping and not (self.once and self.is_drained):
            time.sleep(POLL_INTERVAL)

    def _renew(self) -> None:
        now = time.monotonic()
        if self.running and now >= self.next_renewal:
            with queue_transaction():
                storage.renew(self.name, [claim.job_id for claim in self.running.values()])
            self.next_renewal = now + leases.RENEWAL_INTERVAL

    def _take_over(self) -> bool:
        """Queue the jobs of workers that have ended. Return True if an ended lease must be confirmed."""
        now = time.monotonic()
        if now >= self.next_look:
            over, self.must_confirm = self.watch.unrenewed([claim.job_id for claim in self.running.values()])
            for job in over:
                with queue_transaction():
                    if storage.release(job):
                        log.warning("job_taken_over", job_id=job.id, worker=job.locked_by)
            self.next_look = now + POLL_INTERVAL
        return self.must_confirm

    def _clean(self) -> bool:
        """Remove one batch of old rows, each hour until there are none. Return True if rows were removed."""
        if time.monotonic() < self.next_cleaning:
            return False
        if housekeeping.remove_old():
            return True
        self.next_cleaning = time.monotonic() + HOUSEKEEPING_INTERVAL
        return False

    def _perform(self, claim: Claim) -> None:
        """Run one attempt of a job in this thread, and store how it ended."""
        with self.context():
            try:
                end = _attempt(claim)
                if end is not None:
                    _store(claim, end)
            except Exception:
                log.exception("job_end_not_stored", job_id=claim.job_id)  # it runs again after the lease


def _attempt(claim: Claim) -> Callable[[], bool] | None:
    """Call the handler. Return the call that stores how it ended, None if nothing is left to store."""
    token = storage.current_claim.set(claim)
    try:
        handler = HANDLERS.get(claim.kind)
        if handler is None:
            return partial(storage.fail, claim, "This version has no handler for the kind.")
        handler(claim.payload)
    except LeaseLost:
        log.warning("job_lease_lost", job_id=claim.job_id)
        return None
    except RetryLater as later:
        return partial(storage.fail, claim, later.reason, later.after)
    except Dead as end:
        return partial(storage.kill, claim, end.reason)
    except Exception as error:
        log.exception("job_failed", job_id=claim.job_id, kind=claim.kind, attempt=claim.attempt)
        return partial(storage.fail, claim, _describe(error))
    finally:
        db.session.remove()
        storage.current_claim.reset(token)
    return None if claim.is_finished else partial(storage.finish, claim)


def _describe(error: Exception) -> str:
    """Return the type and the place of an error. Its text may contain data of a patient."""
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    if traceback is None:
        return type(error).__name__
    file = Path(traceback.tb_frame.f_code.co_filename).name
    return f"{type(error).__name__} in {file}, line {traceback.tb_lineno}. The log has the details."


def _store(claim: Claim, end: Callable[[], bool]) -> None:
    """Store the end of an attempt."""

    def store() -> bool:
        with queue_transaction():
            return end()

    if not keep_trying(store):
        log.warning("job_lease_lost", job_id=claim.job_id)
