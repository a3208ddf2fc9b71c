"""Reading PDF documents back: their text, and the codes on their pages."""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Decimal

import pypdfium2
import zxingcpp

from services.documents.language import document_language
from tests.support.clinic import Caller

LONG_NAME = 40  # characters


def text_of(document: bytes) -> str:
    """Return the text of all pages, one line for each line of text, with single spaces."""
    return "\n".join(pages_of(document))


def pages_of(document: bytes) -> list[str]:
    """Return the text of each page, one line for each line of text, with single spaces."""
    texts = [page.get_textpage().get_text_bounded() for page in pypdfium2.PdfDocument(document)]
    return ["\n".join(" ".join(line.split()) for line in text.splitlines()) for text in texts]


def parts_of(caller: Caller, path: str, locale: str) -> list[str]:
    """Return texts that a document contains in this order: number, name and total, as far as it has them."""
    language = document_language(locale, clinic_locale=caller.clinic.settings.clinic_locale)
    kind, row_id = path.split("/")[1:3]
    if kind == "analytics":
        return [language.text(name) for name in ("monthly_report", "key_figures", "doctors")]
    row = caller.get(f"/{kind}/{row_id}").get_json()
    name = row.get("patient_name") or row["name"]
    name = name if len(name) < LONG_NAME else name.split()[0]  # a long one is on two lines
    if kind == "billings":
        total = language.amount(Decimal(row["amount"]))
        return [row["invoice_number"], name, *([total] if row["status"] != "void" else [])]
    if kind == "patients":
        return [language.text("statement"), name, language.amount(Decimal(row["account_balance"]))]
    if kind == "letters":
        return [row["number"], name, row["doctor_name"]]
    title, last = ("visit_summary", "chief_complaint") if kind == "visits" else ("prescription", None)
    content = row[last] if last else row["medications"][0]["name"]
    return [language.text(title), name, content or "", row["doctor_name"]]


def missing_part(text: str, parts: Sequence[str]) -> str | None:
    """Return the first part that a text does not contain after the earlier ones. None: it has them all."""
    text, position = _plain(text), 0
    for part in map(_plain, parts):
        found = text.find(part, position)
        if found < 0:
            return part
        position = found + len(part)
    return None


def _plain(text: str) -> str:
    """Return a text with single spaces, without marks of direction."""
    return " ".join(re.sub("[\u200b\u200e\u200f\u061c\u202a-\u202e\u2066-\u2069]", "", text).split())


def is_on_paper(document: bytes) -> bool:
    """Return True if every character is between the left and the right edge of its page."""
    for page in pypdfium2.PdfDocument(document):
        text = page.get_textpage()
        boxes = [text.get_charbox(index) for index in range(text.count_chars())]
        if min(box[0] for box in boxes) < 0 or max(box[2] for box in boxes) > page.get_width():
            return False
    return True


def page_count(document: bytes) -> int:
    """Return the number of pages."""
    return len(pypdfium2.PdfDocument(document))


def codes_of(document: bytes) -> list[str]:
    """Return the contents of the QR codes on the first page, read from its picture."""
    picture = pypdfium2.PdfDocument(document)[0].render(scale=3).to_pil()
    return [code.text for code in zxingcpp.read_barcodes(picture)]


def page_size(document: bytes) -> tuple[int, int]:
    """Return the width and the height of the first page in millimetres."""
    width, height = pypdfium2.PdfDocument(document)[0].get_size()
    return round(width / 72 * 25.4), round(height / 72 * 25.4)
