"""Pairs of a recorded allergy and a medicine, written from clinical sources.

`allergy_pairs.csv` has one allergy and several medicines in a row, the expected reason of the alert (`quiet`:
no alert) and the source. The pairs are not derived from the drug table.
"""

import csv
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from data import build
from services.clinical import drugs

PAIRS = Path(__file__).with_name("allergy_pairs.csv")


def read_pairs(*expected: str) -> Iterator[tuple[str, str, str]]:
    """Return (allergy, medicine, expected reason) of the rows with one of the expected reasons."""
    with PAIRS.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            assert row["source"], row["allergy"]
            if row["expected"] in expected:
                for medicine in row["medicines"].split(";"):
                    yield row["allergy"], medicine, row["expected"]


@cache
def reasons(allergy: str, medicine: str) -> frozenset[str] | None:
    """Return the reasons against the medicine, or None if one of the names is not known."""
    allergen, drug = drugs.resolve_allergen(allergy), drugs.resolve(medicine)
    if allergen is None or drug is None:
        return None
    return frozenset(match.kind for match in drugs.match_allergy(drug, allergen))


def test_every_pair_with_an_alert_is_found_for_its_reason() -> None:
    pairs = set(read_pairs("ingredient", "class", "cross_reactivity"))

    wrong = {pair for pair in pairs if pair[2] not in (reasons(*pair[:2]) or ())}

    assert wrong == set()
    assert len({pair[:2] for pair in pairs}) >= 1500


def test_every_pair_without_an_alert_stays_quiet() -> None:
    pairs = set(read_pairs("quiet"))

    wrong = {pair: reasons(*pair[:2]) for pair in pairs if reasons(*pair[:2]) != frozenset()}

    assert wrong == {}
    assert len(pairs) >= 200


def test_every_row_has_a_known_result() -> None:
    with PAIRS.open(newline="", encoding="utf-8") as file:
        results = {row["expected"] for row in csv.DictReader(file)}

    assert results == {"ingredient", "class", "cross_reactivity", "quiet"}


def test_every_class_that_concerns_all_members_has_a_pair() -> None:
    found = set()
    for allergy, medicine, _ in read_pairs("class"):
        allergen, drug = drugs.resolve_allergen(allergy), drugs.resolve(medicine)
        assert allergen is not None, allergy
        assert drug is not None, medicine
        found |= {match.name for match in drugs.match_allergy(drug, allergen)}

    expected = {row["class"] for row in build.read_curated("class_rules") if row["on_allergy"] == "yes"}
    assert expected - found == set()
