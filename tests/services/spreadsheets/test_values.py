"""Reading values: what is certain is read, and what is not certain is an error."""

from __future__ import annotations

from datetime import date, datetime, time
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from babel.dates import format_date
from babel.numbers import format_decimal
from hypothesis import given
from hypothesis import strategies as st

from errors import ClinicError
from services.spreadsheets.cells import MESSAGES, Cell, CellError, CellProblem
from services.spreadsheets.columns import CellType, ImportColumn
from services.spreadsheets.dates import LANGUAGES, check_date_format, propose_date_format
from services.spreadsheets.values import ValueOptions, parse_cell

GENDER = ("male", "female", "other")
MIDNIGHT, MORNING = datetime(2026, 3, 4), datetime(2026, 3, 4, 9, 30)  # noqa: DTZ001 - a cell has no zone


def parsed(
    cell: Cell,
    cell_type: CellType,
    *,
    date_format: str | None = None,
    decimal: str | None = None,
    region: str = "KE",
    zone: str = "Africa/Nairobi",
    currency: str = "KES",
    values: tuple[str, ...] = (),
) -> Any:
    """Return the value, or the value and the flag, or the code of the problem after "!"."""
    column = ImportColumn("column", cell_type, values=values)
    options = ValueOptions(date_format, decimal, region, ZoneInfo(zone), currency)
    try:
        found = parse_cell(cell, column, options)
    except CellProblem as problem:
        return f"! {problem.code}"
    return (found.value, found.flag) if found.flag else found.value


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ("2026-03-04", "2026-03-04"),
        ("2026/3/4", "2026-03-04"),
        ("25/03/2026", "2026-03-25"),
        ("3/25/2026", "2026-03-25"),
        ("5.5.2026", "2026-05-05"),
        ("03/04/2026", "! ambiguous_date"),
        ("٠٣/٠٤/٢٠٢٦", "! ambiguous_date"),
        ("3 Mar 2026", "2026-03-03"),
        ("March 3rd, 2026", "2026-03-03"),
        ("12 de marzo de 2026", "2026-03-12"),
        ("machi 2026", "2026-03"),
        ("1990", "1990"),
        (1990, "1990"),
        ("1990-05", "1990-05"),
        ("20260325", "2026-03-25"),
        (20260325, "2026-03-25"),
        ("10112012", "! ambiguous_date"),
        ("12/05/84", "! two_digit_year"),
        ("12-Mar-26", "! two_digit_year"),
        ("2026-02-30", "! not_a_date"),
        ("1066-10-14", "! not_a_date"),
        (44927, "! not_a_date"),
        (45000.5, "! not_a_date"),
        (True, "! not_a_date"),
        ("soon", "! not_a_date"),
        (MIDNIGHT, "2026-03-04"),
        (MORNING, "! date_with_time"),
        ("2026-03-04 00:00:00", "2026-03-04"),
        ("1990-05-04T21:00:00.000Z", "! date_with_time"),
        (date(2026, 3, 4), "2026-03-04"),
        (" \u200e2026-03-04\u00a0", "2026-03-04"),
        ("n/a", (None, "not_available")),
        ("0000-00-00", (None, "not_available")),
        ("Unknown", (None, "not_available")),
        (None, None),
        (CellError("error_value"), "! error_value"),
    ],
)
def test_dates(cell: Cell, expected: Any) -> None:
    assert parsed(cell, CellType.DATE) == expected


