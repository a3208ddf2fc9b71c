"""The data that every template needs: page, language, letterhead."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from models import ClinicRecord
from services.documents.language import DocumentLanguage

Paper = Literal["a4", "a5", "letter"]
LETTER_COUNTRIES = frozenset({"US", "CA"})


def default_paper(language: DocumentLanguage) -> Paper:
    """Return the usual paper of the country of a language."""
    return "letter" if language.locale.territory in LETTER_COUNTRIES else "a4"


def page_data(
    language: DocumentLanguage,
    clinic: ClinicRecord,
    *,
    title: str,
    paper: Paper | None,
    watermark: str | None = None,
    banner: str | None = None,
) -> dict[str, Any]:
    """Return the members that `base.typ` reads.

    `watermark` is a word behind the text of every page, `banner` the sentence that explains it.
    """
    return {
        "language": language.locale.language,
        "is_right_to_left": language.locale.text_direction == "rtl",
        "texts": dict(language.texts),
        "title": title,
        "paper": paper or default_paper(language),
        "watermark": watermark,
        "banner": banner,
        "clinic": _letterhead(language, clinic),
    }


def _letterhead(language: DocumentLanguage, clinic: ClinicRecord) -> dict[str, Any]:
    contact = [*clinic.phones, clinic.email, clinic.website]
    numbers = [
        f"{language.text(name)} {value}"
        for name, value in (
            ("tax_number", clinic.tax_number),
            ("registration_number", clinic.registration_number),
        )
        if value
    ]
    lines = [*(clinic.address or "").splitlines(), " · ".join(part for part in contact if part), *numbers]
    return {
        "name": clinic.name,
        "logo": _as_svg(clinic.logo),
        "lines": [line for line in lines if line],
        "footer": clinic.legal_name or clinic.name,
    }


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


def facts(pairs: Iterable[tuple[str, str | None]]) -> list[dict[str, str]]:
    """Return names and values as a template reads them, without those that have no value."""
    return [{"name": name, "value": value} for name, value in pairs if value]


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Mapping[str, Any]:
    """Return a table as a template reads it."""
    return {"header": list(header), "rows": [list(row) for row in rows]}


def sums(rows: Iterable[tuple[str, str, bool]]) -> list[dict[str, Any]]:
    """Return the sums under a table. The third part says that a row is a result."""
    return [{"name": name, "value": value, "is_result": is_result} for name, value, is_result in rows]
