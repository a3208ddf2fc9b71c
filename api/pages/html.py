"""The public pages behind links in messages and on documents: plain HTML without scripts, also for errors."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from pathlib import Path

from babel import Locale, UnknownLocaleError
from babel.dates import format_date
from flask import Response, request

from api.html_templates import environment_of, source_hash
from config import ROOT
from errors import ClinicError
from services import clock
from services.messages.rendering import format_clock_time, formatting_locale

# First parts of the paths whose responses are pages, also for errors.
PAGES = frozenset({"a", "u", "v"})
TEMPLATES = environment_of(Path(__file__).parent / "templates")
CSP = (
    f"default-src 'none'; style-src {source_hash(TEMPLATES, 'style.css')}; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)
FALLBACK = "en"
# Code of an error -> its text; other errors are `failed`.
ERROR_TEXTS = {
    "not_found": "not_found",
    "method_not_allowed": "not_found",
    "too_many_requests": "too_many",
    "payload_too_large": "not_readable",
    "unsupported_media_type": "not_readable",
    "bad_request": "not_readable",
    "validation_failed": "not_readable",
}


@dataclass(frozen=True)
class Button:
    """A button of the form, and the value of its field `action`."""

    action: str
    label: str


@dataclass(frozen=True)
class DocumentStatus:
    """The status of a document: a word, and the sentence that explains it."""

    word: str
    text: str
    is_warning: bool


@dataclass(frozen=True)
class Page:
    """The content of a page. `hidden` are hidden fields of its form, which only a page with buttons has."""

    locale: str
    title: str
    clinic: str = ""
    number: str = ""
    start: datetime | None = None
    status: DocumentStatus | None = None
    facts: Sequence[tuple[str, str]] = ()
    paragraphs: Sequence[str] = ()
    buttons: Sequence[Button] = ()
    hidden: Mapping[str, str] = field(default_factory=dict)


@cache
def all_texts() -> dict[str, dict[str, str]]:
    """Return the texts of the pages by language and name."""
    texts: dict[str, dict[str, str]] = json.loads((ROOT / "data" / "public_pages.json").read_bytes())
    return texts


def texts_of(locale: str) -> dict[str, str]:
    """Return the texts in the language of a locale, or in English."""
    return all_texts().get(locale.replace("-", "_").split("_")[0], all_texts()[FALLBACK])


def locale_of(patient_language: str | None, clinic_locale: str) -> str:
    """Return the locale of a page: the language of the patient, with the country of the patient or clinic."""
    language = (patient_language or clinic_locale).replace("-", "_").split("_")[0]
    language = language if language in all_texts() else FALLBACK
    return str(formatting_locale(language, patient_language, clinic_locale))


def response(page: Page, status: int = 200) -> Response:
    """Return a page as a response. A browser must not store it: it is about one patient."""
    language = page.locale.replace("-", "_").split("_")[0]
    if language not in all_texts():
        language = FALLBACK
    locale = _babel_locale(page.locale, language)
    local = None if page.start is None else clock.local(page.start)
    html = TEMPLATES.get_template("page.html").render(
        language=str(locale).replace("_", "-"),
        direction=locale.text_direction,
        title=page.title,
        clinic=page.clinic,
        number=page.number,
        instant="" if local is None else local.isoformat(),
        day="" if local is None else format_date(local.date(), "full", locale),
        clock_time="" if local is None else format_clock_time(local, locale),
        status=page.status,
        facts=page.facts,
        paragraphs=page.paragraphs,
        buttons=page.buttons,
        hidden=page.hidden,
    )
    result = Response(html, status, mimetype="text/html")
    result.headers["Content-Security-Policy"] = CSP
    result.headers["X-Robots-Tag"] = "noindex"
    return result


def _babel_locale(locale: str, language: str) -> Locale:
    try:
        parsed = Locale.parse(locale.replace("-", "_"))
    except (ValueError, UnknownLocaleError):
        return Locale(language)
    return parsed if parsed.language == language else Locale(language)


def is_page() -> bool:
    """Return True if the response to the current request is a page."""
    return request.path.split("/")[1] in PAGES


def error_response(error: ClinicError) -> Response:
    """Return an error as a page, in the language that the browser prefers."""
    locale = request.accept_languages.best_match(all_texts()) or FALLBACK
    texts = texts_of(locale)
    text = texts[ERROR_TEXTS.get(error.code, "failed")]
    return response(Page(locale, texts["error"], paragraphs=[text]), error.status)
