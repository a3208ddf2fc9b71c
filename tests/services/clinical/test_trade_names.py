"""Trade names and abbreviations of East Africa, the United Kingdom and India."""

from collections import Counter

import pytest

from data import build
from services.clinical import drug_words, drugs


@pytest.mark.parametrize(
    ("name", "ingredients"),
    [
        ("Ampiclox 500 mg caps", "ampicillin; cloxacillin"),
        ("Ampiclox Neonatal drops", "ampicillin; cloxacillin"),
        ("Inj. X-Pen 5MU", "penicillin g"),
        ("XPEN", "penicillin g"),
        ("Floxapen", "flucloxacillin"),
        ("Magnapen", "ampicillin; flucloxacillin"),
        ("Klaricid XL", "clarithromycin"),
        ("Toradol 30 mg inj", "ketorolac"),
        ("Combiflam", "acetaminophen; ibuprofen"),
        ("Septrin 960", "sulfamethoxazole; trimethoprim"),
        ("Coartem 20/120", "artemether; lumefantrine"),
        ("Duocotecxin", "dihydroartemisinin; piperaquine"),
        ("Nifelat 20 mg", "nifedipine"),
        ("Aldomet", "methyldopa"),
        ("Brustan N", "acetaminophen; ibuprofen"),
        ("Hedex", "acetaminophen; aspirin; caffeine"),
        ("Mara Moja", "acetaminophen; aspirin; caffeine"),
        ("Buscopan Plus", "acetaminophen; hyoscine butylbromide"),
        ("Crocin", "acetaminophen"),
        ("Dolo 650", "acetaminophen"),
        ("Azithral 500", "azithromycin"),
        ("Taxim-O 200", "cefixime"),
        ("Taxim 1g", "cefotaxime"),
        ("Monocef", "ceftriaxone"),
        ("Monocef-O", "cefpodoxime"),
        ("Pantocid DSR", "domperidone; pantoprazole"),
        ("Pan-D", "domperidone; pantoprazole"),
        ("Telma 40", "telmisartan"),
        ("Telma H", "hydrochlorothiazide; telmisartan"),
        ("Ecosprin AV 75", "aspirin; atorvastatin"),
        ("Glycomet GP 1", "glimepiride; metformin"),
        ("Zerodol-SP", "acetaminophen; aceclofenac; serratiopeptidase"),
        ("Metakelfin", "pyrimethamine; sulfalene"),
        ("AKT-4", "ethambutol; isoniazid; pyrazinamide; rifampin"),
        # abbreviations
        ("PCM", "acetaminophen"),
        ("Tab PCM 1g TDS", "acetaminophen"),
        ("PCM + ORS", "acetaminophen; oral rehydration salts"),
        ("MgSO4 50%", "magnesium sulfate"),
        ("AZT", "zidovudine"),
        ("3TC 150 mg", "lamivudine"),
        ("lamivudine (3TC)", "lamivudine"),
        ("AZT 300mg/3TC 150mg", "lamivudine; zidovudine"),
        ("zidovudine 3TC", "lamivudine; zidovudine"),
        ("ABC 600 mg/3TC 300 mg", "abacavir; lamivudine"),
        ("TLD", "dolutegravir; lamivudine; tenofovir"),
        ("TDF/3TC/DTG 300/300/50", "dolutegravir; lamivudine; tenofovir"),
        ("TDF + 3TC + EFV", "efavirenz; lamivudine; tenofovir"),
        ("TLE", "efavirenz; lamivudine; tenofovir"),
        ("LPV/r 200/50", "lopinavir; ritonavir"),
        ("ATV/r", "atazanavir; ritonavir"),
        ("RHZE 150/75/400/275", "ethambutol; isoniazid; pyrazinamide; rifampin"),
        ("RH 150/75", "isoniazid; rifampin"),
        ("EH", "ethambutol; isoniazid"),
        ("INH 300 mg OD", "isoniazid"),
        ("SP 500/25", "pyrimethamine; sulfadoxine"),
        ("AL 20/120", "artemether; lumefantrine"),
        ("DHA-PPQ", "dihydroartemisinin; piperaquine"),
        ("HCTZ 25", "hydrochlorothiazide"),
        ("ASA 75", "aspirin"),
        ("MTX 10 mg", "methotrexate"),
        ("TMP-SMX", "sulfamethoxazole; trimethoprim"),
        ("SMX-TMP", "sulfamethoxazole; trimethoprim"),
        ("CPZ 100", "chlorpromazine"),
        ("HCQ 200", "hydroxychloroquine"),
        ("5-FU", "fluorouracil"),
    ],
)
def test_an_everyday_name_resolves_to_its_ingredients(name: str, ingredients: str) -> None:
    drug = drugs.resolve(name)

    assert drug is not None
    assert drug.ingredients == set(ingredients.split("; "))


@pytest.mark.parametrize(
    ("name", "unknown"),
    [
        ("Ventolin INH 100 mcg", ("inh",)),  # inhaler, not isoniazid
        ("Hifenac SP Forte SP", ("forte", "sp")),
        ("Cream ABC", ("abc",)),
    ],
)
def test_a_short_abbreviation_beside_another_name_is_not_a_drug(name: str, unknown: tuple[str, ...]) -> None:
    drug = drugs.resolve(f"{name} amoxicillin" if name.startswith("Cream") else name)

    assert drug is not None
    assert drug.unknown_parts == unknown


def test_abbreviations_of_recorded_allergies_resolve() -> None:
    allergen = drugs.resolve_allergen("ASA, SMX-TMP")

    assert allergen is not None
    assert {"aspirin", "sulfamethoxazole"} <= allergen.ingredients
    assert allergen.unknown_parts == ()


def test_every_trade_name_resolves_to_its_ingredients_and_names_its_source() -> None:
    rows = build.read_curated("trade_names")

    for row in rows:
        drug = drugs.resolve(row["name"])
        assert drug is not None, row["name"]
        assert drug.ingredients == set(row["ingredients"].split(";")), row["name"]
        assert drug.unknown_parts == (), row["name"]
        assert row["source"], row["name"]
    regions = Counter(row["region"] for row in rows)
    assert set(regions) == {"East Africa", "United Kingdom", "India"}
    assert min(regions.values()) >= 100


def test_a_name_has_one_meaning_in_the_curated_files() -> None:
    synonyms = build.read_names("synonyms")
    rows = build.read_curated("trade_names")
    trade_names = build.read_names("trade_names")

    assert len(trade_names) == len(rows)
    assert [
        name for name in synonyms.keys() & trade_names if set(synonyms[name]) != set(trade_names[name])
    ] == []
    ingredients = {drug_words.normalize(ingredient) for ingredient in drugs._table().classes_of}
    assert [name for name in trade_names if name in ingredients and trade_names[name] != (name,)] == []
