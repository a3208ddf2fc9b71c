"""Drug table: names, classes, allergy matches and duplicate therapy."""

import gzip
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from data import build
from services.clinical import drugs
from services.clinical.drugs import AllergyMatch, Drug

PENICILLIN = "Penicillin-class Antibacterial"
SULFONAMIDE = "Sulfonamide Antibacterial"
NSAID = "Nonsteroidal Anti-inflammatory Drug"
OPIOID = "Opioid Agonist"
STATIN = "HMG-CoA Reductase Inhibitor"
ACE = "Angiotensin Converting Enzyme Inhibitor"
SSRI = "Serotonin Reuptake Inhibitor"
RAS = "Renin-angiotensin System Inhibitor"
NNRTI = "Human Immunodeficiency Virus 1 Non-Nucleoside Analog Reverse Transcriptase Inhibitor"


def resolve_known(name: str) -> Drug:
    drug = drugs.resolve(name)
    assert drug is not None, f"{name} is not known"
    return drug


def match(medication: str, allergy: str) -> set[tuple[str, str]]:
    """Return (kind, ingredient) of each match of a recorded allergy."""
    allergen = drugs.resolve_allergen(allergy)
    assert allergen is not None, f"an allergy to {allergy} is not known"
    return {(item.kind, item.ingredient) for item in drugs.match_allergy(resolve_known(medication), allergen)}


# --- Names ---


@pytest.mark.parametrize(
    ("name", "ingredients"),
    [
        ("Amoxicillin 250 MG / Clavulanate 125 MG Oral Tablet", "amoxicillin clavulanate"),
        ("Augmentin", "amoxicillin clavulanate"),
        ("AUGMENTIN ES-600 powder for suspension", "amoxicillin clavulanate"),
        ("co-amoxiclav 625", "amoxicillin clavulanate"),
        ("amoxicillin-clavulanic acid", "amoxicillin clavulanate"),
        ("amoxicillin trihydrate", "amoxicillin"),
        ("Acetaminophen 325 MG Oral Tablet [Tylenol]", "acetaminophen"),
        ("Tylenol", "acetaminophen"),
        ("paracetamol 500mg tabs", "acetaminophen"),
        ("PARACÉTAMOL 1 g", "acetaminophen"),
        ("Salbutamol inhaler 100 mcg/dose", "albuterol"),
        ("Adrenaline 1:1000", "epinephrine"),
        ("NDA020800 0.3 ML Epinephrine 1 MG/ML Auto-Injector", "epinephrine"),
        ("Frusemide 40mg", "furosemide"),
        ("Lasix 40mg", "furosemide"),
        ("Cotrimoxazole 960", "sulfamethoxazole trimethoprim"),
        ("Bactrim DS", "sulfamethoxazole trimethoprim"),
        ("pethidine", "meperidine"),
        ("Glyceryl trinitrate 400 mcg spray", "nitroglycerin"),
        ("24 HR metoprolol succinate 100 MG Extended Release Oral Tablet [Toprol]", "metoprolol"),
        ("Carbamazepine[Tegretol]", "carbamazepine"),
        ("Paracetamol 500 mg [warfarin]", "acetaminophen warfarin"),
        ("Telma AM", "amlodipine telmisartan"),
        ("Allegra 24h", "fexofenadine"),
        ("Augmentin 1 g", "amoxicillin clavulanate"),
        ("X-pen 5mega 8hourly", "penicillin_g"),
        ("Amoxil 250mg5ml 1x3 for 5/7", "amoxicillin"),
        ("Yaz 28 Day Pack", "drospirenone ethinyl_estradiol"),
        ("heparin sodium, porcine", "heparin"),
        ("Dexamethasone sodium phosphate 4 mg/ml", "dexamethasone"),
        ("Sodium Chloride 9 MG/ML Injectable Solution", "sodium_chloride"),
        ("Xylocaine 2% with adrenaline", "epinephrine lidocaine"),
        ("lisinopril/hydrochlorothiazide 10/12.5", "hydrochlorothiazide lisinopril"),
        ("Vitamin B 12 5 MG/ML Injectable Solution", "cyanocobalamin"),
        ("Simvistatin 10 MG", "simvastatin"),
        (
            "insulin human, isophane 70 UNT/ML / Regular Insulin, Human 30 UNT/ML Suspension [Humulin]",
            "insulin_human insulin_isophane",
        ),
    ],
)
def test_common_spellings_of_a_drug_resolve_to_its_ingredients(name: str, ingredients: str) -> None:
    drug = resolve_known(name)

    assert drug.ingredients == {i.replace("_", " ") for i in ingredients.split()}
    assert drug.unknown_parts == ()
    assert drug.name == " / ".join(sorted(drug.ingredients))


