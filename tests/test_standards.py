"""The tables of ASVS and HIPAA: every row has a state, and names evidence that exists."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
STATES = {"met", "partly", "not", "n/a"}
# Requirements of the levels 1 and 2 in each chapter of ASVS 5.0.0. V10 and V17 do not apply as a whole.
CHAPTERS = dict(
    zip((*range(1, 10), *range(11, 17)), (27, 11, 19, 10, 9, 35, 18, 7, 7, 14, 9, 13, 9, 13, 16), strict=True)
)
WITHOUT_ROWS = {10: 29, 17: 7}
PATH = re.compile(
    r"`((?:[\w.-]+/)*[\w.-]+?(?:\.(?:py|md|yaml|toml|conf|service)|/[\w-]+)|Makefile|Dockerfile)(?:::(\w+))?`"
)


def rows(path: str, first_cell: str) -> list[list[str]]:
    """Return the cells of the table rows whose first cell matches."""
    lines = [line for line in (ROOT / path).read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    table = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    return [row for row in table if re.fullmatch(first_cell, row[0])]


ASVS = rows("docs/asvs.md", r"\d+\.\d+\.\d+")
HIPAA = rows("SECURITY.md", r"\([a-e]\)\S*( [RA])?")


def test_the_table_of_asvs_is_complete() -> None:
    chapters = Counter(int(row[0].split(".")[0]) for row in ASVS)

    assert chapters == CHAPTERS
    assert len({row[0] for row in ASVS}) == len(ASVS)
    assert {row[1] for row in ASVS} == {"1", "2"}


def test_the_summary_of_asvs_counts_its_rows() -> None:
    states = Counter(row[3] for row in ASVS)
    states["n/a"] += sum(WITHOUT_ROWS.values())
    summary = (
        f"Of {states.total()} requirements, {states['met']} are met, {states['partly']} partly, "
        f"{states['not']} not, and {states['n/a']} do not apply."
    )

    for path in ("docs/asvs.md", "SECURITY.md"):
        assert summary in " ".join((ROOT / path).read_text(encoding="utf-8").split()), path


def test_every_safeguard_of_hipaa_is_listed() -> None:
    sections = [row[0].split()[0] for row in HIPAA]

    assert sections == [
        *("(a)(1)", "(a)(2)(i)", "(a)(2)(ii)", "(a)(2)(iii)", "(a)(2)(iv)"),
        *("(b)", "(c)(1)", "(c)(2)", "(d)", "(e)(1)", "(e)(2)(i)", "(e)(2)(ii)"),
    ]


@pytest.mark.parametrize("table", [ASVS, HIPAA], ids=["ASVS", "HIPAA"])
def test_every_row_has_a_state_and_evidence_that_exists(table: list[list[str]]) -> None:
    missing = []
    for number, *_words, state, evidence in table:
        assert state in STATES, number
        assert evidence, number
        for path, test in PATH.findall(evidence):
            file = ROOT / path
            if not file.exists() or (test and f"def {test}(" not in file.read_text(encoding="utf-8")):
                missing.append(f"{number}: {path}::{test}")

    assert missing == []
