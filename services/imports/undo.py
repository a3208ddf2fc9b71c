"""The undo of an import, and of the applied rows of an import that failed.

Created rows are archived, cancelled, deactivated or reversed, and updated ones get their previous values.
A row that was changed by somebody else since is not touched.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import timedelta
from functools import partial
from typing import Any

from sqlalchemy import delete, select, update
from sqlalchemy.exc import IntegrityError

from database.failures import is_transient
from enums import ImportAction, ImportRowState, ImportState
from errors import ClinicError
from extensions import db
from models import Base, Import, ImportedRow, ImportSource
from security.permissions import Actor
from services import clock
from services.audit import audit_log
from services.imports.batches import BATCH, BATCH_SECONDS, run_batch, save_counts
from services.imports.content import ImportPlan, Problem, plan_of, problem_of, problems_of
from services.imports.kinds import ImportKind
from services.imports.rows import versions_of
from services.jobs.transactions import rolled_back_transaction, transaction, with_retries
from services.rows import execute_core, get_or_404, lock_rows

_CHANGED = problem_of(None, "changed_since", "changed since; not undone")
UNDO_DAYS = timedelta(days=7)
CHECKED = 1_000  # rows that a request checks with one query
VERSION = "version"  # the version before an update, among the previous members


def find_touched(plan: ImportPlan) -> Iterator[ImportedRow]:
    """Yield the applied rows that were changed since, or that other records refer to."""
    last = 0
    while batch := _applied(plan, ImportedRow.number > last, ImportedRow.number, CHECKED):
        last = batch[-1].number
        touched = _touched_ids(plan, batch)
        yield from (row for row in batch if row.entity_id in touched)


def _touched_ids(plan: ImportPlan, batch: Sequence[ImportedRow]) -> set[int | None]:
    versions = versions_of(plan.kind, {row.entity_id for row in batch if row.entity_id is not None})
    created = {row.entity_id for row in batch if row.action is ImportAction.CREATE and row.entity_id}
    changed = {row.entity_id for row in batch if versions.get(row.entity_id or 0) != row.version}
    return changed | set(plan.kind.find_used(created))


def _applied(plan: ImportPlan, condition: object, order: object, limit: int) -> Sequence[ImportedRow]:
    return db.session.scalars(
        select(ImportedRow)
        .where(
            ImportedRow.import_id == plan.import_id,
            ImportedRow.state == ImportRowState.APPLIED,
            condition,  # type: ignore[arg-type]
        )
        .order_by(order)  # type: ignore[arg-type]
        .limit(limit)
    ).all()


def undo(import_id: int) -> None:
    """Undo the applied rows, the last ones first."""
    plan = with_retries(partial(_load, import_id, ImportState.UNDOING))
    if plan is not None:
        _undo_rows(plan, ImportRowState.UNDONE, None)
        with_retries(partial(_finish, plan, ImportState.UNDONE))


def take_back(plan: ImportPlan) -> None:
    """Undo the applied rows of an import that failed. All rows but the refused ones are then skipped."""
    problem = problem_of(None, "import_failed", "not imported, because another row was refused")
    _undo_rows(plan, ImportRowState.SKIPPED, problem)
    with_retries(partial(_skip_ready, plan, problem))
    with_retries(partial(_finish, plan, ImportState.FAILED))


def _load(import_id: int, state: ImportState) -> ImportPlan | None:
    with rolled_back_transaction():
        row = get_or_404(Import, import_id)
        return plan_of(row) if row.state is state else None


def _undo_rows(plan: ImportPlan, state: ImportRowState, problem: Problem | None) -> None:
    below: int | None = None
    while True:
        numbers = run_batch(partial(_undo_batch, plan, below, state, problem))
        if not numbers:
            return
        below = min(numbers)


def _undo_batch(
    plan: ImportPlan, below: int | None, state: ImportRowState, problem: Problem | None
) -> Collection[int]:
    """Undo the next rows below a number, or the first of them if they take long. Return their numbers."""
    with transaction(plan.operation) as actor:
        condition = ImportedRow.number < below if below is not None else ImportedRow.number > 0
        batch = _applied(plan, condition, ImportedRow.number.desc(), BATCH)
        stored = _lock(plan.kind, {row.entity_id for row in batch if row.entity_id is not None})
        touched = _touched_ids(plan, batch)
        processed, undone = [], []
        versions_before: dict[int | None, int | None] = {}
        end = time.monotonic() + BATCH_SECONDS
        for row in batch:
            processed.append(row.number)
            if row.entity_id in touched or row.entity_id not in stored:
                refusal: tuple[Problem, ...] = (_CHANGED,)
            else:
                refusal = _undo_row(plan, actor, row, stored[row.entity_id])
            if refusal:
                row.problems = [*row.problems, *(each for each in refusal if each not in row.problems)]
                continue
            if row.action is ImportAction.UPDATE and row.previous:
                versions_before[row.entity_id] = row.previous.get(VERSION)
            row.state, row.previous = state, None
            if problem is not None:
                row.problems = [problem]
            undone.append(row)
            if time.monotonic() > end:
                break
        _forget_sources(plan, undone)
        _renew_versions(plan, versions_before)
        save_counts(plan.import_id, {state: len(undone), ImportRowState.APPLIED: -len(undone)})
        return processed


def _lock(kind: ImportKind, ids: Collection[int]) -> Mapping[Any, Base]:
    """Lock the rows to undo, and return them by id."""
    return lock_rows(kind.model, ids) if kind.lock_created is None else kind.lock_created(ids)


def _undo_row(plan: ImportPlan, actor: Actor, row: ImportedRow, stored: Base) -> tuple[Problem, ...]:
    """Undo one row in a savepoint. Return the problems of a row that cannot be undone."""
    try:
        with db.session.begin_nested():
            if row.action is ImportAction.CREATE:
                plan.kind.undo_create(actor, stored)
            elif plan.kind.undo_update is not None:
                previous = row.previous or {}
                members = {name: value for name, value in previous.items() if name != VERSION}
                plan.kind.undo_update(actor, stored, members)
            db.session.flush()
    except ClinicError as refusal:
        return problems_of(refusal)
    except IntegrityError as error:
        if is_transient(error):
            raise
        return (problem_of(None, "conflict", "a value of the row is used by another row now"),)
    return ()


def _renew_versions(plan: ImportPlan, versions_before: Mapping[int | None, int | None]) -> None:
    """Let earlier imports be undone: their rows are again as these imports left them, with a new version."""
    versions = versions_of(plan.kind, {entity_id for entity_id in versions_before if entity_id is not None})
    imports = select(Import.id).where(Import.kind == plan.kind.name, Import.id != plan.import_id)
    for entity_id, version in versions.items():
        db.session.execute(
            update(ImportedRow)
            .where(
                ImportedRow.entity_id == entity_id,
                ImportedRow.version == versions_before[entity_id],
                ImportedRow.state == ImportRowState.APPLIED,
                ImportedRow.import_id.in_(imports),
            )
            .values(version=version)
        )


def _forget_sources(plan: ImportPlan, rows: Sequence[ImportedRow]) -> None:
    """Forget that the rows were imported, so that a corrected file can be imported again."""
    db.session.execute(
        delete(ImportSource).where(
            ImportSource.import_id == plan.import_id,
            ImportSource.entity_id.in_([row.entity_id for row in rows]),
        )
    )


def _skip_ready(plan: ImportPlan, problem: Problem) -> None:
    with transaction(plan.operation):
        skipped = execute_core(
            update(ImportedRow)
            .where(ImportedRow.import_id == plan.import_id, ImportedRow.state == ImportRowState.READY)
            .values(state=ImportRowState.SKIPPED, action=ImportAction.NONE, problems=[problem])
        ).rowcount
        save_counts(plan.import_id, {ImportRowState.READY: -skipped, ImportRowState.SKIPPED: skipped})


def _finish(plan: ImportPlan, state: ImportState) -> None:
    """End the undo. With rows that could not be undone, the import stays applied."""
    with transaction(plan.operation):
        row = get_or_404(Import, plan.import_id, lock=True)
        if row.applied and state is ImportState.UNDONE:
            row.state = ImportState.APPLIED
            row.failure = f"{row.applied} rows were not undone: they were changed since."
        else:
            row.state, row.undone_at = state, clock.now()
        audit_log.set_action(row, "undo" if state is ImportState.UNDONE else "fail")
