"""The QR code of a document. Its address is a public page that shows if the document is genuine."""

from __future__ import annotations

from security import link_tokens
from security.link_tokens import Purpose
from services.documents.blocks import Block, code
from services.documents.language import DocumentLanguage


def verification_url(purpose: Purpose, row_id: int) -> str | None:
    """Return the address of the page about a document, or None without `PUBLIC_URL`."""
    return link_tokens.public_url("v", link_tokens.create(purpose, row_id))


def verification_code(purpose: Purpose, row_id: int, language: DocumentLanguage) -> list[Block]:
    """Return the QR code of a document, or nothing without `PUBLIC_URL`."""
    url = verification_url(purpose, row_id)
    return code(language.text("verification"), url) if url else []