def test_the_date_format_decides_about_ambiguous_dates() -> None:
    for date_format in ("DD/MM/YYYY", "d.m.y", "dmy", "%d/%m/%Y"):
        check_date_format(date_format)
        assert parsed("03/04/2026", CellType.DATE, date_format=date_format) == "2026-04-03"
    assert parsed("03/04/2026", CellType.DATE, date_format="MM/DD/YYYY") == "2026-03-04"
    assert parsed("25/03/2026", CellType.DATE, date_format="MM/DD/YYYY") == "! not_a_date"
    assert parsed("10112012", CellType.DATE, date_format="DD/MM/YYYY") == "2012-11-10"
    assert parsed("03/04/2026", CellType.DATE, date_format="YYYY-MM-DD") == "! ambiguous_date"
    for wrong in ("DD/MM", "", "YYYY-DD-MM", "european"):
        with pytest.raises(ClinicError, match="DD/MM/YYYY"):
            check_date_format(wrong)


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (["03/04/2026", "25/03/2026"], "DD/MM/YYYY"),
        (["03/04/2026", "3.25.2026", None], "MM/DD/YYYY"),
        (["03/04/2026"], None),
        (["25/03/2026", "3/25/2026"], None),
        (["2026-03-04", 5], None),
    ],
)
def test_a_date_format_is_proposed_if_only_one_fits(cells: list[Cell], expected: str | None) -> None:
    assert propose_date_format(cells) == expected


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ("2026-03-29 02:30", "! nonexistent_time"),
        ("2026-10-25 02:30", "! ambiguous_time"),
        ("2026-10-25 02:30+01:00", "2026-10-25T02:30:00+01:00"),
        ("2026-10-25T02:30:00+0200", "2026-10-25T02:30:00+02:00"),
        ("2026-03-04T09:00:00Z", "2026-03-04T09:00:00+00:00"),
        ("25/07/2026 9:30 pm", "2026-07-25T21:30:00+02:00"),
        ("4 Mar 2026, 9.30 a.m.", "2026-03-04T09:30:00+01:00"),
        ("03/04/2026 09:30", "! ambiguous_date"),
        ("March 2026 09:30", "! not_a_date"),
        ("2026-03-04", "2026-03-04"),
        (MORNING, "2026-03-04T09:30:00+01:00"),
        (date(2026, 3, 4), "2026-03-04"),
        ("2026-03-04 25:00", "! not_a_time"),
    ],
)
def test_instants(cell: Cell, expected: str) -> None:
    assert parsed(cell, CellType.INSTANT, zone="Europe/Berlin") == expected


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ("9:30", "09:30"),
        ("09.30", "09:30"),
        ("9h", "09:00"),
        ("9 am", "09:00"),
        ("12 AM", "00:00"),
        ("12:05 p.m.", "12:05"),
        ("9:30:15 PM", "21:30:15"),
        (time(9, 30), "09:30"),
        ("13 pm", "! not_a_time"),
        ("24:00", "! not_a_time"),
        ("9", "! not_a_time"),
        (0.5, "! not_a_time"),
    ],
)
def test_times(cell: Cell, expected: str) -> None:
    assert parsed(cell, CellType.TIME) == expected


@pytest.mark.parametrize(
    ("text", "unknown_mark", "point", "comma"),
    [
        ("1234", "1234", "1234", "1234"),
        ("1.234", "! ambiguous_number", "1.234", "1234"),
        ("1,234", "! ambiguous_number", "1234", "1.234"),
        ("0.125", "0.125", "0.125", "! not_a_number"),
        ("12,5", "12.5", "! not_a_number", "12.5"),
        ("1,234.50", "1234.50", "1234.50", "! not_a_number"),
        ("1.234,50", "1234.50", "! not_a_number", "1234.50"),
        ("1\u202f234,5", "1234.5", "! not_a_number", "1234.5"),
        ("1'234.5", "1234.5", "1234.5", "! not_a_number"),
        ("1,234,567", "1234567", "1234567", "! not_a_number"),
        ("1.234.567,8", "1234567.8", "! not_a_number", "1234567.8"),
        ("1,00,000", "100000", "100000", "! not_a_number"),
        ("1,,234", "! not_a_number", "! not_a_number", "! not_a_number"),
        ("1.2.3", "! not_a_number", "! not_a_number", "! not_a_number"),
        ("12.", "! not_a_number", "! not_a_number", "! not_a_number"),
        ("١٢٣٫٥", "123.5", "123.5", "! not_a_number"),
        ("\u22125", "-5", "-5", "-5"),
        ("1E+05", "! lost_digits", "! lost_digits", "! lost_digits"),
    ],
)
def test_decimals(text: str, unknown_mark: str, point: str, comma: str) -> None:
    found = [parsed(text, CellType.DECIMAL, decimal=mark) for mark in (None, ".", ",")]

    assert list(map(str, found)) == [unknown_mark, point, comma]


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ("KSh 1,200.50", Decimal("1200.50")),
        ("KES500", Decimal(500)),
        ("500 kes", Decimal(500)),
        ("500/=", Decimal(500)),
        ("Sh. 20", Decimal(20)),
        ("(3.50)", Decimal("-3.50")),
        ("-KES 5", Decimal(-5)),
        ("(KES 5)", Decimal(-5)),
        ("500/-", Decimal(500)),
        ("5)", "! not_a_number"),
        ("5-", Decimal(-5)),
        ("$5", "! other_currency"),
        ("USD 5", "! other_currency"),
        ("5 each", "! other_currency"),
        ("(-5)", "! not_a_number"),
        ("abc", "! not_a_number"),
        (0.1 + 0.2, Decimal("0.3")),
        (1200, Decimal(1200)),
        (1e15, "! lost_digits"),
        (True, "! not_a_number"),
        ("-", (None, "not_available")),
    ],
)
def test_money(cell: Cell, expected: Any) -> None:
    assert parsed(cell, CellType.MONEY) == expected


