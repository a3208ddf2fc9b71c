"""Messy spreadsheet files of real clinics: imported right, or refused with row and reason.

The long form adds a file that LibreOffice has written, and one with 50,000 rows.
"""

from __future__ import annotations

import io
import subprocess
import tempfile
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import openpyxl
import pytest
import xlsxwriter

from tests.robustness.load_level import LoadLevel, selected_level
from tests.support import imports
from tests.support.clinic import Clinic

HEADER = ("File No", "Full name", "Sex", "Date of birth", "Phone")
NAMES = ("Zoë Müller", "Ngũgĩ wa Thiong’o", "محمد علي")
ACCENTS = ("Zoë Müller", "José Núñez", "Åsa Öberg")
LONG = selected_level().long


def rows(names: Sequence[str] = ACCENTS) -> list[tuple[Any, ...]]:
    return [
        (f"K-{number}", name, "F", f"198{number}-02-2{number}", f"555-767-747{number}")
        for number, name in enumerate(names)
    ]


def text(table: Sequence[Sequence[Any]], delimiter: str = ",", encoding: str = "utf-8") -> bytes:
    lines = [delimiter.join(map(str, cells)) for cells in table]
    return "\r\n".join(lines).encode(encoding)


def by_openpyxl(table: Sequence[Sequence[Any]], **merged: str) -> bytes:
    book = openpyxl.Workbook()
    sheet = book.active
    assert sheet is not None
    for cells in table:
        sheet.append(list(cells))
    for cells in merged.values():
        sheet.merge_cells(cells)
    file = io.BytesIO()
    book.save(file)
    return file.getvalue()


def by_xlsxwriter(table: Sequence[Sequence[Any]]) -> bytes:
    file = io.BytesIO()
    with xlsxwriter.Workbook(file, {"in_memory": True}) as book:
        sheet, day = book.add_worksheet(), book.add_format({"num_format": "dd/mm/yyyy"})
        for number, cells in enumerate(table):
            for column, cell in enumerate(cells):
                if isinstance(cell, date):
                    sheet.write_datetime(number, column, cell, day)
                else:
                    sheet.write(number, column, cell)
    return file.getvalue()


def stored(clinic: Clinic) -> list[tuple[str, str | None, str | None]]:
    patients = clinic.admin.get("/patients?sort_by=file_number").get_json()
    return [(row["name"], row["date_of_birth"], row["phone_e164"]) for row in patients]


def expected(names: Sequence[str] = ACCENTS) -> list[tuple[str, str, str]]:
    return [(name, f"198{number}-02-2{number}", f"+1555767747{number}") for number, name in enumerate(names)]


