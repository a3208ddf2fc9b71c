"""`flask import`: dry run, apply and undo from a terminal, without a worker."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from python_calamine import CalamineWorkbook

from services.jobs.worker import Worker
from tests.support.clinic import Clinic
from tests.support.imports import csv_file, show

OPTIONS = ("--kind", "patients", "--source", "clinic2019")
LINES = [("1", "Amina Yusuf", "1990-05-04"), ("2", "", "1980-01-02")]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Return a file with one good and one wrong row."""
    path = tmp_path / "patients.csv"
    path.write_bytes(csv_file(("ID", "Name", "DOB"), LINES))
    return path


def flask(clinic: Clinic, *arguments: Any, answer: str | None = None) -> Result:
    words = ["import", *map(str, arguments)]
    return clinic.app.test_cli_runner().invoke(args=words, input=answer, catch_exceptions=False)


def names(clinic: Clinic) -> list[str]:
    return [row["name"] for row in clinic.admin.get("/patients?is_active=true").get_json()]


def test_a_file_is_checked_before_anything_is_imported(clinic: Clinic, file: Path, tmp_path: Path) -> None:
    report = tmp_path / "problems.xlsx"

    result = flask(clinic, file, *OPTIONS, "--report", report)

    assert result.exit_code == 1
    assert "row 3, name:" in result.output
    assert "2 rows: 1 ready, 1 refused; 0 blank" in result.output
    assert "date_of_birth" in result.output
    assert names(clinic) == []
    (_, line) = CalamineWorkbook.from_path(str(report)).get_sheet_by_index(0).to_python()
    assert line[:3] == [3, "refused", "name"]


def test_wrong_rows_stop_the_import_unless_they_are_skipped(clinic: Clinic, file: Path) -> None:
    stopped = flask(clinic, file, *OPTIONS, "--apply", "--yes")
    declined = flask(clinic, file, *OPTIONS, "--apply", "--on-error", "skip", answer="n\n")
    before = names(clinic)
    applied = flask(clinic, file, *OPTIONS, "--apply", "--on-error", "skip", answer="y\n")
    undone = flask(clinic, "undo", 3, "--yes")

    assert (stopped.exit_code, "Correct them" in stopped.output) == (1, True)
    assert (declined.exit_code, before) == (1, [])
    assert (applied.exit_code, undone.exit_code) == (0, 0), applied.output + undone.output
    assert "flask import undo 3" in applied.output
    assert show(clinic.admin, 3)["state"] == "undone"
    assert names(clinic) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--mapping", "{"), "mapping: write an object"),
        (("--mapping", "[1]"), "mapping:"),
        (("--source", " "), "source:"),
        (("--source", "x" * 300), "source:"),
        (("--mapping", '{"Nothing": "name"}'), "Nothing"),
        (("--delimiter", "x"), "delimiter"),
    ],
)
def test_wrong_options_are_refused(
    clinic: Clinic, file: Path, options: tuple[str, ...], message: str
) -> None:
    result = flask(clinic, file, *OPTIONS, *options)

    assert result.exit_code == 1
    assert message in result.output
    assert clinic.admin.get("/imports").get_json() == []


def test_a_wrong_path_or_number_is_no_traceback(clinic: Clinic, file: Path) -> None:
    report = flask(clinic, file, *OPTIONS, "--report", "/nowhere/problems.xlsx")
    number = flask(clinic, "undo", 10**30, "--yes")

    assert (report.exit_code, "cannot be written" in report.output) == (1, True)
    assert (number.exit_code, "range" in number.output) == (2, True)


def test_more_problems_than_are_shown_are_announced(clinic: Clinic, tmp_path: Path) -> None:
    path = tmp_path / "patients.csv"
    path.write_bytes(csv_file(("ID", "Name", "DOB"), [(n, "", "1980-01-02") for n in range(11)]))

    result = flask(clinic, path, *OPTIONS)

    assert "row 11, name:" in result.output
    assert "row 12, name:" not in result.output
    assert "first 10 refused rows" in result.output


def test_an_interrupted_run_ends_and_is_not_called_aborted(
    clinic: Clinic, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Worker.run_one

    def interrupted(worker: Worker, job_id: int, report: Callable[[], None]) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        original(worker, job_id, report)

    monkeypatch.setattr(Worker, "run_one", interrupted)
    result = flask(clinic, file, *OPTIONS, "--apply", "--yes", "--on-error", "skip")

    assert result.exit_code == 1
    assert "Interrupted. Import 1 is checked." in result.output
    assert names(clinic) == []


def test_an_undo_of_used_rows_is_refused(clinic: Clinic, file: Path) -> None:
    flask(clinic, file, *OPTIONS, "--apply", "--yes", "--on-error", "skip")
    (patient,) = clinic.admin.get("/patients").get_json()
    clinic.appointment(patient_id=patient["id"])

    result = flask(clinic, "undo", 1, "--yes")

    assert (result.exit_code, f"row 2: patient {patient['id']}" in result.output) == (1, True)
    assert names(clinic) == ["Amina Yusuf"]
