"""Endpoints of the clinic record."""

from __future__ import annotations

from pydantic import BaseModel

from api.endpoint import endpoint
from api.resource import ApiResource
from api.serialization import Serializer
from models import ClinicRecord
from schemas.clinic import ClinicOut, ClinicPatch
from security.permissions import Permission
from services.clinic import record

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
