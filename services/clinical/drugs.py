"""What the clinic knows about drugs, offline: names, ingredients, classes, allergies, duplicates.

Pure functions over one versioned table (`data/drugs.json.gz`, made by `data/build.py`; sources in
`data/NOTICE.md`). The table knows active ingredients. It does not know excipients (lactose, gelatin,
sulfites, dyes), routes or doses: an allergy to one keeps its word in `unknown_parts`, so that the caller
says "unchecked" instead of passing it.

**Cross-reactivity.** Recorded penicillin allergy hits the whole penicillin class. Of the cephalosporins it
hits only those whose R1 side chain is shared with or like that of an aminopenicillin (cephalexin,
cefadroxil, cefaclor, cefprozil, cephradine, cefatrizine, loracarbef), as `cross_reactivity`; other
cephalosporins, carbapenems and aztreonam are no hit. Source: Khan DA et al., "Drug allergy: A 2022 practice
parameter update", J Allergy Clin Immunol 2022;150(6):1333-1393, and the side-chain rates of Picard M et
al., J Allergy Clin Immunol Pract 2019;7(8):2722-2738. Sulfonamide antibacterials do not hit sulfonamides
that are no antibacterials (furosemide, thiazides, celecoxib): Strom BL et al., N Engl J Med
2003;349:1628-1635. Aspirin and all other NSAIDs hit each other, celecoxib with them: its label is
contraindicated after an allergic-type reaction to any. The phenanthrene opioids hit each other, and every
opioid allergy hits tramadol, whose label names it as a contraindication. Shellfish and iodine do not hit
contrast media (ACR Manual on Contrast Media). The other pairs stand with their reasons in
`data/curated/cross_reactivity.csv`.
"""

from __future__ import annotations

import functools
import gzip
import json
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, TypeVar, get_args

from services.search_key import search_key

# Raised with every change of the table, which states it too.
DATA_VERSION: Final = "2026.1"
TABLE: Final = Path(__file__).resolve().parents[2] / "data" / "drugs.json.gz"