def by_libreoffice(table: Sequence[Sequence[Any]]) -> bytes:
    """Return a workbook of the Debian package libreoffice-calc."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "p.csv")
        source.write_bytes(text(table, encoding="utf-8-sig"))
        command = ["soffice", "--headless", f"-env:UserInstallation=file://{folder}/profile"]
        command += ["--infilter=CSV:44,34,76,1", "--convert-to", "xlsx", "--outdir", folder, str(source)]
        subprocess.run(command, check=True, timeout=120, capture_output=True)
        return source.with_suffix(".xlsx").read_bytes()


GOOD: dict[str, tuple[str, bytes, dict[str, str], Sequence[str]]] = {
    "UTF-8 with a mark and commas": ("p.csv", text([HEADER, *rows(NAMES)], encoding="utf-8-sig"), {}, NAMES),
    "UTF-16 with tabs": ("p.txt", text([HEADER, *rows(NAMES)], "\t", "utf-16"), {}, NAMES),
    "cp1252 with semicolons": (
        "p.csv",
        text([HEADER, *rows()], ";", "cp1252"),
        {"encoding": "cp1252", "delimiter": ";"},
        ACCENTS,
    ),
    "openpyxl with empty rows and a title": (
        "p.xlsx",
        by_openpyxl([("Patients of 2019",), (), HEADER, *rows(NAMES)[:2], (), rows(NAMES)[2], (), ()]),
        {},
        NAMES,
    ),
    "xlsxwriter with typed dates and phones as numbers": (
        "p.bin",
        by_xlsxwriter(
            [
                HEADER,
                *(
                    (number, name, sex, date.fromisoformat(born), int(phone.replace("-", "")))
                    for number, name, sex, born, phone in rows()
                ),
            ]
        ),
        {},
        ACCENTS,
    ),
    "dates in a declared order": (
        "p.csv",
        text([HEADER, *((*row[:3], f"{row[3][8:]}/02/{row[3][:4]}", row[4]) for row in rows())]),
        {"date_format": "DD/MM/YYYY"},
        ACCENTS,
    ),
}
if LONG:
    GOOD["LibreOffice"] = ("p.xlsx", by_libreoffice([HEADER, *rows(NAMES)]), {}, NAMES)


@pytest.mark.parametrize("case", GOOD)
def test_a_messy_file_is_imported_right(clinic: Clinic, case: str) -> None:
    name, content, fields, names = GOOD[case]

    done = imports.run(clinic.admin, content, name=name, **fields)

    assert (done["rows"], done["applied"], done["refused"]) == (3, 3, 0)
    assert stored(clinic) == expected(names)


BAD_FILES: dict[str, tuple[bytes, str]] = {
    "an undeclared encoding": (text([HEADER, *rows()], encoding="cp1252"), "unknown_encoding"),
    "columns with one name": (text([(*HEADER, "Phone"), (*rows()[0], "1")]), "duplicate_columns"),
    "two header rows": (
        by_openpyxl([("Patient", "", "", "Birth", "Contact"), HEADER, *rows()], first="A1:C1"),
        "merged_header",
    ),
    "an open quotation mark": (text([HEADER, ("K-1", '"Zoë', "F", "", "")]), "unbalanced_quotes"),
    "no rows": (text([HEADER]), "no_rows"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_a_file_that_cannot_be_read_is_named(clinic: Clinic, case: str) -> None:
    content, code = BAD_FILES[case]

    answer = imports.send_file(clinic.admin, content, name="p.csv")

    assert (answer.status_code, answer.get_json()["error"]) == (422, code)
    assert clinic.admin.get("/imports").get_json() == []


def test_each_bad_row_is_refused_with_its_reason_and_the_others_are_imported(clinic: Clinic) -> None:
    content = by_openpyxl(
        [
            HEADER,
            ("K-1", "Zoë Müller", "F", date(1984, 2, 29), 5557677470),
            ("K-2", "Ada Okoye", "F", "03/04/1985", "555-767-7471"),
            ("K-3", "#N/A", "F", None, None),
            ("K-4", '=A1&"x"', "F", None, None),
            ("K-5", "Ben Okoye", "unclear", None, None),
            ("K-1", "Chen Li", "F", None, None),
        ]
    )

    done = imports.run(clinic.admin, content, name="p.xlsx", on_error="skip")

    assert (done["rows"], done["applied"], done["skipped"], done["refused"]) == (6, 1, 0, 5)
    assert imports.problems(clinic.admin, done["id"]) == {
        2: [("phone", "restored_phone")],
        3: [("date_of_birth", "ambiguous_date")],
        4: [("name", "error_value")],
        5: [("name", "formula_without_value")],
        6: [("gender", "unknown_value")],
        7: [("file_number", "duplicate_in_file")],
    }
    (patient,) = clinic.admin.get("/patients").get_json()
    assert (patient["phone_e164"], patient["needs_review"]) == ("+15557677470", True)


def test_a_file_with_many_rows_is_read_whole(clinic: Clinic, level: LoadLevel) -> None:
    count = 50_000 if level.long else 450
    table = [HEADER, *((f"K-{n}", f"Patient Number{n}", "F", None, None) for n in range(count))]

    checked = imports.dry_run(
        clinic.admin, imports.upload(clinic.admin, by_xlsxwriter(table), name="p.xlsx")["id"]
    )

    assert (checked["rows"], checked["ready"], checked["refused"]) == (count, count, 0)
