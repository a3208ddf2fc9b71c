"""General words for allergens: each matches everything that it may name."""

import functools
import itertools
from collections import defaultdict

import pytest

from data import build
from services.clinical import drug_words, drugs

# Ingredients that contain the word but that the word does not name, when it is recorded as an allergen.
OTHER_MEANINGS = {
    "ammonia": {"ammonia n-13"},  # a tracer
    "azole": {"albendazole", "mebendazole", "flubendazole", "thiabendazole", "triclabendazole"}
    | {"aripiprazole", "brexpiprazole", "cefmetazole", "phthalylsulfathiazole", "sulfathiazole"}
    | {"sulfamethoxazole", "sulfisoxazole", "carbimazole", "methimazole", "dexlansoprazole"}
    | {"esomeprazole", "ilaprazole", "lansoprazole", "omeprazole", "pantoprazole", "rabeprazole"}
    | {"anastrozole", "letrozole", "clomethiazole", "benznidazole", "metronidazole"}
    | {"ornidazole", "secnidazole", "tinidazole"},  # the word means antifungals
    "benzo": {"benzocaine", "benzoic acid", "benzonatate", "benzoyl peroxide", "benzyl benzoate"}
    | {"sodium benzoate"},  # the word means benzodiazepines
    "cat": {"cat's claw"},  # a plant
    "chestnut": {"horse chestnut"},  # another plant
    "digoxin": {"ovine digoxin immune fab"},  # the antidote
    "dronate": {"oxidronate", "technetium tc-99m medronate"},  # tracers
    "dust": {"grain mill dust"},  # homeopathic
    "fluoride ion": {"fluoride ion f-18"},  # a tracer
    "fruit": {"chaste tree fruit", "citrullus colocynthis fruit without seed"}
    | {"crataegus laevigata fruit", "kiwi fruit"},  # homeopathic
    "horse": {"horse chestnut"},  # a plant
    "milk": {"milk thistle"},  # a plant
    "morphine": {"apomorphine"},  # another substance without opioid effect
    "oxyquinoline": {"indium in-111 oxyquinoline"},  # a tracer
    "pollen": {"mangifera indica pollen", "rhus glabra pollen", "rumex crispus pollen", "salix nigra pollen"},
    "prazole": {"aripiprazole", "brexpiprazole"},  # antipsychotics
    "pril": {"prilocaine"},
    "quinoline": {"indium in-111 oxyquinoline", "oxyquinoline"},
    "sf": {"light green sf yellowish"},
    "sodium fluoride": {"sodium fluoride f-18"},  # a tracer
    "statin": {"cilastatin", "nystatin", "pentostatin"},
    "thionamide": {"ethionamide", "prothionamide"},  # the word means antithyroid drugs
    "sulfa": {"barium sulfate", "chondroitin sulfate sodium (bovine)", "cupric sulfate", "ferrous sulfate"}
    | {"iobenguane sulfate i-123", "magnesium sulfate", "manganese sulfate", "nickel sulfate"}
    | {"potassium sulfate", "sodium lauryl sulfate", "sodium sulfate", "zinc sulfate"}
    | {"tetradecyl hydrogen sulfate (ester)"},  # sulfates are not sulfonamides
    "sulfur": {"sulfuric acid"},
    "thyroid": {"human parathyroid", "parathyroid hormone"},
    "tree": {"chaste tree", "chaste tree fruit", "tea tree oil"},
    "urea": {"urea c-14"},  # a breath test
    "venom": {"crotalus durissus terrificus venom", "crotalus horridus horridus venom"},  # homeopathic
}
MINIMUM_STEM = 4  # shorter words are parts of many unrelated names


def test_a_general_word_matches_every_ingredient_that_it_may_name() -> None:
    table = drugs._table()
    named_by = ingredients_by_phrase()
    silent: dict[str, set[str]] = {}
    for term in set(table.names) | set(table.terms):
        named = named_by[term] | ingredients_by_stem(term)
        allergen = drugs.resolve_allergen(term) if len(named) > 1 else None
        if allergen is None:  # one meaning, or a word with the warning `unchecked`
            continue
        missed = {name for name in named if not is_matched(name, allergen)} - OTHER_MEANINGS.get(term, set())
        if missed:
            silent[term] = missed

    assert silent == {}


def ingredients_by_phrase() -> dict[str, set[str]]:
    """Return the ingredients whose name contains the phrase, for each phrase of an ingredient."""
    named_by: dict[str, set[str]] = defaultdict(set)
    for name in drugs._table().classes_of:
        words = words_of(name)
        for start, end in itertools.combinations(range(len(words) + 1), 2):
            named_by[" ".join(words[start:end])].add(name)
    return named_by


@functools.cache
def words_of(ingredient: str) -> tuple[str, ...]:
    return tuple(drug_words.normalize(ingredient).split())


def ingredients_by_stem(term: str) -> set[str]:
    """Return the ingredients with a word that begins or ends with the term, if it is a word for drugs."""
    table = drugs._table()
    is_stem = term in table.terms and table.terms[term].kind == "drug" and len(term) >= MINIMUM_STEM
    if not is_stem or " " in term:
        return set()
    return {
        name
        for name in table.classes_of
        if any(w.startswith(term) or w.endswith(term) for w in words_of(name))
    }


def is_matched(ingredient: str, allergen: drugs.Allergen) -> bool:
    classes = drugs._table().classes_of[ingredient]
    drug = drugs.Drug(ingredient, frozenset({ingredient}), classes)
    return bool(drugs.match_allergy(drug, allergen))


def test_every_other_meaning_is_still_needed() -> None:
    for term in OTHER_MEANINGS:
        allergen = drugs.resolve_allergen(term)
        assert allergen is not None, term
        known = OTHER_MEANINGS[term] & set(drugs._table().classes_of)
        assert any(not is_matched(name, allergen) for name in known), term


def test_every_class_of_two_ingredients_has_a_decision_with_its_reason() -> None:
    members: dict[str, int] = {}
    for classes in drugs._table().classes_of.values():
        for class_name in classes:
            members[class_name] = members.get(class_name, 0) + 1
    rules = {row["class"]: row for row in build.read_curated("class_rules")}

    assert {name for name, count in members.items() if count > 1} == set(rules)
    for name, rule in rules.items():
        assert {rule["on_allergy"], rule["on_duplicate"]} <= {"yes", "no"}, name
        assert rule["allergy_source"], name
        assert rule["duplicate_reason"], name


def test_a_class_without_a_decision_stops_the_build() -> None:
    with pytest.raises(SystemExit, match="no rule for: New Class"):
        build.check_decided(set(), {"one": {"New Class"}, "two": {"New Class"}, "three": {"Single"}})


def test_a_salt_word_is_a_medicine_only_if_it_is_alone() -> None:
    """Arginine is an amino acid of infusions. As a salt (perindopril arginine) it has no effect."""
    salts = drug_words.SALT_WORDS & set(drugs._table().names)
    assert salts == {"arginine", "benzathine", "calcium", "magnesium", "potassium", "zinc"}

    for salt in salts:
        alone, beside, after = map(drugs.resolve, (f"{salt} 20 mg", f"warfarin {salt}", f"warfarin + {salt}"))
        assert alone is not None, salt
        assert beside == drugs.resolve("warfarin"), salt
        assert after is not None, salt
        assert after.ingredients == alone.ingredients | {"warfarin"}, salt
