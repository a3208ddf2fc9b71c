"""The declaration of a list, and a parsed query for it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from enum import StrEnum
from functools import cached_property, partial
from typing import Any, Generic, TypeVar

from sqlalchemy import ColumnElement, Select, select
from sqlalchemy import Row as ResultRow
from sqlalchemy.orm import InstrumentedAttribute
from sqlalchemy.orm.interfaces import ORMOption

from column_types import InstantType, MoneyType, UnitCostType
from models import Base
from security.permissions import Actor
from services.rows import Record

Row = TypeVar("Row", bound=Base)

MAX_PER_PAGE = 1_000
MAX_SUMS = 100_000  # rows of which a sum of related rows can sort a list
MAX_JOINS = 1_000_000  # rows of which a column of a related row can sort a list
MAX_MATCHES = 5_000  # of a text search whose matches are read before the page
PRIVATE_ENDINGS = ("_fold", "_key", "_hash", "_digits")


class Kind(StrEnum):
    """The type of a query value."""

    ID = "id"
    INTEGER = "integer"
    BOOLEAN = "boolean"
    ENUM = "enum"
    TEXT = "text"
    DAY = "day"
    INSTANT = "instant"
    MONEY = "money"
    UNIT_COST = "unit_cost"
    DECIMAL = "decimal"


@dataclass(frozen=True)
class PreselectedIds:
    """A filter resolved in advance to the primary keys of its matches."""

    keys: Sequence[int]


@dataclass(frozen=True, eq=False)
class TextMatch:
    """A search for parts of a text. PostgreSQL cannot estimate how rare they are.

    So the matches are read first, at most `MAX_MATCHES` of them. PostgreSQL may otherwise read a whole list
    for a page that is never full. With more matches, a page is full soon in any order. `condition` has the
    bind parameters of `values`. Its statement is built once for each object, so cache the condition.
    """

    condition: ColumnElement[bool]
    values: Mapping[str, Any]

    @property
    def bound(self) -> ColumnElement[bool]:
        """Return the condition with its values."""
        return self.condition.params(self.values)


def contains(column: Any, part: str) -> ColumnElement[bool]:
    """Return the condition that a column of search keys contains the part. `%` and `_` have no meaning."""
    condition: ColumnElement[bool] = column.contains(part, autoescape=True)
    return condition


Where = ColumnElement[bool] | PreselectedIds | TextMatch


@dataclass(frozen=True)
class Filter:
    """A filter of a list that is not a comparison with a column.

    `where` returns the condition for a value. `values` lists the values of an enum. `guards` names the field
    that the caller must be allowed to read, if that is not the name of the filter. With `once` it is a bound
    of a range, which a query may contain once. Several values of other filters mean any of them.
    """

    kind: Kind
    where: Callable[[Any], Where]
    summary: str
    values: tuple[str, ...] = ()
    guards: str | None = None
    once: bool = False


@dataclass(frozen=True, eq=False)
class RelatedRow:
    """A row of another table that a row of a list refers to: its (aliased) entity and the foreign key."""

    entity: Any
    foreign_key: Any

    @property
    def key(self) -> Any:
        """Return the primary key of the related row."""
        return self.entity.id

    def selected_by(self, condition: ColumnElement[bool]) -> ColumnElement[bool]:
        """Return the condition that the related row satisfies a condition."""
        refers: ColumnElement[bool] = self.foreign_key.in_(select(self.key).where(condition))
        return refers


@dataclass(frozen=True, eq=False)
class ListColumn:
    """A scalar member of the rows of a list: its type, and the SQL expression of the value that rows show.

    - `values`: the values of an enum.
    - `contains` returns the condition that the search key of a text contains a part of a search key.
    - `folded`: the search keys of a name, which are compared in place of the name.
    - `unique`: the form in which unique texts are compared.
    - `related`: the related row that has the column, if it is not a column of the list itself.
    - `max_rows`: the number of rows for which the database computes the value in less than a second.
    """

    kind: Kind
    expression: Any
    values: tuple[str, ...] = ()
    nullable: bool = True
    contains: Callable[[str], ColumnElement[bool]] | None = None
    folded: Any = None
    unique: Any = None
    related: RelatedRow | None = None
    max_rows: int | None = None


@dataclass(frozen=True)
class Records:
    """Rows that are read as columns: the statement, and a function that adds computed fields."""

    statement: Select[Any]
    complete: Callable[[Sequence[Record]], None]

    @cached_property
    def _names(self) -> tuple[str, ...]:
        return tuple(self.statement.selected_columns.keys())

    def read(self, rows: Iterable[ResultRow[Any]]) -> list[Record]:
        """Return the records of result rows. Further columns at the end of a row are ignored."""
        records = []
        for row in rows:
            record = Record()
            record.__dict__.update(zip(self._names, row, strict=False))
            records.append(record)
        self.complete(records)
        return records


@dataclass(frozen=True, eq=False)
class ListSpec(Generic[Row]):
    """The declaration of a list: its columns, filters, search and order.

    - `area`: the row of the table of hidden fields. `main_date`: the column of `start_date` and `end_date`.
    - `overlaps` returns the condition that a row overlaps a range, which may be open on one side.
    - `text` returns the condition for `q`; `nearly` the one to use if `text` finds nothing.
    - `scope` limits the rows to those that the caller may see.
    - `names`: API names of columns whose attribute has another name. `omit`: columns that no response shows.
    - `computed`: members that are not stored columns of the model, or differ from them.
    - `excluded`: scalar members that cannot sort or filter, each with its reason.
    - `filters`: filters that are not comparisons with a column. `newest_first`: the default order.
    - `joins` and `options` load related rows. `records` reads rows without the ORM, for frequent lists.
    - `kept_since`: the creation time of rows that are never deleted; old ones are then counted only once.
    """

    name: str
    model: type[Row]
    area: str
    main_date: str | None = None
    overlaps: Callable[[datetime | None, datetime | None], ColumnElement[bool]] | None = None
    text: Callable[[str], Where] | None = None
    nearly: Callable[[str], Where] | None = None
    scope: Callable[[Actor], ColumnElement[bool] | None] | None = None
    options: Sequence[ORMOption] = ()
    names: Mapping[str, str] = field(default_factory=dict)
    filters: Mapping[str, Filter] = field(default_factory=dict)
    omit: frozenset[str] = frozenset()
    joins: Callable[[Select[Any]], Select[Any]] | None = None
    computed: Mapping[str, ListColumn] = field(default_factory=dict)
    excluded: Mapping[str, str] = field(default_factory=dict)
    newest_first: bool = False
    records: Records | None = None
    kept_since: str | None = None

    @cached_property
    def columns(self) -> dict[str, ListColumn]:
        """Return the columns that can sort and filter, stored and computed, by API name."""
        renamed = {attribute: name for name, attribute in self.names.items()}
        columns: dict[str, ListColumn] = {}
        for column in self.model.__mapper__.column_attrs:
            key = column.key
            if key in self.omit or key.endswith(PRIVATE_ENDINGS):
                continue
            attribute = getattr(self.model, key)
            kind, values = _kind_of(key, attribute)
            if kind is not None:
                search_keys = getattr(self.model, f"{key}_fold", None)
                columns[renamed.get(key, key)] = ListColumn(
                    kind,
                    attribute,
                    values,
                    nullable=bool(column.columns[0].nullable),
                    contains=None if search_keys is None else partial(contains, search_keys),
                    folded=search_keys,
                    unique=getattr(self.model, f"{key}_key", None),
                )
        return columns | dict(self.computed)


def _kind_of(key: str, attribute: InstrumentedAttribute[Any]) -> tuple[Kind | None, tuple[str, ...]]:
    kind_of_type = attribute.type
    if key == "id" or key.endswith("_id"):
        return (Kind.ID, ()) if kind_of_type.python_type is int else (Kind.TEXT, ())
    if isinstance(kind_of_type, UnitCostType):
        return Kind.UNIT_COST, ()
    if isinstance(kind_of_type, MoneyType):
        return Kind.MONEY, ()
    if isinstance(kind_of_type, InstantType):
        return Kind.INSTANT, ()
    python = kind_of_type.python_type
    if issubclass(python, StrEnum):
        return Kind.ENUM, tuple(member.value for member in python)
    kinds = {bool: Kind.BOOLEAN, int: Kind.INTEGER, str: Kind.TEXT, datetime: Kind.INSTANT, date: Kind.DAY}
    if python in (list, dict):
        return None, ()
    return kinds.get(python, Kind.DECIMAL), ()


@dataclass
class Condition:
    """A comparison with a column: `op` is eq, ne, gte, lte, like or in."""

    name: str
    op: str
    value: Any


@dataclass
class ListQuery:
    """A parsed query string: conditions, order and page.

    With `keys_only` the page holds the primary keys of its rows, and no rows. With `keys` it holds the rows
    with these keys, in their order, as far as the caller may see them. The other members are then ignored.
    """

    conditions: list[Condition] = field(default_factory=list)
    named: dict[str, list[Any]] = field(default_factory=dict)  # special filter -> values, any of them
    q: str | None = None
    start: datetime | None = None  # of the main date, inclusive
    end: datetime | None = None  # of the main date, exclusive
    overlap_start: datetime | None = None  # of a half-open range that the rows overlap
    overlap_end: datetime | None = None
    sort_by: str = "id"
    descending: bool = False
    offset: int = 0
    limit: int = 20
    after: int | None = None
    keys_only: bool = False
    keys: Sequence[int] | None = None
    params: dict[str, str | list[str]] = field(default_factory=dict)  # as sent, for `search_params`

    @property
    def filtered(self) -> bool:
        """Return True if the query has any condition."""
        bounds = (self.start, self.end, self.overlap_start, self.overlap_end)
        return bool(self.conditions or self.named or self.q or any(bounds))


@dataclass
class Page(Generic[Row]):
    """A page of a list. If `capped`, there are more matches than `total`. `keys`: see `ListQuery`."""

    rows: list[Row]
    total: int
    capped: bool
    query: ListQuery
    keys: Sequence[int] = ()


def key_column(spec: ListSpec[Any]) -> Any:
    """Return the primary key column of a list."""
    return spec.model.__mapper__.primary_key[0]


def select_keys(spec: ListSpec[Any]) -> Select[Any]:
    """Return the statement that selects the keys of all rows of a list."""
    keys = select(key_column(spec))
    return keys if spec.joins is None else spec.joins(keys)


def select_rows(spec: ListSpec[Any]) -> Select[Any]:
    """Return the statement that selects all rows of a list."""
    rows: Select[Any] = select(spec.model) if spec.records is None else spec.records.statement
    return rows if spec.joins is None else spec.joins(rows)
