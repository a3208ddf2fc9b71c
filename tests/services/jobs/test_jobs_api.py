"""The endpoints of jobs, their metrics, integrity checks and the removal of old rows."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import func, select, update

from enums import JobState
from models import AuditLog, Event, Job
from services import clock
from services.jobs import housekeeping, queue, storage
from tests.support.clinic import Clinic
from tests.support.furnished import add_dead_job


def test_an_admin_lists_and_reads_jobs(clinic: Clinic) -> None:
    dead = add_dead_job(clinic)
    with clinic.inside():
        queued = queue.enqueue("messages.send", {"message_id": 7}, dedupe_key="message:7")
        assert queued is not None
        queued_id = queued.id

    listed = clinic.admin.get("/jobs?state=queued&kind=messages.send")
    shown = clinic.admin.get(f"/jobs/{dead}").get_json()

    assert [job["id"] for job in listed.get_json()] == [queued_id]
    assert listed.get_json()[0] | {"run_at": 0, "created_at": 0} == {
        "id": queued_id,
        "kind": "messages.send",
        "payload": {"message_id": 7},
        "state": "queued",
        "run_at": 0,
        "attempts": 0,
        "locked_until": None,
        "locked_by": None,
        "dedupe_key": "message:7",
        "last_error": None,
        "created_at": 0,
        "finished_at": None,
    }
    assert (shown["state"], shown["attempts"]) == ("dead", 10)
    assert clinic.admin.get("/jobs?state=lost").status_code == 422
    assert [job["id"] for job in clinic.admin.get("/jobs").get_json()] == [queued_id, dead]
    assert clinic.receptionist.get("/jobs").status_code == 403


def test_a_dead_job_can_be_queued_again(clinic: Clinic) -> None:
    job_id = add_dead_job(clinic)

    retried = clinic.admin.post(f"/jobs/{job_id}/retry")
    again = clinic.admin.post(f"/jobs/{job_id}/retry")

    assert retried.status_code == 200
    body = retried.get_json()
    assert (body["state"], body["attempts"], body["finished_at"]) == ("queued", 0, None)
    assert (again.status_code, again.get_json()["error"]) == (409, "invalid_transition")
    assert clinic.admin.post("/jobs/987654/retry").status_code == 404
    with clinic.inside() as session:
        entry = session.scalars(
            select(AuditLog).where(AuditLog.entity == "job", AuditLog.outcome == "success")
        )
        assert [(row.action, row.entity_id) for row in entry] == [("retry", job_id)]


def samples(clinic: Clinic) -> dict[str, float]:
    """Return the exported figures of jobs and events."""
    lines = clinic.admin.get("/metrics").get_data(as_text=True).splitlines()
    return {
        name: float(value)
        for name, value in (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
        if name.startswith(("clinic_jobs", "clinic_events", "clinic_oldest"))
    }


def test_the_metrics_show_the_queue(clinic: Clinic) -> None:
    add_dead_job(clinic)
    with clinic.inside():
        queue.enqueue("test", {}, run_at=clock.now() - timedelta(hours=1))
        queue.enqueue("test", {}, run_at=clock.now() + timedelta(hours=1))
    clinic.patient()
    with clinic.inside() as session:
        session.execute(update(Event).values(at=clock.now() - timedelta(hours=2)))

    figures = samples(clinic)

    assert figures['clinic_jobs{kind="test",state="queued"}'] == 2
    assert figures['clinic_jobs{kind="events.dispatch",state="dead"}'] == 1
    assert 3600 <= figures["clinic_oldest_due_job_seconds"] < 3700
    assert figures["clinic_events_waiting"] == 1
    assert 7200 <= figures["clinic_oldest_waiting_event_seconds"] < 7300


def test_old_jobs_and_events_are_removed_but_never_the_newest(clinic: Clinic) -> None:
    now = clock.now()
    ends = {
        "done": (JobState.DONE, now - timedelta(days=8)),
        "recent": (JobState.DONE, now - timedelta(days=6)),
        "dead": (JobState.DEAD, now - timedelta(days=89)),
        "long dead": (JobState.DEAD, now - timedelta(days=91)),
        "newest": (JobState.DONE, now - timedelta(days=99)),
    }
    with clinic.inside() as session:
        for kind, (state, end) in ends.items():
            storage.insert_job(
                kind=kind, payload={}, state=state, attempts=1, run_at=end, created_at=end, finished_at=end
            )
        for _ in range(3):
            session.add(Event(type="a.b", entity="a", at=now, dispatched_at=now - timedelta(days=31)))

    with clinic.app.app_context():
        assert housekeeping.remove_old() == 4
        assert housekeeping.remove_old() == 0
    with clinic.inside() as session:
        assert set(session.scalars(select(Job.kind))) == {"recent", "dead", "newest"}
        assert session.scalar(select(func.count(Event.id))) == 1
