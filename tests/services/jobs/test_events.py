"""Events: one for each changed record, written with its cause, and dispatched exactly once."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from typing import Any

import pytest
from sqlalchemy import func, select

from extensions import db
from models import Base, Event, Job
from services.audit.event_types import event_type, past_tense
from services.jobs import dispatcher, queue
from services.jobs.registry import SUBSCRIBERS
from services.jobs.worker import Worker
from services.scheduling.appointments import AUDIT_ACTIONS
from tests.support.clinic import Clinic, soon
from tests.support.concurrency import run_concurrently
from tests.support.servers import ROOT


def types(clinic: Clinic, entity: str | None = None) -> list[str]:
    """Return the types of the events of an entity, oldest first."""
    statement = select(Event.type).order_by(Event.id)
    if entity is not None:
        statement = statement.where(Event.entity == entity)
    with clinic.inside() as session:
        return list(session.scalars(statement))


def dispatch_all(clinic: Clinic) -> int:
    """Dispatch until no event waits. Return the number of events."""
    with clinic.app.app_context():
        return sum(iter(dispatcher.dispatch_batch, 0))


def test_every_change_of_an_appointment_is_an_event_with_names_of_fields_only(clinic: Clinic) -> None:
    admin, row = clinic.admin, clinic.appointment(reason="Cough")
    path = f"/appointments/{row['id']}"
    admin.patch(path, {"date": soon(days=5)})
    admin.patch(path, {"notes": "Bring the X-ray"})
    admin.get(path)
    admin.post("/appointments", {"patient_id": row["patient_id"]})  # refused
    admin.patch(path, {"doctor_id": clinic.sign_in("doctor").doctor_id})
    admin.delete(path)

    assert types(clinic, "appointment") == [
        "appointment.booked",
        "appointment.moved",
        "appointment.updated",
        "appointment.moved",
        "appointment.cancelled",
    ]
    with clinic.inside() as session:
        booked, moved, noted, *_ = session.scalars(
            select(Event).where(Event.entity == "appointment").order_by(Event.id)
        )
        assert (moved.entity_id, moved.patient_id) == (row["id"], row["patient_id"])
        assert {"start", "end", "reschedule_count"} <= set(moved.fields)
        assert noted.fields == ["notes"]
        assert "reason" in booked.fields
        assert booked.dispatched_at is None


def test_overbooking_is_an_event_of_the_change_that_it_permits(clinic: Clinic) -> None:
    first = clinic.appointment(date=soon(days=3))
    second = {"patient_id": clinic.patient()["id"], "doctor_id": first["doctor_id"], "overbook": True}
    second |= {"overbook_reason": "Emergency"}
    clinic.admin.make("/appointments", date=soon(days=3), **second)
    third = clinic.appointment(date=soon(days=4), doctor_id=first["doctor_id"])
    moved = clinic.admin.patch(
        f"/appointments/{third['id']}",
        {"date": soon(days=3), "overbook": True, "overbook_reason": "Emergency"},
    )
    assert moved.status_code == 200

    assert types(clinic, "appointment") == ["appointment.booked"] * 3 + ["appointment.moved"]


def test_money_and_visits_have_events(clinic: Clinic) -> None:
    bill = clinic.bill("100.00")
    path = f"/billings/{bill['id']}"
    clinic.admin.post(f"{path}/payments", {"amount": "40.00", "method": "cash"})
    clinic.admin.post(f"{path}/write-off", {"amount": "60.00", "reason": "Goodwill"})
    visit = clinic.visit(doctor_id=clinic.doctor.doctor_id)
    clinic.doctor.post(f"/visits/{visit['id']}/sign")

    assert types(clinic, "billing") == ["billing.issued", "billing.paid", "billing.written_off"]
    assert types(clinic, "visit") == ["visit.created", "visit.signed"]


def test_commands_write_events(clinic: Clinic) -> None:
    arguments = ["users", "create", "--name", "Ada", "--email", "ada@x.example", "--role", "admin"]
    password = "a quiet harbour at dusk"
    result = clinic.app.test_cli_runner().invoke(args=[*arguments, "--password-stdin"], input=password)

    assert result.exit_code == 0
    assert types(clinic) == ["user.created"]


def test_a_rolled_back_change_leaves_no_event(clinic: Clinic) -> None:
    first = clinic.appointment()
    before = types(clinic)
    taken = {"patient_id": clinic.patient()["id"], "doctor_id": first["doctor_id"], "date": first["start"]}
    assert clinic.admin.post("/appointments", taken).status_code == 409

    assert types(clinic) == [*before, "patient.created"]


def test_an_audited_refusal_is_no_event(clinic: Clinic) -> None:
    caller = clinic.admin
    before = types(clinic)
    wrong = {"current_password": "not the password", "new_password": "A-new-password-77"}

    assert caller.post("/auth/change-password", wrong).status_code == 422
    assert types(clinic) == before


@pytest.mark.parametrize(
    ("action", "past"),
    [
        ("activate", "activated"),
        ("retry", "retried"),
        ("void", "voided"),
        ("send", "sent"),
        ("change_password", "password_changed"),
        ("reset_mfa", "mfa_reset"),
        ("request_refund", "refund_requested"),
        ("check_in", "checked_in"),
        ("import", "imported"),
        ("undo_import", "import_undone"),
    ],
)
def test_past_tense(action: str, past: str) -> None:
    assert past_tense(action) == past


def test_every_subscription_is_to_an_event_that_a_service_produces() -> None:
    """The entities, and the literals that services pass to `set_action`."""
    actions = {"create", "update", "delete"} | {
        literal.value
        for path in (ROOT / "services").rglob("*.py")
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(call, ast.Call) and getattr(call.func, "attr", "") == "set_action"
        for literal in ast.walk(call.args[1])
        if isinstance(literal, ast.Constant) and isinstance(literal.value, str)
    }
    actions |= set(AUDIT_ACTIONS.values())
    entities = {mapper.class_.__entity__ for mapper in Base.registry.mappers} - {None}

    produced = {event_type(entity, "update", action, ()) for entity in entities for action in actions}

    assert len(actions) > 30
    assert set(SUBSCRIBERS) <= produced


@pytest.mark.parametrize(
    ("entity", "change", "action", "fields", "expected"),
    [
        ("appointment", "update", "overbook", {"status"}, "appointment.completed"),
        ("appointment", "update", "overbook", {"status", "start"}, "appointment.moved"),
        ("appointment", "update", "no_show", {"status"}, "appointment.missed"),
        ("prescription", "create", "override", {"medications"}, "prescription.created"),
        ("prescription", "update", "override", {"dispensings"}, "prescription.dispensed"),
        ("prescription", "update", "override", {"notes"}, "prescription.updated"),
        ("user", "create", "register", {"name"}, "user.registered"),
    ],
)
def test_types(entity: str, change: str, action: str, fields: set[str], expected: str) -> None:
    assert event_type(entity, change, action, fields) == expected


# --- Dispatcher ---


def test_each_event_reaches_its_subscribers_exactly_once_also_with_several_dispatchers(
    clinic: Clinic, monkeypatch: pytest.MonkeyPatch
) -> None:
    def plan(event: Event) -> None:
        queue.enqueue("test", {"event_id": event.id})

    monkeypatch.setitem(SUBSCRIBERS, "patient.created", [plan])
    monkeypatch.setattr(dispatcher, "BATCH", 3)
    for _ in range(12):
        clinic.patient()
    clinic.item()

    counts = run_concurrently([lambda: dispatch_all(clinic)] * 3)

    assert sum(counts) == 13
    with clinic.inside() as session:
        planned = sorted(job.payload["event_id"] for job in session.scalars(select(Job)))
        created = select(Event.id).where(Event.type == "patient.created").order_by(Event.id)
        assert planned == list(session.scalars(created))
        assert session.scalar(select(func.count()).where(Event.dispatched_at.is_(None))) == 0
    assert dispatch_all(clinic) == 0


def test_a_failing_subscriber_stops_no_other_one_and_is_called_again(
    clinic: Clinic, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures = iter([True, True])
    seen: list[str] = []

    def fragile(event: Event) -> None:
        queue.enqueue("half-written", {})
        if next(failures, False):
            raise ValueError("not yet")
        queue.enqueue("test", {"event_id": event.id})

    monkeypatch.setitem(SUBSCRIBERS, "patient.created", [fragile, lambda event: seen.append(event.type)])
    clinic.patient()
    clinic.patient()

    assert dispatch_all(clinic) == 2

    assert seen == ["patient.created"] * 2
    with clinic.inside() as session:
        jobs = session.scalars(select(Job).order_by(Job.id)).all()
        assert [job.kind for job in jobs] == [dispatcher.REPEAT] * 2
        assert set(jobs[0].payload) == {"event_id", "subscriber"}
    Worker(clinic.app.app_context, once=True).run()
    with clinic.inside() as session:
        done = session.scalars(select(Job).where(Job.kind == dispatcher.REPEAT)).all()
        assert [(job.state.value, job.attempts) for job in done] == [("done", 1)] * 2
        assert count_of(session.scalars(select(Job.kind)).all(), "test") == 2


def count_of(values: Iterable[Any], value: Any) -> int:
    return list(values).count(value)


def test_a_crash_of_the_dispatcher_loses_nothing(clinic: Clinic, monkeypatch: pytest.MonkeyPatch) -> None:
    class Killed(BaseException):
        pass

    def die(event: Event) -> None:
        queue.enqueue("test", {"event_id": event.id})
        raise Killed

    clinic.patient()
    with monkeypatch.context() as patch:
        patch.setitem(SUBSCRIBERS, "patient.created", [die])
        with clinic.app.app_context(), pytest.raises(Killed):
            dispatcher.dispatch_batch()
    with clinic.app.app_context():
        assert db.session.scalars(select(Job)).all() == []
    monkeypatch.setitem(SUBSCRIBERS, "patient.created", [lambda event: queue.enqueue("test", {}) and None])

    assert dispatch_all(clinic) == 1
