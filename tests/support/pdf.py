"""Reading PDF documents back: their text, and the codes on their pages."""

from __future__ import annotations

import pypdfium2
import zxingcpp


def text_of(document: bytes) -> str:
    """Return the text of all pages, one line for each line of text, with single spaces."""
    return "\n".join(pages_of(document))


def pages_of(document: bytes) -> list[str]:
    """Return the text of each page, one line for each line of text, with single spaces."""
    texts = [page.get_textpage().get_text_bounded() for page in pypdfium2.PdfDocument(document)]
    return ["\n".join(" ".join(line.split()) for line in text.splitlines()) for text in texts]


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
