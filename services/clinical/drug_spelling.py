"""Typing errors in the names of medications and recorded allergens: one error in a word is tolerated.

`recognize_drug` and `recognize_allergen` resolve a name as `services.clinical.drugs` does. A word that the
drug table does not know is then compared with the words of the table. The rules:

- A known word is never changed, so that look-alike names of two medicines stay apart.
- The word and the known word have at least five letters and no digit. Beside a known medicine the word has
  at least seven letters, because it may be the name of a manufacturer ("Amoxicillin Cipla").
- One letter is missing, added, replaced, or swapped with its neighbour.
- Every known word at this distance is tried. If they mean different medicines, there is no guess.
- A general word ("tablet", "rash") counts as one of these meanings.
- A guessed trade name is uncertain, because many trade names differ in one letter. The word may be another
  trade name that the table does not know. It is checked as the guess and also reported as unchecked.
- The guess of a trade name keeps the first letter, because a typing error there is rare.
- At most five words of a name are compared. The other unknown words stay unknown, and are reported.
"""

from __future__ import annotations

import functools
import re
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from services.clinical import drug_words, drugs
from services.clinical.drugs import Allergen, Drug
from services.patients.name_matching import has_digit, within_edits

MIN_LETTERS: Final = 5
MIN_LETTERS_BESIDE_A_NAME: Final = 7
MAX_COMPARED_WORDS: Final = 5  # more unknown words are a text, or an attempt to keep the server busy
_KEY_LETTERS: Final = 2

_Match = TypeVar("_Match", Drug, Allergen)


@dataclass(frozen=True, slots=True)
class Recognized(Generic[_Match]):
    """A resolved name. `understood` holds pairs (entered word, known word).

    `uncertain` holds the entered words that were understood as a trade name. `ambiguous` holds pairs (entered
    word, similar known words of different meaning).
    """

    match: _Match | None
    understood: tuple[tuple[str, str], ...] = ()
    ambiguous: tuple[tuple[str, tuple[str, ...]], ...] = ()
    uncertain: tuple[str, ...] = ()


class SpellingIndex:
    """An index of words, to find those that are one edit away.

    One edit changes one place of a word. In a word with five letters or more, it keeps the first two or the
    last two letters, and changes the length by one at most. The index has two keys for each word, each with
    the length. Only words with an equal key are compared.
    """

    def __init__(self, words: Iterable[str]) -> None:
        self._by_ends = defaultdict[tuple[str, str, int], list[str]](list)
        for word in words:
            for key in _keys(word, len(word)):
                self._by_ends[key].append(word)

    def similar(self, word: str) -> list[str]:
        """Return the words that are one edit away, in alphabetical order."""
        lengths = range(len(word) - 1, len(word) + 2)
        keys = (key for length in lengths for key in _keys(word, length))
        candidates = {candidate for key in keys for candidate in self._by_ends.get(key, ())}
        return sorted(candidate for candidate in candidates if within_edits(word, candidate, 1))


def _keys(word: str, length: int) -> tuple[tuple[str, str, int], tuple[str, str, int]]:
    return ("first", word[:_KEY_LETTERS], length), ("last", word[-_KEY_LETTERS:], length)


@functools.cache
def _index() -> SpellingIndex:
    # words with a letter less than MIN_LETTERS are never the guess, but they make a guess uncertain
    return SpellingIndex(
        word for word in drugs.known_words() if len(word) >= MIN_LETTERS - 1 and not has_digit(word)
    )


def recognize_drug(name: str) -> Recognized[Drug]:
    """Return the drug of a name, with one typing error in a word tolerated."""
    return _recognize(name, drugs.resolve, lambda drug: drug.ingredients)


def recognize_allergen(text: str) -> Recognized[Allergen]:
    """Return the allergen of a text, with one typing error in a word tolerated."""
    return _recognize(
        text, drugs.resolve_allergen, lambda allergen: (allergen.kind, allergen.ingredients, allergen.classes)
    )


def _recognize(
    name: str, resolve: Callable[[str], _Match | None], meaning: Callable[[_Match], Hashable]
) -> Recognized[_Match]:
    match = resolve(name)
    text = drug_words.fold(name)
    understood: list[tuple[str, str]] = []
    ambiguous: list[tuple[str, tuple[str, ...]]] = []
    uncertain: list[str] = []
    for word in _unknown_words(text, match):
        current = match and meaning(match)
        options: dict[Hashable, tuple[str, _Match | None]] = {}
        for candidate in sorted(_similar(word), key=_preference):
            corrected = resolve(_replace(text, word, candidate))
            if drug_words.is_general_word(candidate) or (
                corrected and candidate not in corrected.unknown_parts
            ):
                options.setdefault(corrected and meaning(corrected), (candidate, corrected))
        if len(options) > 1:
            names = (
                candidate for candidate, _ in options.values() if not drug_words.is_general_word(candidate)
            )
            ambiguous.append((word, tuple(names)))
        elif options.keys() - {current}:
            ((candidate, corrected),) = options.values()
            if len(candidate) < MIN_LETTERS:
                continue
            if not drugs.is_generic_word(candidate):
                if candidate[0] != word[0]:
                    ambiguous.append((word, (candidate,)))
                    continue
                uncertain.append(word)
            match = corrected
            text = _replace(text, word, candidate)
            understood.append((word, candidate))
    return Recognized(match, tuple(understood), tuple(ambiguous), tuple(uncertain))


def _similar(word: str) -> list[str]:
    """Return the known words that are one edit away. The table has no plurals of substances and classes."""
    if similar := _index().similar(word):
        return similar
    return [known for known in _index().similar(word.removesuffix("s")) if drugs.is_generic_word(known)]


def _preference(candidate: str) -> tuple[bool, bool]:
    """Return the sort key of a known word: ingredients first, then other generic words, then trade names."""
    return not drugs.is_ingredient(candidate), not drugs.is_generic_word(candidate)


def _unknown_words(text: str, match: Drug | Allergen | None) -> list[str]:
    """Return the words to compare: the first ones that the table does not know, each once."""
    if match is None:
        words, shortest = [word.text for word in drug_words.split_words(text)], MIN_LETTERS
    else:
        words, shortest = list(match.unknown_parts), MIN_LETTERS_BESIDE_A_NAME
    known = drugs.known_words()
    unknown = [
        word
        for word in dict.fromkeys(words)
        if len(word) >= shortest and not has_digit(word) and word not in known
    ]
    return unknown[:MAX_COMPARED_WORDS]


def _replace(text: str, word: str, replacement: str) -> str:
    return re.sub(rf"(?<![^\W_]){re.escape(word)}(?![^\W_])", replacement, text)
