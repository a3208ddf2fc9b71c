"""Reading a query string against a `Listing`: one grammar, and the dialects of grids that speak others."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, time, timedelta
from decimal import Decimal
from typing import Any

from api.request_body import wrong_fields
from config import settings
from schemas.fields import MAX_ID, parse_day, parse_instant
from security.sanitize import text_problem
from services.listing.spec import MAX_PER_PAGE, Condition, Kind, ListQuery, ListSpec

SUFFIXES = {"_like": "like", "_gte": "gte", "_lte": "lte", "_ne": "ne"}
DIALECT = {"_sort": "sort_by", "_order": "sort_order", "_per_page": "per_page", "_page": "page"}
PAGING = ("page", "per_page", "sort_by", "sort_order", "after", "_start", "_end", "filter", "range", "sort")
RANGE = {"start": "start_date", "end": "end_date"}  # FullCalendar's names
DEEPEST = 10_000_000  # rows a page may begin at
MAX_TEXT = 200  # characters of one value
AMOUNT = re.compile(r"-?[0-9]{1,10}(\.[0-9]{1,2})?")


def _boolean(text: str) -> bool:
    values = {"true": True, "1": True, "false": False, "0": False}
    if text.lower() not in values:
        raise ValueError("must be true or false")
    return values[text.lower()]


def _integer(text: str) -> int:
    if not text.lstrip("-").isascii() or not text.lstrip("-").isdigit() or abs(int(text)) > MAX_ID:
        raise ValueError("must be a whole number")
    return int(text)


def _identifier(text: str) -> int:
    return _bounded(text, 0, MAX_ID)


def _text(text: str) -> str:
    if len(text) > MAX_TEXT:
        raise ValueError(f"must be at most {MAX_TEXT} characters")
    return text


def _amount(text: str) -> Decimal:
    if not AMOUNT.fullmatch(text):
        raise ValueError("must be an amount such as 125.00")
    return round(Decimal(text), 2)


def _day_or_instant(text: str) -> datetime:
    return parse_instant(text) if len(text) > 10 else _midnight(text)


def _midnight(text: str) -> datetime:
    return datetime.combine(parse_day(text), time.min, tzinfo=settings().zone).astimezone(UTC)


READERS: dict[Kind, Callable[[str], Any]] = {
    Kind.ID: _identifier,
    Kind.INTEGER: _integer,
    Kind.BOOLEAN: _boolean,
    Kind.TEXT: _text,
    Kind.DAY: parse_day,
    Kind.INSTANT: _day_or_instant,
    Kind.MONEY: _amount,
    Kind.DECIMAL: _amount,
}


def read_value(kind: Kind, values: tuple[str, ...], text: str) -> Any:
    """One value of a query string; ValueError says what is accepted."""
    if kind is Kind.ENUM:
        if text not in values:
            raise ValueError("must be one of " + ", ".join(values))
        return text
    return READERS[kind](text)


def accepted(listing: ListSpec[Any], *, paged: bool = True) -> list[str]:
    """Every parameter a list takes, for the document and for the refusal of others."""
    names = list(PAGING) if paged else []
    if listing.text is not None:
        names.append("q")
    if listing.main_date is not None:
        names += ["start_date", "end_date", "start", "end", "timeZone"]
    return names + sorted({*listing.columns, *listing.filters})


def read_list(listing: ListSpec[Any], pairs: list[tuple[str, str]]) -> ListQuery:
    """The query string as a `ListQuery`; 422 naming every parameter that is unknown or wrong."""
    reader = _Reader(listing)
    for name, text in pairs:
        reader.take(name, text)
    return reader.finish()


class _Reader:
    """Collects one query string; errors are gathered so that they come all at once."""

    def __init__(self, listing: ListSpec[Any]) -> None:
        self.listing = listing
        self.query = ListQuery()
        self.errors: dict[str, str] = {}
        self.several: dict[str, list[Any]] = {}
        self.page = 1
        self.rows: tuple[int, int] | None = None  # an explicit range, end exclusive

    def take(self, name: str, text: str) -> None:
        if text_problem(name) or text_problem(text):
            self.errors["query"] = "holds characters that cannot be stored"
            return
        name = DIALECT.get(name, name)
        try:
            if name in ("filter", "range", "sort"):
                self._take_json(name, text)
            elif name in PAGING:
                self._take_paging(name, text)
            else:
                self._take_condition(name, text)
                self.query.params[name] = text
        except ValueError as problem:
            self.errors[name] = str(problem)

    def _take_paging(self, name: str, text: str) -> None:
        if name == "sort_by":
            self._sort(text)
        elif name == "sort_order":
            if text.lower() not in ("asc", "desc"):
                raise ValueError("must be asc or desc")
            self.query.descending = text.lower() == "desc"
        elif name == "after":
            self.query.after = _bounded(text, 0, MAX_ID)
        elif name == "page":
            self.page = _bounded(text, 1, DEEPEST)
        elif name == "per_page":
            self.query.limit = _bounded(text, 1, MAX_PER_PAGE)
        else:
            first, last = self.rows or (0, 0)
            number = _bounded(text, 0, DEEPEST)
            self.rows = (number, last) if name == "_start" else (first, number)

    def _sort(self, name: str) -> None:
        if name not in self.listing.columns:
            raise ValueError("must be one of " + ", ".join(sorted(self.listing.columns)))
        self.query.sort_by = name

    def _take_json(self, name: str, text: str) -> None:
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            raise ValueError("must be JSON") from None
        if name == "filter":
            if not isinstance(value, dict):
                raise ValueError("must be a JSON object")
            for key, member in value.items():
                for single in member if isinstance(member, list) else [member]:
                    self.take(key, single if isinstance(single, str) else json.dumps(single))
            return
        if not isinstance(value, list) or len(value) != 2:
            raise ValueError("must be a JSON array of two")
        if name == "range":
            first, last = (_bounded(str(part), 0, DEEPEST) for part in value)
            self.rows = (first, last + 1)
        else:
            self._take_paging("sort_by", str(value[0]))
            self._take_paging("sort_order", str(value[1]))

    def _take_condition(self, name: str, text: str) -> None:
        listing = self.listing
        if name == "q" and listing.text is not None:
            self.query.q = _text(text).strip() or None
        elif listing.main_date is not None and name in ("start_date", "end_date", "start", "end"):
            self._bound(RANGE.get(name, name), text)
        elif name == "timeZone" and listing.main_date is not None:
            return  # FullCalendar names its zone beside instants that carry their offset
        elif name in listing.filters:
            wanted = listing.filters[name]
            self.query.named[name] = read_value(wanted.kind, wanted.values, text)
        elif name in listing.columns:
            kind, _column, values = listing.columns[name]
            self.several.setdefault(name, []).append(read_value(kind, values, text))
        else:
            self._take_suffixed(name, text)

    def _take_suffixed(self, name: str, text: str) -> None:
        for suffix, op in SUFFIXES.items():
            column = self.listing.columns.get(name.removesuffix(suffix))
            if name.endswith(suffix) and column is not None:
                kind, _column, values = column
                if op == "like" and kind is not Kind.TEXT:
                    raise ValueError("_like goes with text only")
                value = read_value(kind, values, text)
                self.query.conditions.append(Condition(name.removesuffix(suffix), op, value))
                return
        raise ValueError("is not a parameter here; accepted are " + ", ".join(accepted(self.listing)))

    def _bound(self, name: str, text: str) -> None:
        if len(text) <= 10:
            bound = _midnight(text)
            if name == "end_date":  # a bare day is included
                bound = _midnight((parse_day(text) + timedelta(days=1)).isoformat())
        else:
            # a '+' of an offset that was not percent-encoded arrives as a blank
            bound = parse_instant(text[:-6] + "+" + text[-5:] if text[-6] == " " else text)
        if name == "start_date":
            self.query.start = bound
        else:
            self.query.end = bound

    def finish(self) -> ListQuery:
        query = self.query
        for name, values in self.several.items():
            if len(values) == 1:
                query.conditions.append(Condition(name, "eq", values[0]))
            else:
                query.conditions.append(Condition(name, "in", values))
        if self.rows is not None:
            first, last = self.rows
            if last <= first:
                last = first + query.limit
            if last - first > MAX_PER_PAGE:
                self.errors["range"] = f"at most {MAX_PER_PAGE} rows at once"
            query.offset, query.limit = first, min(last - first, MAX_PER_PAGE)
        else:
            query.offset = (self.page - 1) * query.limit
        if query.start and query.end and query.end < query.start:
            self.errors["end_date"] = "must not be before start_date"
        if self.errors:
            raise wrong_fields(self.errors)
        return query


def _bounded(text: str, low: int, high: int) -> int:
    value = _integer(text)
    if not low <= value <= high:
        raise ValueError(f"must be between {low} and {high}")
    return value


def refuse_unknown(pairs: list[tuple[str, str]], known: set[str]) -> None:
    """422 for a parameter that an endpoint without list does not take."""
    errors = {}
    for name, text in pairs:
        if name not in known:
            shown = ", ".join(sorted(known)) or "none"
            errors[name if not text_problem(name) else "query"] = (
                f"is not a parameter here; accepted: {shown}"
            )
        elif text_problem(text):
            errors[name] = "holds characters that cannot be stored"
    if errors:
        raise wrong_fields(errors)
