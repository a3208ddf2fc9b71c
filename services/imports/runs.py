"""The runs of an import: the dry run, and applying what it has found.

Both work in transactions of at most `BATCH` rows, so that users are not blocked. The dry run rolls each of
them back. Applying writes the state of each row in the transaction of the row: after a killed worker, the
next one continues with the rows that are still ready.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Any

from sqlalchemy import bindparam, delete, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm.exc import StaleDataError

from enums import ImportAction, ImportRowState, ImportState, OnDuplicate, OnError
from extensions import db
from models import Import, ImportedRow, ImportSource
from security.permissions import Actor
from services import clock
from services.audit import audit_log
from services.imports import undo as import_undo
from services.imports.batches import BATCH, BATCH_SECONDS, run_batch, save_counts
from services.imports.content import (
    FileRow,
    ImportPlan,
    plan_of,
    problem_of,
    read_row,
    read_stored,
)
from services.imports.file_duplicates import FileDuplicates
from services.imports.rows import (
    Match,
    Outcome,
    count_states,
    duplicate,
    find_matches,
    process,
    refused,
    versions_of,
    with_versions,
)
from services.jobs.failures import Dead
from services.jobs.transactions import rolled_back_transaction, transaction, with_retries
from services.rows import execute_core, get_or_404, lock_rows
from services.spreadsheets.reading import SourceRow

State = ImportRowState
# The tables, not the models: many rows are written without the ORM.
_ROWS: Any = ImportedRow.__table__
_SOURCES: Any = ImportSource.__table__


def _load(import_id: int, state: ImportState) -> tuple[ImportPlan, OnError, Sequence[SourceRow]] | None:
    """Return the plan and the rows of the file, or None if the run has already ended."""
    with rolled_back_transaction():
        row = get_or_404(Import, import_id)
        if row.state is not state:
            return None
        plan, on_error = plan_of(row), row.on_error
    file = read_stored(import_id)
    if file is None:
        raise Dead("The file of the import was removed.")
    return plan, on_error, file.table.rows


# --- Dry run -------------------------------------------------------------------------------------------


def dry_run(import_id: int) -> None:
    """Process all rows of the file without any effect, and store the result that each would have."""
    loaded = with_retries(partial(_load, import_id, ImportState.CHECKING))
    if loaded is None:
        return
    plan, _on_error, rows = loaded
    with_retries(partial(_forget_last_run, plan))
    digest = hashlib.sha256()
    duplicates = FileDuplicates(plan.kind)
    following = iter(rows)
    batch: list[FileRow] = []
    while batch := batch + [read_row(plan, row) for row in islice(following, BATCH - len(batch))]:
        outcomes = run_batch(partial(_dry_run_batch, plan, batch, duplicates))
        with_retries(partial(_store, plan, outcomes))
        for outcome in outcomes:
            digest.update(_digest_line(outcome))
        batch = batch[len(outcomes) :]
    with_retries(partial(_finish_dry_run, plan, digest.hexdigest()))


def _forget_last_run(plan: ImportPlan) -> None:
    with transaction(plan.operation):
        execute_core(delete(ImportedRow).where(ImportedRow.import_id == plan.import_id))
        values = dict.fromkeys(("ready", "applied", "skipped", "refused", "undone"), 0)
        execute_core(update(Import).where(Import.id == plan.import_id).values(**values))


def _dry_run_batch(plan: ImportPlan, batch: Sequence[FileRow], duplicates: FileDuplicates) -> list[Outcome]:
    """Return the outcomes of the rows, or of the first ones if they take long."""
    outcomes: list[Outcome] = []
    with rolled_back_transaction() as actor:
        plan.kind.lock([row.row for row in batch if row.row is not None])
        matches = find_matches(plan, batch)
        versions = versions_of(plan.kind, {i for match in matches.values() for i in match.entity_ids})
        end = time.monotonic() + BATCH_SECONDS
        for row in batch:
            outcome = _dry_run_row(plan, actor, row, matches[row.number], duplicates)
            if outcome.state is State.APPLIED:
                is_update = outcome.action is ImportAction.UPDATE
                entity_id = outcome.entity_id if is_update else None
                duplicates.add(row, entity_id)
                outcome = replace(
                    outcome,
                    state=State.READY,
                    entity_id=entity_id,
                    version=versions.get(entity_id or 0),
                    previous=None,
                )
            outcomes.append(outcome)
            if time.monotonic() > end:
                break
    return outcomes


def _dry_run_row(
    plan: ImportPlan, actor: Actor, row: FileRow, match: Match, duplicates: FileDuplicates
) -> Outcome:
    if row.row is None:
        return refused(row, *row.problems)
    same = duplicates.find_same(row, match.entity_id)
    if same is not None:
        field, number = same
        problem = problem_of(field, "duplicate_in_file", f"row {number} of the file is the same")
        return duplicate(plan, row, problem)
    alike = duplicates.find_alike(row) if not match.entity_ids else None
    if alike is None:
        return process(plan, actor, row, match)
    problem = problem_of(
        None, "possible_duplicate", f"row {alike} of the file may be the same {plan.kind.entity}"
    )
    if plan.on_duplicate is not OnDuplicate.CREATE_FLAGGED:
        return duplicate(plan, row, problem)
    flagged = replace(row.row, allow_duplicate=True, notes=(*row.row.notes, problem["message"]))
    return process(plan, actor, replace(row, row=flagged, notes=(*row.notes, problem)), match)


def _store(plan: ImportPlan, outcomes: Sequence[Outcome]) -> None:
    with transaction(plan.operation):
        values = [_columns(outcome) | {"import_id": plan.import_id} for outcome in outcomes]
        _execute_many(insert(_ROWS), values)
        save_counts(plan.import_id, count_states(outcomes))


def _columns(outcome: Outcome) -> dict[str, Any]:
    return {
        "number": outcome.file_row.number,
        "state": outcome.state,
        "action": outcome.action,
        "entity_id": outcome.entity_id,
        "version": outcome.version,
        "problems": list(outcome.problems),
        "previous": outcome.previous,
    }


def _digest_line(outcome: Outcome) -> bytes:
    parts = (
        outcome.file_row.number,
        outcome.state,
        outcome.action,
        outcome.entity_id,
        outcome.version,
    )
    return json.dumps(parts).encode() + b"\n"


def _finish_dry_run(plan: ImportPlan, rows_digest: str) -> None:
    with transaction(plan.operation):
        row = get_or_404(Import, plan.import_id, lock=True)
        if row.state is not ImportState.CHECKING:
            return
        inputs: list[Any] = [row.sha256, row.kind, row.source, row.encoding, row.delimiter, row.date_format]
        inputs += [row.decimal, row.on_duplicate, row.on_error, sorted(row.mapping.items()), rows_digest]
        row.digest = hashlib.sha256(json.dumps(inputs).encode()).hexdigest()
        row.state, row.checked_at = ImportState.CHECKED, clock.now()
        audit_log.set_action(row, "dry_run")


# --- Apply ---------------------------------------------------------------------------------------------


class RowRefusedError(Exception):
    """A row of an import with `on_error` none was refused. The import must be taken back."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__("a row was refused")
        self.outcome = outcome