AllergenKind = Literal["drug", "food", "environment", "animal", "venom", "contact", "excipient", "none"]
_KIND_ORDER: Final = get_args(AllergenKind)  # of several in one text the first names the whole
HitKind = Literal["ingredient", "class", "cross_reactivity"]

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
    probutate procaine propanediol propionate proxetil pyrophosphate saccharate s-malate sodium solvate
    stearate strontium succinate sulfate sulphate tannate tartrate tosylate trifenatate triflutate
    trihydrate trometamol tromethamine undecanoate valerate xinafoate zinc
    """.split()
)
_UNIT_WORDS = frozenset(
    """
    mg mcg ug μg ng g gm kg ml l dl iu unt unit units u meq mmol mol mci hr hrs hour hours day days week
    weeks month actuat actuation dose doses puff puffs spray drop drops per percent w v x every daily once
    twice
    """.split()
)
_FORM_WORDS = frozenset(
    """
    tablet tablets tab tabs capsule capsules cap caps caplet caplets pill pills oral orally solution
    suspension syrup elixir liquid linctus drink powder granules sachet sachets lozenge lozenges troche gum
    injection injectable inj infusion intravenous iv im sc subcutaneous intramuscular vial ampoule ampule
    ampul syringe prefilled pen cartridge autoinjector auto injector kit topical cream ointment gel lotion
    foam paste shampoo patch transdermal film strip suppository suppositories rectal vaginal ring
    intrauterine system implant ophthalmic otic nasal eye ear inhaler inhalation inhalant inhaled metered
    aerosol nebuliser nebulizer diskus turbuhaler hfa dry mucosal sublingual buccal chewable dispersible
    effervescent orodisintegrating disintegrating odt soluble coated enteric ec extended delayed modified
    sustained controlled prolonged immediate release er xr sr cr mr la dr xl retard slow pack starter
    maintenance pediatric paediatric adult children infant generic brand product form strength drug abuse
    deterrent package usp bp ph eur preservative free sterile in of for the a an as needed prn only and with
    """.split()
)
_ALLERGY_WORDS = frozenset(
    """
    allergy allergies allergic allergen hypersensitivity hypersensitive sensitivity sensitive intolerance
    intolerant reaction reactions adverse anaphylaxis anaphylactic anaphylactoid angioedema rash hives
    urticaria itching swelling nausea vomiting cough severe mild moderate unknown known suspected possible
    confirmed history hx h o patient is has had to from by after due on disorder finding substance situation
    propensity class group medicine medicines medication medications drugs agent agents containing product
    products derivative derivatives family all any other reported documented
    recorded stated at
    """.split()
)
_SEPARATORS = frozenset({"/", "+", ",", ";", "&", "and", "with"})
_LEXEME = re.compile(r"[^\W_]+|[/+,;&]")
_NUMERIC = re.compile(r"\d.*|nda\d+")  # strengths; NDA numbers stand before names in RxNorm
_BRACKET = re.compile(r"\[[^\]]*\]")


@dataclass(frozen=True, slots=True)
class Drug:
    """A medication that the table knows; `unknown_parts` are words of its name that it does not know."""

    name: str
    ingredients: frozenset[str]
    classes: frozenset[str]
    unknown_parts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Allergen:
    """A recorded allergen that the table knows; a food, a pollen or latex is known and mostly hits no drug.

    `cross_reactive` holds (ingredient, reason). `unknown_parts` are what cannot be checked: words that the
    table does not know, and excipients.
    """

    name: str
    kind: AllergenKind
    ingredients: frozenset[str]
    classes: frozenset[str]
    cross_reactive: tuple[tuple[str, str], ...] = ()
    unknown_parts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class AllergyHit:
    """Why a drug is refused: `name` is the ingredient, the class or the reason of the cross-reactivity."""

    kind: HitKind
    name: str
    ingredient: str


@dataclass(frozen=True, slots=True)
class _Term:
    kind: AllergenKind
    ingredients: frozenset[str]
    classes: frozenset[str]
    cross_reactive: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class _Knowledge:
    classes_of: Mapping[str, frozenset[str]]  # ingredient -> classes
    names: Mapping[str, tuple[str, ...]]  # name as lexemes -> ingredients
    terms: Mapping[str, _Term]  # allergen as lexemes
    cross_reactive: Mapping[str, tuple[tuple[str, str], ...]]  # ingredient -> (other ingredient, reason)
    alarming: frozenset[str]  # classes in which an allergy to one member alarms for the others
    duplicable: frozenset[str]  # classes of which nobody needs two members at once
    incidental: frozenset[str]  # ingredients whose repetition is no duplicate: diluents, gases


_Found = TypeVar("_Found")
_LONGEST = 8  # words of a name within a longer text; longer names are found only as a whole
_LOCK = threading.Lock()


@functools.cache
def _load() -> _Knowledge:
    table = json.loads(gzip.decompress(TABLE.read_bytes()))
    if table["version"] != DATA_VERSION:
        raise RuntimeError(
            f"data/drugs.json.gz is of version {table['version']}, the code expects {DATA_VERSION}"
        )
    classes: list[str] = table["classes"]
    ingredients: list[str] = [name for name, _ in table["ingredients"]]
    return _Knowledge(
        classes_of={name: frozenset(classes[i] for i in ids) for name, ids in table["ingredients"]},
        names={name: tuple(ingredients[i] for i in ids) for name, ids in table["names"].items()},
        terms={
            term: _Term(kind, frozenset(hits), frozenset(groups), tuple((i, why) for i, why in cross))
            for term, (kind, hits, groups, cross) in table["allergens"].items()
        },
        cross_reactive={
            name: tuple((i, why) for i, why in pairs) for name, pairs in table["cross_reactive"].items()
        },
        alarming=frozenset(table["alarming"]),
        duplicable=frozenset(table["duplicable"]),
        incidental=frozenset(table["incidental"]),
    )


def _knowledge() -> _Knowledge:
    with _LOCK:  # so that threads that come first together read the file once
        return _load()


@dataclass(frozen=True, slots=True)
class _Lexeme:
    word: str
    opens: bool  # a separator stands before it: "/", ",", "and" ...


def lexemes(text: str) -> list[_Lexeme]:
    """Words of a drug's name, folded, without punctuation; never cut, however long the text."""
    found: list[_Lexeme] = []
    opens = True
    for word in _LEXEME.findall(" ".join(search_key(part) for part in text.split())):
        if word in _SEPARATORS:
            opens = True
        else:
            found.append(_Lexeme(word, opens))
            opens = False
    return found


