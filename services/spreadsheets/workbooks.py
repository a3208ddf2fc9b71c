"""Read workbooks (xlsx) in a process with limits."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date, datetime, time
from pathlib import Path

from errors import ClinicError
from services.spreadsheets.cells import Cell, CellError

ROOT = Path(__file__).resolve().parents[2]
MODULE = "services.spreadsheets.workbook_process"
TIMEOUT = 60  # seconds; the limit of CPU time in the process is lower
MAX_LOGGED = 4_000  # characters of a traceback
_READERS: dict[str, Callable[[str], Cell]] = {
    "date": date.fromisoformat,
    "time": time.fromisoformat,
    "datetime": datetime.fromisoformat,
    "error": CellError,
}
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SheetRows:
    """The rows of a sheet that have a value, with their numbers."""

    sheet: str
    other_sheets: tuple[str, ...]
    rows: Iterator[tuple[int, list[Cell]]]


def read_workbook(content: bytes) -> SheetRows:
    """Return the first visible sheet that has a value. Raises `ClinicError`."""
    output = run_process(content)
    first, *lines = output.splitlines()
    head = json.loads(first)
    if "code" in head:
        code, message = head["code"], head["message"]
        raise ClinicError(code, message)
    rows = (_row(line) for line in lines)
    return SheetRows(head["sheet"], tuple(head["other_sheets"]), rows)


def run_process(content: bytes) -> bytes:
    """Return the output of the process that reads a workbook. Raise 413 if its limits are reached."""
    command = [sys.executable, "-m", MODULE]
    with subprocess.Popen(  # noqa: S603 - a fixed command; the file is its standard input
        command,
        cwd=ROOT,
        env={"PYTHONUTF8": "1"},  # no secret of the server
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        try:
            output, problem = process.communicate(content, timeout=TIMEOUT)
        except subprocess.TimeoutExpired:
            process.kill()
            output = problem = b""
    if process.returncode != 0 or not output:
        _log.warning(
            "The process that reads workbooks ended with code %s: %s",
            process.returncode,
            problem[-MAX_LOGGED:].decode("utf-8", "replace")
            if process.returncode == 1
            else "out of memory or time",
        )
        raise ClinicError(
            "payload_too_large", "The workbook needs too much memory or time. Save only the table as .csv."
        )
    return output


def _row(line: bytes) -> tuple[int, list[Cell]]:
    number, cells = json.loads(line, object_hook=_read_object)
    return number, cells


def _read_object(value: dict[str, str]) -> Cell:
    ((kind, text),) = value.items()
    return _READERS[kind](text)