def apply(import_id: int) -> None:
    """Apply the rows that the dry run accepted. With `on_error` none, take all back if one is refused."""
    loaded = with_retries(partial(_load, import_id, ImportState.APPLYING))
    if loaded is None:
        return
    plan, on_error, rows = loaded
    by_number, size = {row.number: row for row in rows}, BATCH
    while with_retries(partial(_failure, import_id)) is None:
        try:
            done = run_batch(partial(_apply_batch, plan, on_error, by_number, size))
            if not done:
                break
            size = min(BATCH, 2 * done)
        except RowRefusedError as end:
            outcome = end.outcome
            with_retries(partial(_store_failure, plan, outcome))
    if with_retries(partial(_failure, import_id)) is None:
        with_retries(partial(_finish, plan))
    else:
        import_undo.take_back(plan)


def _failure(import_id: int) -> str | None:
    with rolled_back_transaction():
        return get_or_404(Import, import_id).failure


def _apply_batch(plan: ImportPlan, on_error: OnError, by_number: Mapping[int, SourceRow], size: int) -> int:
    """Apply at most `size` rows that are ready. Return their number. Raises `RowRefusedError`."""
    with transaction(plan.operation) as actor:
        planned = _next_ready(plan.import_id, size)
        if not planned:
            return 0
        batch = [read_row(plan, by_number[row.number]) for row in planned]
        plan.kind.lock([row.row for row in batch if row.row is not None])
        lock_rows(plan.kind.model, (row.entity_id for row in planned if row.entity_id is not None))
        matches = find_matches(plan, batch)
        versions = versions_of(plan.kind, {row.entity_id for row in planned if row.entity_id is not None})
        outcomes: list[Outcome] = []
        end = time.monotonic() + BATCH_SECONDS
        for row, stored in zip(batch, planned, strict=True):
            outcome = _apply_row(plan, actor, row, stored, matches[row.number], versions)
            if outcome.state is State.REFUSED and on_error is OnError.NONE:
                raise RowRefusedError(outcome)
            outcomes.append(outcome)
            if time.monotonic() > end:
                break
        _save_results(plan, with_versions(plan.kind, outcomes))
        return len(outcomes)