def key(text: str) -> str:
    """The form under which the table holds a name."""
    return " ".join(lexeme.word for lexeme in lexemes(text))


def is_noise(word: str) -> bool:
    """Strengths, units, dose forms and salts: they say nothing of the active ingredient."""
    return (
        word in SALT_WORDS
        or word in _UNIT_WORDS
        or word in _FORM_WORDS
        or _NUMERIC.fullmatch(word) is not None
    )


def resolve(name: str) -> Drug | None:
    """The drug of a brand, generic or combination name; forgiving of case, strengths, dose forms and salts.

    None if no part of the name is known. A brand sold with different ingredients is read as what all of
    them share, or, if they share nothing, as all of them together.
    """
    table = _knowledge()
    plain = lexemes(_BRACKET.sub(" ", name))
    if (whole := table.names.get(" ".join(w.word for w in plain))) is not None:
        return _drug(frozenset(whole), (), table)
    for words in (plain, lexemes(name)):  # a brand in brackets counts only where nothing else is known
        lone = _telling(words) == 1
        found, unknown = _scan(words, functools.partial(_named, lone=lone, table=table))
        if found:
            return _drug(frozenset().union(*(ingredients for _, ingredients in found)), unknown, table)
    return None


def _drug(ingredients: frozenset[str], unknown: tuple[str, ...], table: _Knowledge) -> Drug:
    classes: frozenset[str] = frozenset().union(*(table.classes_of[i] for i in ingredients))
    return Drug(" / ".join(sorted(ingredients)), ingredients, classes, unknown)


def _telling(words: list[_Lexeme]) -> int:
    return sum(not is_noise(w.word) for w in words)


def _named(span: str, lone: bool, table: _Knowledge) -> tuple[str, ...] | None:
    # Up to three letters in the middle of a longer text are rather an abbreviation than a brand.
    return table.names.get(span) if lone or " " in span or len(span) > 3 else None


def _scan(
    words: list[_Lexeme], find: Callable[[str], _Found | None]
) -> tuple[list[tuple[str, _Found]], tuple[str, ...]]:
    """What is found from left to right, the longest name first; the words that nothing explains."""
    found: list[tuple[str, _Found]] = []
    unknown: list[str] = []
    at = 0
    while at < len(words):
        for end in range(min(len(words), at + _LONGEST), at, -1):
            span = " ".join(w.word for w in words[at:end])
            if (hit := find(span)) is not None:
                found.append((span, hit))
                at = _skip_salts(words, end)
                break
        else:
            if not is_noise(words[at].word):
                unknown.append(words[at].word)
            at += 1
    return found, tuple(unknown)


def _skip_salts(words: list[_Lexeme], at: int) -> int:
    """Past the salt of the name just read: "dexamethasone sodium phosphate" holds no "sodium phosphate"."""
    while at < len(words) and not words[at].opens and is_noise(words[at].word):
        at += 1
    return at


