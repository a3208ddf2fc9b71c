"""Duplicates inside one file. A dry run is rolled back, so that the database does not know earlier rows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass, field

from column_types import unique_key
from services.imports.content import FileRow
from services.imports.kinds import ImportKind
from services.patients.name_matching import similar_names

# A trait of more rows is a placeholder, such as 01/01/1900. It identifies nobody.
MAX_SHARING = 200


@dataclass
class FileDuplicates:
    """The accepted rows of a file by their identifying values: key -> number of the first row."""

    kind: ImportKind
    keys: dict[tuple[str, str], int] = field(default_factory=dict)
    entities: dict[int, int] = field(default_factory=dict)
    traits: defaultdict[str, list[tuple[int, str]]] = field(default_factory=lambda: defaultdict(list))
    last: tuple[FileRow, tuple[str, Collection[str]]] | None = None

    def find_same(self, row: FileRow, entity_id: int | None) -> tuple[str, int] | None:
        """Return the member with a value that an earlier row has, and the number of that row."""
        for key in self._keys(row):
            if self.keys.get(key, row.number) != row.number:
                return key[0], self.keys[key]
        if entity_id is not None and self.entities.get(entity_id, row.number) != row.number:
            return "row", self.entities[entity_id]
        return None

    def find_alike(self, row: FileRow) -> int | None:
        """Return the number of an earlier row that may be the same person."""
        name, traits = self._identify(row)
        for trait in traits:
            for number, other in self.traits[trait]:
                if number != row.number and similar_names(name, other):
                    return number
        return None

    def add(self, row: FileRow, entity_id: int | None) -> None:
        """Remember a row that was accepted."""
        for key in self._keys(row):
            self.keys[key] = row.number
        if entity_id is not None:
            self.entities[entity_id] = row.number
        name, traits = self._identify(row)
        for trait in traits:
            if len(self.traits[trait]) < MAX_SHARING:
                self.traits[trait].append((row.number, name))

    def _identify(self, row: FileRow) -> tuple[str, Collection[str]]:
        """Return the search key of the name and the traits. They are computed once for each row."""
        if row.row is None or self.kind.identify is None:
            return "", ()
        if self.last is None or self.last[0] is not row:
            self.last = row, self.kind.identify(row.row.values)
        return self.last[1]

    def _keys(self, row: FileRow) -> list[tuple[str, str]]:
        values = row.row.values if row.row is not None else {}
        unique = [(member, unique_key(values[member])) for member in self.kind.unique if values.get(member)]
        return [("source_id", row.source_id), *unique]
