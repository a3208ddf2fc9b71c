"""The tables of handlers and subscribers. Only the worker and the application import this module.

A handler runs one kind of job. It gets the payload, without an open transaction, and opens its own ones with
`services.jobs.transactions.transaction`. It ends normally, or raises `RetryLater` or `Dead`
(`services.jobs.failures`). A worker that is killed leaves a job that runs again: a handler must be safe to
repeat. A handler that needs endpoints or schemas is in `app.JOB_HANDLERS`: the application adds it here.

A subscriber gets each event of its type exactly once, inside the transaction of the dispatcher. It only reads
and writes rows, for example adds a job. The order of the events of one record is not guaranteed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from models import Event
from services.imports import imports
from services.imports import runs as import_runs
from services.imports import undo as import_undo
from services.messages import planning, sending
from services.users import emergency_alerts

Handler = Callable[[dict[str, Any]], None]
Subscriber = Callable[[Event], None]

HANDLERS: dict[str, Handler] = {  # kind of the job -> function
    planning.SEND_EMAIL: sending.send,
    planning.SEND_TO_PHONE: sending.send,
    emergency_alerts.ALERT: emergency_alerts.send,
    imports.DRY_RUN: lambda payload: import_runs.dry_run(payload["import_id"]),
    imports.APPLY: lambda payload: import_runs.apply(payload["import_id"]),
    imports.UNDO: lambda payload: import_undo.undo(payload["import_id"]),
}
# Of the kinds of one group, a worker runs one job at a time. A killed worker then repeats at most one e-mail,
# and a mail server that does not answer keeps only one thread of the worker.
GROUPS: dict[str, str] = {  # kind of the job -> group
    planning.SEND_EMAIL: "e-mail",
    emergency_alerts.ALERT: "e-mail",
}
# Jobs of these kinds are claimed before others that are due longer. They are few, so the others run soon.
URGENT: frozenset[str] = frozenset({emergency_alerts.ALERT})
SUBSCRIBERS: dict[str, list[Subscriber]] = {  # type of the event -> functions
    "appointment.booked": [planning.plan_for_appointment],
    "appointment.imported": [planning.plan_for_import],
    "appointment.moved": [planning.plan_for_appointment],
    "appointment.reopened": [planning.plan_for_appointment],
    "appointment.updated": [planning.plan_for_appointment],
    "appointment.cancelled": [planning.plan_for_appointment],
    "visit.created": [planning.plan_for_visit],
    "visit.updated": [planning.plan_for_visit],
    "billing.issued": [planning.plan_for_bill],
    "emergency_access.granted": [emergency_alerts.plan],
}
