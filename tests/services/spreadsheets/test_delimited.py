"""Reading text files: encodings, delimiters, quotation marks and rows of other lengths."""

from __future__ import annotations

import csv
import tracemalloc
from io import StringIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from errors import ClinicError
from services.spreadsheets.cells import CellError, text_cell
from services.spreadsheets.reading import SourceTable, read_table

TEXT = "name;city\nJosé;Zürich\n"


def rows(table: SourceTable) -> list[tuple[object, ...]]:
    return [row.cells for row in table.rows]


@pytest.mark.parametrize(
    ("content", "encoding"),
    [
        (TEXT.encode(), None),
        (TEXT.encode("utf-8-sig"), None),
        (TEXT.encode("utf-16"), None),
        (b"\xfe\xff" + TEXT.encode("utf-16-be"), None),
        (TEXT.encode("utf-16-le"), "utf-16-le"),
        (TEXT.encode("cp1252"), "cp1252"),
        (TEXT.encode("cp1252"), "ISO-8859-1"),
        (TEXT.encode("mac-roman"), "mac-roman"),
        (TEXT.encode("utf-8-sig"), "cp1252"),  # the byte order mark is certain
        (TEXT.replace("\n", "\r").encode(), "utf-8"),
        (TEXT.replace("\n", "\r\n").encode(), "utf-8"),
    ],
)
def test_encodings_and_line_ends(content: bytes, encoding: str | None) -> None:
    table = read_table(content, encoding=encoding)

    assert (table.header, rows(table)) == (("name", "city"), [("José", "Zürich")])


@pytest.mark.parametrize(
    ("content", "encoding"),
    [
        (TEXT.encode("cp1252"), None),
        (TEXT.encode("utf-16-le"), None),
        ("name;city\nJane;Rome\n".encode("utf-16-le"), None),
        (TEXT.encode("cp1252"), "utf-8"),
        (b"name;city\nJos\x81;x\n", "cp1252"),
        (TEXT.encode(), "rot13"),
    ],
)
def test_an_encoding_that_is_not_certain_is_refused(content: bytes, encoding: str | None) -> None:
    with pytest.raises(ClinicError) as refusal:
        read_table(content, encoding=encoding)

    assert refusal.value.code == "unknown_encoding"


@pytest.mark.parametrize(
    ("text", "delimiter", "header"),
    [
        ("a,b\n1,2\n", None, ("a", "b")),
        ("a;b\n1,5;2,5\n3,5;4,5\n", None, ("a", "b")),
        ("a\tb\n1,5\t2\n", None, ("a", "b")),
        ("a|b\n1|2\n", None, ("a", "b")),
        ('name;phone\n"Doe, Jane";1\nRoe, John;2\n', None, ("name", "phone")),
        ("last, first;phone;city\nDoe, Jane;1;x\n", None, ("last, first", "phone", "city")),
        ("Patients, 2026\na;b;c\n1;2;3\n", None, ("a", "b", "c")),
        ("sep=;\na;b,c\n1;2\n", None, ("a", "b,c")),
        ("sep=|\r\na|b,c\r\n1|2\r\n", None, ("a", "b,c")),
        ("a;b,c\n1;2\n", ";", ("a", "b,c")),
        ("a\tb;c\n1\t2\n", "tab", ("a", "b;c")),
        ("name\nJane\n", None, ("name",)),
    ],
)
def test_delimiters(text: str, delimiter: str | None, header: tuple[str, ...]) -> None:
    assert read_table(text.encode(), delimiter=delimiter).header == header


@pytest.mark.parametrize(
    ("text", "code", "word"),
    [
        ("a;b,c\n1;2,3\n", "unknown_delimiter", "delimiter"),
        ('a,b\n1,2\n"3,4\n5,6\n', "unbalanced_quotes", "Row 3"),
        ('a,b\n1,"Jane "J" Doe"\n', "unbalanced_quotes", "Row 2"),
        ("a,b,a\n1,2,3\n", "duplicate_columns", "a"),
        ("a,,c\n1,,3\n4,5,6\n", "unnamed_columns", "B"),
        ("a,#REF!\n1,2\n", "unnamed_columns", "B"),
        ("", "no_rows", "empty"),
        ("\n \n,,\n", "no_rows", "empty"),
        ("a,b\n\n", "no_rows", "header"),
        ("a,b\n1," + "x" * 140_000 + "\n", "unreadable_file", "Row 2"),
        (",".join(f"c{n}" for n in range(201)) + "\n1\n", "too_many_columns", "200"),
    ],
)
def test_files_that_are_refused(text: str, code: str, word: str) -> None:
    with pytest.raises(ClinicError) as refusal:
        read_table(text.encode())

    assert refusal.value.code == code
    assert word in refusal.value.message


def test_a_row_that_is_longer_than_the_header_is_marked() -> None:
    table = read_table('a,b\n1\n1,2,3\n1,2,,\n"x\ny",2\n\n#N/A,\u00a0\n'.encode())

    assert [(row.number, row.cells, row.too_long) for row in table.rows] == [
        (2, ("1", None), False),
        (3, ("1", "2"), True),
        (4, ("1", "2"), False),
        (5, ("x\ny", "2"), False),
        (7, (CellError("error_value"), None), False),
    ]
    assert table.blank_rows == 1


def test_the_apostrophe_before_a_possible_formula_is_removed() -> None:
    table = read_table(b"a,b\n'+254712345678,'=1+1\n'tis,O'Brien\n")

    assert rows(table) == [("+254712345678", "=1+1"), ("'tis", "O'Brien")]


def test_a_file_of_10_mib_in_one_line_is_refused_with_little_memory() -> None:
    content = b"a,b\n" + b"x" * (10 * 1024 * 1024 - 4)
    tracemalloc.start()
    try:
        with pytest.raises(ClinicError) as refusal:
            read_table(content)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert refusal.value.code == "unreadable_file"
    assert peak < 100_000_000
    with pytest.raises(ClinicError, match="10 MiB"):
        read_table(content + b"x")


_CELLS = st.text(
    st.characters(exclude_categories=("Cs", "Cc"), exclude_characters="'"), max_size=6
) | st.sampled_from(['"', ";", "a,b", "\n"])


@given(
    st.lists(st.tuples(_CELLS, _CELLS, _CELLS), min_size=1, max_size=5),
    st.sampled_from(",;\t|"),
    st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL]),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-be"]),
)
def test_a_written_table_reads_back_equal(
    lines: list[tuple[str, str, str]], delimiter: str, quoting: int, encoding: str
) -> None:
    output = StringIO()
    writer = csv.writer(output, delimiter=delimiter, quoting=quoting)  # type: ignore[arg-type]
    writer.writerows([("h1", "h2", "h3"), *lines, ("end", "x", "y")])

    table = read_table(output.getvalue().encode(encoding), encoding=encoding, delimiter=delimiter)

    expected = [tuple(map(text_cell, line)) for line in lines]
    assert rows(table)[:-1] == [line for line in expected if line != (None, None, None)]
    assert table.blank_rows == expected.count((None, None, None))
    assert table.rows[-1].number == len(lines) + 2