@pytest.mark.parametrize(
    ("cell", "region", "expected"),
    [
        (712345678, "KE", ("+254712345678", "restored_phone")),
        (712345678.0, "KE", ("+254712345678", "restored_phone")),
        ("712345678.0", "KE", ("+254712345678", "restored_phone")),
        (254712345678, "KE", ("+254712345678", "restored_phone")),
        (7911123456, "GB", ("+447911123456", "restored_phone")),
        (447911123456, "US", ("+447911123456", "restored_phone")),
        (612345678, "IT", ("+390612345678", "restored_phone")),
        (5557677476, "US", ("5557677476", "restored_phone")),  # not in use, but no digit is lost
        ("0712 345 678", "KE", "0712 345 678"),
        ("+254 712 345 678\u202c", "KE", "+254 712 345 678"),
        ("7.12E+08", "KE", "! lost_digits"),
        (7.5, "KE", "! not_a_phone"),
        (-712345678, "KE", "! not_a_phone"),
        (12, "KE", "! not_a_phone"),
        (7e17, "KE", "! not_a_phone"),
        (MORNING, "KE", "! not_a_phone"),
        ("none", "KE", (None, "not_available")),
    ],
)
def test_phones(cell: Cell, region: str, expected: Any) -> None:
    assert parsed(cell, CellType.PHONE, region=region) == expected


@pytest.mark.parametrize(
    ("cell", "cell_type", "expected"),
    [
        ("12", CellType.INTEGER, 12),
        (12.0, CellType.INTEGER, 12),
        ("12.0", CellType.INTEGER, 12),
        (12.5, CellType.INTEGER, "! not_an_integer"),
        ("1,000", CellType.INTEGER, "! ambiguous_number"),
        ("Yes", CellType.BOOLEAN, True),
        ("ndiyo", CellType.BOOLEAN, True),
        ("NÃO", CellType.BOOLEAN, False),
        (0, CellType.BOOLEAN, False),
        ("x", CellType.BOOLEAN, True),
        ("maybe", CellType.BOOLEAN, "! not_a_boolean"),
        (2, CellType.BOOLEAN, "! not_a_boolean"),
        ("M", CellType.ENUM, "male"),
        ("Féminin", CellType.ENUM, "female"),
        ("MWANAMKE ", CellType.ENUM, "female"),
        ("H", CellType.ENUM, "! unknown_value"),
        ("completed", CellType.ENUM, "! unknown_value"),
        ("0012", CellType.CODE, "0012"),
        (12, CellType.CODE, "12"),
        (12.5, CellType.CODE, "12.5"),
        (MIDNIGHT, CellType.CODE, "! not_a_code"),
        (1e16, CellType.CODE, "! lost_digits"),
        ("none", CellType.CODE, "none"),
        ("-", CellType.CODE, (None, "not_available")),
        ("mailto:a@b.example", CellType.EMAIL, "a@b.example"),
        ("a@b.example\u200b", CellType.EMAIL, "a@b.example"),
        (5, CellType.EMAIL, "! not_an_email"),
        ("a; b;;c\nd", CellType.LIST, ["a", "b", "c", "d"]),
        ("n/a", CellType.TEXT, "n/a"),
        ("a\r\nb\x0bc\u00a0d", CellType.TEXT, "a\nb\nc d"),
        (" \u00a0می\u200cخواهم\u200d ", CellType.TEXT, "می\u200cخواهم"),
        ("a\x00", CellType.TEXT, "! control_characters"),
        (5.0, CellType.TEXT, "5"),
    ],
)
def test_other_types(cell: Cell, cell_type: CellType, expected: Any) -> None:
    values = GENDER if cell_type is CellType.ENUM else ()

    assert parsed(cell, cell_type, values=values) == expected


def test_every_cell_error_has_a_message() -> None:
    for code in ("error_value", "formula_without_value", "merged_cell", "invalid_date"):
        assert parsed(CellError(code), CellType.TEXT) == f"! {code}"
    assert len(MESSAGES) == 4


_DAYS = st.dates(date(1900, 1, 1), date(2199, 12, 31))


@given(_DAYS, st.sampled_from(["%d/%m/%Y", "%m/%d/%Y", "%d.%m.%Y", "%Y-%m-%d", "%Y%m%d"]))
def test_a_written_date_reads_back_equal(day: date, written: str) -> None:
    assert parsed(day.strftime(written), CellType.DATE, date_format=written) == day.isoformat()


@given(_DAYS, st.sampled_from(LANGUAGES), st.sampled_from(["d MMMM y", "d MMM y"]))
def test_a_date_with_the_name_of_a_month_reads_back_equal(day: date, language: str, pattern: str) -> None:
    assert parsed(format_date(day, pattern, locale=language), CellType.DATE) == day.isoformat()


@given(
    st.decimals(-(10**9), 10**9, places=2),
    st.sampled_from([("en", "."), ("de", ","), ("fr", ","), ("hi", "."), ("pt", ","), ("en_IN", ".")]),
)
def test_a_written_number_reads_back_equal(number: Decimal, locale: tuple[str, str]) -> None:
    name, mark = locale

    written = format_decimal(number, locale=name, decimal_quantization=False)

    assert parsed(written, CellType.DECIMAL, decimal=mark) == number
    assert parsed(written, CellType.DECIMAL) in (number, "! ambiguous_number")
