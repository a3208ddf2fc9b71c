"""Build the reference data of this folder from its sources: `python -m data.build drugs|icd10|demo`.

    drugs  SOURCE  FDA National Drug Code extract (CSV, gzip) and `data/curated/*.csv` -> drugs.json.gz,
                                                                                          interactions.json.gz
    icd10          the installed package simple-icd-10-cm                              -> icd10cm.txt.gz
    demo   FOLDER  Synthea extracts (CSV, gzip) and `--prices` procedure_prices.csv     -> demo/*.csv.gz

Run it from the root of the project. The same sources give the same output, byte for byte. The content, the
source and the licence of each file are in `data/NOTICE.md`.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import hashlib
import io
import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from services.clinical.drug_words import SALT_WORDS, allergen_key, is_noise, normalize
from services.clinical.drugs import DATA_VERSION
from services.clinical.icd10 import RELEASE

HERE: Final = Path(__file__).resolve().parent
CURATED: Final = HERE / "curated"

# Extracts for skin tests, with thousands of botanical names. They are not prescribed as drugs.
_ALLERGENIC = re.compile(r"Allergenic Extract|Chemical Allergen")
_MAX_SUBSTANCES = 6  # products with more substances are homeopathic mixtures
_DYES = frozenset({"d&c yellow no. 10", "d&c yellow no. 8"})
_HYDRATES = re.compile(r"(anhydrous|\w*hydrate|unspecified|form|hemi-pentahydrate)$")
# A name that consists of these words keeps its salt: sodium chloride is not sodium.
_NOT_ALONE = frozenset(
    """
    acetic aluminum ammonium amyl barium benzalkonium benzethonium bismuth calcium cetylpyridinium choline
    chromic copper cupric dibasic dimethyl ethyl ferric ferrous gallium glycerol gold hydrogen indium iron
    lanthanum lauryl lithium magnesium manganese mercuric methyl nickel phenol phenyl potassium radium
    selenium silver sodium stannous strontium sulfur thallous titanium trisodium trolamine zinc monobasic
    """.split()
)
# Two products may both contain one of these without being a duplicate.
_DILUENTS_AND_GASES: Final = (
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
    """Write a gzip file without name and time, so that the same content gives the same bytes."""
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(gzip.compress(content, 9, mtime=0))
    print(f"{path.relative_to(HERE.parent)}: {path.stat().st_size:,} bytes")


def read_curated(name: str) -> list[dict[str, str]]:
    """Return the rows of `data/curated/<name>.csv`."""
    with (CURATED / f"{name}.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def fingerprint() -> str:
    """Return the SHA-256 of the curated files. A different value in the table means that it is outdated."""
    digest = hashlib.sha256()
    for path in sorted(CURATED.glob("*.csv")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def read_names(name: str) -> dict[str, tuple[str, ...]]:
    """Return the ingredients of each name of a curated file, by the normalized name."""
    return {normalize(row["name"]): tuple(split_cell(row["ingredients"])) for row in read_curated(name)}


def split_cell(cell: str) -> list[str]:
    """Return the values of a cell; `;` separates them."""
    return [part for part in cell.split(";") if part]


def write_json(path: Path, table: dict[str, Any]) -> None:
    """Write a table as compressed JSON."""
    write_gzip(path, json.dumps(table, ensure_ascii=False, separators=(",", ":")).encode())


# --- Drugs ---


@dataclass(frozen=True)
class Product:
    """A product of the directory, with its substances without salts."""

    names: tuple[str, ...]
    generic_names: tuple[str, ...]
    ingredients: frozenset[str]
    classes: frozenset[str]


def base_substance(substance: str, synonyms: dict[str, tuple[str, ...]]) -> tuple[str, ...]:
    """Return the ingredients of a substance by their standard names, without salt and hydrate.

    "amoxicillin trihydrate" gives "amoxicillin". "sodium chloride" does not change.
    """
    words = substance.replace(",", "").split()
    if words[0] == "anhydrous":
        words = words[1:]
    while len(words) > 1 and _HYDRATES.fullmatch(words[-1]):
        words.pop()
    whole = list(words)
    while len(words) > 1 and words[-1] in SALT_WORDS:
        words.pop()
    if all(word in _NOT_ALONE for word in words):
        words = whole
    name = " ".join(words)
    return synonyms.get(normalize(name), (name,))


def read_products(source: Path, synonyms: dict[str, tuple[str, ...]]) -> Iterator[Product]:
    """Read the products of the directory, without extracts for skin tests and homeopathic mixtures."""
    class_names = {row["source_class"]: row["class"] for row in read_curated("class_names")}
    with gzip.open(source, "rt", newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            substances = [s for s in row["substances"].split("; ") if s not in _DYES]
            classes = row["established_pharmacologic_classes"]
            if not substances or len(substances) > _MAX_SUBSTANCES or _ALLERGENIC.search(classes):
                continue
            bases = [base for s in substances for base in base_substance(s, synonyms)]
            names = [name for name in (row["brand"], row["generic"]) if name != "n/a"]
            if len(substances) == 1:
                names.append(substances[0])
            yield Product(
                names=tuple(names),
                generic_names=tuple(substances),
                ingredients=frozenset(bases),
                classes=frozenset(filter(None, (class_names.get(c, c) for c in classes.split("; ")))),
            )


def derive_classes(products: list[Product]) -> dict[str, set[str]]:
    """Return the classes of each ingredient.

    A product with one ingredient gives its classes to that ingredient. A combination has further classes
    besides those of its known ingredients. They belong to its unknown ingredient if there is only one.
    """
    classes: dict[str, set[str]] = defaultdict(set)
    for product in products:
        if len(product.ingredients) == 1:
            classes[next(iter(product.ingredients))] |= product.classes
    combinations = [p for p in products if len(p.ingredients) > 1]
    while True:
        additions: dict[str, set[str]] = defaultdict(set)
        for product in combinations:
            unknown = [i for i in product.ingredients if not classes[i]]
            rest = product.classes.difference(*(classes[i] for i in product.ingredients))
            if len(unknown) == 1 and rest:
                additions[unknown[0]] |= rest
        if not additions:
            return classes
        for ingredient, new_classes in additions.items():
            classes[ingredient] |= new_classes


def curate_classes(classes: dict[str, set[str]]) -> None:
    """Add the classes that the source does not have, and remove the misleading ones."""
    for row in read_curated("classes"):
        for ingredient in split_cell(row["ingredients"]):
            classes[ingredient].add(row["class"])
    for row in read_curated("ingredients"):
        classes[row["ingredient"]] -= set(split_cell(row["not_classes"]))


def collect_names(
    products: list[Product], ingredients: list[str], curated: dict[str, tuple[str, ...]]
) -> dict[str, frozenset[str]]:
    """Return the ingredients of each name.

    Products with the same name may differ. Then the name means their shared ingredients; if they share none,
    it means all of them.
    """
    meanings: dict[str, list[frozenset[str]]] = defaultdict(list)
    for product in products:
        for name in product.names:
            meanings[normalize(name)].append(product.ingredients)
    names = {n: frozenset.intersection(*sets) or frozenset.union(*sets) for n, sets in meanings.items()}
    for ingredient in ingredients:
        names[normalize(ingredient)] = frozenset({ingredient})
    names.update({name: frozenset(members) for name, members in curated.items()})
    # A brand with the name of a dose form would match every name. Procaine is a drug and also a salt.
    own_names = {normalize(ingredient) for ingredient in ingredients}
    return {
        name: members
        for name, members in names.items()
        if name and (" " in name or name in own_names or name in curated or not is_noise(name))
    }


def collect_generic_words(products: list[Product], ingredients: list[str], terms: Iterable[str]) -> list[str]:
    """Return the words of substances and allergens, without the words that occur in trade names only."""
    names = [*ingredients, *terms, *(name for product in products for name in product.generic_names)]
    names += [row["name"] for row in read_curated("synonyms") if not row["brand"]]
    names += [row["name"] for row in read_curated("general_names")]
    return sorted({word for name in names for word in normalize(name).split() if not is_noise(word)})


def expand_allergens(classes: dict[str, set[str]]) -> tuple[dict[str, Any], dict[str, list[tuple[str, str]]]]:
    """Return the allergen terms, and the cross-reactions (ingredient, reason) of each ingredient."""
    of_ingredient: dict[str, set[tuple[str, str]]] = defaultdict(set)
    of_class: dict[str, set[tuple[str, str]]] = defaultdict(set)
    for row in read_curated("cross_reactivity"):
        pairs = {(name, row["reason"]) for name in split_cell(row["cross_reactive_ingredients"])}
        class_names = split_cell(row["allergy_classes"])
        for class_name in class_names:
            of_class[class_name] |= pairs
        for ingredient in split_cell(row["allergy_ingredients"]):
            members = [ingredient]
            if ingredient == "*":
                members = [name for name, of_name in classes.items() if of_name & set(class_names)]
            for member in members:
                of_ingredient[member] |= {pair for pair in pairs if pair[0] != member}
    terms: dict[str, Any] = {}
    mentioned_ingredients, mentioned_classes = set(of_ingredient), set[str]()
    for row in read_curated("allergens"):
        class_names, ingredients = split_cell(row["classes"]), split_cell(row["ingredients"])
        pairs = {pair for class_name in class_names for pair in of_class[class_name]}
        pairs |= {(name, "its label names this allergy") for name in split_cell(row["label_names"])}
        key = allergen_key(row["term"])
        if key in terms:
            raise SystemExit(f"allergens.csv lists {row['term']} twice")
        terms[key] = (row["kind"], ingredients, class_names, sorted(pairs))
        mentioned_classes |= set(class_names)
        mentioned_ingredients |= {*ingredients, *(name for name, _ in pairs)}
    for class_name in sorted(set().union(*classes.values())):  # the name of a class is an allergen, too
        if (key := allergen_key(class_name)) not in terms:
            terms[key] = ("drug", [], [class_name], sorted(of_class[class_name]))
    mentioned_ingredients |= {name for pairs in of_ingredient.values() for name, _ in pairs}
    check_known("ingredient", mentioned_ingredients, classes)
    check_known("class", mentioned_classes, set().union(*classes.values()))
    return terms, {name: sorted(pairs) for name, pairs in of_ingredient.items() if pairs}


def expand_interactions(classes: dict[str, set[str]]) -> list[tuple[Any, ...]]:
    """Return the severe interactions, with the ingredients of each side. Groups and classes are expanded.

    The columns `local_forms` and `second_alone` are explained in `services/clinical/interactions.py`.
    """
    members: dict[str, set[str]] = {ingredient: {ingredient} for ingredient in classes}
    for ingredient, class_names in classes.items():
        for class_name in class_names:
            members.setdefault(class_name, set()).add(ingredient)

    def expand(cell: str) -> set[str]:
        check_known("ingredient, class or group", set(split_cell(cell)), members)
        return {ingredient for name in split_cell(cell) for ingredient in members[name]}

    for row in read_curated("interaction_groups"):
        members[row["group"]] = expand(row["members"]) - expand(row["except"])
    return [
        (
            sorted(expand(row["first"])),
            sorted(expand(row["second"])),
            row["severity"],
            row["effect"],
            row["source"],
            row["local_forms"] == "yes",
            row["second_alone"] == "yes",
        )
        for row in read_curated("interactions")
    ]


def check_known(what: str, mentioned: set[str], known: Iterable[str]) -> None:
    """Exit with an error if a curated file names an unknown ingredient or class."""
    if missing := mentioned - set(known):
        raise SystemExit(f"curated files name an unknown {what}: {', '.join(sorted(missing))}")


def check_decided(decided: set[str], classes: dict[str, set[str]]) -> None:
    """Exit with an error if a class with two or more ingredients has no rule."""
    sizes = Counter(class_name for of_ingredient in classes.values() for class_name in of_ingredient)
    if missing := {class_name for class_name, size in sizes.items() if size > 1} - decided:
        raise SystemExit(f"class_rules.csv has no rule for: {', '.join(sorted(missing))}")


def build_drugs(source: Path) -> None:
    """Write drugs.json.gz. Exit with an error if a rule names an unknown ingredient or class."""
    synonyms = read_names("synonyms")
    trade_names = read_names("trade_names")
    general_names = read_names("general_names")
    products = list(read_products(source, synonyms))
    classes = derive_classes(products)
    for product in products:
        for ingredient in product.ingredients:
            classes[ingredient] |= set()
    curate_classes(classes)
    for ingredient in (name for members in synonyms.values() for name in members):
        classes[ingredient] |= set()
    curated = synonyms | trade_names | general_names
    check_known("ingredient", {name for members in curated.values() for name in members}, classes)
    terms, cross = expand_allergens(classes)
    rules = read_curated("class_rules")
    class_names = sorted(set().union(*classes.values()))
    check_known("class", {row["class"] for row in rules}, class_names)
    check_decided({row["class"] for row in rules}, classes)
    ingredients = sorted(classes)
    number = {name: i for i, name in enumerate(ingredients)}
    names = collect_names(products, ingredients, curated)
    table = {
        "version": DATA_VERSION,
        "curated": fingerprint(),
        "classes": class_names,
        "ingredients": [(i, sorted(class_names.index(c) for c in classes[i])) for i in ingredients],
        "names": {name: sorted(number[i] for i in members) for name, members in sorted(names.items())},
        "general_names": sorted(general_names),
        "generic_words": collect_generic_words(products, ingredients, terms),
        "allergens": terms,
        "cross_reactive": cross,
        "allergy_classes": [row["class"] for row in rules if row["on_allergy"] == "yes"],
        "duplicate_classes": [row["class"] for row in rules if row["on_duplicate"] == "yes"],
        "diluents_and_gases": _DILUENTS_AND_GASES,
    }
    print(f"{len(ingredients):,} ingredients, {len(names):,} names, {len(terms):,} allergens")
    write_json(HERE / "drugs.json.gz", table)
    interactions = {
        "version": DATA_VERSION,
        "curated": fingerprint(),
        "interactions": expand_interactions(classes),
    }
    write_json(HERE / "interactions.json.gz", interactions)


# --- ICD-10-CM ---


def build_icd10() -> None:
    """Write icd10cm.txt.gz: the release, then lines `code TAB title` in the order of the codes."""
    import simple_icd_10_cm as icd  # type: ignore[import-untyped]  # takes 200 MB, so only this command loads it

    codes = [c for c in icd.get_all_codes(True) if icd.is_category(c) or not icd.is_chapter_or_block(c)]
    # Some titles of the package contain line breaks. A category that is also a block is there twice.
    titles = {code: " ".join(icd.get_description(code).split()) for code in codes}
    lines = [f"#\t{RELEASE}", *(f"{code}\t{titles[code]}" for code in sorted(titles))]
    print(f"{len(titles):,} codes")
    write_gzip(HERE / "icd10cm.txt.gz", ("\n".join(lines) + "\n").encode())


# --- Demo population ---

# Columns to write, in order; `name=source` where the source uses another name.
_DEMO_COLUMNS: Final = {
    "patients": "id given family gender birth_date death phone line city state postal insurance",
    "practitioners": "id given family npi",
    "encounters": "id patient_id practitioner_id=practitioner start end class type reason",
    "procedures": "encounter_id code display price",
    "conditions": "patient_id encounter_id code display onset abatement status=clinical_status",
    "allergies": "patient_id code display criticality",
    "medication_requests": "encounter_id code display authored status dosage",
}
# Columns that refer to the ids of another table.
_REFERENCES = {"patient_id": "patients", "encounter_id": "encounters", "practitioner": "practitioners"}
_INSTANTS = frozenset({"start", "end", "authored"})
_DATES = frozenset({"onset", "abatement", "death"})

_DISPLAY = re.compile(r'"display": "([^"]*)"')


def dosage_text(cell: str) -> str:
    """Return a FHIR dosage as text: "1 every 6 h", "as needed"; instructions follow after a semicolon."""
    if not cell:
        return ""
    try:
        (dose,) = json.loads(cell)
    except ValueError:  # the extract cuts cells at 300 characters, after the display of the first instruction
        match = _DISPLAY.search(cell)
        return match[1] if match else ""
    text = "as needed" if dose["asNeededBoolean"] else ""
    if repeat := dose.get("timing", {}).get("repeat"):
        amount = dose.get("doseAndRate", [{}])[0].get("doseQuantity", {}).get("value", 1)
        times = f"{repeat['frequency']} times " if repeat["frequency"] != 1 else ""
        text = f"{amount} {times}every {repeat['period']} {repeat['periodUnit']}"
    notes = [note["text"] for note in dose.get("additionalInstruction", [])]
    return "; ".join(filter(None, [text, *notes]))


def read_rows(path: Path) -> list[dict[str, str]]:
    """Return the rows of a compressed CSV file."""
    with gzip.open(path, "rt", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def latest_insurance(folder: Path) -> dict[str, str]:
    """Return the kind of insurance of each patient's latest claim."""
    claims = sorted(read_rows(folder / "claims.csv.gz"), key=lambda claim: claim["created"])
    return {claim["patient_id"]: claim["insurance"] for claim in claims}


