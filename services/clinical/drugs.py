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
import re
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, TypeVar, get_args

from services.search_key import APOSTROPHES, search_key

# Increase it with every change of the table. The table holds the same version.
DATA_VERSION: Final = "2026.3"
TABLE: Final = Path(__file__).resolve().parents[2] / "data" / "drugs.json.gz"

AllergenKind = Literal["drug", "food", "environment", "animal", "venom", "contact", "excipient", "none"]
_KIND_ORDER: Final = get_args(AllergenKind)  # an entry with several allergens gets the first kind
MatchKind = Literal["ingredient", "class", "cross_reactivity"]

# Salts and esters without an effect of their own. Procaine and salicylate are active substances, so that
# "procaine penicillin" contains two ingredients.
SALT_WORDS: Final = frozenset(
    """
    acetate acetonide acetyl adipate alafenamide anhydrous arginine aspartate axetil benzathine benzoate
    besilate besylate bicarbonate bisulfate bitartrate bromide butyrate calcium camsylate caproate carbonate
    chloride cilexetil citrate cypionate decanoate diacetate dihydrate dihydrochloride difumarate
    dimeglumine dimesylate dipivoxil dipotassium dipropionate disodium disoproxil edisylate enanthate
    epolamine erbumine estolate esylate etabonate etexilate ethanolate ethylsuccinate fosamil fumarate
    furoate gluceptate gluconate hcl hemifumarate hemihydrate heptahydrate hexacetonide hexahydrate
    hippurate hyclate hydrate hydrobromide hydrochloride hydrocholoride hydrogen iodide isethionate
    kamedoxomil lactate lactobionate lauroxil magnesium malate maleate medoxomil meglumine mesilate mesylate
    methylsulfate mofetil monohydrate monosodium napsylate nitrate octanoate olamine oxalate palmitate
    pamoate pentahydrate phosphate picrate pidolate pivalate pivoxil polistirex porcine bovine potassium
    probutate propanediol propionate proxetil pyrophosphate saccharate s-malate sodium solvate
    stearate strontium succinate sulfate sulphate tannate tartrate tosylate trifenatate triflutate
    trihydrate trometamol tromethamine undecanoate valerate xinafoate zinc
    """.split()
)
_UNIT_WORDS = frozenset(
    """
    mg mcg ug μg ng g gm kg ml l dl iu unt unit units u meq mmol mol mci hr hrs hour hours day days week
    weeks month actuat actuation dose doses puff puffs spray drop drops per percent w v x every daily once
    twice od bd tds qds qid tid bid po stat nocte mane
    hs qhs ac pc qd q4h q6h q8h q12h hourly hrly mls mu miu tsp am pm morning night bedtime
    """.split()
)
_FORM_WORDS = frozenset(
    """
    tablet tablets tab tabs capsule capsules cap caps caplet caplets pill pills oral orally solution
    suspension syrup elixir liquid linctus drink powder granules sachet sachets lozenge lozenges troche
    gum injection injections injectable inj infusion infusions patches intravenous iv im sc subcutaneous
    intramuscular vial ampoule ampule ampul syringe prefilled pen cartridge autoinjector auto injector kit
    topical cream ointment gel lotion foam paste shampoo patch transdermal film strip suppository
    suppositories rectal vaginal ring intrauterine system implant ophthalmic otic nasal eye ear inhaler
    inhalation inhalant inhaled metered aerosol nebuliser nebulizer diskus turbuhaler hfa dry mucosal
    sublingual buccal chewable dispersible effervescent orodisintegrating disintegrating odt soluble
    coated enteric ec extended delayed modified sustained controlled prolonged immediate release er xr sr
    cr mr la dr xl retard slow pack starter maintenance pediatric paediatric adult children infant generic
    brand product form strength drug abuse deterrent package usp bp ph eur preservative free sterile in of
    for the a an as needed prn only and with
    accuhaler ds ellipta evohaler modulite nebules neonatal nexthaler respimat rotacaps syp syr turbohaler
    t susp soln sol neb nebs nebulised nebulized supp supps pess pessary pessaries paint fluid fluids drip
    amp amps ampoules vials bottle tube pr depot mouthwash gargle mix mixture i
    """.split()
)
_ALLERGY_WORDS = frozenset(
    """
    allergy allergies allergic allergen hypersensitivity hypersensitive sensitivity sensitive intolerance
    intolerant reaction reactions adverse anaphylaxis anaphylactic anaphylactoid angioedema rash hives
    urticaria itching swelling nausea vomiting cough severe mild moderate unknown known suspected possible
    confirmed history hx h o patient is has had to from by after due on disorder finding substance
    situation propensity class group type types based medicine medicines medication medications drug drugs
    antibiotic antibiotics agent agents compound compounds preparation preparations containing product
    products derivative derivatives family all any other reported documented recorded stated at caused
    causes shock or bronchospasm wheeze wheezing dyspnea dyspnoea diarrhea diarrhoea headache headaches
    myalgia edema oedema swollen lip lips face facial tongue throat pruritus itchy blisters blistering
    erythema jaundice collapse dizziness palpitations flushing upset stomach syndrome sjs ten dress
    stevens johnson apnea apnoea following induced childhood child pt nos during while when taking given
    """.split()
)
_GENERAL_WORDS = SALT_WORDS | _UNIT_WORDS | _FORM_WORDS | _ALLERGY_WORDS
_SEPARATORS = frozenset({"/", "+", ",", ";", "&", "and", "with"})
# A strength may follow a name without a space: "Amoxil500mg". A shorter part belongs to the name: "MgSO4".
_LEXEME = re.compile(r"[^\W\d_]{4,}(?=\d{2})|[^\W_]+|[/+,;&]")
_NAMES_LIKE_STRENGTHS = frozenset({"3hp", "3tc", "4fdc", "5fu", "6mp"})
_NUMERIC = re.compile(r"\d.*|x\d+|nda\d+")  # strengths, "x5 days"; RxNorm puts NDA numbers before names
_BRACKET = re.compile(r"\[[^\]]*\]")
_APOSTROPHE = re.compile(f"[{APOSTROPHES}]")
_BRITISH_STEMS: Final = (("sulph", "sulf"), ("anaesth", "anesth"), ("oestr", "estr"), ("haem", "hem"))


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
    in the table, and excipients.
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
    return _DrugTable(
        classes_of={name: frozenset(classes[i] for i in ids) for name, ids in table["ingredients"]},
        names={name: tuple(ingredients[i] for i in ids) for name, ids in table["names"].items()},
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


@dataclass(frozen=True, slots=True)
class _Word:
    text: str
    after_separator: bool  # the word follows "/", ",", "and" ..., or it is the first one


def fold(text: str) -> str:
    """Return the search keys of the words of a text. A long text is not cut.

    The table separates the "s" of "St John's wort", so an apostrophe separates words.
    """
    return " ".join(search_key(part) for part in _APOSTROPHE.sub(" ", text).split())


def split_words(text: str) -> list[_Word]:
    """Return the words of a drug name as search keys, without punctuation and in American spelling."""
    words: list[_Word] = []
    after_separator = True
    key = fold(text)
    for british, american in _BRITISH_STEMS:
        key = key.replace(british, american)
    for word in _LEXEME.findall(key):
        if word in _SEPARATORS:
            after_separator = True
        else:
            words.append(_Word(word, after_separator))
            after_separator = False
    return words


def normalize(text: str) -> str:
    """Return a name in the form that the table uses as a key."""
    return " ".join(word.text for word in split_words(text))


def allergen_key(text: str) -> str:
    """Return a recorded allergen in the form that the table uses as a key: without "allergy", "drug" ..."""
    return " ".join(word.text for word in _allergen_words(text))


def _allergen_words(text: str) -> list[_Word]:
    return [word for word in split_words(text) if word.text not in _ALLERGY_WORDS]


def is_noise(word: str) -> bool:
    """Return True for a strength, unit, dose form or salt. These words do not name an active ingredient."""
    return (
        word in SALT_WORDS
        or word in _UNIT_WORDS
        or word in _FORM_WORDS
        or (_NUMERIC.fullmatch(word) is not None and word not in _NAMES_LIKE_STRENGTHS)
    )


@functools.cache
def known_words() -> frozenset[str]:
    """Return the words of all names and allergens, and the words that do not name a substance."""
    table = _table()
    words = {word for phrase in (*table.names, *table.terms) for word in phrase.split()}
    return frozenset(words | _GENERAL_WORDS)


def is_general_word(word: str) -> bool:
    """Return True for a word that does not name a substance by itself, such as "tablet" or "rash"."""
    return word in _GENERAL_WORDS


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
    """
    table = _table()
    words = split_words(_BRACKET.sub(" ", name))
    ingredients = table.names.get(" ".join(word.text for word in words))
    if ingredients is not None:
        return _drug(frozenset(ingredients), (), table)
    for candidate in (words, split_words(name)):  # the brand in brackets counts only if the rest is unknown
        alone = _words_alone(candidate)
        matches, unknown = _scan(candidate, functools.partial(_find_ingredients, alone=alone, table=table))
        if matches:
            return _drug(_ingredients_of(matches, table), unknown, table)
    return None


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


def _words_alone(words: list[_Word]) -> frozenset[str]:
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
    is_clear = phrase in alone or " " in phrase or is_long or phrase in _NAMES_LIKE_STRENGTHS
    return table.names.get(phrase) if is_clear else None


def _scan(
    words: list[_Word], find: Callable[[str], _Match | None]
) -> tuple[list[tuple[str, _Match]], tuple[str, ...]]:
    """Return the matches from left to right, the longest phrase first, and the words that match nothing."""
    matches: list[tuple[str, _Match]] = []
    unknown: list[str] = []
    start = 0
    while start < len(words):
        for end in range(min(len(words), start + _MAX_WORDS), start, -1):
            phrase = " ".join(word.text for word in words[start:end])
            if (match := find(phrase)) is not None:
                matches.append((phrase, match))
                # "calcium, zinc" and "calcium zinc" are two allergens: a metal has no salt to skip
                start = end if is_noise(phrase) else _skip_salts(words, end)
                break
        else:
            if not is_noise(words[start].text):
                unknown.append(words[start].text)
            start += 1
    return matches, tuple(unknown)


def _skip_salts(words: list[_Word], start: int) -> int:
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
    words = _allergen_words(text)
    alone = _words_alone(words)
    matches, unknown = _scan(
        words,
        lambda phrase: (
            _find_term(phrase, table) or _term_of_drug(_find_ingredients(phrase, alone, table), table)
        ),
    )
    if not matches:
        return None
    terms = [term for _, term in matches]
    kinds: list[AllergenKind] = sorted({term.kind for term in terms}, key=_KIND_ORDER.index)
    # An excipient may be in any product, and the table does not hold which ones.
    unchecked = tuple(phrase for phrase, term in matches if term.kind == "excipient")
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
