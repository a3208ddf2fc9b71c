"""Endpoints of treatments."""

from __future__ import annotations

from pydantic import BaseModel

from api.endpoint import endpoint
from api.request_context import current_actor
from api.resource import ApiResource
from api.serialization import Serializer
from models import Treatment
from schemas.treatment import TreatmentIn, TreatmentOut, TreatmentPatch, TreatmentVoidIn
from security.permissions import Permission
from services.clinical import treatments
from services.listing.spec import ListQuery, Page

TREATMENT = Serializer(TreatmentOut, computed_fields=treatments.add_computed_fields, entity="treatment")


class TreatmentList(ApiResource):
    """Route `/treatments`."""

    @endpoint(Permission.TREATMENTS_READ, list_spec=treatments.LIST, returns=TREATMENT)
    def get(self, query: ListQuery) -> Page[Treatment]:
        """List treatments."""
        return treatments.find(current_actor(), query)

    @endpoint(
        Permission.TREATMENTS_ORDER,
        body=TreatmentIn,
        returns=TREATMENT,
        status=201,
        errors=("read_only", "patient_inactive", "insufficient_stock"),
    )
    def post(self, data: TreatmentIn) -> Treatment:
        """Record a treatment of an open visit. Doctors: own only.

        A completed treatment uses its items from stock.
        """
        return treatments.create(current_actor(), **data.model_dump())


class TreatmentItem(ApiResource):
    """Route `/treatments/<treatment_id>`."""

    @endpoint(Permission.TREATMENTS_READ, load=treatments.get, returns=TREATMENT)
    def get(self, row: Treatment) -> Treatment:
        """Show a treatment with its used lots."""
        return row

    @endpoint(
        Permission.TREATMENTS_WRITE,
        load=treatments.get,
        body=TreatmentPatch,
        returns=TREATMENT,
        errors=("read_only", "invalid_transition", "insufficient_stock"),
    )
    def patch(self, row: Treatment, data: BaseModel) -> Treatment:
        """Change or complete a treatment. Doctors: own only.

        Completion uses its items from stock.
        """
        return treatments.update(current_actor(), row, **data.model_dump(exclude_unset=True))

    @endpoint(
        Permission.TREATMENTS_ORDER,
        load=treatments.get,
        body=TreatmentVoidIn,
        query=TreatmentVoidIn,
        returns=TREATMENT,
        errors=("read_only",),
    )
    def delete(self, row: Treatment, data: TreatmentVoidIn, query: TreatmentVoidIn) -> Treatment:
        """Void a treatment and return its stock to the same lots. Doctors: own only.

        Send the reason in the body or in the query string.
        """
        return treatments.void(current_actor(), row, data.reason or query.reason)