@pytest.mark.parametrize(
    "name", ["", "   ", "500 mg", "tablet", "blargh", "the blue ones", "Парацетамол", "♥"]
)
def test_a_name_outside_the_table_resolves_to_none(name: str) -> None:
    assert drugs.resolve(name) is None


def test_unknown_words_of_a_name_are_reported() -> None:
    drug = resolve_known("Amoxicillin 500 mg + Xyzzolin 20 mg")

    assert drug.ingredients == {"amoxicillin"}
    assert drug.unknown_parts == ("xyzzolin",)


@pytest.mark.parametrize(
    ("name", "suffix"),
    [
        ("Concor AM", "am"),  # amlodipine
        ("Olmezest 20-AM", "am"),
        ("Advil PM", "pm"),  # diphenhydramine
        ("Concor T", "t"),  # telmisartan
        ("Losar A", "a"),  # atenolol
        ("Rablet-L", "l"),  # levosulpiride
        ("Zerodol MR", "mr"),  # tizanidine
        ("Glycomet G 1", "g"),  # glimepiride
        ("Telma40H", "40h"),  # hydrochlorothiazide
        ("Lasix potassium", "potassium"),  # a supplement, not a salt
        ("Lasix 40 mg potassium", "potassium"),
        ("Aspirin [Xyzzolin]", "xyzzolin"),
        ("Prednisolone 5 mg + 5ASA", "5asa"),  # mesalazine
    ],
)
def test_a_suffix_of_a_trade_name_that_may_name_an_ingredient_is_reported(name: str, suffix: str) -> None:
    assert resolve_known(name).unknown_parts == (suffix,)


def test_names_of_substances_with_a_salt_or_a_vitamin_are_known() -> None:
    for name in ("Losartan potassium", "Vitamin K 10 mg", "Trental 400", "Diclofenac potassium 50 mg"):
        assert resolve_known(name).unknown_parts == (), name
        assert len(resolve_known(name).ingredients) == 1, name


def test_a_mixture_or_a_suppressant_is_not_one_for_cough() -> None:
    for text in ("kaolin mixture", "immune suppressant", "gripe mixture"):
        assert drugs.resolve_allergen(text) is None, text


def test_three_letters_beside_another_name_are_not_a_drug() -> None:
    drug = resolve_known("Ventolin INH 100 mcg")  # inhaler, not isoniazid

    assert drug.ingredients == {"albuterol"}
    assert drug.unknown_parts == ("inh",)
    assert resolve_known("INH 300 mg").ingredients == {"isoniazid"}


def test_a_brand_with_different_products_means_their_shared_ingredients() -> None:
    assert resolve_known("Marcaine").ingredients == {"bupivacaine"}


def test_an_ingredient_of_a_combination_does_not_get_the_class_of_the_other() -> None:
    assert resolve_known("clavulanate").classes == {"beta Lactamase Inhibitor"}
    assert resolve_known("hydrochlorothiazide").classes == {"Thiazide Diuretic"}
    assert PENICILLIN not in resolve_known("tazobactam").classes
    assert OPIOID not in resolve_known("acetaminophen").classes


