"""Treatments over HTTP."""

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
    """/treatments"""

    @endpoint(Permission.TREATMENTS_READ, lists=treatments.LIST, returns=TREATMENT)
    def get(self, listed: ListQuery) -> Page[Treatment]:
        """List treatments."""
        return treatments.find(current_actor(), listed)

    @endpoint(
        Permission.TREATMENTS_ORDER,
        body=TreatmentIn,
        returns=TREATMENT,
        status=201,
        errors=("read_only", "insufficient_stock"),
    )
    def post(self, data: TreatmentIn) -> Treatment:
        """Record a treatment of an open visit; a completed one takes its stock."""
        return treatments.create(current_actor(), **data.model_dump())


class TreatmentDetail(ApiResource):
    """/treatments/<treatment_id>"""

    @endpoint(Permission.TREATMENTS_READ, loads=treatments.get, returns=TREATMENT)
    def get(self, row: Treatment) -> Treatment:
        """Show a treatment with the lots it used."""
        return row

    @endpoint(
        Permission.TREATMENTS_WRITE,
        loads=treatments.get,
        body=TreatmentPatch,
        returns=TREATMENT,
        errors=("read_only", "invalid_transition", "insufficient_stock"),
    )
    def patch(self, row: Treatment, data: BaseModel) -> Treatment:
        """Change a treatment, or carry it out: completing takes its stock."""
        return treatments.update(current_actor(), row, **data.model_dump(exclude_unset=True))

    @endpoint(
        Permission.TREATMENTS_ORDER,
        loads=treatments.get,
        body=TreatmentVoidIn,
        params=TreatmentVoidIn,
        returns=TREATMENT,
        errors=("read_only",),
    )
    def delete(self, row: Treatment, data: TreatmentVoidIn, params: TreatmentVoidIn) -> Treatment:
        """Void a treatment; the stock it took goes back to the same lots.

        The reason comes in the body or the query.
        """
        return treatments.void(current_actor(), row, data.reason or params.reason)
