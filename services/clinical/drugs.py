"""Drug knowledge: names, ingredients, classes, allergies and duplicate therapy, without network access.

Pure functions over one versioned table, `data/drugs.json.gz`. `data/build.py` builds the table from
the sources in `data/NOTICE.md`. The table holds active ingredients. It holds no excipients (lactose, gelatin,
sulfites, dyes), routes or doses. An allergy to an excipient is kept in `unknown_parts`, so that the caller
reports it as unchecked.

**Cross-reactivity.** Rules and their sources:

- Penicillins: a recorded penicillin allergy matches the whole penicillin class. It matches a cephalosporin
  only if its R1 side chain is shared with or similar to that of an aminopenicillin (cephalexin, cefadroxil,
  cefaclor, cefprozil, cephradine, cefatrizine, loracarbef). That match is a `cross_reactivity`. Other
  cephalosporins, carbapenems and aztreonam do not match. Sources: Khan DA et al., "Drug allergy: A 2022
  practice parameter update", J Allergy Clin Immunol 2022;150(6):1333-1393; the side-chain rates of Picard M
  et al., J Allergy Clin Immunol Pract 2019;7(8):2722-2738.
- Sulfonamides: sulfonamide antibacterials do not match other sulfonamides (furosemide, thiazides,
  celecoxib). Source: Strom BL et al., N Engl J Med 2003;349:1628-1635.
- NSAIDs: aspirin and all other NSAIDs match each other, including celecoxib. Source: the label of celecoxib,
  contraindicated after an allergic-type reaction to aspirin or any other NSAID.
- Opioids: the phenanthrene opioids match each other. Every opioid allergy matches tramadol. Source: the
  label of tramadol, contraindicated in hypersensitivity to any opioid.
- Iodine: the word may name contrast media, povidone-iodine or iodides, and matches all of them. It also
  matches amiodarone. Source: the label of amiodarone, section 4, which names iodine. An allergy to
  shellfish does not match contrast media. Source: ACR Manual on Contrast Media.
- The decision for each class of two or more ingredients is in `data/curated/class_rules.csv`, with its
  source.
- All other pairs are in `data/curated/cross_reactivity.csv`, each with its reason.

**General words.** A recorded word matches everything that it may name: "insulin" means every insulin, and
"muscle relaxant" also means the drugs that paralyse for surgery. `data/curated/allergens.csv` lists these
words. A general name of a medicine means every ingredient that it may name, too.
`data/curated/general_names.csv` lists these names.
"""

from __future__ import annotations

import functools
import gzip
import json
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, TypeVar, get_args

from services.clinical.drug_words import (
    GENERAL_WORDS,
    NAMES_LIKE_STRENGTHS,
    SALT_WORDS,
    Word,
    allergen_words,
    is_noise,
    split_words,
    suffixes,
)

# Increase it with every change of the table. The table holds the same version.
DATA_VERSION: Final = "2026.5"
TABLE: Final = Path(__file__).resolve().parents[2] / "data" / "drugs.json.gz"

AllergenKind = Literal["drug", "food", "environment", "animal", "venom", "contact", "excipient", "none"]
_KIND_ORDER: Final = get_args(AllergenKind)  # an entry with several allergens gets the first kind
MatchKind = Literal["ingredient", "class", "cross_reactivity"]


@dataclass(frozen=True, slots=True)
class Drug:
    """A medication that the table knows. `unknown_parts` are the words of its name outside the table."""

    name: str
    ingredients: frozenset[str]
    classes: frozenset[str]
    unknown_parts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Allergen:
    """A recorded allergen that the table knows. A food, a pollen or latex matches few or no drugs.

    `cross_reactive` holds pairs (ingredient, reason). `unknown_parts` cannot be checked: words that are not
    in the table, excipients, and denials such as "none".
    """

    name: str
    kind: AllergenKind
    ingredients: frozenset[str]
    classes: frozenset[str]
    cross_reactive: tuple[tuple[str, str], ...] = ()
    unknown_parts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class AllergyMatch:
    """A match of an allergy. `name` is the ingredient, the class, or the reason of the cross-reactivity."""

    kind: MatchKind
    name: str
    ingredient: str


