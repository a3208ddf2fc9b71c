"""The public page behind the QR code of a document."""

from __future__ import annotations

from babel import Locale
from babel.dates import format_date
from flask import Response, request

from api.endpoint import endpoint
from api.pages import html
from api.pages.html import DocumentStatus, Page
from api.resource import ApiResource
from security.permissions import Permission
from services.clinic import versions
from services.documents import verified_documents
from services.documents.language import money_text

WARNINGS = ("void", "void_receipt", "refunded")


class VerificationPage(ApiResource):
    """Route `/v/<token>`."""

    @endpoint(Permission.PUBLIC, media_types=("text/html",))
    def get(self, token: str) -> Response:
        """Show if a document is genuine or void, with its amount. The page names no person."""
        document = verified_documents.find(token)
        language = request.accept_languages.best_match(html.all_texts())
        locale = html.locale_of(language, versions.locale_of(document.clinic))
        texts = html.texts_of(locale)
        page = Page(
            locale,
            texts[document.kind],
            document.clinic.name,
            document.number,
            status=DocumentStatus(
                texts[f"status_{document.state}"], texts[document.state], document.state in WARNINGS
            ),
            facts=[
                (texts["date"], format_date(document.day, "long", locale)),
                *(
                    (texts[name], money_text(amount, Locale.parse(locale)))
                    for name, amount in document.amounts
                ),
            ],
            paragraphs=[texts["compare" if document.amounts else "compare_letter"]],
        )
        return html.response(page)
