"""Matching the columns of a file with members, and reading rows by the mapping."""

from __future__ import annotations

from zoneinfo import ZoneInfo

import pytest

from errors import ClinicError
from services.spreadsheets.columns import CellType, ImportColumn
from services.spreadsheets.mapping import check_mapping, propose_mapping
from services.spreadsheets.reading import SourceRow
from services.spreadsheets.row_values import ParsedRow, parse_row
from services.spreadsheets.values import ValueOptions

COLUMNS = (
    ImportColumn("name", CellType.TEXT, required=True, synonyms=("patient name", "jina", "nom", "الاسم")),
    ImportColumn("phone", CellType.PHONE, synonyms=("telephone", "simu", "mobile", "teléfono")),
    ImportColumn("date_of_birth", CellType.DATE, required=True, synonyms=("dob", "birthday")),
    ImportColumn("file_number", CellType.CODE, synonyms=("mrn", "number")),
    ImportColumn("phone2", CellType.PHONE),
)
OPTIONS = ValueOptions(None, None, "KE", ZoneInfo("Africa/Nairobi"), "KES")


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (
            ["Name", "PHONE", "Date of Birth"],
            {"Name": "name", "PHONE": "phone", "Date of Birth": "date_of_birth"},
        ),
        (["DateOfBirth (dd/mm/yyyy)", "Téléphone*"], {"DateOfBirth (dd/mm/yyyy)": "date_of_birth"}),
        (["Telefono", "الاسم"], {"Telefono": "phone", "الاسم": "name"}),
        (["Phnoe", "Dte of Brith", "nam"], {"Phnoe": "phone", "Dte of Brith": "date_of_birth"}),
        (["phone", "telephone"], {"phone": "phone"}),  # the name of the member wins
        (["mobile", "telephone", "phoen"], {}),  # one of two, and no third one instead
        (["phone2", "phone3"], {"phone2": "phone2"}),  # digits have no typing errors
        (["Surname", "First Name"], {"Surname": "last_name", "First Name": "first_name"}),
        (["Name", "Surname"], {"Name": "name"}),
        (["notes", "x"], {}),
    ],
)
def test_proposals(header: list[str], expected: dict[str, str]) -> None:
    if "Téléphone*" in header:
        expected = expected | {"Téléphone*": "phone"}

    assert propose_mapping(header, COLUMNS) == expected


def test_names_are_joined_only_for_kinds_with_a_name() -> None:
    assert propose_mapping(["First name", "phone"], COLUMNS[1:]) == {"phone": "phone"}


@pytest.mark.parametrize(
    ("mapping", "fields"),
    [
        ({"a": "name", "b": "date_of_birth", "z": "phone"}, ["mapping.z"]),
        ({"a": "name", "b": "date_of_birth", "c": "shoe_size"}, ["mapping.c"]),
        ({"a": "name", "b": "date_of_birth", "c": "name"}, ["mapping.a", "mapping.c"]),
        ({"a": "name", "b": "date_of_birth", "c": "last_name"}, ["mapping.c"]),
        ({"a": "phone"}, ["mapping"]),
        ({}, ["mapping"]),
    ],
)
def test_a_wrong_mapping_is_refused(mapping: dict[str, str], fields: list[str]) -> None:
    with pytest.raises(ClinicError) as refusal:
        check_mapping(mapping, ["a", "b", "c"], COLUMNS)

    assert (refusal.value.code, list(refusal.value.errors)) == ("validation_failed", fields)


def test_a_mapping_may_leave_out_columns_and_use_parts_of_a_name() -> None:
    check_mapping({"a": "name", "b": "date_of_birth"}, ["a", "b", "c"], COLUMNS)
    check_mapping({"a": "first_name", "c": "last_name", "b": "date_of_birth"}, ["a", "b", "c"], COLUMNS)


def parse(
    *cells: str | int | None, header: str, mapping: dict[str, str], too_long: bool = False
) -> ParsedRow:
    row = SourceRow(2, cells, too_long=too_long)
    return parse_row(row, header=header.split(), mapping=mapping, columns=COLUMNS, options=OPTIONS)


def test_a_row_has_members_flags_and_problems() -> None:
    mapping = {"a": "name", "b": "phone", "c": "date_of_birth"}

    row = parse("Jane", 712345678, "03/04/2026", "ignored", header="a b c d", mapping=mapping)

    assert row.members == {"name": "Jane", "phone": "+254712345678"}
    assert row.flags == {"phone": "restored_phone"}
    assert {field: problem.code for field, problem in row.problems.items()} == {
        "date_of_birth": "ambiguous_date"
    }
    assert list(parse("Jane", header="a", mapping=mapping, too_long=True).problems) == ["row"]


def test_the_parts_of_a_name_are_joined_in_the_order_of_a_name() -> None:
    mapping = {"l": "last_name", "f": "first_name"}

    assert parse("Doe", "Jane", header="l f", mapping=mapping).members == {"name": "Jane Doe"}
    assert parse("Doe", None, header="l f", mapping=mapping).members == {"name": "Doe"}
    assert parse(None, None, header="l f", mapping=mapping).members == {"name": None}
