"""Match the columns of a file with the members of a kind of import."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence

from errors import ClinicError
from services.patients.name_matching import MIN_LENGTH_TWO_EDITS, has_digit, within_edits
from services.search_key import search_key
from services.spreadsheets.columns import CellType, ImportColumn

NAME = "name"
# The parts of a name that a file may have instead of `name`. They are joined in this order.
NAME_PARTS = (
    ImportColumn(
        "first_name",
        CellType.TEXT,
        synonyms=(
            *("first", "first name", "given name", "given names", "forename", "other names", "fname"),
            *("jina la kwanza", "prenom", "prenoms", "nombre de pila", "primeiro nome", "الاسم الأول"),
        ),
    ),
    ImportColumn(
        "middle_name",
        CellType.TEXT,
        synonyms=(
            "middle name",
            "middlename",
            "second name",
            "jina la kati",
            "segundo nombre",
            "nome do meio",
        ),
    ),
    ImportColumn(
        "last_name",
        CellType.TEXT,
        synonyms=(
            *("last", "last name", "surname", "family name", "lname", "jina la mwisho", "jina la ukoo"),
            *("nom de famille", "apellido", "apellidos", "sobrenome", "apelido", "اسم العائلة", "اللقب"),
        ),
    ),
)
MIN_LENGTH_ONE_EDIT = 5  # letters; shorter names of columns must be equal
_PARTS = frozenset(part.name for part in NAME_PARTS)
_REMARK = re.compile(r"\(.*?\)|\[.*?\]")
_PUNCTUATION = re.compile(r"[\W_]+")


def propose_mapping(header: Sequence[str], columns: Sequence[ImportColumn]) -> dict[str, str]:
    """Return column of the file -> member, for the columns that match exactly one member.

    A name or synonym that is equal wins over one with a typing error. If two columns match one member, none
    is proposed. The parts of a name are proposed if no column matches `name`.
    """
    mapping = _propose(header, columns)
    if any(column.name == NAME for column in columns) and NAME not in mapping.values():
        free = [title for title in header if title not in mapping]
        mapping |= _propose(free, NAME_PARTS)
    return {title: mapping[title] for title in header if title in mapping}


def check_mapping(mapping: Mapping[str, str], header: Sequence[str], columns: Sequence[ImportColumn]) -> None:
    """Raise 422 `validation_failed` for unknown columns and members, repeated and missing members.

    A key of `errors` is `mapping.` and the column of the file, or `mapping` for missing members.
    """
    errors: dict[str, str] = {}
    members = target_columns(columns)
    counts = Counter(mapping.values())
    for title, member in mapping.items():
        if title not in header:
            errors[f"mapping.{title}"] = "the file has no column with this name"
        elif member not in members:
            errors[f"mapping.{title}"] = f"use one of the members {', '.join(members)}"
        elif counts[member] > 1:
            errors[f"mapping.{title}"] = f"another column has the member {member} too"
        elif member in _PARTS and NAME in counts:
            errors[f"mapping.{title}"] = f"map either {NAME}, or the parts of a name"
    given = {*counts, *([NAME] if not _PARTS.isdisjoint(counts) else [])}
    missing = [column.name for column in columns if column.required and column.name not in given]
    if missing:
        errors["mapping"] = f"no column of the file has the required members {', '.join(missing)}"
    if errors:
        raise ClinicError("validation_failed", "The mapping does not fit the file.", errors=errors)


def target_columns(columns: Sequence[ImportColumn]) -> dict[str, ImportColumn]:
    """Return the members to which a column of a file can be mapped, by name."""
    members = {column.name: column for column in columns}
    return members | {part.name: part for part in NAME_PARTS} if NAME in members else members


def _propose(header: Sequence[str], columns: Sequence[ImportColumn]) -> dict[str, str]:
    names = {column.name: {_key(column.name)} for column in columns}
    synonyms = {column.name: {_key(text) for text in column.synonyms} for column in columns}
    everything = {member: names[member] | synonyms[member] for member in names}
    titles = {title: _key(title) for title in header}
    mapping: dict[str, str] = {}
    for known, matches in ((names, str.__eq__), (synonyms, str.__eq__), (everything, _is_similar)):
        found = [
            (title, member)
            for title, key in titles.items()
            for member in names
            if any(matches(key, word) for word in known[member])
        ]
        title_counts, member_counts = Counter(title for title, _ in found), Counter(m for _, m in found)
        mapping |= {t: m for t, m in found if title_counts[t] == member_counts[m] == 1}
        # also what matched twice: a weaker match must not decide it
        titles = {title: key for title, key in titles.items() if title not in title_counts}
        names = {member: own for member, own in names.items() if member not in member_counts}
    return mapping


def _key(text: str) -> str:
    """Return the letters and digits of a name, without a remark in parentheses."""
    key = search_key(text)
    return _PUNCTUATION.sub("", _REMARK.sub("", key)) or _PUNCTUATION.sub("", key)


def _is_similar(key: str, word: str) -> bool:
    shortest = min(len(key), len(word))
    edits = 2 if shortest >= MIN_LENGTH_TWO_EDITS else 1
    return shortest >= MIN_LENGTH_ONE_EDIT and not has_digit(key + word) and within_edits(key, word, edits)
