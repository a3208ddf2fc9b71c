"""Endpoints of documents on paper, as PDF."""

from __future__ import annotations

from flask import Response

from api.cached_document import private_response
from api.endpoint import endpoint
from api.request_context import current_actor
from api.resource import ApiResource
from models import Billing
from schemas.documents import BillingDocumentQuery
from security.permissions import Permission
from services.billing import bills
from services.documents.billing_documents import bill_document

PDF = "application/pdf"


class BillingDocument(ApiResource):
    """Route `/billings/<billing_id>/document`."""

    @endpoint(
        Permission.BILLINGS_READ,
        load=bills.get,
        query=BillingDocumentQuery,
        media_types=(PDF,),
        errors=("unprintable_characters",),
    )
    def get(self, row: Billing, query: BillingDocumentQuery) -> Response:
        """Print the invoice of a bill."""
        document = bill_document(current_actor(), row, locale=query.locale, paper=query.paper)
        return private_response(document, PDF, file_name=f"{row.invoice_number}.pdf")