@dataclass(frozen=True, slots=True)
class _AllergenTerm:
    kind: AllergenKind
    ingredients: frozenset[str]
    classes: frozenset[str]
    cross_reactive: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class _DrugTable:
    classes_of: Mapping[str, frozenset[str]]  # ingredient -> classes
    names: Mapping[str, tuple[str, ...]]  # normalized name -> ingredients
    products: frozenset[frozenset[str]]  # the ingredients of each name
    general_names: frozenset[str]  # normalized names that may mean any of their ingredients
    generic_words: frozenset[str]  # words of substances, classes and allergens, not of trade names
    terms: Mapping[str, _AllergenTerm]  # normalized allergen -> its matches
    cross_reactive: Mapping[str, tuple[tuple[str, str], ...]]  # ingredient -> (other ingredient, reason)
    allergy_classes: frozenset[str]  # an allergy to one member concerns all members
    duplicate_classes: frozenset[str]  # two members at once are duplicate therapy
    diluents_and_gases: frozenset[str]  # ingredients that never count as duplicates


_Match = TypeVar("_Match")
_MAX_WORDS = 8  # words of a name inside a longer text; longer names match only the whole text
_LOCK = threading.Lock()


@functools.cache
def _load() -> _DrugTable:
    table = json.loads(gzip.decompress(TABLE.read_bytes()))
    if table["version"] != DATA_VERSION:
        raise RuntimeError(
            f"data/drugs.json.gz has version {table['version']}, the code expects {DATA_VERSION}"
        )
    classes: list[str] = table["classes"]
    ingredients: list[str] = [name for name, _ in table["ingredients"]]
    names = {name: tuple(ingredients[i] for i in ids) for name, ids in table["names"].items()}
    return _DrugTable(
        classes_of={name: frozenset(classes[i] for i in ids) for name, ids in table["ingredients"]},
        names=names,
        products=frozenset(map(frozenset, names.values())),
        general_names=frozenset(table["general_names"]),
        generic_words=frozenset(table["generic_words"]),
        terms={
            term: _AllergenTerm(
                kind,
                frozenset(ingredient_names),
                frozenset(class_names),
                tuple((ingredient, reason) for ingredient, reason in pairs),
            )
            for term, (kind, ingredient_names, class_names, pairs) in table["allergens"].items()
        },
        cross_reactive={
            name: tuple((ingredient, reason) for ingredient, reason in pairs)
            for name, pairs in table["cross_reactive"].items()
        },
        allergy_classes=frozenset(table["allergy_classes"]),
        duplicate_classes=frozenset(table["duplicate_classes"]),
        diluents_and_gases=frozenset(table["diluents_and_gases"]),
    )


def _table() -> _DrugTable:
    with _LOCK:  # several threads may need the table first; only one of them reads the file
        return _load()


@functools.cache
def known_words() -> frozenset[str]:
    """Return the words of all names and allergens, and the words that do not name a substance."""
    table = _table()
    words = {word for phrase in (*table.names, *table.terms) for word in phrase.split()}
    return frozenset(words | GENERAL_WORDS)


@functools.cache
def _longest_phrases() -> Mapping[str, int]:
    """Return for each first word of a name or allergen how many words its longest phrase has."""
    table = _table()
    longest: dict[str, int] = {}
    for phrase in (*table.names, *table.terms):
        words = phrase.split()
        longest[words[0]] = min(_MAX_WORDS, max(len(words), longest.get(words[0], 1)))
    return longest


def is_generic_word(word: str) -> bool:
    """Return True for a word of a substance, class or allergen, and False for a word of trade names only."""
    return word in _table().generic_words


def is_ingredient(name: str) -> bool:
    """Return True for the standard name of an ingredient."""
    return name in _table().classes_of


def resolve(name: str) -> Drug | None:
    """Return the drug of a brand, generic or combination name, or None if no part of the name is known.

    Case, strengths, dose forms and salts do not matter. Some brands are sold with different ingredients.
    Such a brand means the ingredients that all its products share. If they share none, it means all of them.
    A salt is a medicine if it is alone ("Zinc 20 mg"), and a part of the name beside another word.
    An unknown suffix of a trade name may add an ingredient ("Concor AM"). It is one of the unknown parts.
    """
    table = _table()
    words = split_words(name)
    ingredients = table.names.get(" ".join(word.text for word in words))
    if ingredients is not None:
        return _drug(frozenset(ingredients), (), table)
    alone = _words_alone(words)
    matches, unknown = _scan(words, functools.partial(_find_ingredients, alone=alone, table=table))
    return _drug(_ingredients_of(matches, table), unknown, table) if matches else None


