"""Exports: files of whole lists, which a job writes for the user who asked for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import ColumnElement, and_, func, or_, select, update

from database.functions import lock_keys
from enums import ExportFormat, ExportState, Role
from errors import ClinicError, not_found
from extensions import db
from models import Doctor, Export, User
from security.permissions import Actor
from services import clock
from services.jobs import queue
from services.listing import paging
from services.listing.spec import Filter, Kind, ListQuery, ListSpec, Page
from services.rows import execute_core, get_or_404
from services.users import emergency_access

WRITE = "exports.write"  # kind of the job
LIFETIME = timedelta(hours=24)  # of a file; an export that no job could write fails after this time
KEPT = timedelta(days=7)  # of the row, for the list of exports
MAX_OPEN = 3  # exports of a user that wait or run
OPEN = (ExportState.QUEUED, ExportState.RUNNING)


def _own(actor: Actor) -> ColumnElement[bool]:
    return Export.user_id == actor.user_id


def _has_state(state: str) -> ColumnElement[bool]:
    is_expired = and_(Export.state == ExportState.READY, Export.expires_at <= clock.now())
    if state == ExportState.EXPIRED:
        return or_(Export.state == ExportState.EXPIRED, is_expired)
    if state == ExportState.READY:
        return and_(Export.state == ExportState.READY, Export.expires_at > clock.now())
    return Export.state == state


LIST: ListSpec[Export] = ListSpec(
    name="exports",
    model=Export,
    area="export",
    main_date="created_at",
    scope=_own,
    omit=frozenset({"user_id", "job_id", "format"}),
    excluded={
        "format": "this parameter is the format of the response",
        "file": "it follows from id and state",
    },
    filters={"state": Filter(Kind.ENUM, _has_state, "State of the export.", values=tuple(ExportState))},
    newest_first=True,
)


def request(actor: Actor, *, path: str, file_format: ExportFormat) -> Export:
    """Add an export and its job. The caller has checked the path.

    Raises 409 `conflict` if the user has `MAX_OPEN` exports that wait or run.
    """
    user_id = actor.user_id or 0
    lock_keys(db.session.connection(), [user_id])  # two requests at once must not both be the last one
    waiting = select(func.count()).where(Export.user_id == user_id, Export.state.in_(OPEN))
    if db.session.execute(waiting).scalar_one() >= MAX_OPEN:
        message = f"You have {MAX_OPEN} exports that wait or run. Wait until one of them has ended."
        raise ClinicError("conflict", message)
    export = Export(
        user_id=user_id, path=path, format=file_format, state=ExportState.QUEUED, reader=actor.reader
    )
    db.session.add(export)
    db.session.flush()
    job = queue.enqueue(WRITE, {"export_id": export.id})
    export.job_id = job.id if job is not None else None
    return export


def get(actor: Actor, export_id: int, *, lock: bool = False) -> Export:
    """Return an export of the actor, or raise 404."""
    export = get_or_404(Export, export_id, lock=lock)
    if export.user_id != actor.user_id:
        raise not_found("export").about("export", export.id)
    return export


def find(actor: Actor, query: ListQuery) -> Page[Export]:
    """Return one page of the exports of the actor."""
    return paging.page(actor, LIST, query)


def add_computed_fields(_actor: Actor, rows: Sequence[Export]) -> None:
    """Set the state of today and the address of the file."""
    for export in rows:
        export.shown_state = current_state(export)
        is_ready = export.shown_state is ExportState.READY
        export.file = f"/exports/{export.id}/file" if is_ready else None


def current_state(export: Export) -> ExportState:
    """Return the state: a file expires before a job removes it."""
    if export.state is ExportState.READY and (export.expires_at is None or export.expires_at <= clock.now()):
        return ExportState.EXPIRED
    return export.state


def require_file(actor: Actor, export: Export) -> None:
    """Raise 409 unless the file can be fetched, and 403 if the rights of the user have changed."""
    state = current_state(export)
    if state is not ExportState.READY:
        raise ClinicError("conflict", f"The export is {state}: it has no file to fetch.", state=state)
    if not actor.may_read_as(export.reader):
        raise rights_changed()


def rights_changed() -> ClinicError:
    """Return the 403 for a user whose rights have changed since the request."""
    message = "Your rights have changed since you asked for this export. Ask for a new one: POST /exports."
    return ClinicError("forbidden", message)


# --- For the job ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ExportTask:
    """The members of an export that its job needs."""

    id: int
    user_id: int
    path: str
    format: ExportFormat
    reader: list[Any]


def begin(export_id: int, job_id: int | None) -> ExportTask | None:
    """Mark an export as running and return it. None if this job has nothing to write for it."""
    export = db.session.get(Export, export_id, with_for_update={"key_share": True})
    if export is None or export.job_id != job_id or export.state not in OPEN:
        return None
    _set(export_id, state=ExportState.RUNNING)
    return ExportTask(export.id, export.user_id, export.path, export.format, export.reader)


def writer(export: ExportTask) -> Actor:
    """Return the user of an export with their present rights. Raise 403 if these are not the earlier ones."""
    statement = (
        select(User.name, User.role, User.is_active, Doctor.id.label("doctor_id"))
        .outerjoin(Doctor, Doctor.user_id == User.id)
        .where(User.id == export.user_id)
    )
    user = execute_core(statement).one()
    actor = Actor(
        export.user_id,
        user.name,
        user.role,
        doctor_id=user.doctor_id if user.role is Role.DOCTOR else None,
        request_id=f"export-{export.id}",
        emergency_patients=emergency_access.open_patients(export.user_id),
    )
    if not user.is_active or actor.reader != export.reader:
        raise rights_changed()
    return actor


def finish(export_id: int, *, count: int, left_out: int, size: int, digest: str) -> None:
    """Mark an export as ready. Its file expires after `LIFETIME`."""
    now = clock.now()
    _set(
        export_id,
        state=ExportState.READY,
        count=count,
        left_out=left_out,
        size=size,
        digest=digest,
        finished_at=now,
        expires_at=now + LIFETIME,
    )


def fail(export_id: int, problem: str) -> None:
    """Mark an export as failed."""
    _set(export_id, state=ExportState.FAILED, problem=problem[:500], finished_at=clock.now())


def _set(export_id: int, **values: object) -> None:
    execute_core(update(Export).where(Export.id == export_id).values(values))
