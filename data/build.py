"""Makes the reference data of this folder from its sources: `python -m data.build drugs|icd10|demo`.

    drugs  SOURCE  FDA National Drug Code extract (CSV, gzip) and `data/curated/*.csv` -> drugs.json.gz
    icd10          the installed package simple-icd-10-cm                              -> icd10cm.txt.gz
    demo   FOLDER  Synthea extracts (CSV, gzip) and `--prices` procedure_prices.csv     -> demo/*.csv.gz

Run from the project's root. The outputs are the same byte for byte when the sources are. What each file
holds, where it comes from and under which licence stands in `data/NOTICE.md`.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import hashlib
import io
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from services.clinical.drugs import (
    DATA_VERSION,
    SALT_WORDS,
    is_noise,
    key,
)
from services.clinical.icd10 import RELEASE

HERE: Final = Path(__file__).resolve().parent
CURATED: Final = HERE / "curated"

# Extracts for skin tests and homeopathic mixtures: never prescribed as drugs, thousands of botanical names.
_ALLERGENIC = re.compile(r"Allergenic Extract|Chemical Allergen")
_MOST_SUBSTANCES = 6
_DYES = frozenset({"d&c yellow no. 10", "d&c yellow no. 8"})
_WATERS = re.compile(r"(anhydrous|\w*hydrate|unspecified|form|hemi-pentahydrate)$")
# With one of these alone a salt would lose its meaning: sodium chloride is no sodium.
_NOT_ALONE = frozenset(
    """
    acetic aluminum ammonium amyl barium benzalkonium benzethonium bismuth calcium cetylpyridinium choline
    chromic copper cupric dibasic dimethyl ethyl ferric ferrous gallium glycerol gold hydrogen indium iron
    lanthanum lauryl lithium magnesium manganese mercuric methyl nickel phenol phenyl potassium radium
    selenium silver sodium stannous strontium sulfur thallous titanium trisodium trolamine zinc monobasic
    """.split()
)
_INCIDENTAL: Final = (
    "air",
    "carbon dioxide",
    "dextrose",
    "helium",
    "nitrogen",
    "oxygen",
    "sodium chloride",
    "water",
)


def write_gzip(path: Path, content: bytes) -> None:
    """Without name and time inside, so that the same content gives the same file."""
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(gzip.compress(content, 9, mtime=0))
    print(f"{path.relative_to(HERE.parent)}: {path.stat().st_size:,} bytes")


def read_curated(name: str) -> list[dict[str, str]]:
    with (CURATED / f"{name}.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def fingerprint() -> str:
    """SHA-256 of the curated files: tells a table made before the last change of one of them."""
    digest = hashlib.sha256()
    for path in sorted(CURATED.glob("*.csv")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def listed(cell: str) -> list[str]:
    return [part for part in cell.split(";") if part]


# --- Drugs ---


@dataclass(frozen=True)
class Product:
    """One row of the directory, its substances without their salts."""

    names: tuple[str, ...]
    ingredients: frozenset[str]
    classes: frozenset[str]


def base_substance(substance: str, synonyms: dict[str, tuple[str, ...]]) -> tuple[str, ...]:
    """Amoxicillin trihydrate -> amoxicillin; sodium chloride stays; one spelling for each substance."""
    words = substance.replace(",", "").split()
    if words[0] == "anhydrous":
        words = words[1:]
    while len(words) > 1 and _WATERS.fullmatch(words[-1]):
        words.pop()
    whole = list(words)
    while len(words) > 1 and words[-1] in SALT_WORDS:
        words.pop()
    if all(word in _NOT_ALONE for word in words):
        words = whole
    name = " ".join(words)
    return synonyms.get(key(name), (name,))


def read_products(source: Path, synonyms: dict[str, tuple[str, ...]]) -> Iterator[Product]:
    renamed = {row["source_class"]: row["class"] for row in read_curated("class_names")}
    with gzip.open(source, "rt", newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            substances = [s for s in row["substances"].split("; ") if s not in _DYES]
            given = row["established_pharmacologic_classes"]
            if not substances or len(substances) > _MOST_SUBSTANCES or _ALLERGENIC.search(given):
                continue
            bases = [base for s in substances for base in base_substance(s, synonyms)]
            names = [name for name in (row["brand"], row["generic"]) if name != "n/a"]
            if len(substances) == 1:
                names.append(substances[0])
            yield Product(
                names=tuple(names),
                ingredients=frozenset(bases),
                classes=frozenset(filter(None, (renamed.get(c, c) for c in given.split("; ")))),
            )


def derive_classes(products: list[Product]) -> dict[str, set[str]]:
    """Ingredient -> classes.

    Products of one ingredient say it plainly; what a combination adds to the classes of its known ingredients
    belongs to the unknown one, if there is only one.
    """
    classes: dict[str, set[str]] = defaultdict(set)
    for product in products:
        if len(product.ingredients) == 1:
            classes[next(iter(product.ingredients))] |= product.classes
    combinations = [p for p in products if len(p.ingredients) > 1]
    while True:
        learnt: dict[str, set[str]] = defaultdict(set)
        for product in combinations:
            unknown = [i for i in product.ingredients if not classes[i]]
            rest = product.classes.difference(*(classes[i] for i in product.ingredients))
            if len(unknown) == 1 and rest:
                learnt[unknown[0]] |= rest
        if not learnt:
            return classes
        for ingredient, found in learnt.items():
            classes[ingredient] |= found


def curate_classes(classes: dict[str, set[str]]) -> None:
    """Adds what the source leaves out and takes away what misleads."""
    for row in read_curated("classes"):
        for ingredient in listed(row["ingredients"]):
            classes[ingredient].add(row["class"])
    for row in read_curated("ingredients"):
        classes[row["ingredient"]] -= set(listed(row["not_classes"]))


def collect_names(
    products: list[Product], ingredients: list[str], synonyms: dict[str, tuple[str, ...]]
) -> dict[str, frozenset[str]]:
    """Name -> ingredients. Where products of one name differ: what they share, else all of it."""
    meanings: dict[str, list[frozenset[str]]] = defaultdict(list)
    for product in products:
        for name in product.names:
            meanings[key(name)].append(product.ingredients)
    names = {n: frozenset.intersection(*sets) or frozenset.union(*sets) for n, sets in meanings.items()}
    for ingredient in ingredients:
        names[key(ingredient)] = frozenset({ingredient})
    names.update({name: frozenset(found) for name, found in synonyms.items()})
    # A brand named like a dose form would be found in every name; procaine is a drug as well as a salt.
    telling = {key(ingredient) for ingredient in ingredients}
    return {n: found for n, found in names.items() if n and (" " in n or n in telling or not is_noise(n))}


def expand_allergens(classes: dict[str, set[str]]) -> tuple[dict[str, Any], dict[str, list[tuple[str, str]]]]:
    """Allergen terms, and what single ingredients may cross-react with."""
    of_ingredient: dict[str, set[tuple[str, str]]] = defaultdict(set)
    of_class: dict[str, set[tuple[str, str]]] = defaultdict(set)
    for row in read_curated("cross_reactivity"):
        pairs = {(hit, row["reason"]) for hit in listed(row["hit_ingredients"])}
        for ingredient in listed(row["allergy_ingredients"]):
            of_ingredient[ingredient] |= {pair for pair in pairs if pair[0] != ingredient}
        for name in listed(row["allergy_classes"]):
            of_class[name] |= pairs
    terms: dict[str, Any] = {}
    for row in read_curated("allergens"):
        groups, hits = listed(row["classes"]), listed(row["ingredients"])
        cross = {pair for name in groups for pair in of_class[name]}
        cross |= {(i, "labelled as contraindicated in this allergy") for i in listed(row["contraindicated"])}
        terms[key(row["term"])] = (row["kind"], hits, groups, sorted(cross))
    mentioned = {hit for _, hits, _, cross in terms.values() for hit in [*hits, *(i for i, _ in cross)]}
    mentioned |= set(of_ingredient) | {hit for pairs in of_ingredient.values() for hit, _ in pairs}
    check_known("ingredient", mentioned, classes)
    check_known(
        "class", {g for _, _, groups, _ in terms.values() for g in groups}, set().union(*classes.values())
    )
    return terms, {name: sorted(pairs) for name, pairs in of_ingredient.items() if pairs}


def check_known(what: str, mentioned: set[str], known: Iterable[str]) -> None:
    if missing := mentioned - set(known):
        raise SystemExit(f"curated files name an unknown {what}: {', '.join(sorted(missing))}")


def build_drugs(source: Path) -> None:
    """Writes drugs.json.gz; stops if the rules name an ingredient or class that nothing else knows."""
    synonyms = {key(row["name"]): tuple(listed(row["ingredients"])) for row in read_curated("synonyms")}
    products = list(read_products(source, synonyms))
    classes = derive_classes(products)
    for product in products:
        for ingredient in product.ingredients:
            classes[ingredient] |= set()
    curate_classes(classes)
    for ingredient in (i for found in synonyms.values() for i in found):
        classes[ingredient] |= set()
    terms, cross = expand_allergens(classes)
    rules = read_curated("class_rules")
    class_names = sorted(set().union(*classes.values()))
    check_known("class", {row["class"] for row in rules}, class_names)
    ingredients = sorted(classes)
    number = {name: i for i, name in enumerate(ingredients)}
    names = collect_names(products, ingredients, synonyms)
    table = {
        "version": DATA_VERSION,
        "curated": fingerprint(),
        "classes": class_names,
        "ingredients": [(i, sorted(class_names.index(c) for c in classes[i])) for i in ingredients],
        "names": {name: sorted(number[i] for i in found) for name, found in sorted(names.items())},
        "allergens": terms,
        "cross_reactive": cross,
        "alarming": [row["class"] for row in rules if row["on_allergy"] == "yes"],
        "duplicable": [row["class"] for row in rules if row["on_duplicate"] == "yes"],
        "incidental": _INCIDENTAL,
    }
    print(f"{len(ingredients):,} ingredients, {len(names):,} names, {len(terms):,} allergens")
    write_gzip(HERE / "drugs.json.gz", json.dumps(table, ensure_ascii=False, separators=(",", ":")).encode())


# --- ICD-10-CM ---


def build_icd10() -> None:
    """Writes icd10cm.txt.gz: `code TAB title` in the order of the codes, the release in the first line."""
    import simple_icd_10_cm as icd  # type: ignore[import-untyped]  # 200 MB: here and nowhere else

    codes = [c for c in icd.get_all_codes(True) if icd.is_category(c) or not icd.is_chapter_or_block(c)]
    # The package breaks some titles over lines; a category that is also a block has one title of each.
    titles = {code: " ".join(icd.get_description(code).split()) for code in codes}
    lines = [f"#\t{RELEASE}", *(f"{code}\t{titles[code]}" for code in sorted(titles))]
    print(f"{len(titles):,} codes")
    write_gzip(HERE / "icd10cm.txt.gz", ("\n".join(lines) + "\n").encode())


# --- Demo population ---

# Kept columns in order; `name=source` where the source calls it otherwise.
_DEMO_COLUMNS: Final = {
    "patients": "id given family gender birth_date death phone line city state postal insurance",
    "practitioners": "id given family npi",
    "encounters": "id patient_id practitioner_id=practitioner start end class type reason",
    "procedures": "encounter_id code display price",
    "conditions": "patient_id encounter_id code display onset abatement status=clinical_status",
    "allergies": "patient_id code display criticality",
    "medication_requests": "encounter_id code display authored status dosage",
}
_REFERENCES = {"patient_id": "patients", "encounter_id": "encounters", "practitioner": "practitioners"}
_INSTANTS = frozenset({"start", "end", "authored"})
_DATES = frozenset({"onset", "abatement", "death"})


_DISPLAY = re.compile(r'"display": "([^"]*)"')


def dosage_text(cell: str) -> str:
    """FHIR dosage as a prescriber writes it: "1 every 6 h", "as needed"; instructions follow a semicolon."""
    if not cell:
        return ""
    try:
        (dose,) = json.loads(cell)
    except ValueError:  # the extract cuts cells at 300 characters, after the first instruction's display name
        found = _DISPLAY.search(cell)
        return found[1] if found else ""
    text = "as needed" if dose["asNeededBoolean"] else ""
    if repeat := dose.get("timing", {}).get("repeat"):
        amount = dose.get("doseAndRate", [{}])[0].get("doseQuantity", {}).get("value", 1)
        often = f"{repeat['frequency']} times " if repeat["frequency"] != 1 else ""
        text = f"{amount} {often}every {repeat['period']} {repeat['periodUnit']}"
    notes = [note["text"] for note in dose.get("additionalInstruction", [])]
    return "; ".join(filter(None, [text, *notes]))


def read_rows(path: Path) -> list[dict[str, str]]:
    with gzip.open(path, "rt", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def usual_insurance(folder: Path) -> dict[str, str]:
    """The kind of insurance of each patient's latest claim."""
    claims = sorted(read_rows(folder / "claims.csv.gz"), key=lambda claim: claim["created"])
    return {claim["patient_id"]: claim["insurance"] for claim in claims}


