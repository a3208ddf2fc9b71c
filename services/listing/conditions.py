"""Conditions of a query as SQL."""

from __future__ import annotations

import operator
from datetime import date, datetime
from typing import Any

from sqlalchemy import ColumnElement, and_, not_, or_, select

from column_types import InstantType, unique_key
from database.functions import contains_text
from errors import ClinicError
from models import Patient
from security.permissions import Actor, hidden
from services import clock
from services.listing.spec import (
    Condition,
    Kind,
    ListColumn,
    ListQuery,
    ListSpec,
    PreselectedIds,
    TextMatch,
    Where,
    contains,
    key_column,
)
from services.search_key import search_key

OPERATORS = {"eq": operator.eq, "gte": operator.ge, "lte": operator.le}


def check_visible(actor: Actor, spec: ListSpec[Any], query: ListQuery) -> None:
    """Raise 403 if a filter or the order uses a field that the role may not read.

    Some fields are hidden from doctors in the rows of others. They need a filter for their own rows.
    Emergency access needs a filter for its patient.
    """
    emergency = _selects_emergency_patients(actor, spec, query)
    secret = hidden(spec.area, actor.role, own=_selects_own_rows(actor, query), emergency=emergency)
    if not secret:
        return
    fields = {condition.name for condition in query.conditions} | {query.sort_by}
    fields |= {spec.filters[name].guards or name for name in query.named}
    if not fields & secret:
        return
    if fields & hidden(spec.area, actor.role, emergency=emergency):
        raise ClinicError("forbidden", "Your role may not filter or sort by this.")
    raise ClinicError("forbidden", "Filter or sort your own rows by this: add doctor_id with your own id.")


def _selects_own_rows(actor: Actor, query: ListQuery) -> bool:
    """Return True if the query selects no rows of other doctors."""
    return any(all(map(actor.owns, ids)) for ids in _chosen_ids(query, "doctor_id")) or actor.owns(None)


def _selects_emergency_patients(actor: Actor, spec: ListSpec[Any], query: ListQuery) -> bool:
    """Return True if the query selects only rows of patients that emergency access covers."""
    name = "id" if spec.model is Patient else "patient_id"
    return bool(actor.emergency_patients) and any(
        actor.emergency_patients.issuperset(ids) for ids in _chosen_ids(query, name)
    )


def _chosen_ids(query: ListQuery, name: str) -> list[list[int]]:
    """Return the ids to which each condition on the column limits the rows."""
    return [
        one.value if one.op == "in" else [one.value]
        for one in query.conditions
        if one.name == name and one.op in ("eq", "in")
    ]


def build_conditions(spec: ListSpec[Any], query: ListQuery) -> list[Where]:
    """Return the conditions of a query on columns, filters and the main date, without `q`."""
    conditions: list[Where] = [
        _compare(spec.columns[condition.name], condition) for condition in query.conditions
    ]
    for name, values in query.named.items():
        conditions.append(_any_of(spec, [spec.filters[name].where(value) for value in values]))
    if spec.main_date is not None:
        attribute = getattr(spec.model, spec.main_date)
        by_day = not isinstance(attribute.type, InstantType)
        for bound, compare in ((query.start, attribute.__ge__), (query.end, attribute.__lt__)):
            if bound is not None:
                conditions.append(compare(clock.local(bound).date() if by_day else bound))
    if spec.overlaps is not None and (query.overlap_start or query.overlap_end):
        conditions.append(spec.overlaps(query.overlap_start, query.overlap_end))
    return conditions


def _any_of(spec: ListSpec[Any], conditions: list[Where]) -> Where:
    """Return the condition that a row satisfies one of the conditions."""
    if len(conditions) == 1:
        return conditions[0]
    ids = {key for one in conditions if isinstance(one, PreselectedIds) for key in one.keys}
    others = [
        one.bound if isinstance(one, TextMatch) else one
        for one in conditions
        if not isinstance(one, PreselectedIds)
    ]
    if not others:
        return PreselectedIds(sorted(ids))
    return or_(key_column(spec).in_(ids), *others)


def _compare(column: ListColumn, condition: Condition) -> ColumnElement[bool]:
    """Return the comparison of a column. `ne` also selects rows without a value."""
    if condition.op == "ne":
        equal = _comparison(column, "eq", condition.value)
        if column.related is None:
            return or_(not_(equal), column.expression.is_(None)) if column.nullable else not_(equal)
        foreign_key = column.related.foreign_key
        others = foreign_key.not_in(select(column.related.key).where(equal))
        return or_(foreign_key.is_(None), others)
    comparison = _comparison(column, condition.op, condition.value)
    return comparison if column.related is None else column.related.selected_by(comparison)


def _comparison(column: ListColumn, op: str, value: Any) -> ColumnElement[bool]:
    expression = column.expression
    if op == "like":
        return or_(*(_contains_part(column, part) for part in value))
    if op in ("eq", "in"):
        for keys, key_of in ((column.folded, search_key), (column.unique, unique_key)):
            if keys is not None:
                expression = keys
                value = [key_of(each) for each in value] if op == "in" else key_of(value)
    values = value if op == "in" else [value]
    if column.kind is Kind.INSTANT and any(not isinstance(each, datetime) for each in values):
        return or_(*(_compare_instant(expression, op, each) for each in values))
    if op == "in":
        comparison: ColumnElement[bool] = expression.in_(value)
    else:
        comparison = OPERATORS[op](expression, value)
    return comparison


def _compare_instant(expression: Any, op: str, value: date) -> ColumnElement[bool]:
    """Compare an instant with an instant, or with a whole day of the clinic."""
    if isinstance(value, datetime):
        comparison: ColumnElement[bool] = OPERATORS.get(op, operator.eq)(expression, value)
        return comparison
    starts, ends = expression >= clock.day_start(value), expression < clock.day_end(value)
    comparisons: dict[str, ColumnElement[bool]] = {"gte": starts, "lte": ends}
    return comparisons.get(op, and_(starts, ends))


def _contains_part(column: ListColumn, part: str) -> ColumnElement[bool]:
    if column.contains is not None:
        return column.contains(search_key(part))
    condition: ColumnElement[bool] = contains_text(column.expression, part)
    return condition


def like_pattern(part: str) -> str:
    """Return the LIKE pattern, with the escape character `/`, of texts that contain the part."""
    return "%" + part.replace("/", "//").replace("%", "/%").replace("_", "/_") + "%"


def words_in(column: Any, text: str) -> ColumnElement[bool]:
    """Return the condition that a column of search keys contains every word of the text, in any order."""
    return and_(*(contains(column, word) for word in search_key(text).split() or [""]))
