"""The synthetic population of `data/demo` as the spreadsheets of a clinic that moves in."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from datetime import date, datetime, time, timedelta
from typing import Any

import xlsxwriter

from commands.demo import Row, parse_instant, read_groups, read_rows
from services import clock

Table = list[Sequence[Any]]  # the header and the rows


def xlsx(table: Iterable[Sequence[Any]]) -> bytes:
    """Return a workbook with typed cells."""
    file = io.BytesIO()
    with xlsxwriter.Workbook(file, {"in_memory": True, "remove_timezone": True}) as book:
        sheet, day = book.add_worksheet("List"), book.add_format({"num_format": "yyyy-mm-dd"})
        instant = book.add_format({"num_format": "yyyy-mm-dd hh:mm:ss"})
        for number, cells in enumerate(table):
            for column, cell in enumerate(cells):
                if isinstance(cell, datetime):
                    sheet.write_datetime(number, column, cell, instant)
                elif isinstance(cell, date):
                    sheet.write_datetime(number, column, cell, day)
                elif isinstance(cell, str):
                    sheet.write_string(number, column, cell)
                elif cell is not None:
                    sheet.write_number(number, column, cell)
    return file.getvalue()


def population(count: int) -> dict[str, Table]:
    """Return the files of a clinic that moves in, by kind, in the order in which they are imported.

    The people are those of `data/demo`. They get a coming appointment, and some of them a balance.
    """
    patients, encounters = read_rows("patients")[:count], read_groups("encounters", "patient_id")
    seen = [encounters[row["id"]][-1] for row in patients if encounters[row["id"]]]
    seen = [row for row in seen if row["practitioner_id"]]
    doctors = {row["practitioner_id"] for row in seen}
    return {
        "doctors": _doctors([row for row in read_rows("practitioners") if row["id"] in doctors]),
        "patients": _patients(patients),
        "price_list": _prices(count),
        "inventory": _inventory(count),
        "appointments": _appointments(seen),
        "opening_balances": _balances(patients),
    }


def _doctors(rows: Iterable[Row]) -> Table:
    header = ("ID", "Doctor", "Licence No", "Speciality")
    names = [(row, f"Dr. {row['given']} {row['family']}") for row in rows]
    return [header, *((row["id"], name, f"NPI-{row['npi']}", "general practice") for row, name in names)]


def _patients(rows: Iterable[Row]) -> Table:
    header = ("ID", "File No", "First Name", "Surname", "Sex", "DOB", "Tel", "Address", "Insurance")
    return [
        header,
        *(
            (
                row["id"],
                f"K-{int(row['id']):04d}",
                row["given"],
                row["family"],
                row["gender"][0].upper(),
                date.fromisoformat(row["birth_date"]),
                int(row["phone"].replace("-", "")) if row["phone"] else None,
                f"{row['line']}, {row['city']}",
                row["insurance"],
            )
            for row in rows
        ),
    ]


def _prices(count: int) -> Table:
    priced = {row["code"]: row for row in read_rows("procedures") if row["price"]}
    rows = [(row["code"], row["display"], round(float(row["price"]), 2)) for row in priced.values()]
    return [("Code", "Service", "Price"), *rows[:count]]


def _inventory(count: int) -> Table:
    """Return items with lots, of which some have expired."""
    header = ("Item code", "Item", "Qty", "Batch", "Expiry", "Cost price")
    rows: Table = [header]
    for number in range(1, count + 1):
        expiry = clock.today() + timedelta(days=20 * number - 100) if number % 3 else None
        rows.append((f"I-{number:03d}", f"Item number {number}", 10 * number, f"B-{number}", expiry, 0.0125))
    return rows


def _appointments(encounters: Iterable[Row]) -> Table:
    """Return the last encounter of each patient, and a coming appointment."""
    header = ("ID", "File No", "Licence No", "Date and time", "Minutes", "State")
    licences = {row["id"]: f"NPI-{row['npi']}" for row in read_rows("practitioners")}
    first = clock.at(clock.today() + timedelta(days=30), time(8))  # then 24 a day, by any doctor
    rows: Table = [header]
    for number, row in enumerate(encounters):
        people = (f"K-{int(row['patient_id']):04d}", licences[row["practitioner_id"]])
        past = clock.local(parse_instant(row["start"])).replace(tzinfo=None, microsecond=0)
        coming = (first + timedelta(days=number // 24, minutes=20 * (number % 24))).replace(tzinfo=None)
        rows.append((f"{row['id']}-past", *people, past, 15, "attended"))
        rows.append((f"{row['id']}-next", *people, coming, 15, "booked"))
    return rows


def _balances(patients: Iterable[Row]) -> Table:
    header = ("File No", "Balance", "As of", "Reference")
    day = date(clock.today().year - 2, 6, 30)
    return [
        header,
        *(
            (f"K-{int(row['id']):04d}", (40.5 if int(row["id"]) % 2 else -15.25), day, f"OLD-{row['id']}")
            for row in patients
            if int(row["id"]) % 3 == 0
        ),
    ]