@pytest.mark.parametrize(
    ("name", "group"),
    [
        ("loperamide", OPIOID),
        ("naloxone", OPIOID),
        ("furosemide", SULFONAMIDE),
        ("celecoxib", SULFONAMIDE),
        ("acetaminophen", NSAID),
        ("barium sulfate", "Iodinated Contrast Agent"),
        ("zinc sulfate", "Copper Absorption Inhibitor"),
    ],
)
def test_a_misleading_class_is_removed(name: str, group: str) -> None:
    assert group not in resolve_known(name).classes


# --- Allergies ---


@pytest.mark.parametrize("allergy", ["penicillin", "Allergy to penicillin", "Penicillins", "PCN - hives"])
@pytest.mark.parametrize(
    "medication",
    ["Amoxicillin 250 MG Oral Capsule", "ampicillin", "Penicillin V Potassium 250 MG", "piperacillin"],
)
def test_a_penicillin_allergy_matches_every_penicillin(allergy: str, medication: str) -> None:
    assert [kind for kind, _ in match(medication, allergy)] == ["class"]


def test_a_match_contains_the_class_and_the_ingredient() -> None:
    allergen = drugs.resolve_allergen("Allergy to penicillin")
    assert allergen is not None

    matches = drugs.match_allergy(resolve_known("Augmentin"), allergen)

    assert matches == [AllergyMatch("class", PENICILLIN, "amoxicillin")]


def test_an_allergy_to_a_brand_matches_its_ingredients_under_other_names() -> None:
    assert match("co-amoxiclav", "Augmentin") == {
        ("ingredient", "amoxicillin"),
        ("ingredient", "clavulanate"),
    }
    assert match("paracetamol", "Tylenol") == {("ingredient", "acetaminophen")}


@pytest.mark.parametrize(
    ("medication", "expected"),
    [
        ("cephalexin", {("cross_reactivity", "cephalexin")}),
        ("Cefaclor 250 MG Oral Capsule", {("cross_reactivity", "cefaclor")}),
        ("cefuroxime", set()),
        ("ceftriaxone", set()),
        ("meropenem", set()),
        ("aztreonam", set()),
        ("azithromycin", set()),
    ],
)
def test_a_penicillin_allergy_matches_only_cephalosporins_with_a_similar_side_chain(
    medication: str, expected: set[tuple[str, str]]
) -> None:
    assert match(medication, "penicillin") == expected
    assert match(medication, "amoxicillin") == expected


