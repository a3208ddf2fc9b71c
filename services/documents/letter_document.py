"""A letter of a doctor as PDF. It shows the names and numbers of its issue."""

from __future__ import annotations

from datetime import date

from enums import LetterType
from models import Letter
from security.link_tokens import Purpose
from security.permissions import Actor
from services.audit import audit_log
from services.documents.blocks import Block, paragraph, signature
from services.documents.language import DocumentLanguage
from services.documents.pages import DocumentOptions, Stationery, stationery
from services.documents.qr_code import verification_code


def letter_document(actor: Actor, letter: Letter, options: DocumentOptions) -> bytes:
    """Return a letter as PDF. A void one prints VOID."""
    document = _typeset(letter, _paper(actor, letter, options))
    audit_log.record_read("read", "letter", [letter.id], [letter.patient_id])
    return document


def check_printable(actor: Actor, letter: Letter) -> None:
    """Raise 422 `unprintable_characters` for a new letter with characters that no font has."""
    _typeset(letter, _paper(actor, letter, {"locale": None, "paper": None}))


def _paper(actor: Actor, letter: Letter, options: DocumentOptions) -> Stationery:
    return stationery(actor, options, letter.patient, issued=letter.clinic_version_id)


def _typeset(letter: Letter, paper: Stationery) -> bytes:
    language, is_void, printed = paper.language, letter.voided_at is not None, letter.printed
    licence = f"{language.text('licence_number')} {printed['license_number']}"
    # a new letter has no id yet
    code = verification_code(Purpose.VERIFY_LETTER, letter.id, language) if letter.id else []
    signer = (printed["doctor_name"], printed["specialty"], licence)
    return paper.typeset(
        f"{language.text(f'letter_{letter.type.value}')} {letter.number}".rstrip(),
        [
            *_patient_block(letter, language),
            *paragraph(None, _statement(letter, language)),
            *paragraph(None, letter.text),
            *signature(language.text("signature"), signer, code=code),
        ],
        facts_of=(
            (language.text("date"), language.day(letter.issued_on)),
            (language.text("first_day"), language.day(letter.from_date) if letter.from_date else None),
            (language.text("last_day"), language.day(letter.to_date) if letter.to_date else None),
        ),
        about=printed["patient_name"],
        addressee=(letter.recipient or language.text("no_recipient")).splitlines(),
        mark="void" if is_void else None,
        banner=language.text("void_letter") if is_void else None,
    )


def _patient_block(letter: Letter, language: DocumentLanguage) -> list[Block]:
    printed, born = letter.printed, letter.printed["date_of_birth"]
    lines = [
        printed["patient_name"],
        f"{language.text('date_of_birth')} {language.known_day(born)}" if born else None,
        f"{language.text('file_number')} {printed['file_number']}",
    ]
    return paragraph(language.text("patient"), "\n".join(line for line in lines if line))


def _statement(letter: Letter, language: DocumentLanguage) -> str | None:
    """Return the sentence that a sick note always contains. It names no diagnosis."""
    if letter.type is not LetterType.SICK_NOTE or letter.from_date is None or letter.to_date is None:
        return None
    name = "sick_note_statement" if letter.from_date < letter.to_date else "sick_note_day_statement"
    return language.text(
        name,
        visit=_unbroken(language.day(date.fromisoformat(letter.printed["visited_on"]))),
        first=_unbroken(language.day(letter.from_date)),
        last=_unbroken(language.day(letter.to_date)),
    )


def _unbroken(day: str) -> str:
    """Return a date that no line break divides."""
    return day.replace(" ", "\N{NO-BREAK SPACE}")
