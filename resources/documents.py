"""Endpoints of documents on paper, as PDF."""

from __future__ import annotations

from flask import Response

from api.cached_document import private_response
from api.endpoint import endpoint
from api.request_context import current_actor
from api.resource import ApiResource
from models import Billing, Prescription, Visit
from schemas.documents import (
    BillingDocumentQuery,
    DocumentQuery,
    MonthlyReportQuery,
    StatementQuery,
)
from security.permissions import Permission
from services.billing import bills
from services.clinical import prescriptions, visits
from services.documents import billing_documents
from services.documents.account_document import account_document
from services.documents.monthly_report import last_month, monthly_report
from services.documents.pages import DocumentOptions
from services.documents.prescription_document import prescription_document
from services.documents.visit_document import visit_document

PDF = "application/pdf"
UNPRINTABLE = "unprintable_characters"


def pdf(document: bytes, name: str) -> Response:
    """Return the response with a PDF document."""
    return private_response(document, PDF, file_name=f"{name}.pdf")


def pdf_options(query: DocumentQuery) -> DocumentOptions:
    """Return the language and the paper that a request asks for."""
    return {"locale": query.locale, "paper": query.paper}


class BillingDocument(ApiResource):
    """Route `/billings/<billing_id>/document`."""

    @endpoint(
        Permission.BILLINGS_READ,
        load=bills.get,
        query=BillingDocumentQuery,
        media_types=(PDF,),
        etag=True,
        errors=(UNPRINTABLE, "conflict", "not_found"),
    )
    def get(self, row: Billing, query: BillingDocumentQuery) -> Response:
        """Print the invoice, the receipt or a credit note of a bill.

        A receipt contains all payments. Doctors: own only.
        """
        actor, options = current_actor(), pdf_options(query)
        if query.type == "credit_note":
            note, document = billing_documents.credit_note_document(actor, row, query.credit_note_id, options)
            return pdf(document, note.number)
        if query.type == "receipt":
            receipt = billing_documents.receipt_document(actor, row, options)
            return pdf(receipt, f"{row.invoice_number}-receipt")
        return pdf(billing_documents.invoice_document(actor, row, options), row.invoice_number)


class PaymentReceipt(ApiResource):
    """Route `/billings/<billing_id>/payments/<payment_id>/receipt`."""

    @endpoint(
        Permission.BILLINGS_READ, query=DocumentQuery, media_types=(PDF,), etag=True, errors=(UNPRINTABLE,)
    )
    def get(self, billing_id: int, payment_id: int, query: DocumentQuery) -> Response:
        """Print the receipt of one payment of a bill, with its refunds. Doctors: own only."""
        actor = current_actor()
        bill = bills.get(actor, billing_id)
        document = billing_documents.payment_document(actor, bill, payment_id, pdf_options(query))
        return pdf(document, f"{bill.invoice_number}-receipt-{payment_id}")


class AccountStatementDocument(ApiResource):
    """Route `/patients/<patient_id>/account/statement`."""

    @endpoint(
        Permission.BILLINGS_READ, query=StatementQuery, media_types=(PDF,), etag=True, errors=(UNPRINTABLE,)
    )
    def get(self, patient_id: int, query: StatementQuery) -> Response:
        """Print the account statement of a patient, of all days or of a range of days.

        Doctors: bills of their own visits only.
        """
        document = account_document(
            current_actor(),
            patient_id,
            pdf_options(query),
            start_date=query.start_date,
            end_date=query.end_date,
        )
        return pdf(document, f"account-{patient_id}")


class PrescriptionDocument(ApiResource):
    """Route `/prescriptions/<prescription_id>/document`."""

    @endpoint(
        Permission.PRESCRIPTIONS_READ,
        load=prescriptions.get,
        query=DocumentQuery,
        media_types=(PDF,),
        etag=True,
        errors=(UNPRINTABLE,),
    )
    def get(self, row: Prescription, query: DocumentQuery) -> Response:
        """Print a prescription with a line for the signature of the doctor."""
        return pdf(prescription_document(current_actor(), row, pdf_options(query)), f"prescription-{row.id}")


class VisitDocument(ApiResource):
    """Route `/visits/<visit_id>/document`."""

    @endpoint(
        Permission.VISITS_READ,
        load=visits.get,
        query=DocumentQuery,
        media_types=(PDF,),
        etag=True,
        errors=(UNPRINTABLE,),
    )
    def get(self, row: Visit, query: DocumentQuery) -> Response:
        """Print the summary of a visit, with the members that the role may read."""
        return pdf(visit_document(current_actor(), row, pdf_options(query)), f"visit-{row.id}")


class MonthlyReport(ApiResource):
    """Route `/analytics/report`."""

    @endpoint(
        Permission.ANALYTICS_FINANCE,
        query=MonthlyReportQuery,
        media_types=(PDF,),
        etag=True,
        report=True,
        errors=(UNPRINTABLE,),
    )
    def get(self, query: MonthlyReportQuery) -> Response:
        """Print the report of a month: key figures, revenue, doctors and patients, with charts."""
        month = query.month or last_month()
        document = monthly_report(current_actor(), month, pdf_options(query))
        return pdf(document, f"report-{month:%Y-%m}")
