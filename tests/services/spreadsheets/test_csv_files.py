"""CSV files: no program reads a text as a formula, and the import reads the text back."""

from __future__ import annotations

import pytest

from services.spreadsheets.csv_files import format_cell, without_marks

# Excel in a country with decimal commas begins a cell after each semicolon, and a row after each line break.
BEGIN_A_CELL_INSIDE = {
    "Amina;=1+1": "Amina;'=1+1",
    "Amina\n=1+1": "Amina\n'=1+1",
    "Amina\r\n@SUM(A1)": "Amina\r\n'@SUM(A1)",
    "=1;-1+cmd|' /C calc'!A0": "'=1;'-1+cmd|' /C calc'!A0",
}
HARMLESS = ["BP 120/80; pulse 72", "a = b", "two\n\nparagraphs", "12;5", "O'Brien"]


@pytest.mark.parametrize(("text", "cell"), BEGIN_A_CELL_INSIDE.items())
def test_a_formula_inside_a_text_is_marked(text: str, cell: str) -> None:
    assert format_cell(text) == cell


@pytest.mark.parametrize("text", HARMLESS)
def test_other_texts_are_unchanged(text: str) -> None:
    assert format_cell(text) == text


@pytest.mark.parametrize("text", [*BEGIN_A_CELL_INSIDE, *HARMLESS, "+254 712", "\t=1", "-5"])
def test_the_import_reads_the_text_back(text: str) -> None:
    assert without_marks(format_cell(text)) == text
