"""Conditions of a query as SQL."""

from __future__ import annotations

import operator
from typing import Any

from sqlalchemy import ColumnElement, and_, or_

from column_types import InstantType, unique_key
from errors import ClinicError
from security.permissions import Actor, hidden
from services import clock
from services.listing.spec import Condition, ListQuery, ListSpec, Where
from services.search_key import search_key


def check_visible(actor: Actor, spec: ListSpec[Any], query: ListQuery) -> None:
    """Raise 403 if a filter or the order uses a field that the role may not read.

    Some fields are hidden from doctors in the rows of others. They need a filter for their own rows.
    """
    secret = hidden(spec.area, actor.role, own=_selects_own_rows(actor, query))
    if not secret:
        return
    fields = {condition.name for condition in query.conditions} | {query.sort_by}
    fields |= {spec.filters[name].guards or name for name in query.named}
    if not fields & secret:
        return
    if fields & hidden(spec.area, actor.role):
        raise ClinicError("forbidden", "Your role may not filter or sort by this.")
    raise ClinicError("forbidden", "Filter or sort your own rows by this: add doctor_id with your own id.")


def _selects_own_rows(actor: Actor, query: ListQuery) -> bool:
    """Return True if the query selects no rows of other doctors."""
    chosen = [
        one.value if one.op == "in" else [one.value]
        for one in query.conditions
        if one.name == "doctor_id" and one.op in ("eq", "in")
    ]
    return any(all(map(actor.owns, ids)) for ids in chosen) or actor.owns(None)


def build_conditions(spec: ListSpec[Any], query: ListQuery) -> list[Where]:
    """Return the conditions of a query on columns, filters and the main date, without `q`."""
    conditions: list[Where] = [_compare(spec, condition) for condition in query.conditions]
    conditions += [spec.filters[name].where(value) for name, value in query.named.items()]
    if spec.main_date is not None:
        attribute = getattr(spec.model, spec.main_date)
        by_day = not isinstance(attribute.type, InstantType)
        for bound, compare in ((query.start, attribute.__ge__), (query.end, attribute.__lt__)):
            if bound is not None:
                conditions.append(compare(clock.local(bound).date() if by_day else bound))
    if spec.overlaps is not None and (query.overlap_start or query.overlap_end):
        conditions.append(spec.overlaps(query.overlap_start, query.overlap_end))
    return conditions


def _compare(spec: ListSpec[Any], condition: Condition) -> ColumnElement[bool]:
    _kind, attribute, _values = spec.columns[condition.name]
    column = spec.shown.get(condition.name, attribute)
    value = condition.value
    unique = getattr(spec.model, f"{attribute.key}_key", None)
    if unique is not None and condition.op in ("eq", "ne", "in"):
        column = unique
        value = [unique_key(each) for each in value] if condition.op == "in" else unique_key(value)
    if condition.op == "in":
        return column.in_(value)
    if condition.op == "like":
        key_column = getattr(spec.model, f"{attribute.key}_fold", None)
        if key_column is not None:
            return contains(key_column, search_key(value))
        return attribute.icontains(value, autoescape=True)
    if condition.op == "ne":
        return or_(column != value, column.is_(None))
    compare = {"eq": operator.eq, "gte": operator.ge, "lte": operator.le}[condition.op]
    comparison: ColumnElement[bool] = compare(column, value)
    return comparison


def like_pattern(part: str) -> str:
    """Return the LIKE pattern, with the escape character `/`, of texts that contain the part."""
    return "%" + part.replace("/", "//").replace("%", "/%").replace("_", "/_") + "%"


def contains(column: Any, part: str) -> ColumnElement[bool]:
    """Return the condition that a column of search keys contains the part. `%` and `_` have no meaning."""
    condition: ColumnElement[bool] = column.contains(part, autoescape=True)
    return condition


def words_in(column: Any, text: str) -> ColumnElement[bool]:
    """Return the condition that a column of search keys contains every word of the text, in any order."""
    return and_(*(contains(column, word) for word in search_key(text).split() or [""]))
