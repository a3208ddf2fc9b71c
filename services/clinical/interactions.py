"""Severe interactions of two medications, from the curated list `data/curated/interactions.csv`.

The list contains only pairs with a source that names them: contraindications of medicine labels (US label,
UK or EU SmPC), the ONC high-priority list, safety updates of the MHRA, WHO guidelines, and pairs with a
serious labelled warning. The ONC list is Phansalkar S et al., "High-priority drug-drug interactions for use
in electronic health records", J Am Med Inform Assoc 2012;19(5):735-743. Its QT medicines are those with a
known risk of torsades de pointes. Azithromycin, ondansetron and sevoflurane are left out, because their
combinations are ordinary. Pairs that only need monitoring or a lower dose are left out, too. Reason: many
alerts hide the important ones.

Each entry has two sides. A side is a set of ingredients. The entry matches if one medication contains an
ingredient of the first side, and the other medication an ingredient of the second side.

- A skin, eye or ear form does not count, because little of it is absorbed. The form is read from the name
  ("diclofenac gel"). The column `local_forms` marks entries where it counts: nitrate ointment, miconazole,
  beta-blocker eye drops in asthma.
- The column `second_alone` marks entries where the second side counts only as a medication of one
  substance: potassium in a laxative powder is not a potassium supplement.
"""

from __future__ import annotations

import functools
import gzip
import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from services.clinical.drug_words import split_words
from services.clinical.drugs import DATA_VERSION, Drug

TABLE: Final = Path(__file__).resolve().parents[2] / "data" / "interactions.json.gz"

Severity = Literal["contraindicated", "serious"]

_LOCAL_FORMS: Final = frozenset(
    """
    cream ointment gel emulgel lotion shampoo foam eye ear ophthalmic otic intrauterine iud ius mirena kyleena
    liletta jaydess levosert
    """.split()
)
# A gel or ointment for these places is absorbed. A "soft gel" or "gel capsule" is swallowed. A name with a
# skin form and a form for the whole body ("tablets and gel") may mean either.
_ABSORBED_FORMS: Final = frozenset(
    """
    oral orally dental buccal oromucosal rectal transdermal
    capsule capsules cap caps caplet caplets tablet tablets tab tabs pill pills soft softgel softgels liquid
    liqui liquigel syrup suspension elixir sachet sachets granules dispersible effervescent chewable coated
    injection injections injectable inj infusion intravenous iv im intramuscular subcutaneous sc
    suppository suppositories supp supps
    """.split()
)


@dataclass(frozen=True, slots=True)
class Interaction:
    """An entry of the list."""

    first: frozenset[str]
    second: frozenset[str]
    severity: Severity
    effect: str
    source: str
    local_forms: bool
    second_alone: bool


@dataclass(frozen=True, slots=True)
class InteractionMatch:
    """An entry that two medications match, with one ingredient of each."""

    ingredient: str
    other_ingredient: str
    interaction: Interaction


@functools.cache
def _load() -> Mapping[str, tuple[Interaction, ...]]:
    """Return the entries of each ingredient, contraindicated ones first."""
    table = json.loads(gzip.decompress(TABLE.read_bytes()))
    if table["version"] != DATA_VERSION:
        raise RuntimeError(f"{TABLE.name} has version {table['version']}, the code expects {DATA_VERSION}")
    entries = [
        Interaction(frozenset(first), frozenset(second), *details)
        for first, second, *details in table["interactions"]
    ]
    entries.sort(key=lambda entry: entry.severity != "contraindicated")
    of_ingredient = defaultdict[str, list[Interaction]](list)
    for entry in entries:
        for ingredient in entry.first | entry.second:
            of_ingredient[ingredient].append(entry)
    return {ingredient: tuple(entries) for ingredient, entries in of_ingredient.items()}


def find_interactions(name: str, drug: Drug, other_name: str, other_drug: Drug) -> list[InteractionMatch]:
    """Return the severe interactions of two medications, contraindicated ones first.

    `name` and `other_name` are the entered names, which may contain the form. Each pair of ingredients has
    one match at most.
    """
    is_local = is_local_form(name) or is_local_form(other_name)
    matches: dict[tuple[str, str], InteractionMatch] = {}
    for ingredient in sorted(drug.ingredients):
        for entry in _load().get(ingredient, ()):
            if is_local and not entry.local_forms:
                continue
            for other in sorted(_counterparts(entry, ingredient, drug, other_drug) - {ingredient}):
                matches.setdefault((ingredient, other), InteractionMatch(ingredient, other, entry))
    return sorted(matches.values(), key=lambda match: match.interaction.severity != "contraindicated")


def _counterparts(entry: Interaction, ingredient: str, drug: Drug, other_drug: Drug) -> frozenset[str]:
    """Return the ingredients of the other medication that interact with the ingredient."""
    counterparts: frozenset[str] = frozenset()
    if ingredient in entry.first and not (entry.second_alone and len(other_drug.ingredients) > 1):
        counterparts |= entry.second & other_drug.ingredients
    if ingredient in entry.second and not (entry.second_alone and len(drug.ingredients) > 1):
        counterparts |= entry.first & other_drug.ingredients
    return counterparts


@functools.lru_cache(maxsize=4096)
def is_local_form(name: str) -> bool:
    """Return True if the only form in the name is one for skin, eye or ear, or an intrauterine system."""
    words = {word.text for word in split_words(name)}
    return bool(words & _LOCAL_FORMS) and not words & _ABSORBED_FORMS
