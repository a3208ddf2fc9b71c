"""Query strings of lists, parsed by a `ListSpec`.

Beside the parameters of this API, the parameter names of common data grids and of FullCalendar are accepted.
"""

from __future__ import annotations

import difflib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, time
from decimal import Decimal
from typing import Any

from api import calendar_range
from api.field_errors import wrong_fields
from api.response_format import LIST_FORMATS
from config import settings
from schemas.fields import MAX_ID, parse_day, parse_instant
from security.sanitize import text_problem
from services.listing.spec import MAX_PER_PAGE, Condition, Kind, ListColumn, ListQuery, ListSpec

SUFFIXES = {"_like": "like", "_gte": "gte", "_lte": "lte", "_ne": "ne"}
ALIASES = {"_sort": "sort_by", "_order": "sort_order", "_per_page": "per_page", "_page": "page"}
PAGING = (
    *("page", "per_page", "sort_by", "sort_order", "after", "_start", "_end", "filter", "range", "sort"),
    "format",
)
OF_PAGES = {"page", "per_page", "after", "_start", "_end", "range"}
MAX_OFFSET = 10_000_000  # rows
MAX_TEXT = 200  # characters of one value
UNSTORABLE = "contains characters that cannot be stored"
TWICE = "is given twice; give it once"
NO_VALUE = "must be a text, a number, true or false, or an array of them; leave it out for all rows"
NO_PAGE = "selects a page, but a file contains all rows; leave it out"
AMOUNT = re.compile(r"-?[0-9]{1,12}(\.[0-9]{1,2})?")
INTEGER = re.compile(r"-?[0-9]{1,20}")
UNIT_COST = re.compile(r"-?[0-9]{1,10}(\.[0-9]{1,4})?")


def _parse_boolean(text: str) -> bool:
    values = {"true": True, "1": True, "false": False, "0": False}
    if text.lower() not in values:
        raise ValueError("must be true or false")
    return values[text.lower()]


def _parse_integer(text: str) -> int:
    if not INTEGER.fullmatch(text) or abs(int(text)) > MAX_ID:
        raise ValueError("must be a whole number")
    return int(text)


def _parse_id(text: str) -> int:
    return _parse_bounded(text, 0, MAX_ID)


def _parse_text(text: str) -> str:
    if len(text) > MAX_TEXT:
        raise ValueError(f"must be at most {MAX_TEXT} characters")
    return text


def _parse_amount(text: str) -> Decimal:
    if not AMOUNT.fullmatch(text):
        raise ValueError("must be an amount such as 125.00")
    return round(Decimal(text), 2)


def _parse_unit_cost(text: str) -> Decimal:
    if not UNIT_COST.fullmatch(text):
        raise ValueError("must be a cost such as 0.0125")
    return Decimal(text)


def _parse_day_or_instant(text: str) -> datetime:
    return _parse_midnight(text) if _is_day(text) else parse_instant(calendar_range.decode_offset(text))


def _is_day(text: str) -> bool:
    return len(text) <= 10


def _parse_midnight(text: str) -> datetime:
    return datetime.combine(parse_day(text), time.min, tzinfo=settings().zone).astimezone(UTC)


PARSERS: dict[Kind, Callable[[str], Any]] = {
    Kind.ID: _parse_id,
    Kind.INTEGER: _parse_integer,
    Kind.BOOLEAN: _parse_boolean,
    Kind.TEXT: _parse_text,
    Kind.DAY: parse_day,
    Kind.INSTANT: _parse_day_or_instant,
    Kind.MONEY: _parse_amount,
    Kind.UNIT_COST: _parse_unit_cost,
    Kind.DECIMAL: _parse_amount,
}


def _parse_value(kind: Kind, values: tuple[str, ...], text: str) -> Any:
    """Return one value of a query string. ValueError describes the accepted values."""
    if kind is Kind.ENUM:
        if text not in values:
            raise ValueError("must be one of " + ", ".join(values))
        return text
    return PARSERS[kind](text)


def _parse_for_column(column: ListColumn, text: str) -> Any:
    """Return the value of a comparison with a column. A date means the whole day, also for instants."""
    if column.kind is Kind.INSTANT and _is_day(text):
        return parse_day(text)
    return _parse_value(column.kind, column.values, text)


def _accepted_parameters(list_spec: ListSpec[Any]) -> list[str]:
    """Return the names of all parameters of a list, without the forms with a suffix."""
    names = list(PAGING)
    if list_spec.text is not None:
        names.append("q")
    if list_spec.main_date is not None:
        names += calendar_range.PARAMETERS
    return names + sorted({*list_spec.columns, *list_spec.filters})


