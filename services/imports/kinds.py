"""The declaration of a kind of import: its columns, its validation and the functions of its service.

`create_app` fills `KINDS`, because the validation uses the schemas of the API.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy.orm import InstrumentedAttribute

from enums import ImportSubject
from models import Base
from security.permissions import Actor
from services.spreadsheets.columns import CellType, ImportColumn

# The column that every kind has: the id of the row in the system from which the file comes.
SOURCE_ID = ImportColumn(
    "source_id",
    CellType.CODE,
    synonyms=(
        *("id", "row id", "record id", "old id", "external id", "legacy id", "reference id"),
        *("kitambulisho cha zamani", "identifiant", "identificador", "id antiguo", "id antigo", "المعرف"),
    ),
)


@dataclass(frozen=True)
class ImportRow:
    """A valid row of a file, on its way to a service.

    - `source`: the system from which the file comes. Rows of one source may refer to each other.
    - `values`: the members, as `validate` returned them.
    - `given`: the names of the members whose cell is not empty. An update changes these only.
    - `notes`: what a person must review, such as a phone number that was restored.
    - `allow_duplicate`: create the row although it resembles another one.
    """

    source: str
    values: Mapping[str, Any]
    given: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()
    allow_duplicate: bool = False

    @property
    def changes(self) -> dict[str, Any]:
        """Return the members that an update changes."""
        return {name: value for name, value in self.values.items() if name in self.given}


def _lock_nothing(_rows: Sequence[ImportRow]) -> None:
    return None


def _use_nothing(_ids: Collection[int]) -> Iterable[int]:
    return ()


@dataclass(frozen=True)
class ImportKind:
    """A kind of import. All functions raise `ClinicError` for a row that they refuse.

    - `model`: the table of the rows that the import creates.
    - `columns`: the members that a column of a file can hold. `all_columns` adds `SOURCE_ID`.
    - `validate`: returns the values of a row from its members, or raises 422 with `errors`.
    - `create`: creates a row by the service of the API. It sets `needs_review` if `ImportRow.notes` has any.
    - `undo_create`: archives, cancels, deactivates or reverses a created row. It frees its unique values.
    - `unique`: the unique members, each with the column of their compared form (`column_types.unique_key`).
    - `identify`: returns the search key of the name and the identifying traits of a row. Two rows of a file
      with a common trait and similar names are likely duplicates.
    - `update`: changes the given members of an existing row. None: an import never changes an existing row.
    - `snapshot`: returns the members of a row that an update may change, as JSON.
    - `undo_update`: sets members back to the values that `snapshot` returned.
    - `lock`: locks what a batch of rows needs, in the order of `docs/architecture.md`.
    - `lock_created`: locks the rows to undo and what their undo changes. It returns the rows by id.
    - `versions`: returns the versions of rows by id. They change with each change of a row or of its parts.
      None: the column `version`.
    - `find_used`: returns the ids of created rows that other rows refer to since. They cannot be undone.
    """

    name: ImportSubject
    model: type[Base]
    columns: tuple[ImportColumn, ...]
    validate: Callable[[Mapping[str, Any]], dict[str, Any]]
    create: Callable[[Actor, ImportRow], Base]
    undo_create: Callable[[Actor, Any], None]
    unique: Mapping[str, InstrumentedAttribute[Any]] = field(default_factory=dict)
    identify: Callable[[Mapping[str, Any]], tuple[str, Collection[str]]] | None = None
    update: Callable[[Actor, Any, ImportRow], None] | None = None
    snapshot: Callable[[Any], dict[str, Any]] | None = None
    undo_update: Callable[[Actor, Any, Mapping[str, Any]], None] | None = None
    lock: Callable[[Sequence[ImportRow]], None] = _lock_nothing
    lock_created: Callable[[Collection[int]], Mapping[int, Base]] | None = None  # None: only the rows
    versions: Callable[[Collection[int]], dict[int, int]] | None = None
    find_used: Callable[[Collection[int]], Iterable[int]] = _use_nothing

    @property
    def all_columns(self) -> tuple[ImportColumn, ...]:
        """Return the columns with that of the source id."""
        return (SOURCE_ID, *self.columns)

    @property
    def entity(self) -> str:
        """Return the name of the rows in the audit log."""
        return self.model.__entity__ or self.model.__tablename__


KINDS: dict[ImportSubject, ImportKind] = {}


def freed(row: Any, name: str) -> str:
    """Return a unique value of an undone row in a form that leaves the value itself free.

    It is not longer than the column.
    """
    suffix = f" (undone {row.id})"
    value: str = getattr(row, name)
    return f"{value[: row.__table__.c[name].type.length - len(suffix)]}{suffix}"