def resolve_allergen(text: str) -> Allergen | None:
    """What a recorded allergy hits: substances, classes, or nothing (pollen, latex); None if it is not known.

    A class ("penicillin", "NSAIDs") hits the class. A single drug hits its ingredients and those of its
    classes in which an allergy to one member is taken to concern the others
    (`data/curated/class_rules.csv`). Several allergens in one text are taken together.
    """
    table = _knowledge()
    words = [w for w in lexemes(text) if w.word not in _ALLERGY_WORDS]
    lone = _telling(words) == 1
    found, unknown = _scan(
        words, lambda span: _term(span, table) or _term_of_drug(_named(span, lone, table), table)
    )
    if not found:
        return None
    terms = [term for _, term in found]
    kinds: list[AllergenKind] = sorted({t.kind for t in terms}, key=_KIND_ORDER.index)
    # An excipient may be in any product, and the table does not know in which.
    unchecked = tuple(span for span, term in found if term.kind == "excipient")
    return Allergen(
        name=" / ".join(span for span, _ in found),
        kind=kinds[0],
        ingredients=frozenset().union(*(t.ingredients for t in terms)),
        classes=frozenset().union(*(t.classes for t in terms)),
        cross_reactive=tuple(sorted({pair for t in terms for pair in t.cross_reactive})),
        unknown_parts=unchecked + unknown,
    )


def _term(span: str, table: _Knowledge) -> _Term | None:
    for form in (span, span.removesuffix("s"), span.removesuffix("es"), span.removesuffix("ies") + "y"):
        if (term := table.terms.get(form)) is not None:
            return term
    return None


def _term_of_drug(ingredients: tuple[str, ...] | None, table: _Knowledge) -> _Term | None:
    if ingredients is None:
        return None
    classes: frozenset[str] = frozenset().union(*(table.classes_of[i] for i in ingredients))
    cross = tuple(pair for i in ingredients for pair in table.cross_reactive.get(i, ()))
    return _Term("drug", frozenset(ingredients), classes & table.alarming, cross)


def allergy_hits(drug: Drug, allergen: Allergen) -> list[AllergyHit]:
    """Why the drug should not be given, empty if nothing speaks against it.

    Per ingredient the nearest reason: the same substance before its class, its class before cross-reactivity.
    """
    table = _knowledge()
    hits: list[AllergyHit] = []
    for ingredient in sorted(drug.ingredients):
        if ingredient in allergen.ingredients:
            hits.append(AllergyHit("ingredient", ingredient, ingredient))
        elif shared := table.classes_of[ingredient] & allergen.classes:
            hits.extend(AllergyHit("class", name, ingredient) for name in sorted(shared))
        else:
            reasons = [why for other, why in allergen.cross_reactive if other == ingredient]
            hits.extend(AllergyHit("cross_reactivity", why, ingredient) for why in reasons)
    return hits


def duplicate_ingredient(a: Drug, b: Drug) -> set[str]:
    """Active ingredients that both hold; diluents and gases (saline, dextrose, water, oxygen) are none."""
    return set(a.ingredients & b.ingredients) - _knowledge().incidental


def duplicate_class(a: Drug, b: Drug) -> set[str]:
    """Classes of which the two drugs hold different members: a statin beside a statin.

    Counted are the classes of `data/curated/class_rules.csv` of which nobody needs two members at once.
    Left out are those that are combined on purpose: antiepileptics, insulins (basal and bolus),
    antiplatelets other than P2Y12 inhibitors, nitrates, antiretrovirals, cytostatics, antimycobacterials,
    inhaled and topical corticosteroids, vitamins, minerals, osmotic laxatives, antacids. Ingredients that
    both drugs share are `duplicate_ingredient`'s, so that a product never alarms against itself.
    """
    classes_of = _knowledge().classes_of
    ours: frozenset[str] = frozenset().union(*(classes_of[i] for i in a.ingredients - b.ingredients))
    theirs: frozenset[str] = frozenset().union(*(classes_of[i] for i in b.ingredients - a.ingredients))
    return set(ours & theirs & _knowledge().duplicable)
