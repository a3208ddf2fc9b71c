"""Patient search: the list, its filters, and `q`, which tolerates one typing error."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import date, datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import ColumnElement, and_, exists, func, or_, select

from column_types import canonical_language
from database.functions import contains_text
from enums import RefundStatus
from errors import invalid
from extensions import db
from models import Allergy, Condition, LedgerEntry, MedicalHistory, Patient, Refund, Visit
from security.permissions import Actor
from services import clock
from services.clinical import icd10
from services.listing import paging
from services.listing.conditions import words_in
from services.listing.related_rows import in_related, preselect
from services.listing.spec import Filter, Kind, ListQuery, ListSpec, Page, PreselectedIds, TextMatch, Where
from services.patients import birth_dates, phones
from services.patients.name_matching import (
    begins_within_one_edit,
    has_digit,
    split_words,
    within_edits,
)
from services.patients.patient_columns import COLUMNS
from services.patients.patients import RECORDS
from services.patients.search_column import (
    contains_part,
    contains_words,
    match_phone,
    match_text,
    name_and_email,
    name_contains,
)
from services.search_key import search_key

_PARTIAL_DAY = re.compile(r"[0-9]{4}(-[0-9]{2}){0,2}")
MIN_INDEXED = 3  # letters of the shortest word that a trigram index can find
MIN_TYPO_LENGTH = 3  # letters of the shortest word that may contain a typing error
MAX_TYPO_CANDIDATES = 50_000  # rows that are compared in Python
MAX_TYPO_MATCHES = 1_000  # patients in the result of a search with a typing error

# --- q -------------------------------------------------------------------------------------------------


def matches(text: str) -> Where:
    """Return the condition of `q`: parts of name, e-mail, file number, insurance number or phone digits.

    The parts may be in any order. A phone number is found with any punctuation.
    """
    match = match_text(text, phones.searched_digits(text))
    if min(map(len, search_key(text).split()), default=0) < MIN_INDEXED:
        return preselect(Patient.id, match.bound)  # planned for its values: the index cannot find the word
    return match


def nearly_matches(text: str) -> PreselectedIds:
    """Return the fallback of `q` if `matches` finds nothing: one typing error in a name or e-mail address.

    A typing error is a letter too many, missing, replaced, or swapped with the next one. Words with digits
    must match exactly: a number with one wrong digit belongs to another patient.
    """
    return PreselectedIds(_find_with_typo(text))


def _matches_phone(text: str) -> TextMatch:
    """Match parts of a phone number, as typed or in E.164 form, with any punctuation."""
    digits = phones.searched_digits(text)
    if digits is None:
        raise invalid("phone", f"give at least {phones.MIN_SEARCHED} digits of the number")
    return match_phone(digits, phones.e164(text))


def _find_with_typo(text: str) -> list[int]:
    """Return the patients whose name or e-mail contains all words, with one typing error in one of them.

    SQL preselects rows by the parts of a word that a typing error leaves unchanged. Both engines give the
    same rows. Python then compares the letters. If whole words match, matches of beginnings are left out.
    """
    words = search_key(text).split()
    typo_words = [word for word in words if _may_contain_typo(word)]
    if not typo_words:
        return []
    other_words = {word: [other for other in words if other is not word] for word in typo_words}
    statement = (
        select(Patient.id, Patient.search_fold)
        .where(
            or_(
                *(
                    and_(_contains_unchanged_part(word), *map(contains_part, other_words[word]))
                    for word in typo_words
                )
            )
        )
        .order_by(Patient.id)
        .limit(MAX_TYPO_CANDIDATES)
    )
    word_matches: list[int] = []
    beginning_matches: list[int] = []
    for patient_id, search_fold in db.session.execute(statement):
        searched = name_and_email(search_fold)
        candidates = [word for word in typo_words if all(other in searched for other in other_words[word])]
        if any(_has_similar_word(searched, word) for word in candidates):
            word_matches.append(patient_id)
        elif any(
            begins_within_one_edit(word, rest) for word in candidates for rest in _from_each_word(searched)
        ):
            beginning_matches.append(patient_id)
    return (word_matches or beginning_matches)[:MAX_TYPO_MATCHES]


def _may_contain_typo(word: str) -> bool:
    return len(word) >= MIN_TYPO_LENGTH and any(c.isalpha() for c in word) and not has_digit(word)


def _contains_unchanged_part(word: str) -> ColumnElement[bool]:
    """Match the parts that one typing error leaves unchanged: one half, or both halves with a swap between.

    Half of a word of three letters is one letter, which would match almost every patient. For such a word
    two of its letters must match.
    """
    middle = len(word) // 2
    swapped = word[: middle - 1] + word[middle] + word[middle - 1] + word[middle + 1 :]
    if len(word) > 3:
        return or_(*map(contains_part, (word[:middle], word[middle:], swapped)))
    first, second, third = word[0], word[1], word[2]
    replaced_second = "%" + "_".join(re.sub(r"([/%_])", r"/\1", letter) for letter in (first, third)) + "%"
    parts = (first + second, second + third, first + third, swapped, first + third + second)
    return or_(
        *map(contains_part, parts),
        Patient.search_fold.like(replaced_second, escape="/"),
    )


def _has_similar_word(text: str, word: str) -> bool:
    candidates = {*text.split(), *split_words(text)}
    return any(within_edits(word, candidate, 1) for candidate in candidates)


def _from_each_word(text: str) -> Iterator[str]:
    """Yield the rest of the text from the beginning of each of its words."""
    for index, letter in enumerate(text):
        if letter.isalnum() and (index == 0 or not text[index - 1].isalnum()):
            yield text[index:]


# --- Filters -------------------------------------------------------------------------------------------


def _latest_birth_date(years: int) -> date:
    """Return the latest date of birth of a person who is at least so many years old today."""
    today = clock.today()
    try:
        return today.replace(year=today.year - years)
    except ValueError:  # today is 29 February: a person born on the 28th has completed the year
        return today.replace(year=today.year - years, day=28)


def _check_age(name: str, years: int) -> None:
    if not 0 <= years <= birth_dates.MAX_AGE:
        raise invalid(name, f"must be between 0 and {birth_dates.MAX_AGE}")


def _is_at_least(years: int) -> ColumnElement[bool]:
    _check_age("min_age", years)
    return Patient.date_of_birth <= _latest_birth_date(years)


def _is_at_most(years: int) -> ColumnElement[bool]:
    _check_age("max_age", years)
    return Patient.date_of_birth > _latest_birth_date(years + 1)


def _is_born_in(text: str) -> ColumnElement[bool]:
    """Match dates of birth in a year, a month or on a day, of which at least that part is known."""
    try:
        # the pattern first: Python also reads 20260101 and 2026-W01-1
        first = date.fromisoformat(f"{text}-01-01"[:10]) if _PARTIAL_DAY.fullmatch(text) else None
    except ValueError:
        first = None
    if first is None:
        raise invalid("date_of_birth", "write YYYY-MM-DD, YYYY-MM or YYYY")
    parts = text.split("-")
    precisions = birth_dates.PRECISIONS[len(parts)]
    last = birth_dates.last_possible(first, precisions[0])
    known = [precision for precision, number in birth_dates.PARTS.items() if number >= len(parts)]
    return and_(Patient.date_of_birth.between(first, last), Patient.birth_date_precision.in_(known))


def _owes_more_than(amount: Decimal) -> ColumnElement[bool]:
    sums = select(LedgerEntry.patient_id).group_by(LedgerEntry.patient_id)
    total = func.sum(LedgerEntry.amount)
    if amount >= 0:
        return Patient.id.in_(sums.having(total > amount))
    return Patient.id.not_in(sums.having(total <= amount))  # a patient without entries owes 0.00


def _has_account_refund(status: str) -> ColumnElement[bool]:
    condition = and_(Refund.billing_id.is_(None), Refund.status == RefundStatus(status))
    return in_related(Patient.id, Refund.patient_id, condition)


def _has_condition(text: str) -> ColumnElement[bool]:
    condition = or_(
        words_in(Condition.name_fold, text),
        Condition.icd10.startswith(icd10.normalize(text), autoescape=True),
    )
    histories = select(MedicalHistory.patient_id).join(
        Condition, Condition.medical_history_id == MedicalHistory.id
    )
    return Patient.id.in_(histories.where(condition))


def _has_allergy(text: str) -> ColumnElement[bool]:
    histories = select(MedicalHistory.patient_id).join(
        Allergy, Allergy.medical_history_id == MedicalHistory.id
    )
    return Patient.id.in_(histories.where(words_in(Allergy.substance_fold, text)))


def _has_language(text: str) -> ColumnElement[bool]:
    try:
        return Patient.language == canonical_language(text)
    except ValueError as error:
        raise invalid("language", str(error)) from None


def _has_visit_since(since: datetime) -> ColumnElement[bool]:
    # a correlated EXISTS: its negation does not have to read every visit
    return exists().where(Visit.patient_id == Patient.id, Visit.date >= since, Visit.voided_at.is_(None))


def _contains_part(column: Any) -> Callable[[str], ColumnElement[bool] | PreselectedIds]:
    """Return the filter for a part of a column whose value is in the search column too."""

    def condition(text: str) -> ColumnElement[bool] | PreselectedIds:
        in_column = contains_text(column, text)
        return preselect(Patient.id, and_(contains_words(text), in_column))

    return condition


FILTERS = {
    "date_of_birth": Filter(Kind.TEXT, _is_born_in, "Year, month or day of birth, as far as it is known."),
    "name": Filter(
        Kind.TEXT,
        lambda text: preselect(Patient.id, name_contains(text)),
        "Parts of the name, in any order.",
    ),
    "phone": Filter(
        Kind.TEXT,
        _matches_phone,
        "Digits of the phone number, with any punctuation.",
    ),
    "email": Filter(Kind.TEXT, _contains_part(Patient.email), "Part of the e-mail address."),
    "insurance_id": Filter(Kind.TEXT, _contains_part(Patient.insurance_id), "Part of the insurance number."),
    "insurance_provider": Filter(
        Kind.TEXT,
        lambda text: contains_text(Patient.insurance_provider, text),
        "Part of the insurer's name.",
    ),
    "min_age": Filter(Kind.INTEGER, _is_at_least, "Completed years, at least.", once=True),
    "max_age": Filter(Kind.INTEGER, _is_at_most, "Completed years, at most.", once=True),
    "balance_gt": Filter(
        Kind.MONEY, _owes_more_than, "Owes more than this amount.", guards="account_balance", once=True
    ),
    "refund_status": Filter(
        Kind.ENUM,
        _has_account_refund,
        "Patients with a refund of credit of this status. `requested` finds those to decide.",
        values=tuple(RefundStatus),
    ),
    "condition": Filter(
        Kind.TEXT, _has_condition, "Part of a recorded condition's name, or the beginning of its ICD-10 code."
    ),
    "allergy": Filter(Kind.TEXT, _has_allergy, "Part of the name of a recorded allergen."),
    "language": Filter(Kind.TEXT, _has_language, "Language tag of BCP 47, in any notation."),
    "seen_since": Filter(Kind.INSTANT, _has_visit_since, "Had a visit on or after this day.", once=True),
    "not_seen_since": Filter(
        Kind.INSTANT,
        lambda since: ~_has_visit_since(since),
        "Had no visit on or after this day, or no visit at all.",
        once=True,
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
    omit=frozenset({"version", "archived_on"}),
    computed=COLUMNS,
    records=RECORDS,
    kept_since="created_at",
)


def find(actor: Actor, query: ListQuery) -> Page[Patient]:
    """Return one page of patients. Raises 403 for a filter or sort by a field that the role may not see."""
    return paging.page(actor, LIST, query)