def build_demo(folder: Path, prices: Path) -> None:
    """Writes demo/*.csv.gz: small ids, instants without their offset (they are UTC), prices joined in."""
    with prices.open(newline="", encoding="utf-8") as file:
        typical = {row["CODE"]: f"{float(row['MODE']):.2f}" for row in csv.DictReader(file)}
    insurance = usual_insurance(folder)
    tables = {table: read_rows(folder / f"{table}.csv.gz") for table in _DEMO_COLUMNS}
    small = {
        column: {row["id"]: str(n) for n, row in enumerate(tables[table], start=1)}
        for column, table in _REFERENCES.items()
    }
    for table, columns in _DEMO_COLUMNS.items():
        for number, row in enumerate(tables[table], start=1):
            row["price"] = typical.get(row.get("code", ""), "")
            row["insurance"] = insurance.get(row["id"], "") if table == "patients" else ""
            row["dosage"] = dosage_text(row.get("dosage", ""))
            row["id"] = str(number)
            for column in small.keys() & row.keys():
                row[column] = small[column].get(row[column], "")  # some encounters name no practitioner
            for column in _INSTANTS & row.keys():
                row[column] = row[column].removesuffix("+00:00")
            for column in _DATES & row.keys():
                row[column] = row[column][:10]
        write_csv(HERE / "demo" / f"{table}.csv.gz", columns, tables[table])


def write_csv(path: Path, columns: str, rows: list[dict[str, str]]) -> None:
    names, _, sources = zip(*(column.partition("=") for column in columns.split()), strict=True)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    writer.writerows(
        [row[source or name] for name, source in zip(names, sources, strict=True)] for row in rows
    )
    write_gzip(path, text.getvalue().encode())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    drugs = commands.add_parser("drugs")
    drugs.add_argument("source", type=Path)
    commands.add_parser("icd10")
    demo = commands.add_parser("demo")
    demo.add_argument("folder", type=Path)
    demo.add_argument("--prices", type=Path, required=True)
    chosen = parser.parse_args()
    if chosen.command == "drugs":
        build_drugs(chosen.source)
    elif chosen.command == "icd10":
        build_icd10()
    else:
        build_demo(chosen.folder, chosen.prices)


if __name__ == "__main__":
    main()
