"""The process that reads a workbook: its limits, its environment, and its output."""

from __future__ import annotations

import resource
import struct
import subprocess
import zipfile
from collections.abc import Callable
from io import BytesIO
from typing import Any

import pytest

from errors import ClinicError
from services.spreadsheets.reading import read_table
from services.spreadsheets.workbook_archive import MAX_UNPACKED
from services.spreadsheets.workbook_process import describe_workbook
from services.spreadsheets.workbooks import run_process
from tests.support.spreadsheet_files import HEAD, MAIN, workbook


def code_of(content: bytes) -> str:
    with pytest.raises(ClinicError) as refusal:
        read_table(content)
    return refusal.value.code


@pytest.mark.parametrize(
    "rows", ['<row r="2"><c r="A2"><v>1</v></c></row>', '<row r="1048576"><c r="A1048576"/></row>']
)
def test_the_process_writes_the_description_of_the_workbook(rows: str) -> None:
    content = workbook(HEAD + rows)

    assert run_process(content) == b"".join(describe_workbook(content))


def with_declared_size(content: bytes, size: int) -> bytes:
    """Return the archive with another uncompressed size of its sheet, in both headers."""
    changed, name = bytearray(content), b"xl/worksheets/sheet1.xml"
    struct.pack_into("<I", changed, changed.find(name) - 30 + 22, size)
    struct.pack_into("<I", changed, changed.rfind(name) - 46 + 24, size)
    return bytes(changed)


def with_declared_gigabytes(gigabytes: int) -> bytes:
    """Return an archive whose directory declares a sheet of more than 4 GB, in the form of ZIP64."""
    output = BytesIO()
    with zipfile.ZipFile(BytesIO(workbook(HEAD))) as source, zipfile.ZipFile(output, "w") as target:
        for name in source.namelist():
            target.writestr(name, source.read(name))
        target.getinfo("xl/worksheets/sheet1.xml").file_size = gigabytes * 10**9  # written at the end
    return output.getvalue()


def bomb() -> bytes:
    return workbook(HEAD, after=f"<!--{' ' * (MAX_UNPACKED + 1_000)}-->")


@pytest.mark.parametrize(
    ("build", "code"),
    [
        (lambda: workbook('<row r="1048576"><c r="A1048576"><v>1</v></c></row>'), "too_many_rows"),
        (lambda: workbook(HEAD + '<row r="2"><c r="XFD2"><v>1</v></c></row>'), "too_many_columns"),
        (bomb, "payload_too_large"),
        (lambda: with_declared_size(bomb(), 1_000), "unreadable_file"),
        (lambda: with_declared_size(workbook(HEAD), 0xFFFF_FFF0), "payload_too_large"),
        (lambda: with_declared_gigabytes(10), "payload_too_large"),
        (lambda: workbook(HEAD, parts={f"x/{n}": "" for n in range(2_001)}), "payload_too_large"),
        (
            lambda: workbook(HEAD, parts={"xl/sharedStrings.xml": "<sst>" + "<si>" * 500_000}),
            "unreadable_file",
        ),
    ],
    ids=["last row", "last column", "bomb", "size too small", "size too large", "10 GB", "entries", "nested"],
)
def test_hostile_workbooks_need_little_memory(build: Callable[[], bytes], code: str) -> None:
    content = build()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    assert code_of(content) == code
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # kB


def test_a_text_that_all_cells_share_ends_the_process_and_not_the_server() -> None:
    texts = f'<sst xmlns="{MAIN}"><si><t>{"x" * 32_000}</t></si></sst>'
    rows = "<row>" + '<c t="s"><v>0</v></c>' * 100 + "</row>"

    content = workbook(HEAD + rows * 1_000, parts={"xl/sharedStrings.xml": texts})

    assert code_of(content) == "payload_too_large"
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss < 1_500_000  # kB; the texts are 3.2 GB


def test_the_process_gets_no_secret_of_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[dict[str, Any]] = []
    start = subprocess.Popen
    monkeypatch.setenv("JWT_SECRET_KEY", "secret")
    monkeypatch.setattr(
        "services.spreadsheets.workbooks.subprocess.Popen",
        lambda *command, **options: started.append(options) or start(*command, **options),
    )

    read_table(workbook(HEAD + '<row r="2"><c r="A2"><v>1</v></c></row>'))
    assert "JWT_SECRET_KEY" not in started[0]["env"]
