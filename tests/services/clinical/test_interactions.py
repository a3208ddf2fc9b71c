"""Severe interactions: pairs of the sources, ordinary pairs, forms, and the table.

The pairs are written from the sources: medicine labels, the ONC high-priority list, the MHRA and the WHO.
"""

import csv
import gzip
import json
import re
from pathlib import Path

import pytest

from data import build
from services.clinical import drugs, interactions
from services.clinical.drugs import Drug
from services.clinical.interactions import InteractionMatch

HERE = Path(__file__).parent
SOURCE = re.compile(
    r"section|Contraindications|Precautions|Warnings|warning|ONC high-priority list|CFR|\b20\d\d\b"
)


def rows(name: str) -> list[dict[str, str]]:
    with (HERE / name).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def resolve_known(name: str) -> Drug:
    drug = drugs.resolve(name)
    assert drug is not None, name
    assert drug.unknown_parts == (), name
    return drug


def find(first: str, second: str) -> list[InteractionMatch]:
    return interactions.find_interactions(first, resolve_known(first), second, resolve_known(second))


def test_the_pairs_of_the_sources_have_their_severity_in_both_orders() -> None:
    pairs = rows("interaction_pairs.csv")
    wrong = []
    for row in pairs:
        for names in ((row["first"], row["second"]), (row["second"], row["first"])):
            matches = find(*names)
            severity = matches[0].interaction.severity if matches else None
            if severity != row["severity"] or row["source"] not in str(
                [match.interaction.source for match in matches]
            ):
                wrong.append((*names, row["severity"], row["source"], severity))

    assert wrong == []
    assert len(pairs) >= 300
    assert {row["severity"] for row in pairs} == {"contraindicated", "serious"}


def test_ordinary_pairs_stay_quiet() -> None:
    pairs = rows("quiet_pairs.csv")

    alerts = [row for row in pairs if find(row["first"], row["second"]) or find(row["second"], row["first"])]

    assert alerts == []
    assert len(pairs) >= 100


def test_every_entry_names_its_source_and_matches_its_own_ingredients() -> None:
    for row in build.read_curated("interactions"):
        assert row["severity"] in ("contraindicated", "serious"), row
        assert row["effect"], row
        assert {row["local_forms"], row["second_alone"]} <= {"", "yes"}, row
        for source in row["source"].split(
            "; "
        ):  # each names a place, for example "FDA label: Viagra, section 4.1"
            assert SOURCE.search(source), source


@pytest.mark.parametrize(
    ("first", "second", "interacts"),
    [
        ("diclofenac gel", "warfarin", False),
        ("diclofenac 50 mg", "warfarin", True),
        ("ibuprofen liquid gel capsule", "warfarin", True),
        ("diclofenac gel caps", "warfarin", True),
        ("ibuprofen tablets and gel", "warfarin", True),
        ("brimonidine eye drops", "amitriptyline", True),
        ("tretinoin cream", "doxycycline", False),
        ("ketoconazole shampoo", "simvastatin", False),
        ("ketoconazole 200 mg", "simvastatin", True),
        ("timolol eye drops", "verapamil", False),
        ("nitroglycerin ointment", "sildenafil", True),
        ("glyceryl trinitrate rectal ointment", "sildenafil", True),
        ("miconazole cream", "warfarin", True),
        ("miconazole oral gel", "gliclazide", True),
        ("fentanyl patch", "diazepam", True),
        ("Mirena", "rifampicin", False),
    ],
)
def test_a_skin_or_eye_form_counts_only_where_it_is_absorbed(
    first: str, second: str, interacts: bool
) -> None:
    assert bool(find(first, second)) is interacts


def test_potassium_in_a_mixture_is_not_a_supplement() -> None:
    assert find("potassium chloride", "spironolactone")
    assert not find("Movicol", "spironolactone")
    assert not find("spironolactone", "Movicol")


def test_the_same_ingredient_does_not_interact_with_itself() -> None:
    assert find("amiodarone", "amiodarone 200 mg") == []  # a member of both sides of the QT entry


def test_a_pair_of_ingredients_has_one_match_and_the_highest_severity_comes_first() -> None:
    matches = find("ritonavir", "simvastatin/ezetimibe")
    assert [(match.ingredient, match.other_ingredient) for match in matches] == [("ritonavir", "simvastatin")]

    matches = find("lopinavir/ritonavir", "fluticasone/salmeterol")
    assert len(matches) == 4

    matches = find("aspirin", "methotrexate/warfarin/ketorolac")
    assert [match.interaction.severity for match in matches] == ["contraindicated", "serious", "serious"]


def test_the_table_was_built_from_the_current_curated_files(monkeypatch: pytest.MonkeyPatch) -> None:
    table = json.loads(gzip.decompress(interactions.TABLE.read_bytes()))

    assert table["version"] == drugs.DATA_VERSION
    assert table["curated"] == build.fingerprint()

    monkeypatch.setattr(interactions, "DATA_VERSION", "0")
    with pytest.raises(RuntimeError, match="version"):
        interactions._load.__wrapped__()


def test_a_misspelt_member_of_an_entry_stops_the_build() -> None:
    with pytest.raises(SystemExit, match="unknown ingredient, class or group"):
        build.expand_interactions({"warfarin": set()})
