"""Similarity of words and names by search key: which differences a typing error explains."""

from __future__ import annotations

import re
from collections.abc import Sequence

_WORD = re.compile(r"[^\W_]+")
MIN_LENGTH_TWO_EDITS = 8  # letters of a word that may differ by two edits
MIN_LENGTH_ONE_EDIT = 4  # letters of a word that may differ by one edit; shorter words must be equal


def split_words(text: str) -> list[str]:
    """Return the runs of letters and digits of a text."""
    return _WORD.findall(text)


def within_edits(text: str, other: str, edits: int) -> bool:
    """Return True if at most `edits` edits change one text into the other.

    An edit inserts, deletes or replaces a letter, or swaps two adjacent letters. No part of a text is edited
    twice: this is the optimal string alignment distance.
    """
    # quick rejection: one edit changes the length by at most 1 and the set of letters by at most 2
    if abs(len(text) - len(other)) > edits or len(set(text) ^ set(other)) > 2 * edits:
        return False
    return _within_edits(text, other, edits)


def _within_edits(text: str, other: str, edits: int) -> bool:
    prefix = _common_prefix_length(text, other)
    text, other = text[prefix:], other[prefix:]
    if max(len(text), len(other)) <= edits:
        return True
    if not edits or abs(len(text) - len(other)) > edits:
        return False
    return (
        _within_edits(text[1:], other[1:], edits - 1)
        or _within_edits(text[1:], other, edits - 1)
        or _within_edits(text, other[1:], edits - 1)
        or (text[:2] == other[1::-1] and _within_edits(text[2:], other[2:], edits - 1))
    )


def _common_prefix_length(text: str, other: str) -> int:
    for index, (letter, other_letter) in enumerate(zip(text, other, strict=False)):
        if letter != other_letter:
            return index
    return min(len(text), len(other))


def begins_within_one_edit(word: str, text: str) -> bool:
    """Return True if `text` begins with `word`, or with a word that is one edit away from it."""
    size = len(word)
    prefix = _common_prefix_length(word, text)
    if prefix == size:
        return True
    swapped = word[prefix + 1 : prefix + 2] + word[prefix]
    return (
        word[prefix + 1 :] == text[prefix + 1 : size]  # a letter replaced
        or word[prefix + 1 :] == text[prefix : size - 1]  # a letter too many
        or word[prefix:] == text[prefix + 1 : size + 1]  # a letter missing
        or (len(swapped) == 2 and swapped + word[prefix + 2 :] == text[prefix:size])  # two letters swapped
    )


def similar_words(word: str, other: str) -> bool:
    """Return True if the words are equal or differ by a typing error, or if one is the other's initial.

    Words with digits must be equal.
    """
    if word == other:
        return True
    shortest, longest = sorted((len(word), len(other)))
    if shortest == 1:
        similar = word[0] == other[0]
    else:
        edits = 2 if longest >= MIN_LENGTH_TWO_EDITS else 1
        similar = longest >= MIN_LENGTH_ONE_EDIT and within_edits(word, other, edits)
    return similar and not has_digit(word + other)


def has_digit(text: str) -> bool:
    """Return True if the text contains a digit. A typing error in a number gives another valid number."""
    return any(c.isdigit() for c in text)


def similar_names(name: str, other: str) -> bool:
    """Return True if two names, as search keys, may belong to the same person.

    The words may have another order, small differences and initials; middle names and second surnames may
    be missing. Each word of the shorter name must match a different word of the longer one. A name of one
    word must be a word of the other name, or similar to the whole of it.
    """
    shorter, longer = sorted((split_words(name), split_words(other)), key=len)
    if not shorter:
        return name == other
    if len(shorter) == 1 and len(longer) > 1:
        return shorter[0] in longer or similar_words(shorter[0], "".join(longer))
    if _alike_when_joined(shorter, longer):
        return True
    unmatched = list(longer)
    for word in sorted(shorter, key=len, reverse=True):
        match = word if word in unmatched else next((w for w in unmatched if similar_words(word, w)), None)
        if match is None:
            return False
        unmatched.remove(match)
    return True


def _alike_when_joined(words: Sequence[str], others: Sequence[str]) -> bool:
    """Return True for names such as "Mary Ann" and "Maryann"."""
    joined, other = "".join(words), "".join(others)
    return within_edits(joined, other, 1) and not has_digit(joined + other)


class NameComparison:
    """The comparison of one name with many others: `similar_names`, faster for those that differ clearly.

    Many patients may share a date of birth, and few of the words in their names are new.
    """

    def __init__(self, name: str) -> None:
        self.name, self.words = name, split_words(name)
        self._has_similar: dict[str, bool] = {}  # word of another name -> is it similar to one of this name?

    def is_similar_to(self, other: str) -> bool:
        """Return the result of `similar_names` for this name and another one."""
        words = split_words(other)
        needed = min(len(words), len(self.words))  # each word of the shorter name needs one of its own
        if needed > 1 and sum(map(self._is_similar_word, words)) < needed:
            return _alike_when_joined(self.words, words)
        return similar_names(self.name, other)

    def _is_similar_word(self, word: str) -> bool:
        known = self._has_similar.get(word)
        if known is None:
            known = self._has_similar[word] = any(similar_words(word, own) for own in self.words)
        return known
