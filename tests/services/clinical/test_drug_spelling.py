"""Typing errors in names of medications and allergens."""

import random
import string
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from services.clinical import drug_spelling, drugs
from services.clinical.drug_spelling import recognize_allergen, recognize_drug

COMMON = """
    amoxicillin ampicillin azithromycin ciprofloxacin doxycycline metronidazole ceftriaxone erythromycin
    gentamicin flucloxacillin paracetamol ibuprofen diclofenac aspirin tramadol morphine amlodipine nifedipine
    enalapril lisinopril losartan atenolol propranolol furosemide hydrochlorothiazide spironolactone metformin
    glibenclamide gliclazide insulin simvastatin atorvastatin warfarin digoxin omeprazole ranitidine
    salbutamol prednisolone dexamethasone hydrocortisone cetirizine chlorpheniramine fluoxetine sertraline
    amitriptyline diazepam haloperidol phenytoin carbamazepine albendazole mebendazole praziquantel
    fluconazole ketoconazole nevirapine efavirenz dolutegravir lamivudine zidovudine isoniazid rifampicin
    ethambutol augmentin coartem panadol septrin flagyl ventolin brufen piriton lasix aldomet
    rocephin klaricid
    """.split()


def typing_error(word: str, source: random.Random) -> str:
    """Return the word with one letter deleted, added, replaced, or swapped with the next one."""
    place = source.randrange(len(word) - 1)
    before, letter, after = word[:place], word[place], word[place + 1 :]
    other = source.choice(string.ascii_lowercase)
    return source.choice(
        [
            before + after,
            before + other + letter + after,
            before + other + after,
            before + after[0] + letter + after[1:],
        ]
    )


def test_a_typing_error_is_understood_or_unknown_and_never_another_medicine() -> None:
    source = random.Random(19)
    right, wrong = 0, []
    cases = [(word, typing_error(word, source)) for word in COMMON for _ in range(5)]

    for word, entered in cases:
        expected = drugs.resolve(word)
        assert expected is not None, word
        match = recognize_drug(entered).match
        if match is not None and match.ingredients == expected.ingredients:
            right += 1
        elif match is not None:
            wrong.append((word, entered, match.name))

    assert len(cases) >= 300
    assert wrong == []
    assert right >= 0.9 * len(cases)


@pytest.mark.parametrize(
    ("entered", "known", "ingredients"),
    [
        ("amoxcillin", "amoxicillin", "amoxicillin"),
        ("Amoxcillin 500 mg caps", "amoxicillin", "amoxicillin"),
        ("paracetmol", "paracetamol", "acetaminophen"),
        ("Augmantin 625", "augmentin", "amoxicillin; clavulanate"),
        ("metforman", "metformin", "metformin"),
        ("Lasxi 40mg", "lasix", "furosemide"),
        ("ferous sulphate", "ferrous", "ferrous sulfate"),
        ("sodim chloride", "sodium", "sodium chloride"),
        ("insulin glargin", "glargine", "insulin glargine"),
        ("hydroxizine", "hydroxyzine", "hydroxyzine"),
    ],
)
def test_one_typing_error_is_understood(entered: str, known: str, ingredients: str) -> None:
    found = recognize_drug(entered)

    assert found.match is not None
    assert found.match.ingredients == set(ingredients.split("; "))
    assert [name for _, name in found.understood] == [known]
    assert found.match.unknown_parts == ()


def test_each_word_of_a_combination_may_have_an_error() -> None:
    found = recognize_drug("amoxcillin / clavulante 500/125")

    assert found.match is not None
    assert found.match.ingredients == {"amoxicillin", "clavulanate"}
    assert found.understood == (("amoxcillin", "amoxicillin"), ("clavulante", "clavulanate"))


def test_an_error_beside_a_known_medicine_is_understood() -> None:
    found = recognize_drug("clavulanic acid + amoxcillin")

    assert found.match is not None
    assert found.match.ingredients == {"amoxicillin", "clavulanate"}


@pytest.mark.parametrize(
    ("entered", "similar"),
    [
        ("prednisolne", {"prednisolone", "prednisone"}),
        ("adalt", {"adalat"}),  # or "adult"
    ],
)
def test_a_word_between_two_meanings_is_not_guessed(entered: str, similar: set[str]) -> None:
    found = recognize_drug(entered)

    assert found.match is None
    assert found.understood == ()
    ((word, names),) = found.ambiguous
    assert word == entered
    assert set(names) == similar


@pytest.mark.parametrize(
    ("first", "second"),
    [("clonidine", "clonazepam"), ("hydralazine", "hydroxyzine"), ("Zantac", "Zyrtec"), ("Losec", "Lasix")],
)
def test_known_names_are_never_changed(first: str, second: str) -> None:
    for name in (first, second):
        assert recognize_drug(name) == drug_spelling.Recognized(drugs.resolve(name))


