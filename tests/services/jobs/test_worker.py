"""The worker: each job runs once, failed ones again after a back-off, dead ones not."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import select, update
from sqlalchemy.exc import OperationalError

from enums import JobState
from extensions import db
from models import AuditLog, Job, Patient
from services import clock
from services.jobs import leases, queue, storage
from services.jobs.failures import Dead, LeaseLost, RetryLater
from services.jobs.leases import LeaseWatch
from services.jobs.registry import GROUPS, HANDLERS
from services.jobs.transactions import queue_transaction, transaction
from services.jobs.worker import Worker
from services.messages import planning
from services.users import emergency_alerts
from tests.support.clinic import Clinic
from tests.support.concurrency import run_concurrently

Register = Callable[[Callable[[dict[str, Any]], None]], None]


@pytest.fixture
def handle(monkeypatch: pytest.MonkeyPatch) -> Register:
    """Return a function that registers the handler of the kind "test"."""
    return lambda handler: monkeypatch.setitem(HANDLERS, "test", handler)


def add(clinic: Clinic, count: int = 1, **options: Any) -> list[int]:
    """Add jobs of the kind "test" with the numbers from 0 on, and return their ids."""
    with clinic.inside():
        jobs = [queue.enqueue("test", {"number": number}, **options) for number in range(count)]
        return [job.id for job in jobs if job is not None]


def change(clinic: Clinic, job_id: int, **values: Any) -> None:
    """Change the row of a job."""
    with clinic.inside() as session:
        session.execute(update(Job).where(Job.id == job_id).values(**values))


def job(clinic: Clinic, job_id: int) -> Job:
    """Return a job as it is stored."""
    with clinic.inside() as session:
        row: Job = session.get(Job, job_id)
        session.expunge(row)
        return row


def run_once(clinic: Clinic) -> None:
    """Run a worker until nothing is due."""
    Worker(clinic.app.app_context, once=True).run()


def test_every_due_job_runs_once_with_its_payload(clinic: Clinic, handle: Register) -> None:
    seen: Counter[int] = Counter()
    handle(lambda payload: seen.update([payload["number"]]))
    ids = add(clinic, 30)
    later = add(clinic, 1, run_at=clock.now() + timedelta(hours=1))

    run_once(clinic)
    run_once(clinic)

    assert seen == Counter(range(30))
    states = [(row.state, row.attempts, row.locked_by, row.last_error) for row in map(_of(clinic), ids)]
    assert states == [(JobState.DONE, 1, None, None)] * 30
    assert job(clinic, later[0]).state is JobState.QUEUED


def _of(clinic: Clinic) -> Callable[[int], Job]:
    return lambda job_id: job(clinic, job_id)


def test_concurrent_claims_get_different_jobs(clinic: Clinic) -> None:
    ids = add(clinic, 40)

    def claim_all(worker: str) -> list[int]:
        claimed: list[int] = []
        with clinic.app.app_context():
            while True:
                with queue_transaction():
                    claims = storage.claim(worker, 3)
                if not claims:
                    return claimed
                claimed += [claim.job_id for claim in claims]

    results = run_concurrently([lambda name=f"w{n}": claim_all(name) for n in range(4)])

    assert sorted(job_id for claimed in results for job_id in claimed) == ids


def test_of_a_group_one_job_runs_at_a_time_and_the_other_jobs_do_not_wait_for_it(
    clinic: Clinic, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if the job of the group waits for a server that does not answer."""
    answered, numbers, at_once = threading.Event(), list[int](), Counter[int]()
    done: list[bool] = []

    def ask(payload: dict[str, Any]) -> None:
        numbers.append(payload["number"])
        at_once["running"] += 1
        at_once["most"] = max(at_once["most"], at_once["running"])
        answered.wait()
        at_once["running"] -= 1

    def other(_payload: dict[str, Any]) -> None:
        done.append(True)
        if len(done) == 8:
            answered.set()

    for kind in ("test.mail", "test.alert"):
        monkeypatch.setitem(HANDLERS, kind, ask)
        monkeypatch.setitem(GROUPS, kind, "mail")
    monkeypatch.setitem(HANDLERS, "test", other)
    with clinic.inside():
        for number in range(6):
            queue.enqueue("test.alert" if number % 3 else "test.mail", {"number": number})
    add(clinic, 8)

    run_once(clinic)

    assert (numbers, at_once["most"]) == (list(range(6)), 1)


