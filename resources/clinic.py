"""Endpoints of the clinic record."""

from __future__ import annotations

from flask import Response
from pydantic import BaseModel

from api.body_format import BodyFormat
from api.cached_document import private_response, tag_of
from api.endpoint import endpoint
from api.resource import ApiResource
from api.serialization import Serializer
from models import ClinicRecord
from schemas.clinic import ClinicOut, ClinicPatch
from security.permissions import Permission
from services.clinic import logo, record

PNG = "image/png"
CLINIC = Serializer(ClinicOut, computed_fields=record.add_computed_fields)


class ClinicItem(ApiResource):
    """Route `/clinic`."""

    @endpoint(Permission.CLINIC_READ, load=record.get, returns=CLINIC)
    def get(self, row: ClinicRecord) -> ClinicRecord:
        """Show the clinic.

        `bank_details` and `tax_number` are for administrators and receptionists.
        """
        return row

    @endpoint(Permission.CLINIC_WRITE, load=record.get, body=ClinicPatch, returns=CLINIC)
    def patch(self, row: ClinicRecord, data: BaseModel) -> ClinicRecord:
        """Change the clinic."""
        return record.update(row, **data.model_dump(exclude_unset=True))


def _logo_tag(row: ClinicRecord) -> str | None:
    return tag_of(row.logo_hash) if row.logo_hash is not None else None


class ClinicLogo(ApiResource):
    """Route `/clinic/logo`."""

    @endpoint(Permission.CLINIC_READ, load=record.get, media_types=(PNG,), etag=True, errors=("not_found",))
    def get(self, row: ClinicRecord) -> Response:
        """Show the logo of the clinic, a PNG image."""
        return private_response(logo.logo_of(row), PNG, digest=row.logo_hash)

    @endpoint(
        Permission.CLINIC_WRITE,
        load=record.get,
        accepts=BodyFormat((PNG,), logo.MAX_BYTES),
        returns=CLINIC,
        document_tag=_logo_tag,
        errors=("bad_request", "payload_too_large", "unsupported_media_type"),
    )
    def put(self, row: ClinicRecord, content: bytes) -> ClinicRecord:
        """Set the logo of the clinic, a PNG image of at most 200 kB and 2,000 x 2,000 pixels.

        Only the pixels are stored, no metadata.
        """
        return logo.set_logo(row, content)

    @endpoint(Permission.CLINIC_WRITE, load=record.get, returns=CLINIC, document_tag=_logo_tag)
    def delete(self, row: ClinicRecord) -> ClinicRecord:
        """Remove the logo of the clinic."""
        return logo.remove_logo(row)