@pytest.mark.parametrize(
    "entered",
    [
        "amxcilin",  # two errors
        "AZZT",  # short
        "avill",  # the known name Avil is short
        "B112",  # digit
        "tablts",  # a dose form
        "zorblaxine",
        "",
    ],
)
def test_other_names_are_not_guessed(entered: str) -> None:
    found = recognize_drug(entered)

    assert found.match is None
    assert found.understood == ()


@pytest.mark.parametrize("manufacturer", ["Cipla", "Cadila", "Sandoz", "Accord", "Macleods", "Zentiva"])
def test_a_manufacturer_beside_a_medicine_is_not_a_medicine(manufacturer: str) -> None:
    found = recognize_drug(f"Amoxicillin {manufacturer}")

    assert found.match is not None
    assert found.match.ingredients == {"amoxicillin"}
    assert found.match.unknown_parts == (manufacturer.lower(),)


@pytest.mark.parametrize(
    ("entered", "known"),
    [
        ("peniciline", "penicilin"),
        ("Allergy to amoxcillin - rash", "amoxicillin"),
        ("ibuprofn", "ibuprofen"),
        ("asprin, ibuprofn", "ibuprofen"),
    ],
)
def test_an_error_in_a_recorded_allergen_is_understood(entered: str, known: str) -> None:
    found = recognize_allergen(entered)

    assert found.match is not None
    assert found.match.unknown_parts == ()
    assert [name for _, name in found.understood] == [known]
    assert drugs.resolve_allergen(known) is not None


def test_a_long_text_of_unknown_words_is_answered() -> None:
    words = [typing_error(word, random.Random(3)) + "qx" for word in COMMON]

    assert recognize_drug(" ".join(words)).match is None


def test_the_index_is_built_on_first_use_and_by_concurrent_threads() -> None:
    drug_spelling._index.cache_clear()
    with ThreadPoolExecutor(8) as pool:
        found = set(pool.map(recognize_drug, ["amoxcillin"] * 32))
    assert len(found) == 1

    program = (
        "from services.clinical import drug_spelling as s; before = s._index.cache_info().currsize;"
        "s.recognize_drug('Augmentin'); known = s._index.cache_info().currsize;"
        "s.recognize_drug('Augmantin'); print(before, known, s._index.cache_info().currsize)"
    )
    answer = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert answer.stdout.split() == ["0", "0", "1"]


@pytest.mark.parametrize(("entered", "known"), [("Kaluma", "kanuma"), ("Aprinol", "aprinox")])
def test_a_guessed_trade_name_is_uncertain(entered: str, known: str) -> None:
    """Kaluma and Aprinol are other products, which the table does not know."""
    found = recognize_drug(entered)

    assert found.understood == ((entered.lower(), known),)
    assert found.uncertain == (entered.lower(),)


@pytest.mark.parametrize("entered", ["amoxcillin", "paracetmol", "frusemid", "salbutmol"])
def test_a_guessed_substance_is_certain(entered: str) -> None:
    found = recognize_drug(entered)

    assert found.understood
    assert found.uncertain == ()


def test_a_recorded_class_with_a_typing_error_is_certain() -> None:
    for entered in ("peniciline", "cephalosporns", "shellfsh"):
        found = recognize_allergen(entered)
        assert found.understood, entered
        assert found.uncertain == (), entered


def test_the_guess_of_a_trade_name_keeps_the_first_letter() -> None:
    for entered, similar in (("Candazole", "vandazole"), ("Keptol", "zeptol")):
        found = recognize_drug(entered)
        assert found.match is None, entered
        assert found.ambiguous == ((entered.lower(), (similar,)),)


def test_the_work_for_a_long_name_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    words = "paracetamal ibuprofan omeprazale diclofenak metformim warfarim simvastatan amlodipin".split()
    calls: Counter[str] = Counter()
    resolve, within_edits = drugs.resolve, drug_spelling.within_edits

    def counted_resolve(name: str) -> drugs.Drug | None:
        calls["resolve"] += 1
        return resolve(name)

    def counted_within_edits(text: str, other: str, edits: int) -> bool:
        calls["within_edits"] += 1
        return within_edits(text, other, edits)

    monkeypatch.setattr(drugs, "resolve", counted_resolve)
    monkeypatch.setattr(drug_spelling, "within_edits", counted_within_edits)

    found = recognize_drug(" ".join(words))

    assert [word for word, _ in found.understood] == words[: drug_spelling.MAX_COMPARED_WORDS]
    assert found.match is not None
    assert set(found.match.unknown_parts) == set(words[drug_spelling.MAX_COMPARED_WORDS :])
    assert calls["resolve"] <= 1 + 2 * drug_spelling.MAX_COMPARED_WORDS
    assert calls["within_edits"] <= 150 * drug_spelling.MAX_COMPARED_WORDS


def test_a_word_that_is_longer_than_all_names_is_not_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    def compared(*_: object) -> bool:
        raise AssertionError

    monkeypatch.setattr(drug_spelling, "within_edits", compared)

    assert recognize_drug("amoxicillin".ljust(200, "n")).match is None
