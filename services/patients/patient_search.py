"""Finding patients: the list, its filters, and `q`, which forgives one typo."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import date, datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import ColumnElement, and_, exists, func, or_, select

from errors import invalid
from extensions import db
from models import Allergy, Condition, LedgerEntry, MedicalHistory, Patient, Visit
from security.permissions import Actor
from services import clock
from services.clinical import icd10
from services.listing import paging
from services.listing.paging import (
    Filter,
    Kind,
    ListQuery,
    ListSpec,
    Page,
    PreselectedIds,
    contains,
    words_in,
)
from services.listing.related_rows import preselect
from services.patients import phones
from services.patients.name_matching import (
    begins_within_one_edit,
    numbered,
    within_edits,
    words,
)
from services.patients.patients import MAX_AGE, RECORDS
from services.search_key import search_key

MIN_TYPO = 3  # letters a word must have for a slip in it to be forgiven
MOST_CANDIDATES = 50_000  # rows that are looked at for a slip
MOST_FORGIVEN = 1_000  # patients that a search with a slip finds

# --- q -------------------------------------------------------------------------------------------------


def matches(text: str) -> ColumnElement[bool] | PreselectedIds:
    """What `q` finds: parts of the name in any order, file number, phone digits, e-mail."""
    ways = [
        words_in(Patient.name_fold, text),
        Patient.file_number.icontains(text, autoescape=True),
        Patient.email.icontains(text, autoescape=True),
    ]
    if phones.searched_digits(text):
        ways.append(_phone(text))
    return preselect(Patient.id, or_(*ways))


def nearly_matches(text: str) -> PreselectedIds:
    """What `q` finds where that finds nobody: one slip of the keyboard in a word of a name or e-mail address.

    A letter too many, missing, wrong, or swapped with its neighbour is forgiven. Numbers are taken as they
    are typed, since a number off by one is another patient's.
    """
    return PreselectedIds(_forgiving(text))


def _phone(text: str) -> ColumnElement[bool]:
    """Parts of the number as typed or in its international form, however it is punctuated."""
    digits = phones.searched_digits(text)
    if digits is None:
        raise invalid("phone", f"give at least {phones.MIN_SEARCHED} digits of the number")
    found = contains(Patient.phone_digits, digits)
    international = phones.e164(text)
    return or_(found, Patient.phone_e164 == international) if international else found


def _forgiving(text: str) -> list[int]:
    """The patients whose name or e-mail holds the words but for one slip in one of them.

    The database narrows down by what a slip leaves whole, the same on both engines; letters are compared
    here. Whole words win over beginnings of words.
    """
    wanted = search_key(text).split()
    doubtful = [word for word in wanted if len(word) >= MIN_TYPO and _is_written(word)]
    if not doubtful:
        return []
    rest = {word: [other for other in wanted if other is not word] for word in doubtful}
    statement = (
        select(Patient.id, Patient.name_fold, Patient.email)
        .where(or_(*(and_(_remains(word), *map(_somewhere, rest[word])) for word in doubtful)))
        .order_by(Patient.id)
        .limit(MOST_CANDIDATES)
    )
    whole: list[int] = []
    beginning: list[int] = []
    for patient_id, name, email in db.session.execute(statement):
        told = f"{name} {email or ''}"
        likely = [word for word in doubtful if all(other in told for other in rest[word])]
        if any(_is_word_of(word, told) for word in likely):
            whole.append(patient_id)
        elif any(begins_within_one_edit(word, tail) for word in likely for tail in _tails(told)):
            beginning.append(patient_id)
    return (whole or beginning)[:MOST_FORGIVEN]


def _somewhere(part: str) -> ColumnElement[bool]:
    return or_(contains(Patient.name_fold, part), Patient.email.icontains(part, autoescape=True))


def _is_written(word: str) -> bool:
    return any(c.isalpha() for c in word) and not numbered(word)


def _remains(word: str) -> ColumnElement[bool]:
    """What one slip leaves of a word: one half of it, or both with the letters at the seam swapped.

    One letter would be half of three and would find everybody: of those, two are asked for.
    """
    seam = len(word) // 2
    swapped = word[: seam - 1] + word[seam] + word[seam - 1] + word[seam + 1 :]
    if len(word) > 3:
        return or_(*(_somewhere(part) for part in (word[:seam], word[seam:], swapped)))
    first, middle, last = word[0], word[1], word[2]
    other = "%" + "_".join(re.sub(r"([/%_])", r"/\1", letter) for letter in (first, last)) + "%"
    parts = (first + middle, middle + last, first + last, swapped, first + last + middle)
    return or_(
        *map(_somewhere, parts),
        Patient.name_fold.like(other, escape="/"),
        Patient.email.ilike(other, escape="/"),
    )


def _is_word_of(word: str, told: str) -> bool:
    candidates = {*told.split(), *words(told)}
    return any(within_edits(word, one, 1) for one in candidates)


def _tails(told: str) -> Iterator[str]:
    """The text from the beginning of each of its words on."""
    for at, letter in enumerate(told):
        if letter.isalnum() and (at == 0 or not told[at - 1].isalnum()):
            yield told[at:]


# --- Filters -------------------------------------------------------------------------------------------


def _years_ago(name: str, years: int) -> date:
    """The last day on which somebody who is now at least so many years old was born."""
    if not 0 <= years <= MAX_AGE:
        raise invalid(name, f"must be between 0 and {MAX_AGE}")
    return _birthday(years)


def _birthday(years: int) -> date:
    today = clock.today()
    try:
        return today.replace(year=today.year - years)
    except ValueError:  # 29 February: who was born on the 28th is that old already
        return today.replace(year=today.year - years, day=28)


def _at_least(years: int) -> ColumnElement[bool]:
    return Patient.date_of_birth <= _years_ago("min_age", years)


def _at_most(years: int) -> ColumnElement[bool]:
    _years_ago("max_age", years)
    return Patient.date_of_birth > _birthday(years + 1)


def _owes_more_than(amount: Decimal) -> ColumnElement[bool]:
    sums = select(LedgerEntry.patient_id).group_by(LedgerEntry.patient_id)
    total = func.sum(LedgerEntry.amount)
    if amount >= 0:
        return Patient.id.in_(sums.having(total > amount))
    return Patient.id.not_in(sums.having(total <= amount))  # who has no rows owes 0.00


def _has_condition(text: str) -> ColumnElement[bool]:
    named = or_(
        words_in(Condition.name_fold, text),
        Condition.icd10.startswith(icd10.normalize(text), autoescape=True),
    )
    histories = select(MedicalHistory.patient_id).join(
        Condition, Condition.medical_history_id == MedicalHistory.id
    )
    return Patient.id.in_(histories.where(named))


def _has_allergy(text: str) -> ColumnElement[bool]:
    histories = select(MedicalHistory.patient_id).join(
        Allergy, Allergy.medical_history_id == MedicalHistory.id
    )
    return Patient.id.in_(histories.where(words_in(Allergy.substance_fold, text)))


def _seen(since: datetime) -> ColumnElement[bool]:
    # patient by patient: who was not seen is found without reading every visit
    seen = Visit.patient_id == Patient.id, Visit.date >= since, Visit.voided_at.is_(None)
    return exists().where(*seen)


def _part_of(column: Any) -> Callable[[str], ColumnElement[bool] | PreselectedIds]:
    def where(text: str) -> ColumnElement[bool] | PreselectedIds:
        return preselect(Patient.id, column.icontains(text, autoescape=True))

    return where


FILTERS = {
    "name": Filter(
        Kind.TEXT,
        lambda text: preselect(Patient.id, words_in(Patient.name_fold, text)),
        "Parts of the name, in any order.",
    ),
    "phone": Filter(
        Kind.TEXT,
        lambda text: preselect(Patient.id, _phone(text)),
        "Digits of the phone number, however they are punctuated.",
    ),
    "email": Filter(Kind.TEXT, _part_of(Patient.email), "Part of the e-mail address."),
    "insurance_id": Filter(Kind.TEXT, _part_of(Patient.insurance_id), "Part of the insurance number."),
    "insurance_provider": Filter(
        Kind.TEXT, _part_of(Patient.insurance_provider), "Part of the insurer's name."
    ),
    "min_age": Filter(Kind.INTEGER, _at_least, "Completed years, at least."),
    "max_age": Filter(Kind.INTEGER, _at_most, "Completed years, at most."),
    "balance_gt": Filter(
        Kind.MONEY, _owes_more_than, "Owes more than this amount.", guards="account_balance"
    ),
    "condition": Filter(
        Kind.TEXT, _has_condition, "Part of a recorded condition's name, or the beginning of its ICD-10 code."
    ),
    "allergy": Filter(Kind.TEXT, _has_allergy, "Part of the name of a recorded allergen."),
    "seen_since": Filter(Kind.INSTANT, _seen, "Had a visit on or after this day."),
    "not_seen_since": Filter(
        Kind.INSTANT, lambda since: ~_seen(since), "Had no visit on or after this day, or none ever."
    ),
}

LIST: ListSpec[Patient] = ListSpec(
    name="patients",
    model=Patient,
    area="patient",
    main_date="created_at",
    text=matches,
    nearly=nearly_matches,
    filters=FILTERS,
    omit=frozenset({"version"}),
    records=RECORDS,
    kept_since="created_at",
)


def find(actor: Actor, query: ListQuery) -> Page[Patient]:
    """One page of patients; 403 where a filter or sort names what the role may not see."""
    return paging.page(actor, LIST, query)