@pytest.mark.parametrize(
    ("allergy", "medication", "expected"),
    [
        ("sulfa", "Bactrim", {("class", "sulfamethoxazole")}),
        ("Sulfa drugs", "sulfadiazine", {("class", "sulfadiazine")}),
        ("sulfa", "sulfasalazine", {("class", "sulfasalazine")}),
        ("sulfa", "hydrochlorothiazide", set()),
        ("sulfa", "Lasix", set()),
        ("sulfa", "celecoxib", set()),
        ("sulfa", "sumatriptan", set()),
        ("sulfa", "magnesium sulfate", set()),
        ("NSAIDs", "Aspirin 81 MG Oral Tablet", {("class", "aspirin")}),
        ("NSAIDs", "Advil", {("class", "ibuprofen")}),
        ("NSAIDs", "acetaminophen", set()),
        ("aspirin", "aspirin", {("ingredient", "aspirin")}),
        ("aspirin", "naproxen", {("class", "naproxen")}),
        ("aspirin", "celecoxib", {("class", "celecoxib")}),
        ("aspirin", "mesalamine", {("cross_reactivity", "mesalamine")}),
        ("aspirin", "clopidogrel", set()),
        ("codeine", "co-codamol", {("ingredient", "codeine")}),
        ("codeine", "morphine", {("class", "morphine")}),
        ("codeine", "Vicodin", {("class", "hydrocodone")}),
        ("codeine", "tramadol", {("cross_reactivity", "tramadol")}),
        ("codeine", "fentanyl", set()),
        ("codeine", "loperamide", set()),
        ("opioids", "fentanyl", {("class", "fentanyl")}),
        ("statins", "Lipitor", {("class", "atorvastatin")}),
        ("simvastatin", "rosuvastatin", {("class", "rosuvastatin")}),
        ("ACE inhibitors", "lisinopril", {("class", "lisinopril")}),
        ("enalapril (cough)", "ramipril", {("class", "ramipril")}),
        ("lisinopril", "losartan", set()),
        ("lisinopril", "Entresto", {("cross_reactivity", "sacubitril")}),
        ("lidocaine", "bupivacaine", {("class", "bupivacaine")}),
        ("lidocaine", "procaine", set()),
        ("novocaine", "tetracaine", {("class", "tetracaine")}),
        ("contrast dye", "iohexol", {("class", "iohexol")}),
        ("iodine contrast", "Dotarem", set()),
        ("iodine", "iohexol", {("class", "iohexol")}),
        ("shellfish", "iohexol", set()),
        ("gadolinium", "Gadavist", {("class", "gadobutrol")}),
        ("tetracycline", "tetracycline", {("ingredient", "tetracycline")}),
        ("tetracycline", "doxycycline", {("class", "doxycycline")}),
        ("erythromycin", "azithromycin", {("class", "azithromycin")}),
        ("Cipro", "levofloxacin", {("class", "levofloxacin")}),
        ("cefuroxime", "ceftriaxone", {("class", "ceftriaxone")}),
        ("cefuroxime", "amoxicillin", set()),
        ("cephalexin", "amoxicillin", {("cross_reactivity", "amoxicillin")}),
        ("ceftazidime", "aztreonam", {("cross_reactivity", "aztreonam")}),
        ("carbamazepine", "phenytoin", {("cross_reactivity", "phenytoin")}),
        ("carbamazepine", "valproate", set()),
        ("hydroxyzine", "Zyrtec", {("class", "cetirizine")}),
        ("eggs", "propofol", {("cross_reactivity", "propofol")}),
        ("Allergy to peanuts", "progesterone", {("cross_reactivity", "progesterone")}),
        ("Allergy to peanuts", "amoxicillin", set()),
    ],
)
def test_an_allergy_matches_by_ingredient_class_and_cross_reactivity(
    allergy: str, medication: str, expected: set[tuple[str, str]]
) -> None:
    assert match(medication, allergy) == expected


def test_a_match_by_ingredient_comes_before_its_class() -> None:
    assert match("amoxicillin", "amoxicillin") == {("ingredient", "amoxicillin")}


@pytest.mark.parametrize(
    ("allergy", "kind"),
    [
        ("Allergy to mould", "environment"),
        ("Dander (animal) allergy", "animal"),
        ("Allergy to tree pollen", "environment"),
        ("Allergy to grass pollen", "environment"),
        ("House dust mite allergy", "environment"),
        ("Shellfish allergy", "food"),
        ("Allergy to bee venom", "venom"),
        ("Allergy to nut", "food"),
        ("Allergy to peanuts", "food"),
        ("Allergy to fish", "food"),
        ("Allergy to wheat", "food"),
        ("Latex allergy", "contact"),
        ("Allergy to dairy product", "food"),
        ("Allergy to eggs", "food"),
        ("Allergy to soya", "food"),
    ],
)
def test_an_allergen_that_is_not_a_drug_is_known_and_matches_no_common_drug(allergy: str, kind: str) -> None:
    allergen = drugs.resolve_allergen(allergy)

    assert allergen is not None
    assert allergen.kind == kind
    assert allergen.unknown_parts == ()
    for name in ("amoxicillin", "ibuprofen", "lidocaine", "insulin", "metformin", "bee venom and aspirin"):
        assert drugs.match_allergy(resolve_known(name), allergen) == []


@pytest.mark.parametrize("allergy", ["No known allergies", "NKDA", "none", "None documented", "no latex"])
def test_a_denial_among_the_allergens_is_reported_as_unchecked(allergy: str) -> None:
    # The medical history reads the usual texts as `no_known_allergies`. The rest may be about something else.
    allergen = drugs.resolve_allergen(allergy)

    assert allergen is not None
    assert allergen.unknown_parts