def read_list(list_spec: ListSpec[Any], pairs: list[tuple[str, str]], *, is_file: bool = False) -> ListQuery:
    """Return the query string as a `ListQuery`, or raise 422 with every unknown or wrong parameter.

    A file contains all rows: its query string may not select a page.
    """
    parser = _Parser(list_spec, is_file=is_file)
    for name, text in pairs:
        parser.add(name, text)
    return parser.finish()


class _Parser:
    """The parser of one query string. It collects the errors, to report all of them at once."""

    def __init__(self, list_spec: ListSpec[Any], *, is_file: bool) -> None:
        self.list_spec, self.is_file = list_spec, is_file
        self.query = ListQuery()
        self.errors: dict[str, str] = {}
        self.seen: set[str] = set()
        self.sort_order_is_given = False
        self.equal_to: dict[str, list[Any]] = {}  # column -> values of its parameters
        self.parts: dict[str, list[str]] = {}  # column -> values of its `_like` parameters
        self.range_texts: dict[str, str] = {}  # parameter of a date range -> text
        self.page = 1
        self.per_page: int | None = None
        self.row_range: tuple[int, int] | None = None  # offsets, end exclusive

    def add(self, name: str, text: str) -> None:
        if text_problem(name) or text_problem(text):
            self.errors["query"] = UNSTORABLE
            return
        name = ALIASES.get(name, name)
        try:
            if name in ("filter", "range", "sort"):
                self._add_json(name, text)
            elif name in PAGING:
                self._add_paging(name, text)
            else:
                self._add_condition(name, text)
                self._add_param(name, text)
        except ValueError as error:
            self.errors[name] = str(error)

    def _add_param(self, name: str, text: str) -> None:
        """Store a parameter as sent: a text, or the list of the texts of a repeated parameter."""
        before = self.query.params.get(name)
        if before is None:
            self.query.params[name] = text
        else:
            self.query.params[name] = [*before, text] if isinstance(before, list) else [before, text]

    def _require_once(self, name: str) -> None:
        """Raise ValueError if the query string contains a parameter again that has one value."""
        if name in self.seen:
            raise ValueError(TWICE)
        self.seen.add(name)

    def _add_paging(self, name: str, text: str) -> None:
        self._require_once(name)
        if self.is_file and name in OF_PAGES:
            raise ValueError(NO_PAGE)
        if name == "sort_by":
            self._set_sort_column(text)
        elif name == "sort_order":
            if text.lower() not in ("asc", "desc"):
                raise ValueError("must be asc or desc")
            self.query.descending = text.lower() == "desc"
            self.sort_order_is_given = True
        elif name == "format":
            if text not in LIST_FORMATS:
                raise ValueError("must be one of " + ", ".join(LIST_FORMATS))
        elif name == "after":
            self.query.after = _parse_bounded(text, 0, MAX_ID)
        elif name == "page":
            self.page = _parse_bounded(text, 1, MAX_OFFSET)
        elif name == "per_page":
            self.per_page = _parse_bounded(text, 1, MAX_PER_PAGE)
        else:
            first, last = self.row_range or (0, 0)
            number = _parse_bounded(text, 0, MAX_OFFSET)
            self.row_range = (number, last) if name == "_start" else (first, number)

    def _set_sort_column(self, name: str) -> None:
        if name not in self.list_spec.columns:
            self._refuse_excluded(name)
            known = sorted(self.list_spec.columns)
            raise ValueError(f"{suggestion(name, known)}must be one of {', '.join(known)}")
        self.query.sort_by = name

    def _add_json(self, name: str, text: str) -> None:
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            raise ValueError("must be JSON") from None
        self._require_once(name)
        if name == "filter":
            if not isinstance(value, dict):
                raise ValueError("must be a JSON object")
            for key, member in value.items():
                self._add_json_filter(key, member)
            return
        if not isinstance(value, list) or len(value) != 2:
            raise ValueError("must be a JSON array of two values")
        if name == "range":
            if self.is_file:
                raise ValueError(NO_PAGE)
            first, last = (_parse_bounded(str(part), 0, MAX_OFFSET) for part in value)
            self.row_range = (first, last + 1)
        else:
            self._add_paging("sort_by", str(value[0]))
            self._add_paging("sort_order", str(value[1]))

    def _add_json_filter(self, name: str, member: Any) -> None:
        """Add one member of the JSON parameter `filter`. An array means any of its values.

        An empty array selects no row, and with `_ne` it excludes none.
        """
        elements = member if isinstance(member, list) else [member]
        if text_problem(name):
            self.errors["filter"] = UNSTORABLE
        elif any(element is None or isinstance(element, (dict, list)) for element in elements):
            self.errors[name] = NO_VALUE
        elif elements:
            for element in elements:
                self.add(name, element if isinstance(element, str) else json.dumps(element))
        elif name in self.list_spec.filters:
            self.query.named.setdefault(name, [])
        elif name in self.list_spec.columns:
            self.equal_to.setdefault(name, [])
        elif name.removesuffix("_ne") not in self.list_spec.columns:
            self.errors[name] = NO_VALUE

    def _add_condition(self, name: str, text: str) -> None:
        list_spec = self.list_spec
        if name == "q" and list_spec.text is not None:
            self._require_once(name)
            self.query.q = _parse_text(text).strip() or None
        elif list_spec.main_date is not None and name in calendar_range.PARAMETERS:
            self._require_once(name)
            self.range_texts[name] = text
        elif name in list_spec.filters:
            condition = list_spec.filters[name]
            value = _parse_value(condition.kind, condition.values, text)
            if condition.once:
                self._require_once(name)
            self.query.named.setdefault(name, []).append(value)
        elif name in list_spec.columns:
            column = list_spec.columns[name]
            self.equal_to.setdefault(name, []).append(_parse_for_column(column, text))
        else:
            self._add_suffixed_condition(name, text)

    def _add_suffixed_condition(self, name: str, text: str) -> None:
        for suffix, op in SUFFIXES.items():
            column = self.list_spec.columns.get(name.removesuffix(suffix))
            if name.endswith(suffix) and column is not None:
                if op == "like" and column.kind is not Kind.TEXT:
                    raise ValueError("_like is for text only")
                if op in ("gte", "lte"):
                    if column.kind is Kind.BOOLEAN:
                        raise ValueError("_gte and _lte are not for true and false")
                    self._require_once(name)
                value = _parse_for_column(column, text)
                if op == "like":
                    self.parts.setdefault(name.removesuffix(suffix), []).append(value)
                else:
                    self.query.conditions.append(Condition(name.removesuffix(suffix), op, value))
                return
            self._refuse_excluded(name.removesuffix(suffix))
        raise ValueError(not_a_parameter(name, _accepted_parameters(self.list_spec)))

    def _refuse_excluded(self, name: str) -> None:
        reason = self.list_spec.excluded.get(name)
        if reason is not None:
            raise ValueError(f"cannot sort or filter this list: {reason}")

    def finish(self) -> ListQuery:
        query = self.query
        self.errors |= calendar_range.read_range(self.list_spec, self.range_texts, query)
        query.limit = self.per_page or query.limit
        for name, values in self.equal_to.items():
            if len(values) == 1:
                query.conditions.append(Condition(name, "eq", values[0]))
            else:
                query.conditions.append(Condition(name, "in", values))
        query.conditions += [Condition(name, "like", parts) for name, parts in self.parts.items()]
        if "sort_by" not in self.seen and not self.sort_order_is_given:
            query.descending = self.list_spec.newest_first
        if query.after is not None:  # always by id, ascending
            query.sort_by, query.descending = "id", False
        if self.row_range is not None:
            first, last = self.row_range
            if last <= first:
                last = first + query.limit
            if last - first > MAX_PER_PAGE:
                self.errors["range"] = f"must be at most {MAX_PER_PAGE} rows"
            query.offset, query.limit = first, min(last - first, MAX_PER_PAGE)
        else:
            query.offset = (self.page - 1) * query.limit
        if self.errors:
            raise wrong_fields(self.errors)
        return query


def _parse_bounded(text: str, low: int, high: int) -> int:
    value = _parse_integer(text)
    if not low <= value <= high:
        raise ValueError(f"must be between {low} and {high}")
    return value


def suggestion(name: str, known: Iterable[str]) -> str:
    """Return a question for the known name that is most similar to an unknown one, or an empty text."""
    nearest = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {nearest[0]}? " if nearest else ""


def not_a_parameter(name: str, known: Sequence[str]) -> str:
    """Return the error for an unknown parameter: the nearest known one, and all of them."""
    accepted = ", ".join(known) or "none"
    return f"is not a parameter here; {suggestion(name, known)}accepted: {accepted}"


def refuse_unknown(pairs: list[tuple[str, str]], known: set[str]) -> None:
    """Raise 422 for unknown and repeated parameters of an endpoint that is not a list."""
    errors = {}
    names = Counter(name for name, _text in pairs)
    for name, text in pairs:
        if name not in known:
            errors[name if not text_problem(name) else "query"] = not_a_parameter(name, sorted(known))
        elif text_problem(text):
            errors[name] = UNSTORABLE
        elif names[name] > 1:
            errors[name] = TWICE
    if errors:
        raise wrong_fields(errors)
