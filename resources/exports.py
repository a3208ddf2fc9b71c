"""Endpoints of exports: files of whole lists, which a job writes."""

from __future__ import annotations

from flask import Response

from api import list_exports
from api.endpoint import StepUp, endpoint
from api.request_context import current_actor
from api.resource import ApiResource
from api.response_format import FILES, MEDIA_TYPES
from api.serialization import EndpointResult, Serializer
from models import Export
from schemas.exports import ExportIn, ExportOut
from security.permissions import Permission
from services.exports import exports
from services.listing.spec import ListQuery, Page

EXPORT = Serializer(ExportOut, computed_fields=exports.add_computed_fields)


class ExportList(ApiResource):
    """Route `/exports`."""

    @endpoint(Permission.SIGNED_IN, list_spec=exports.LIST, returns=EXPORT)
    def get(self, query: ListQuery) -> Page[Export]:
        """List your own exports."""
        return exports.find(current_actor(), query)

    @endpoint(
        Permission.SIGNED_IN,
        body=ExportIn,
        returns=EXPORT,
        status=202,
        step_up=StepUp.ALWAYS,
        errors=("not_found", "too_many_requests"),
    )
    def post(self, data: ExportIn) -> EndpointResult:
        """Let a job write a whole list or search as a CSV or XLSX file.

        `path` is checked at once, as the request itself. `GET /exports/{export_id}` tells when the file is
        ready.
        """
        export = list_exports.request_export(current_actor(), path=data.path, file_format=data.format)
        return EndpointResult(export, headers={"Location": f"/exports/{export.id}"})


class ExportItem(ApiResource):
    """Route `/exports/<export_id>`."""

    @endpoint(Permission.SIGNED_IN, load=exports.get, returns=EXPORT)
    def get(self, row: Export) -> Export:
        """Show an export. Only its creator may read it."""
        return row


class ExportFile(ApiResource):
    """Route `/exports/<export_id>/file`."""

    @endpoint(
        Permission.SIGNED_IN,
        load=exports.get,
        media_types=tuple(MEDIA_TYPES[name] for name in FILES),
        step_up=StepUp.ALWAYS,
        errors=("conflict",),
    )
    def get(self, row: Export) -> Response:
        """Fetch the file of an export. Only its creator may fetch it.

        403 if the rights of the user have changed since the request. 409 before the file is ready, and after
        it has expired.
        """
        return list_exports.file_response(current_actor(), row)
