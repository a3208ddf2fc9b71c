"""How alike two folded words or names are: what a slip of the keyboard does to them, and no more."""

from __future__ import annotations

import re

_WORD = re.compile(r"[^\W_]+")
LONG = 8  # letters from which a word may differ by two
SHORT = 4  # letters below which it must be equal


def words(text: str) -> list[str]:
    """The runs of letters and digits of a text."""
    return _WORD.findall(text)


def within_edits(one: str, other: str, edits: int) -> bool:
    """Whether so many letters inserted, removed, replaced or swapped with their neighbour make one the other.

    No part of a text is changed twice (optimal string alignment).
    """
    # an edit takes a letter away, or brings one, or both
    if abs(len(one) - len(other)) > edits or len(set(one) ^ set(other)) > 2 * edits:
        return False
    return _within(one, other, edits)


def _within(one: str, other: str, edits: int) -> bool:
    at = _shared(one, other)
    one, other = one[at:], other[at:]
    if max(len(one), len(other)) <= edits:
        return True
    if not edits or abs(len(one) - len(other)) > edits:
        return False
    return (
        _within(one[1:], other[1:], edits - 1)
        or _within(one[1:], other, edits - 1)
        or _within(one, other[1:], edits - 1)
        or (one[:2] == other[1::-1] and _within(one[2:], other[2:], edits - 1))
    )


def _shared(one: str, other: str) -> int:
    """How many letters two texts begin with in common."""
    for at, (a, b) in enumerate(zip(one, other, strict=False)):
        if a != b:
            return at
    return min(len(one), len(other))


def begins_within_one_edit(word: str, text: str) -> bool:
    """Whether `text` begins with `word`, or with what one slip made of it."""
    size = len(word)
    at = _shared(word, text)
    if at == size:
        return True
    swapped = word[at + 1 : at + 2] + word[at]
    return (
        word[at + 1 :] == text[at + 1 : size]  # another letter
        or word[at + 1 :] == text[at : size - 1]  # one too many
        or word[at:] == text[at + 1 : size + 1]  # one missing
        or (len(swapped) == 2 and swapped + word[at + 2 :] == text[at:size])  # two swapped
    )


def similar_words(one: str, other: str) -> bool:
    """Equal, an initial of the other, or apart by what a slip or another spelling explains."""
    if one == other:
        return True
    shortest, longest = sorted((len(one), len(other)))
    if shortest == 1:
        alike = one[0] == other[0]
    else:
        alike = longest >= SHORT and within_edits(one, other, 2 if longest >= LONG else 1)
    return alike and not numbered(one + other)


def numbered(text: str) -> bool:
    """Whether a digit is in it: numbers are taken as they are, since one that is off by one is another."""
    return any(c.isdigit() for c in text)


def similar_names(one: str, other: str) -> bool:
    """Whether two folded names may be one person's.

    Words in any order, with small differences, initials, and middle names or second surnames left out:
    each word of the shorter name has its own in the longer one. A name of one word must stand in the other
    as it is.
    """
    first, second = sorted((words(one), words(other)), key=len)
    if not first:
        return one == other
    if len(first) == 1 and len(second) > 1:
        return first[0] in second or similar_words(first[0], "".join(second))
    if within_edits("".join(first), "".join(second), 1) and not numbered(one + other):
        return True  # written apart or together
    rest = list(second)
    for word in sorted(first, key=len, reverse=True):
        match = word if word in rest else next((w for w in rest if similar_words(word, w)), None)
        if match is None:
            return False
        rest.remove(match)
    return True
