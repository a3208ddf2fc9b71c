"""The comparison of a name with many others."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.patients import name_matching
from services.patients.name_matching import NameComparison, similar_names

WORDS = st.one_of(
    st.sampled_from(["amina", "aminah", "otieno", "otineo", "a", "wanjiku", "wanjikoo", "li", "x1", "ann"]),
    st.text("abc1", max_size=9),
)
NAMES = st.lists(WORDS, max_size=4).map(" ".join)


@given(NAMES, st.lists(NAMES, max_size=6))
def test_a_comparison_with_many_names_gives_the_same_answers(name: str, others: list[str]) -> None:
    comparison = NameComparison(name)

    for other in [name, name[::-1], *others]:
        assert comparison.is_similar_to(other) == similar_names(name, other)


def test_each_word_of_many_names_is_compared_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[str, str]] = []
    compare = name_matching.similar_words

    def count(word: str, other: str) -> bool:
        calls.append((word, other))
        return compare(word, other)

    monkeypatch.setattr(name_matching, "similar_words", count)
    comparison = NameComparison("zawadi kiptoo")
    first, last = [f"amina{number}" for number in range(40)], [f"otieno{number}" for number in range(40)]

    similar = [comparison.is_similar_to(f"{one} {other}") for one, other in product(first, last)]

    assert not any(similar)
    assert len(calls) == 2 * 80  # each of 80 words with two words, for 1,600 names
