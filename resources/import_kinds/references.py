"""The patient and the doctor of a row, found by identifiers. Nobody is found by a name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Select, or_, select

from column_types import unique_key
from enums import ImportSubject
from errors import invalid
from extensions import db
from models import Base, Doctor, ImportSource, Patient
from resources.import_kinds.shared_columns import EMAIL, FILE_NUMBER, LICENSE_NUMBER, as_reference
from services.imports.kinds import ImportRow
from services.spreadsheets.columns import CellType, ImportColumn


@dataclass(frozen=True)
class Identifier:
    """A member that identifies a row: its column in a file, and the compared column of the table.

    Without a `key` the value is the id in the system from which the files come.
    """

    column: ImportColumn
    key: Any = None

    def matches(self, reference: Reference, value: str, source: str) -> ColumnElement[bool]:
        """Return the condition for the rows that have the value."""
        if self.key is not None:
            equal: ColumnElement[bool] = self.key == unique_key(value)
            return equal
        imported = select(ImportSource.entity_id).where(
            ImportSource.kind == reference.kind,
            ImportSource.source == source,
            ImportSource.source_id == value,
        )
        named: ColumnElement[bool] = reference.id.in_(imported)
        return named


@dataclass(frozen=True)
class Reference:
    """A row that another row names, by one identifier or by several that agree."""

    name: str
    kind: ImportSubject
    model: type[Base]
    identifiers: tuple[Identifier, ...]

    @property
    def id(self) -> Any:
        """Return the column with the id."""
        return self.model.__table__.c.id

    @property
    def columns(self) -> tuple[ImportColumn, ...]:
        """Return the columns of a file that identify the row."""
        return tuple(identifier.column for identifier in self.identifiers)

    def take(self, members: dict[str, Any]) -> dict[str, str]:
        """Remove the identifiers from the members of a row and return them. Raise 422 if there is none."""
        names = [column.name for column in self.columns]
        given = {name: members.pop(name, None) for name in names}
        taken = {name: str(value) for name, value in given.items() if value not in (None, "")}
        if not taken:
            raise invalid(
                names[0], f"the {self.name} is missing; the file needs a column for one of {', '.join(names)}"
            )
        return taken

    def find(self, row: ImportRow) -> int:
        """Return the id of the row that all given identifiers name. Raise 422 for none, and for several."""
        first: int | None = None
        for identifier, value in self._given(row.values):
            field = identifier.column.name
            ids = db.session.scalars(self._select(identifier.matches(self, value, row.source)).limit(2)).all()
            if not ids:
                raise invalid(field, f"there is no {self.name} with this value")
            if len(ids) > 1:
                raise invalid(field, f"several have this value; name the {self.name} by another identifier")
            if first not in (None, ids[0]):
                raise invalid(field, f"names another {self.name} than the other identifier")
            first = ids[0]
        if first is None:
            raise invalid(self.columns[0].name, f"is required to name the {self.name}")
        return first

    def find_all(self, rows: Sequence[ImportRow]) -> list[int]:
        """Return the ids of all rows that an identifier of a batch names, to lock them in their order."""
        conditions = [
            identifier.matches(self, value, row.source)
            for row in rows
            for identifier, value in self._given(row.values)
        ]
        return list(db.session.scalars(self._select(or_(*conditions)))) if conditions else []

    def _given(self, values: Mapping[str, Any]) -> Iterable[tuple[Identifier, str]]:
        given: Mapping[str, str] = values[self.name]
        return [(each, given[each.column.name]) for each in self.identifiers if each.column.name in given]

    def _select(self, condition: ColumnElement[bool]) -> Select[tuple[int]]:
        return select(self.id).select_from(self.model).where(condition)


PATIENT = Reference(
    "patient",
    ImportSubject.PATIENTS,
    Patient,
    (
        Identifier(
            as_reference(FILE_NUMBER, "patient_file_number"),
            Patient.file_number_key,
        ),
        Identifier(ImportColumn("patient_source_id", CellType.CODE, synonyms=("old patient id",))),
        Identifier(
            as_reference(EMAIL, "patient_email", "patient e-mail"),
            Patient.email_key,
        ),
    ),
)
DOCTOR = Reference(
    "doctor",
    ImportSubject.DOCTORS,
    Doctor,
    (
        Identifier(
            as_reference(LICENSE_NUMBER, "doctor_license_number", "doctor licence", "doctor license"),
            Doctor.license_number_key,
        ),
        Identifier(
            ImportColumn(
                "doctor_source_id", CellType.CODE, synonyms=("doctor id", "old doctor id", "provider id")
            )
        ),
    ),
)