def test_a_denied_general_word_still_names_it() -> None:
    assert ("class", "amoxicillin") in match("amoxicillin", "no antibiotics")


@pytest.mark.parametrize("allergy", ["", "unknown", "blargh", "the red pill", "sulfonyl something", "♥"])
def test_an_allergen_outside_the_table_resolves_to_none(allergy: str) -> None:
    assert drugs.resolve_allergen(allergy) is None


@pytest.mark.parametrize("allergy", ["lactose", "gelatin", "sulfites", "Polyethylene glycol"])
def test_an_excipient_is_reported_as_unchecked(allergy: str) -> None:
    allergen = drugs.resolve_allergen(allergy)

    assert allergen is not None
    assert allergen.kind == "excipient"
    assert allergen.unknown_parts != ()


def test_metals_without_a_comma_are_separate_allergens() -> None:
    assert match("zinc sulfate", "calcium magnesium zinc") == {("ingredient", "zinc sulfate")}
    assert match("magnesium sulfate", "calcium magnesium zinc") == {("ingredient", "magnesium sulfate")}


def test_a_word_of_the_reaction_is_no_unknown_allergen() -> None:
    allergen = drugs.resolve_allergen("swollen lips and bronchospasm after aspirin, SJS with carbamazepine")

    assert allergen is not None
    assert allergen.ingredients == {"aspirin", "carbamazepine"}
    assert allergen.unknown_parts == ()


def test_all_allergens_of_one_entry_count() -> None:
    entry = "Penicillin, sulfa and blargh"

    assert match("amoxicillin", entry) == {("class", "amoxicillin")}
    assert match("Bactrim", entry) == {("class", "sulfamethoxazole")}
    allergen = drugs.resolve_allergen(entry)
    assert allergen is not None
    assert allergen.unknown_parts == ("blargh",)


# --- Duplicates ---


def test_the_same_ingredient_under_two_names_is_a_duplicate() -> None:
    assert drugs.duplicate_ingredients(resolve_known("Tylenol"), resolve_known("co-codamol")) == {
        "acetaminophen"
    }
    assert drugs.duplicate_ingredients(resolve_known("Vicodin"), resolve_known("Percocet")) == {
        "acetaminophen"
    }
    assert drugs.duplicate_ingredients(resolve_known("ibuprofen"), resolve_known("naproxen")) == set()


def test_a_diluent_in_two_infusions_is_not_a_duplicate() -> None:
    assert (
        drugs.duplicate_ingredients(resolve_known("normal saline"), resolve_known("Sodium Chloride 0.9%"))
        == set()
    )


@pytest.mark.parametrize(
    ("first", "second", "classes"),
    [
        ("Lipitor", "simvastatin", {STATIN}),
        ("ibuprofen", "Aleve", {NSAID}),
        ("lisinopril", "Zestoretic", set()),  # the same ingredient, reported as such
        ("dextroamphetamine", "Adderall", set()),
        ("lisinopril", "ramipril", {ACE, RAS}),
        ("lisinopril", "losartan", {RAS}),
        ("ramipril", "Entresto", {RAS}),
        ("prednisone", "dexamethasone", {"Systemic Corticosteroid"}),
        ("prednisone", "hydrocortisone cream", set()),
        ("lamivudine", "zidovudine", set()),
        ("lamivudine", "emtricitabine", {"Cytidine Analog Antiretroviral"}),
        ("efavirenz", "nevirapine", {NNRTI}),
        ("lopinavir", "ritonavir", set()),
        ("warfarin", "apixaban", {"Anticoagulant"}),
        ("omeprazole", "esomeprazole", {"Proton Pump Inhibitor"}),
        ("sertraline", "fluoxetine", {SSRI}),
        ("Vicodin", "Percocet", {OPIOID}),
        ("salbutamol", "salmeterol", set()),
        ("insulin glargine", "insulin lispro", set()),
        ("lamotrigine", "levetiracetam", set()),
        ("aspirin", "clopidogrel", set()),
        ("vitamin B12", "mecobalamin", set()),
        ("azathioprine", "mercaptopurine", {"Thiopurine"}),
        ("ferrous sulfate", "ferrous fumarate", {"Oral Iron"}),
        ("ferrous sulfate", "iron sucrose", set()),
        ("nitroglycerin", "isosorbide mononitrate", set()),
        ("prednisone", "fluticasone", set()),
        ("amoxicillin", "metformin", set()),
        ("aspirin/oxycodone", "codeine and ibuprofen", {NSAID, OPIOID}),
    ],
)
def test_two_drugs_of_one_class_are_duplicate_therapy_if_the_class_allows_one(
    first: str, second: str, classes: set[str]
) -> None:
    assert drugs.duplicate_classes(resolve_known(first), resolve_known(second)) == classes
    assert drugs.duplicate_classes(resolve_known(second), resolve_known(first)) == classes