def build_demo(folder: Path, prices: Path) -> None:
    """Write demo/*.csv.gz, with integer ids, prices, and instants in UTC without the offset."""
    with prices.open(newline="", encoding="utf-8") as file:
        typical_prices = {row["CODE"]: f"{float(row['MODE']):.2f}" for row in csv.DictReader(file)}
    insurance = latest_insurance(folder)
    tables = {table: read_rows(folder / f"{table}.csv.gz") for table in _DEMO_COLUMNS}
    new_ids = {
        column: {row["id"]: str(number) for number, row in enumerate(tables[table], start=1)}
        for column, table in _REFERENCES.items()
    }
    for table, columns in _DEMO_COLUMNS.items():
        for number, row in enumerate(tables[table], start=1):
            row["price"] = typical_prices.get(row.get("code", ""), "")
            row["insurance"] = insurance.get(row["id"], "") if table == "patients" else ""
            row["dosage"] = dosage_text(row.get("dosage", ""))
            row["id"] = str(number)
            for column in new_ids.keys() & row.keys():
                row[column] = new_ids[column].get(row[column], "")  # some encounters have no practitioner
            for column in _INSTANTS & row.keys():
                row[column] = row[column].removesuffix("+00:00")
            for column in _DATES & row.keys():
                row[column] = row[column][:10]
        write_csv(HERE / "demo" / f"{table}.csv.gz", columns, tables[table])


def write_csv(path: Path, columns: str, rows: list[dict[str, str]]) -> None:
    """Write the columns of the rows as compressed CSV; `columns` has the form of `_DEMO_COLUMNS`."""
    names, _, sources = zip(*(column.partition("=") for column in columns.split()), strict=True)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    writer.writerows(
        [row[source or name] for name, source in zip(names, sources, strict=True)] for row in rows
    )
    write_gzip(path, text.getvalue().encode())


def main() -> None:
    """Parse the command line and build one kind of data."""
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
    arguments = parser.parse_args()
    if arguments.command == "drugs":
        build_drugs(arguments.source)
    elif arguments.command == "icd10":
        build_icd10()
    else:
        build_demo(arguments.folder, arguments.prices)


if __name__ == "__main__":
    main()