def find_medicines(text: str) -> frozenset[str]:
    """Return the ingredients that a free text names. Advice about water and alcohol names none."""
    drug = resolve(text)
    return frozenset() if drug is None else drug.ingredients - _table().diluents_and_gases - {"alcohol"}


def _ingredients_of(matches: list[tuple[str, tuple[str, ...]]], table: _DrugTable) -> frozenset[str]:
    """Return the ingredients of the matches. A general name beside a member means it: "insulin Mixtard"."""
    ingredients = [(phrase in table.general_names, frozenset(match)) for phrase, match in matches]
    members = [of_match for is_general, of_match in ingredients if not is_general]
    return frozenset().union(
        *(
            of_match
            for is_general, of_match in ingredients
            if not (is_general and any(member <= of_match for member in members))
        )
    )


def _drug(ingredients: frozenset[str], unknown: tuple[str, ...], table: _DrugTable) -> Drug:
    return Drug(" / ".join(sorted(ingredients)), ingredients, _classes_of(ingredients, table), unknown)


def _classes_of(ingredients: Iterable[str], table: _DrugTable) -> frozenset[str]:
    return frozenset().union(*(table.classes_of[ingredient] for ingredient in ingredients))


def _words_alone(words: list[Word]) -> frozenset[str]:
    """Return the words that are the only name between two separators, such as "ABC" in "ABC 600/3TC 300".

    The first salt is the name if there is no other one: "Zinc 20 mg".
    """
    parts: list[list[str]] = []
    for word in words:
        if word.after_separator or not parts:
            parts.append([])
        if not is_noise(word.text) or word.text in SALT_WORDS:
            parts[-1].append(word.text)
    names = ([word for word in part if word not in SALT_WORDS] or part[:1] for part in parts)
    return frozenset(name[0] for name in names if len(name) == 1)


def _find_ingredients(phrase: str, alone: frozenset[str], table: _DrugTable) -> tuple[str, ...] | None:
    # One to three letters beside other words are more likely an abbreviation than a brand.
    # A salt beside another word belongs to it.
    is_long = len(phrase) > 3 and phrase not in SALT_WORDS
    is_clear = phrase in alone or " " in phrase or is_long or phrase in NAMES_LIKE_STRENGTHS
    return table.names.get(phrase) if is_clear else None


def _scan(
    words: list[Word], find: Callable[[str], _Match | None]
) -> tuple[list[tuple[str, _Match]], tuple[str, ...]]:
    """Return the matches from left to right, the longest phrase first, and the words that match nothing."""
    matches: list[tuple[str, _Match]] = []
    unknown: list[str] = []
    start = 0
    longest = _longest_phrases()
    while start < len(words):
        # A phrase of one word may be a plural, which the table does not hold.
        for end in range(min(len(words), start + longest.get(words[start].text, 1)), start, -1):
            phrase = " ".join(word.text for word in words[start:end])
            if (match := find(phrase)) is not None:
                matches.append((phrase, match))
                # "calcium, zinc" and "calcium zinc" are two allergens: a metal has no salt to skip
                start = end if is_noise(phrase) else _skip_salts(words, end)
                if not all(word in _table().generic_words for word in phrase.split()):
                    unknown += suffixes(words[end:start])
                break
        else:
            if not is_noise(words[start].text):
                unknown.append(words[start].text)
            start += 1
    return matches, tuple(unknown)


def _skip_salts(words: list[Word], start: int) -> int:
    """Return the position after the salt of a name: "dexamethasone sodium phosphate" is one substance."""
    while start < len(words) and not words[start].after_separator and is_noise(words[start].text):
        start += 1
    return start


