"""Names of medicines as people write them: dose, form, route, times and duration beside the name."""

import pytest

from data import build
from services.clinical import drugs

WRITTEN = """
Tab. Augmentin 625mg BD x 5/7 = amoxicillin; clavulanate
Inj Ceftriaxone 1g IV OD = ceftriaxone
Syp Calpol 5ml TDS = acetaminophen
T. Metformin 500 mg = metformin
Cap.Amoxil500mg = amoxicillin
Tab.PCM 1g TDS x3/7 = acetaminophen
Artemether/Lumefantrine 20/120 = artemether; lumefantrine
IV fluids NS 500ml = sodium chloride
I.V. Metronidazole 500mg = metronidazole
Vit B12 = cyanocobalamin
ORS sachets = oral rehydration salts
TT injection = tetanus vaccine
anti-D = human anti-d immune globulin
salbutamol neb = albuterol
Benzathine 2.4 MU IM stat = penicillin g
Susp. Septrin 240mg/5ml = sulfamethoxazole; trimethoprim
Diazepam 10mg PR = diazepam
Zinc 20 mg = zinc gluconate; zinc sulfate
ORS + zinc = oral rehydration salts; zinc sulfate
amoxicillin, zinc 20 mg = amoxicillin; zinc gluconate; zinc sulfate
calcium and vitamin D3 = calcium carbonate; calcium gluconate; cholecalciferol
calcium carbonate 500 mg = calcium carbonate
MgSO4 50% = magnesium sulfate
Insulin Mixtard 30/70 20u am 10u pm = insulin human; insulin isophane
iron (ferrous sulphate 200) = ferrous sulfate
Losartan HCT = hydrochlorothiazide; losartan
Ringer's lactate 1L = calcium chloride; potassium chloride; sodium chloride; sodium lactate
penicillin, benzathine 2.4 MU = penicillin g
potassium citrate mixture = potassium citrate
Co-arinate = artesunate; pyrimethamine; sulfalene
DPT = diphtheria vaccine; pertussis vaccine; tetanus vaccine
"""


@pytest.mark.parametrize("line", WRITTEN.strip().splitlines())
def test_a_written_prescription_is_understood_completely(line: str) -> None:
    written, ingredients = line.split(" = ")

    drug = drugs.resolve(written)

    assert drug is not None
    assert drug.ingredients == set(ingredients.split("; "))
    assert drug.unknown_parts == ()


def test_a_general_name_means_every_ingredient_that_it_may_name() -> None:
    for row in build.read_curated("general_names"):
        drug = drugs.resolve(row["name"])
        assert drug is not None, row["name"]
        assert drug.ingredients == set(row["ingredients"].split(";")), row["name"]
        assert row["note"], row["name"]


@pytest.mark.parametrize(
    ("general", "member"),
    [
        ("insulin", "Lantus"),
        ("insulin", "Insulatard"),
        ("penicillin", "X-Pen"),
        ("penicillin", "Pen V"),
        ("hyoscine", "Buscopan"),
        ("isosorbide", "Imdur"),
        ("iron", "Fefol"),
        ("zinc", "zinc sulphate"),
    ],
)
def test_a_general_name_is_a_duplicate_of_each_member(general: str, member: str) -> None:
    first, second = drugs.resolve(general), drugs.resolve(member)

    assert first is not None
    assert second is not None
    assert drugs.duplicate_ingredients(first, second)


def test_basal_and_mealtime_insulin_are_no_duplicates() -> None:
    for first, second in (("Actrapid", "Insulatard"), ("Humulin R", "Humulin N"), ("NovoRapid", "Lantus")):
        drug, other = drugs.resolve(first), drugs.resolve(second)
        assert drug is not None
        assert other is not None
        assert not drugs.duplicate_ingredients(drug, other)
        assert not drugs.duplicate_classes(drug, other)
