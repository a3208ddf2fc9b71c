"""One row of an import: its action, and the calls of the services, inside a savepoint."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from sqlalchemy import select
from sqlalchemy.exc import DataError, IntegrityError

from column_types import unique_key
from database.failures import constraint_name
from enums import ImportAction, ImportRowState, OnDuplicate
from errors import CONSTRAINTS, ClinicError
from extensions import db
from models import Base, ImportSource
from security.permissions import Actor
from services.imports.content import FileRow, ImportPlan, Problem, problem_of, problems_of
from services.imports.kinds import ImportKind, ImportRow
from services.rows import lock_rows, mapping


@dataclass(frozen=True)
class Outcome:
    """The result of a row. `changed_id` is the row of the database that the import created or changed."""

    file_row: FileRow
    state: ImportRowState
    action: ImportAction = ImportAction.NONE
    entity_id: int | None = None
    version: int | None = None
    problems: tuple[Problem, ...] = ()
    previous: dict[str, Any] | None = None


@dataclass(frozen=True)
class Match:
    """The rows of the database that a row of the file identifies.

    `is_imported`: the row of the file was imported before. `field`: the member that identifies the row.
    """

    entity_ids: frozenset[int]
    is_imported: bool
    field: str | None

    @property
    def entity_id(self) -> int | None:
        """Return the only row, or None without one."""
        return next(iter(self.entity_ids)) if len(self.entity_ids) == 1 else None


def find_matches(plan: ImportPlan, rows: Sequence[FileRow]) -> dict[int, Match]:
    """Return the matches by the number of the row: by source id and by unique values, never by name."""
    imported = mapping(
        select(ImportSource.source_id, ImportSource.entity_id).where(
            ImportSource.kind == plan.kind.name,
            ImportSource.source == plan.source,
            ImportSource.source_id.in_([row.source_id for row in rows]),
        )
    )
    owners = {member: _owners(plan.kind, member, rows) for member in plan.kind.unique}
    matches = {}
    for row in rows:
        by_member = {
            member: owners[member][key]
            for member in owners
            if (key := _key(row, member)) is not None and key in owners[member]
        }
        found = {*by_member.values(), *filter(None, [imported.get(row.source_id)])}
        field = next(iter(by_member), None)
        matches[row.number] = Match(frozenset(found), row.source_id in imported, field)
    return matches


def _owners(kind: ImportKind, member: str, rows: Iterable[FileRow]) -> dict[str, int]:
    column = kind.unique[member]
    keys = {key for row in rows if (key := _key(row, member)) is not None}
    model: Any = kind.model
    return mapping(select(column, model.id).where(column.in_(keys))) if keys else {}


def _key(row: FileRow, member: str) -> str | None:
    value = row.row.values.get(member) if row.row is not None else None
    return unique_key(value) if value else None


def versions_of(kind: ImportKind, ids: Collection[int]) -> dict[int, int]:
    """Return the versions of rows by id."""
    if not ids:
        return {}
    if kind.versions is not None:
        return kind.versions(ids)
    model: Any = kind.model
    return mapping(select(model.id, model.version).where(model.id.in_(ids)))


# --- One row -------------------------------------------------------------------------------------------


def refused(row: FileRow, *problems: Problem, entity_id: int | None = None) -> Outcome:
    """Return the outcome of a row that is not imported because of problems."""
    return Outcome(row, ImportRowState.REFUSED, entity_id=entity_id, problems=problems)


def duplicate(plan: ImportPlan, row: FileRow, problem: Problem, entity_id: int | None = None) -> Outcome:
    """Return the outcome of a duplicate that is neither updated nor created."""
    is_skipped = plan.on_duplicate is OnDuplicate.SKIP
    state = ImportRowState.SKIPPED if is_skipped else ImportRowState.REFUSED
    return Outcome(row, state, entity_id=entity_id, problems=(problem,))


def process(plan: ImportPlan, actor: Actor, row: FileRow, match: Match) -> Outcome:
    """Create or update what the row describes, or return why not. Raises transient errors."""
    if row.row is None:
        return refused(row, *row.problems)
    kind, entity = plan.kind, plan.kind.entity.replace("_", " ")
    if len(match.entity_ids) > 1:
        message = "the values of this row identify different rows that exist"
        return refused(row, problem_of(match.field, "conflict", message))
    if match.entity_id is None:
        return _create(plan, actor, row, row.row)
    if plan.on_duplicate is OnDuplicate.UPDATE and kind.update is not None:
        return _guarded(row, partial(_update, plan, actor, row, row.row, match.entity_id))
    if match.is_imported:
        problem = problem_of(None, "already_imported", f"imported before as {entity} {match.entity_id}")
        return Outcome(row, ImportRowState.SKIPPED, entity_id=match.entity_id, problems=(problem,))
    message = f"{entity} {match.entity_id} has this value"
    return duplicate(plan, row, problem_of(match.field, "duplicate", message), match.entity_id)


def _guarded(row: FileRow, call: Callable[[], Outcome]) -> Outcome:
    """Run the call in a savepoint. Return a refusal as the outcome of the row."""
    try:
        return _in_savepoint(call)
    except ClinicError as refusal:
        return refused(row, *problems_of(refusal))
    except IntegrityError as error:
        code, field, message = CONSTRAINTS.get(
            constraint_name(error) or "", ("conflict", None, "The row conflicts with the stored data.")
        )
        return refused(row, problem_of(field, code, message))
    except DataError:
        return refused(row, problem_of(None, "validation_failed", "A value is out of range."))


def _in_savepoint(call: Callable[[], Outcome]) -> Outcome:
    with db.session.begin_nested():
        return call()


def _create(plan: ImportPlan, actor: Actor, row: FileRow, valid: ImportRow) -> Outcome:
    alike: list[int] = []

    def create(flagged: ImportRow, notes: tuple[Problem, ...]) -> Outcome:
        try:
            created = plan.kind.create(actor, flagged)
        except ClinicError as refusal:
            alike.extend(candidate["id"] for candidate in refusal.members.get("candidates", ()))
            raise
        db.session.flush()
        return Outcome(row, ImportRowState.APPLIED, ImportAction.CREATE, _id(created), problems=notes)

    outcome = _guarded(row, partial(create, valid, row.notes))
    if not alike:
        exists = any(problem["code"] == "already_exists" for problem in outcome.problems)
        return duplicate(plan, row, outcome.problems[0]) if exists else outcome
    text = f"may be the same as {plan.kind.entity.replace('_', ' ')} {', '.join(map(str, alike))}"
    problem = problem_of(None, "possible_duplicate", text)
    if plan.on_duplicate is not OnDuplicate.CREATE_FLAGGED:
        return duplicate(plan, row, problem, alike[0])
    flagged = replace(valid, allow_duplicate=True, notes=(*valid.notes, text))
    return _guarded(row, partial(create, flagged, (*row.notes, problem)))


def _update(plan: ImportPlan, actor: Actor, row: FileRow, valid: ImportRow, entity_id: int) -> Outcome:
    kind = plan.kind
    if kind.update is None or kind.snapshot is None:
        raise TypeError(f"{kind.name} cannot be updated")
    stored = lock_rows(kind.model, [entity_id])[entity_id]
    before = kind.snapshot(stored)
    kind.update(actor, stored, valid)
    db.session.flush()
    after = kind.snapshot(stored)
    previous = {name: value for name, value in before.items() if after[name] != value}
    if not previous:
        problem = problem_of(None, "unchanged", "the row exists with these values")
        return Outcome(row, ImportRowState.SKIPPED, entity_id=entity_id, problems=(problem,))
    return Outcome(
        row,
        ImportRowState.APPLIED,
        ImportAction.UPDATE,
        entity_id,
        problems=row.notes,
        previous=previous,
    )


def _id(row: Base) -> int:
    identifier: int = row.id  # type: ignore[attr-defined]
    return identifier


def with_versions(kind: ImportKind, outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Return the outcomes with the present versions of the rows that they created or changed."""
    ids = {each.entity_id for each in outcomes if each.action is not ImportAction.NONE and each.entity_id}
    versions: Mapping[int, int] = versions_of(kind, ids)
    return [
        replace(each, version=versions.get(each.entity_id or 0))
        if each.action is not ImportAction.NONE
        else each
        for each in outcomes
    ]


def count_states(outcomes: Iterable[Outcome]) -> dict[ImportRowState, int]:
    """Return the number of outcomes of each state."""
    counts: defaultdict[ImportRowState, int] = defaultdict(int)
    for outcome in outcomes:
        counts[outcome.state] += 1
    return dict(counts)