def resolve_allergen(text: str) -> Allergen | None:
    """Return the substances and classes of a recorded allergy, or None if no part of the text is known.

    A class ("penicillin", "NSAIDs") means the whole class. A single drug means its ingredients, and those of
    its classes where an allergy to one member concerns all members. The rule of each class is in
    `data/curated/class_rules.csv`. Pollen and latex are known and match no drug. Several allergens in one
    text are combined.
    """
    table = _table()
    words = allergen_words(text)
    alone = _words_alone(words)
    matches, unknown = _scan(
        words,
        lambda phrase: (
            _find_term(phrase, table) or _term_of_drug(_find_ingredients(phrase, alone, table), table)
        ),
    )
    if all(term.kind == "none" for _, term in matches):
        # "antibiotics" describes another name, and is a general word if there is none
        general, _ = _scan(split_words(text), lambda phrase: _find_term(phrase, table))
        matches = general or matches
    if not matches:
        return None
    terms = [term for _, term in matches]
    kinds: list[AllergenKind] = sorted({term.kind for term in terms}, key=_KIND_ORDER.index)
    # An excipient may be in any product, and the table does not hold which ones. A denial beside other words
    # may be about something else: "no antibiotics".
    unchecked = tuple(phrase for phrase, term in matches if term.kind in ("excipient", "none"))
    return Allergen(
        name=" / ".join(phrase for phrase, _ in matches),
        kind=kinds[0],
        ingredients=frozenset().union(*(term.ingredients for term in terms)),
        classes=frozenset().union(*(term.classes for term in terms)),
        cross_reactive=tuple(sorted({pair for term in terms for pair in term.cross_reactive})),
        unknown_parts=unchecked + unknown,
    )


def _find_term(phrase: str, table: _DrugTable) -> _AllergenTerm | None:
    singulars = (phrase.removesuffix("s"), phrase.removesuffix("es"), phrase.removesuffix("ies") + "y")
    for form in (phrase, *singulars):
        if (term := table.terms.get(form)) is not None:
            return term
    return None


def _term_of_drug(ingredients: tuple[str, ...] | None, table: _DrugTable) -> _AllergenTerm | None:
    if ingredients is None:
        return None
    pairs = tuple(pair for name in ingredients for pair in table.cross_reactive.get(name, ()))
    classes = _classes_of(ingredients, table) & table.allergy_classes
    return _AllergenTerm("drug", frozenset(ingredients), classes, pairs)


def match_allergy(drug: Drug, allergen: Allergen) -> list[AllergyMatch]:
    """Return the reasons against giving the drug; an empty list if there are none.

    For each ingredient only the closest reason counts: the same substance, then its class, then
    cross-reactivity.
    """
    table = _table()
    matches: list[AllergyMatch] = []
    for ingredient in sorted(drug.ingredients):
        if ingredient in allergen.ingredients:
            matches.append(AllergyMatch("ingredient", ingredient, ingredient))
        elif shared := table.classes_of[ingredient] & allergen.classes:
            matches.extend(AllergyMatch("class", name, ingredient) for name in sorted(shared))
        else:
            matches.extend(
                AllergyMatch("cross_reactivity", reason, ingredient)
                for other, reason in allergen.cross_reactive
                if other == ingredient
            )
    return matches


def is_product(drug: Drug) -> bool:
    """Return True if one product contains exactly the ingredients of the drug."""
    return drug.ingredients in _table().products


def duplicate_classes_within(drug: Drug) -> set[str]:
    """Return the classes of which one name contains several members, such as "ibuprofen and diclofenac".

    A general name contains all members that it may mean, so these do not count.
    """
    table = _table()
    general = (frozenset(table.names[name]) for name in table.general_names)
    named = drug.ingredients.difference(*(members for members in general if members <= drug.ingredients))
    counts = Counter(name for ingredient in named for name in table.classes_of[ingredient])
    return {name for name, count in counts.items() if count > 1} & table.duplicate_classes


def duplicate_ingredients(first: Drug, second: Drug) -> set[str]:
    """Return the active ingredients that both drugs contain.

    Diluents and gases (saline, dextrose, water, oxygen) do not count.
    """
    return set(first.ingredients & second.ingredients) - _table().diluents_and_gases


def duplicate_classes(first: Drug, second: Drug) -> set[str]:
    """Return the classes of which the two drugs contain different members, for example two statins.

    Only classes count of which two members at once are duplicate therapy. `data/curated/class_rules.csv` has
    the decision for each class and its reason. An ACE inhibitor with an angiotensin receptor blocker counts.
    Classes that are combined on purpose do not count: antiepileptics, basal and mealtime insulin, nitrates,
    cytostatics, antimycobacterials, inhaled and topical corticosteroids, vitamins, antacids.
    An ingredient that both drugs contain belongs to `duplicate_ingredients`. So a product never matches
    itself by class.
    """
    table = _table()
    first_classes = _classes_of(first.ingredients - second.ingredients, table)
    second_classes = _classes_of(second.ingredients - first.ingredients, table)
    return set(first_classes & second_classes & table.duplicate_classes)