def _next_ready(import_id: int, size: int) -> Sequence[Any]:
    return execute_core(
        select(ImportedRow.number, ImportedRow.action, ImportedRow.entity_id, ImportedRow.version)
        .where(ImportedRow.import_id == import_id, ImportedRow.state == State.READY)
        .order_by(ImportedRow.number)
        .limit(size)
        .with_for_update()
    ).all()


def _apply_row(
    plan: ImportPlan,
    actor: Actor,
    row: FileRow,
    planned: Any,
    match: Match,
    versions: Mapping[int, int],
) -> Outcome:
    changed = problem_of(None, "changed_since_dry_run", "changed since the dry run; run it again")
    if planned.action is ImportAction.UPDATE and (
        match.entity_ids != {planned.entity_id} or versions.get(planned.entity_id) != planned.version
    ):
        return refused(row, changed, entity_id=planned.entity_id)
    if planned.action is ImportAction.CREATE and match.entity_ids and not match.is_imported:
        return refused(row, changed, entity_id=match.entity_id)
    outcome = process(plan, actor, row, match)
    if outcome.previous is None:
        return outcome
    return replace(outcome, previous=outcome.previous | {import_undo.VERSION: planned.version})


def _save_results(plan: ImportPlan, outcomes: Sequence[Outcome]) -> None:
    statement = (
        update(_ROWS)
        .where(_ROWS.c.import_id == plan.import_id, _ROWS.c.number == bindparam("row_number"))
        .values({name: bindparam(f"new_{name}") for name in _SAVED})
    )
    values = []
    for outcome in outcomes:
        columns = _columns(outcome)
        new = {f"new_{name}": columns[name] for name in _SAVED}
        values.append({"row_number": outcome.file_row.number, **new})
    _execute_many(statement, values)
    _save_sources(plan, outcomes)
    counts = count_states(outcomes)
    save_counts(plan.import_id, counts | {State.READY: -len(outcomes)})


def _execute_many(statement: Any, values: list[dict[str, Any]]) -> None:
    """Execute a statement for many rows, without the ORM."""
    db.session.connection().execute(statement, values)


_SAVED = ("state", "action", "entity_id", "version", "problems", "previous")


def _save_sources(plan: ImportPlan, outcomes: Sequence[Outcome]) -> None:
    """Store from which rows of the file the records come. Raises `StaleDataError` for a row imported twice.

    A changed record may have its source already. A created one must not: another import has then created
    it too, after this one looked for it.
    """
    updated = [each for each in outcomes if each.action is ImportAction.UPDATE]
    known = _known_sources(plan, [each.file_row.source_id for each in updated])
    sources = [
        {
            "kind": plan.kind.name,
            "source": plan.source,
            "source_id": each.file_row.source_id,
            "entity_id": each.entity_id,
            "import_id": plan.import_id,
        }
        for each in outcomes
        if each.action is ImportAction.CREATE
        or (each.action is ImportAction.UPDATE and each.file_row.source_id not in known)
    ]
    if not sources:
        return
    try:
        _execute_many(insert(_SOURCES), sources)
    except IntegrityError as error:
        raise StaleDataError("another import has imported the same rows meanwhile") from error


def _known_sources(plan: ImportPlan, ids: Iterable[str]) -> set[str]:
    return set(
        execute_core(
            select(ImportSource.source_id).where(
                ImportSource.kind == plan.kind.name,
                ImportSource.source == plan.source,
                ImportSource.source_id.in_(list(ids)),
            )
        ).scalars()
    )


def _store_failure(plan: ImportPlan, outcome: Outcome) -> None:
    """Store the refused row, and that the applied rows must be taken back."""
    with transaction(plan.operation):
        _save_results(plan, [outcome])
        row = get_or_404(Import, plan.import_id, lock=True)
        row.failure = f"Row {outcome.file_row.number} was refused. The other rows were taken back."
        audit_log.set_action(row, "fail")


def _finish(plan: ImportPlan) -> None:
    with transaction(plan.operation):
        row = get_or_404(Import, plan.import_id, lock=True)
        row.state, row.applied_at = ImportState.APPLIED, clock.now()
        audit_log.set_action(row, "finish")