@pytest.mark.parametrize("name", ["Adderall", "Bactrim", "Augmentin", "Maxzide", "Seasonique", "Vicodin"])
def test_a_combination_is_not_a_duplicate_of_itself_by_class(name: str) -> None:
    assert drugs.duplicate_classes(resolve_known(name), resolve_known(name)) == set()


# --- The table ---


def test_the_table_was_built_from_the_current_curated_files() -> None:
    table = json.loads(gzip.decompress(drugs.TABLE.read_bytes()))

    assert table["version"] == drugs.DATA_VERSION
    assert table["curated"] == build.fingerprint()


def test_every_curated_synonym_resolves_to_its_ingredients() -> None:
    for row in build.read_curated("synonyms"):
        assert resolve_known(row["name"]).ingredients == set(row["ingredients"].split(";")), row["name"]


def test_every_member_of_a_curated_class_has_the_class() -> None:
    for row in build.read_curated("classes"):
        for name in row["ingredients"].split(";"):
            assert row["class"] in resolve_known(name).classes, name


def test_every_curated_allergen_resolves_to_its_kind_and_classes() -> None:
    for row in build.read_curated("allergens"):
        allergen = drugs.resolve_allergen(row["term"])

        assert allergen is not None, row["term"]
        assert allergen.kind == row["kind"], row["term"]
        assert set(row["classes"].split(";")) - {""} <= allergen.classes, row["term"]


@pytest.mark.parametrize(
    ("substance", "base"),
    [
        ("amoxicillin trihydrate", "amoxicillin"),
        ("penicillin v potassium", "penicillin v"),
        ("sodium chloride", "sodium chloride"),
        ("magnesium sulfate heptahydrate", "magnesium sulfate"),
        ("dabigatran etexilate mesylate", "dabigatran"),
        ("anhydrous dextrose", "dextrose"),
        ("potassium phosphate, monobasic", "potassium phosphate monobasic"),
    ],
)
def test_the_salt_of_a_substance_is_removed_unless_it_is_the_substance(substance: str, base: str) -> None:
    assert build.base_substance(substance, {}) == (base,)


def test_a_table_of_another_version_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drugs, "DATA_VERSION", "0")

    with pytest.raises(RuntimeError, match="version"):
        drugs._load.__wrapped__()


def test_concurrent_threads_read_the_table_once() -> None:
    drugs._load.cache_clear()

    with ThreadPoolExecutor(8) as pool:
        resolved = list(pool.map(drugs.resolve, ["Augmentin"] * 64))

    assert len(set(resolved)) == 1
    assert drugs._load.cache_info().misses == 1


def test_the_table_is_read_on_first_use() -> None:
    program = (
        "from services.clinical import drugs; before = drugs._load.cache_info().currsize;"
        "drugs.resolve('Augmentin'); print(before, drugs._load.cache_info().currsize)"
    )

    answer = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)

    assert answer.stdout.split() == ["0", "1"]
