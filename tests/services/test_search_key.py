"""Search keys: texts that a search treats as equal."""

from __future__ import annotations

import pytest

from services.search_key import search_key


@pytest.mark.parametrize(
    ("key", "texts"),
    [
        ("oconnor", "O'Connor O’Connor O‘Connor OʼConnor O`Connor O´Connor O＇Connor Oʻconnor OCONNOR"),
        (
            "smith jones",
            "Smith-Jones Smith‐Jones Smith‑Jones Smith–Jones Smith—Jones Smith−Jones SMITH－JONES",
        ),
        ("p-000123", "P-000123 p‑000123 P–000123 P−000123"),
        (
            "jose",
            "José JOSÉ Jose\u0301 Jo\u200bse Jo\u00adse Jo\ufeffse Jo\u200dsé \u202aJose\u202c Jos\u034fe",
        ),
        ("strasse", "Straße STRASSE Stra\u1e9ee"),
        ("thordur", "Þórður ÞÓRÐUR thorður"),
        ("istanbul", "İstanbul ıstanbul ISTANBUL"),
        ("lodz", "Łódź łódź LODZ"),
    ],
)
def test_equal_keys(key: str, texts: str) -> None:
    assert {search_key(text) for text in texts.split(" ")} == {key}


def test_a_dash_between_words_is_a_space() -> None:
    assert search_key("Smith - Jones") == search_key("Smith  Jones") == search_key(" smith–jones ")


def test_a_key_has_at_most_the_width_of_the_column() -> None:
    assert len(search_key("ﷺ" * 400)) <= 400


@pytest.mark.parametrize("text", ["Ðóra", "Ħal", "Ŋa", "Ægir", "O'Connor-Smith 5−3", "עַבְדּ־אל", "ŉx"])
def test_the_key_of_a_key_is_the_same_key(text: str) -> None:
    assert search_key(search_key(text)) == search_key(text)
