"""Endpoints of letters."""

from __future__ import annotations

from flask import Response

from api.endpoint import endpoint
from api.request_context import current_actor
from api.resource import ApiResource
from api.serialization import EndpointResult, Serializer
from models import Letter, Visit
from resources.documents import UNPRINTABLE, pdf, pdf_options
from schemas.documents import DocumentQuery
from schemas.letter import LetterIn, LetterOut, LetterVoidIn
from security.permissions import Permission
from services.clinical import letters
from services.documents.letter_document import letter_document
from services.listing.spec import ListQuery, Page

LETTER = Serializer(LetterOut, entity="letter")


class VisitLetterList(ApiResource):
    """Route `/visits/<visit_id>/letters`."""

    @endpoint(Permission.LETTERS_READ, load=letters.get_visit, list_spec=letters.LIST, returns=LETTER)
    def get(self, row: Visit, query: ListQuery) -> Page[Letter]:
        """List the letters of a visit."""
        return letters.of_visit(current_actor(), row, query)

    @endpoint(
        Permission.LETTERS_WRITE,
        load=letters.get_visit,
        body=LetterIn,
        returns=LETTER,
        status=201,
        errors=("conflict", "patient_inactive", UNPRINTABLE),
    )
    def post(self, row: Visit, data: LetterIn) -> EndpointResult:
        """Issue a sick note, a referral or a certificate. Doctors: own visits only.

        The letter gets its number and never changes. Void a wrong letter and write it again.
        """
        letter = letters.issue(current_actor(), row, **data.model_dump())
        return EndpointResult(letter, headers={"Location": f"/letters/{letter.id}"})


class LetterList(ApiResource):
    """Route `/letters`."""

    @endpoint(Permission.LETTERS_READ, list_spec=letters.LIST, returns=LETTER)
    def get(self, query: ListQuery) -> Page[Letter]:
        """List letters."""
        return letters.find(current_actor(), query)


class LetterItem(ApiResource):
    """Route `/letters/<letter_id>`."""

    @endpoint(Permission.LETTERS_READ, load=letters.get, returns=LETTER)
    def get(self, row: Letter) -> Letter:
        """Show a letter."""
        return row


class LetterVoid(ApiResource):
    """Route `/letters/<letter_id>/void`."""

    @endpoint(
        Permission.LETTERS_VOID, load=letters.get, body=LetterVoidIn, returns=LETTER, errors=("read_only",)
    )
    def post(self, row: Letter, data: LetterVoidIn) -> Letter:
        """Void a letter. Doctors: own only.

        It stays readable, and its document prints VOID.
        """
        return letters.void(current_actor(), row, reason=data.reason)


class LetterDocument(ApiResource):
    """Route `/letters/<letter_id>/document`."""

    @endpoint(
        Permission.LETTERS_READ,
        load=letters.get,
        query=DocumentQuery,
        media_types=("application/pdf",),
        etag=True,
        errors=(UNPRINTABLE,),
    )
    def get(self, row: Letter, query: DocumentQuery) -> Response:
        """Print a letter with a line for the signature of the doctor."""
        return pdf(letter_document(current_actor(), row, pdf_options(query)), row.number)
