"""Endpoints of imports of spreadsheets."""

from __future__ import annotations

from typing import Any

from flask import Response
from pydantic import BaseModel

from api import request_body
from api.body_format import MULTIPART, BodyFormat, Upload
from api.cached_document import private_response
from api.endpoint import endpoint
from api.request_context import current_actor
from api.resource import ApiResource
from api.serialization import EndpointResult, Serializer
from models import Import, ImportedRow
from schemas.imports import (
    ApplyIn,
    ImportCreate,
    ImportDetailOut,
    ImportOut,
    ImportPatch,
    ImportRowOut,
)
from security.permissions import Permission
from services.imports import content as import_content
from services.imports import imports
from services.imports import report as import_report
from services.imports.content import ReadFile
from services.listing.spec import ListQuery, Page
from services.spreadsheets.reading import MAX_BYTES

XLSX = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
# A form has some bytes beside its file.
FILE_FORM = BodyFormat((MULTIPART,), MAX_BYTES + 1024**2)
IMPORT = Serializer(ImportOut, computed_fields=imports.add_computed_fields)
DETAIL = Serializer(ImportDetailOut, computed_fields=imports.add_details)
STATES = ("invalid_transition", "conflict")


def _read_upload(_path: dict[str, Any], members: dict[str, Any], _upload: Upload | None) -> ReadFile:
    """Read the file of the form. It is read without a transaction: that can take seconds."""
    file, options = request_body.uploaded_file(), _options(members)
    return import_content.read_file(
        file.content, file.name, options.get("encoding"), options.get("delimiter")
    )


def _read_stored(path: dict[str, Any], members: dict[str, Any], _upload: Upload | None) -> ReadFile | None:
    """Read the stored file, with the options of the body."""
    return import_content.read_stored(path["import_id"], **_options(members))


def _options(members: dict[str, Any]) -> dict[str, str | None]:
    """Return the options for reading a file. The schema checks the other members later."""
    given = {name: members[name] for name in ("encoding", "delimiter") if name in members}
    return {name: value or None for name, value in given.items() if value is None or isinstance(value, str)}


class ImportList(ApiResource):
    """Route `/imports`."""

    @endpoint(Permission.IMPORTS_MANAGE, list_spec=imports.LIST, returns=IMPORT)
    def get(self, query: ListQuery) -> Page[Import]:
        """List imports."""
        return imports.find(current_actor(), query)

    @endpoint(
        Permission.IMPORTS_MANAGE,
        body=ImportCreate,
        accepts=FILE_FORM,
        prepare=_read_upload,
        returns=DETAIL,
        status=201,
        errors=("bad_request", "payload_too_large", "unsupported_media_type"),
    )
    def post(self, data: ImportCreate, upload: Upload, prepared: ReadFile) -> Import:
        """Upload a spreadsheet to import: xlsx or csv, at most 10 MiB and 50,000 rows.

        The body is a multipart form with the part `file`. Without `mapping`, one is proposed. Nothing is
        imported before a dry run and `apply`.
        """
        return imports.upload(
            current_actor(),
            file_name=upload.name,
            content=upload.content,
            file=prepared,
            **data.model_dump(),
        )


class ImportItem(ApiResource):
    """Route `/imports/<import_id>`."""

    @endpoint(Permission.IMPORTS_MANAGE, load=imports.get, returns=DETAIL)
    def get(self, row: Import) -> Import:
        """Show an import: state, counts, columns, and the first rows of the file."""
        return row

    @endpoint(
        Permission.IMPORTS_MANAGE,
        load=imports.get,
        body=ImportPatch,
        prepare=_read_stored,
        returns=DETAIL,
        errors=STATES,
    )
    def patch(self, row: Import, data: BaseModel, prepared: ReadFile | None) -> Import:
        """Change the mapping or the options of an import. It then needs a new dry run."""
        return imports.update(row, prepared, **data.model_dump(exclude_unset=True))

    @endpoint(Permission.IMPORTS_MANAGE, load=imports.get, returns=IMPORT, errors=STATES)
    def delete(self, row: Import) -> Import:
        """Delete an import that was never applied, with its file."""
        return imports.remove(row)


class ImportRowList(ApiResource):
    """Route `/imports/<import_id>/rows`."""

    @endpoint(
        Permission.IMPORTS_MANAGE,
        load=imports.get,
        list_spec=imports.ROWS,
        returns=Serializer(ImportRowOut),
    )
    def get(self, row: Import, query: ListQuery) -> Page[ImportedRow]:
        """List the rows of the file, with their results in the last run and the reasons."""
        return imports.find_rows(current_actor(), row, query)


class ImportReport(ApiResource):
    """Route `/imports/<import_id>/report.xlsx`."""

    @endpoint(
        Permission.IMPORTS_MANAGE,
        load=imports.get,
        media_types=(XLSX,),
        etag=True,
        prepare=_read_stored,
        errors=("conflict",),
    )
    def get(self, row: Import, prepared: ReadFile | None) -> Response:
        """Show the rows with problems as a spreadsheet: row, field, problem, and the original columns."""
        return private_response(import_report.report(row, prepared), XLSX, file_name=f"import-{row.id}.xlsx")


def _accepted(row: Import) -> EndpointResult:
    """Return the response to the request of a job: the import shows its progress."""
    return EndpointResult(row, headers={"Location": f"/imports/{row.id}"})


class ImportDryRun(ApiResource):
    """Route `/imports/<import_id>/dry-run`."""

    @endpoint(Permission.IMPORTS_MANAGE, load=imports.get, returns=IMPORT, status=202, errors=STATES)
    def post(self, row: Import) -> EndpointResult:
        """Check all rows of the file without any effect. A job does it."""
        return _accepted(imports.request_dry_run(row))


class ImportApply(ApiResource):
    """Route `/imports/<import_id>/apply`."""

    @endpoint(
        Permission.IMPORTS_MANAGE,
        load=imports.get,
        body=ApplyIn,
        returns=IMPORT,
        status=202,
        errors=STATES,
    )
    def post(self, row: Import, data: ApplyIn) -> EndpointResult:
        """Apply the rows that a dry run has accepted. A job does it."""
        return _accepted(imports.request_apply(row, data.digest))


class ImportUndo(ApiResource):
    """Route `/imports/<import_id>/undo`."""

    @endpoint(Permission.IMPORTS_MANAGE, load=imports.get, returns=IMPORT, status=202, errors=STATES)
    def post(self, row: Import) -> EndpointResult:
        """Undo an applied import, within 7 days. A job does it.

        Created records are archived, cancelled, deactivated or reversed. Changed ones get their old values.
        """
        return _accepted(imports.request_undo(row))