def test_urgent_jobs_run_before_others_that_are_due_longer(
    clinic: Clinic, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    for kind in (planning.SEND_EMAIL, emergency_alerts.ALERT):
        monkeypatch.setitem(HANDLERS, kind, lambda payload: order.append(payload["name"]))
    with clinic.inside():
        for number in range(6):
            run_at = clock.now() - timedelta(minutes=9 - number)
            queue.enqueue(planning.SEND_EMAIL, {"name": f"mail {number}"}, run_at=run_at)
        for number in range(2):
            queue.enqueue(emergency_alerts.ALERT, {"name": f"alert {number}"})

    run_once(clinic)

    assert order == ["alert 0", "alert 1", *(f"mail {number}" for number in range(6))]


def test_a_failed_job_runs_again_after_a_growing_delay_and_is_dead_in_the_end(
    clinic: Clinic, handle: Register
) -> None:
    def fail(_payload: dict[str, Any]) -> None:
        raise ValueError("Jane Doe, +1 555 0100")

    handle(fail)
    (job_id,) = add(clinic)
    delays = []

    for _ in range(storage.MAX_ATTEMPTS):
        change(clinic, job_id, run_at=clock.now())
        run_once(clinic)
        delays.append((job(clinic, job_id).run_at - clock.now()).total_seconds())

    end = job(clinic, job_id)
    assert (end.state, end.attempts) == (JobState.DEAD, 10)
    assert end.last_error is not None
    assert end.last_error.startswith("ValueError in test_worker.py, line ")
    assert "Jane" not in end.last_error
    limits = [min(30 * 2**n, 7200) for n in range(9)]
    assert all(limit / 2 - 30 <= delay <= limit for delay, limit in zip(delays[:-1], limits, strict=True)), (
        delays
    )
    run_once(clinic)
    assert job(clinic, job_id).attempts == 10


def test_a_handler_chooses_the_delay_or_ends_the_job(clinic: Clinic, handle: Register) -> None:
    ends = [RetryLater("The server is busy.", timedelta(days=1)), Dead("The address does not exist.")]

    def end(_payload: dict[str, Any]) -> None:
        raise ends.pop(0)

    handle(end)
    first, second = add(clinic, 2)
    run_once(clinic)

    later, dead = (job(clinic, first), job(clinic, second))
    if later.state is JobState.DEAD:  # two threads start them
        later, dead = dead, later
    assert (later.state, later.last_error) == (JobState.QUEUED, "The server is busy.")
    assert timedelta(hours=23) < later.run_at - clock.now() < timedelta(hours=25)
    assert (dead.state, dead.last_error) == (JobState.DEAD, "The address does not exist.")


def test_a_job_without_handler_waits_for_a_newer_version(clinic: Clinic) -> None:
    (job_id,) = add(clinic)

    run_once(clinic)

    assert (job(clinic, job_id).state, job(clinic, job_id).attempts) == (JobState.QUEUED, 1)
    assert job(clinic, job_id).last_error == "This version has no handler for the kind."


def test_a_handler_has_no_open_transaction_and_its_changes_are_audited(
    clinic: Clinic, handle: Register
) -> None:
    patient_id = clinic.patient()["id"]

    def rename(_payload: dict[str, Any]) -> None:
        assert not db.session().in_transaction()
        with transaction("job test") as actor:
            assert (actor.name, actor.user_id) == ("job worker", None)
            db.session.get(Patient, patient_id).name = "Ada"

    handle(rename)
    (job_id,) = add(clinic)
    run_once(clinic)

    assert job(clinic, job_id).state is JobState.DONE
    with clinic.inside() as session:
        entry = session.scalars(select(AuditLog).where(AuditLog.operation == "job test")).one()
        assert (entry.user_name, entry.action, entry.fields) == ("job worker", "update", ["name"])


def test_the_dedupe_key_admits_one_job_also_in_a_race(clinic: Clinic) -> None:
    def enqueue() -> bool:
        with clinic.inside():
            return queue.enqueue("test", {}, dedupe_key="reminder:1") is not None

    assert sorted(run_concurrently([enqueue] * 6)) == [False] * 5 + [True]


def test_a_rolled_back_transaction_leaves_no_job(clinic: Clinic) -> None:
    with clinic.app.app_context():
        queue.enqueue("test", {}, dedupe_key="a")
        db.session.rollback()

    with clinic.inside() as session:
        assert session.scalars(select(Job)).all() == []
        assert queue.enqueue("test", {}, dedupe_key="a") is not None


def test_a_worker_that_lost_its_lease_changes_nothing(clinic: Clinic, handle: Register) -> None:
    (job_id,) = add(clinic)
    patient_id = clinic.patient(name="Ada")["id"]
    refused, ended = [], threading.Event()

    def lose(_payload: dict[str, Any]) -> None:
        with clinic.inside() as session:
            session.execute(update(Job).values(locked_by="another worker", attempts=2))
        try:
            with transaction("job test"):
                db.session.get(Patient, patient_id).name = "Eve"
        except LeaseLost:
            refused.append(True)
            raise
        finally:
            ended.set()

    handle(lose)
    run_worker = Worker(clinic.app.app_context)
    thread = threading.Thread(target=run_worker.run)
    thread.start()
    ended.wait()
    run_worker.stop()
    thread.join()

    assert refused == [True]
    row = job(clinic, job_id)
    assert (row.state, row.locked_by, row.attempts) == (JobState.RUNNING, "another worker", 2)
    assert clinic.admin.get(f"/patients/{patient_id}").get_json()["name"] == "Ada"
    with clinic.inside():
        late = storage.Claim(job_id, "test", {}, run_worker.name, 1)
        assert not storage.finish(late)
        assert not storage.fail(late, "x")
        assert not storage.kill(late, "x")


def test_a_transaction_can_finish_the_job_together_with_its_effect(clinic: Clinic, handle: Register) -> None:
    (job_id,) = add(clinic)

    def effect(_payload: dict[str, Any]) -> None:
        with transaction("job test", finishes_job=True):
            pass
        raise ValueError("a crash after the commit")

    handle(effect)
    run_once(clinic)

    assert (job(clinic, job_id).state, job(clinic, job_id).attempts) == (JobState.DONE, 1)


@pytest.fixture
def quick_confirmation(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a worker take over an ended lease after 0.3 s."""
    monkeypatch.setattr(leases, "CONFIRMATION", 0.3)


def test_the_job_of_a_killed_worker_runs_again_after_the_lease(
    clinic: Clinic, handle: Register, quick_confirmation: None
) -> None:
    seen: list[int] = []
    handle(lambda payload: seen.append(payload["number"]))
    job_id, last = add(clinic, 2)
    now = clock.now()
    lease = {"state": JobState.RUNNING, "locked_by": "killed", "locked_until": now - timedelta(seconds=1)}
    change(clinic, job_id, attempts=1, **lease)
    change(clinic, last, attempts=10, **lease)

    run_once(clinic)

    assert seen == [0]
    assert (job(clinic, job_id).state, job(clinic, job_id).attempts) == (JobState.DONE, 2)
    assert (job(clinic, last).state, job(clinic, last).last_error) == (
        JobState.DEAD,
        "The worker ended during the attempt.",
    )


@pytest.mark.parametrize("leap", [timedelta(hours=2), timedelta(hours=-2)])
def test_a_leap_of_the_clock_takes_no_job_from_a_living_worker(
    clinic: Clinic, monkeypatch: pytest.MonkeyPatch, leap: timedelta
) -> None:
    """Its lease stays, whatever the clock says, since its renewals are seen. Without renewals it is over."""
    monotonic = 0.0
    monkeypatch.setattr(leases, "time", SimpleNamespace(monotonic=lambda: monotonic))
    add(clinic)
    living, watch, real = Worker(clinic.app.app_context), LeaseWatch(), clock.now
    with clinic.app.app_context():
        with queue_transaction():
            (claim,) = storage.claim(living.name, 1)
        living.running[Future()] = claim

        for second in range(0, 200, int(leases.RENEWAL_INTERVAL)):
            monotonic, living.next_renewal = float(second), 0.0
            living._renew()
            assert watch.unrenewed(()) == ([], False), second
            monkeypatch.setattr(clock, "now", lambda: real() + leap)
            assert watch.unrenewed(())[0] == [], second
        monotonic += storage.LEASE.total_seconds()

        assert [job.id for job in watch.unrenewed(())[0]] == [claim.job_id]


def test_a_clock_that_leaps_back_does_not_keep_the_job_of_a_killed_worker(
    clinic: Clinic, handle: Register, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "LEASE", timedelta(seconds=0.5))
    handle(lambda _payload: None)
    (job_id,) = add(clinic)
    change(
        clinic,
        job_id,
        state=JobState.RUNNING,
        locked_by="killed",
        locked_until=clock.now() + timedelta(hours=2),
    )
    worker = Worker(clinic.app.app_context)
    thread = threading.Thread(target=worker.run)

    thread.start()
    while job(clinic, job_id).state is not JobState.DONE:
        time.sleep(0.05)
    worker.stop()
    thread.join()


def test_the_worker_waits_for_a_database_that_is_away(
    clinic: Clinic, handle: Register, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.jobs.worker.POLL_INTERVAL", 0.01)
    monkeypatch.setattr("services.jobs.transactions.RETRY_INTERVAL", 0.01)
    handle(lambda _payload: None)
    (job_id,) = add(clinic)
    broken = OperationalError("SELECT 1", {}, Exception("the server is away"))
    for name in ("has_work", "claim", "finish"):
        errors = [broken, broken]
        original = getattr(storage, name)

        def fail_twice(
            *arguments: Any, errors: list[Any] = errors, original: Any = original, **options: Any
        ) -> Any:
            if errors:
                raise errors.pop()
            return original(*arguments, **options)

        monkeypatch.setattr(storage, name, fail_twice)

    run_once(clinic)

    assert (job(clinic, job_id).state, job(clinic, job_id).attempts) == (JobState.DONE, 1)


def test_a_worker_ends_without_its_parent(clinic: Clinic) -> None:
    (job_id,) = add(clinic)

    Worker(clinic.app.app_context, is_orphan=lambda: True).run()

    assert job(clinic, job_id).attempts == 0
