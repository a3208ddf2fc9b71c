"""Forms of typed text."""

from __future__ import annotations

import re

import pytest

from column_types import NOT_BLANK_PATTERN, is_blank_text

NO_VISIBLE_CHARACTER = [
    *("", " \t\n", "\u00a0\u3000\u2028", "\x01\x7f\x85"),
    *("\u200b", "\u200e\u202e\u2066", "\u00ad\ufeff\u2060", "\u0301", "\u034f", "\ufe0f", "\u061c"),
    *("\u115f", "\u2800", "\u3164", "\uffa0"),
]


@pytest.mark.parametrize("text", [*NO_VISIBLE_CHARACTER, "\U000e0041", "\U0001d173"])
def test_a_text_without_a_visible_character_is_blank(text: str) -> None:
    assert is_blank_text(text)


@pytest.mark.parametrize(
    "text", ["A", "\u200bA", "e\u0301", "\u0639", "\u0915\u093f", "\u738b", "\u2764\ufe0f", "-", "<"]
)
def test_a_text_with_a_visible_character_is_not_blank(text: str) -> None:
    assert not is_blank_text(text)


def test_the_documented_pattern_is_the_rule() -> None:
    assert not any(re.search(NOT_BLANK_PATTERN, text) for text in NO_VISIBLE_CHARACTER)
    assert re.search(NOT_BLANK_PATTERN, "\u200bA")
