"""The page of a document: paper, language, letterhead, and the facts beside the title."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypedDict

from models import ClinicRecordVersion, Patient
from security.permissions import Actor, hidden
from services.clinic import versions
from services.documents.blocks import Block, facts
from services.documents.language import DocumentLanguage, document_language, requested_language
from services.documents.typesetting import typeset
from services.patients import birth_dates

Paper = Literal["a4", "a5", "letter"]
LETTER_COUNTRIES = frozenset({"US", "CA"})


class DocumentOptions(TypedDict):
    """The wishes of a request. None means the usual language or paper."""

    locale: str | None
    paper: Paper | None


@dataclass(frozen=True)
class Stationery:
    """The language, the paper and the clinic of a document, as its reader may see them."""

    actor: Actor
    clinic: ClinicRecordVersion
    language: DocumentLanguage
    paper: Paper

    def shown(self, member: str) -> str | None:
        """Return a member of the clinic record, or None if the role may not see it."""
        if member in hidden("clinic", self.actor.role):
            return None
        value: str | None = getattr(self.clinic, member)
        return value

    def typeset(
        self,
        title: str,
        blocks: Iterable[Block],
        *,
        facts_of: Iterable[tuple[str, str | None]] = (),
        addressee: Sequence[str] = (),
        about: str | None = None,
        mark: str | None = None,
        banner: str | None = None,
    ) -> bytes:
        """Return a document as PDF.

        `about` names the subject at the foot of each page, by default the first line of the addressee. `mark`
        is the name of a word behind the text of every page, such as `void`. `banner` is the sentence that
        explains it.
        """
        language = self.language
        return typeset(
            "document",
            {
                "language": language.locale.language,
                "is_right_to_left": language.locale.text_direction == "rtl",
                "page_text": language.texts["page"],
                "title": title,
                "paper": self.paper,
                "watermark": language.text(mark) if mark else None,
                "banner": banner,
                "clinic": self._letterhead(),
                "facts": facts(facts_of),
                "addressee": list(addressee),
                # a second page that was separated still names its subject
                "running_title": [
                    self.clinic.legal_name or self.clinic.name,
                    title,
                    *([about] if about else addressee[:1]),
                ],
                "blocks": list(blocks),
            },
        )

    def _letterhead(self) -> dict[str, Any]:
        clinic = self.clinic
        contact = [*clinic.phones, clinic.email, clinic.website]
        numbers = [
            f"{self.language.text(name)} {value}"
            for name in ("tax_number", "registration_number")
            if (value := self.shown(name))
        ]
        lines = [
            *(clinic.address or "").splitlines(),
            " · ".join(part for part in contact if part),
            *numbers,
        ]
        return {
            "name": clinic.name,
            "logo": _as_svg(clinic.logo),
            "lines": [line for line in lines if line],
        }


def stationery(
    actor: Actor, options: DocumentOptions, patient: Patient | None = None, *, issued: int | None = None
) -> Stationery:
    """Return the stationery of a request. Raise 422 for a language in which there are no documents.

    `issued` is the id of the version of the clinic record at the issue of the document. A document that is
    not issued has the present one.
    """
    clinic = versions.current_version() if issued is None else versions.version_of(issued)
    language = document_language(
        requested_language(options["locale"]),
        patient.language if patient else None,
        clinic_locale=versions.locale_of(clinic),
    )
    usual: Paper = "letter" if language.locale.territory in LETTER_COUNTRIES else "a4"
    return Stationery(actor, clinic, language, options["paper"] or usual)


def patient_lines(patient: Patient, language: DocumentLanguage, *further: str | None) -> list[str]:
    """Return the lines that name a patient."""
    lines = [patient.name, f"{language.text('file_number')} {patient.file_number}", *further]
    return [line for line in lines if line]


def birth_line(patient: Patient, language: DocumentLanguage) -> str | None:
    """Return the known part of the date of birth of a patient, with its name."""
    known = birth_dates.format_known(patient.date_of_birth, patient.birth_date_precision)
    return f"{language.text('date_of_birth')} {language.known_day(known)}" if known else None


def _as_svg(png: bytes | None) -> str | None:
    """Return a PNG as an SVG that contains it: a template gets text only."""
    if png is None:
        return None
    width, height = (int.from_bytes(png[start : start + 4]) for start in (16, 20))  # PNG, section 11.2.1
    data = base64.b64encode(png).decode()
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}">'
        f'<image width="{width}" height="{height}" href="data:image/png;base64,{data}"/></svg>'
    )
