"""Visits over HTTP."""

from __future__ import annotations

from pydantic import BaseModel

from api.endpoint import endpoint
from api.request_context import current_actor
from api.resource import ApiResource
from api.serialization import Answer, Serializer
from models import Visit
from schemas.visit import AddendumIn, AddendumOut, VisitCreate, VisitOut, VisitPatch, VisitVoidIn
from security.permissions import Permission
from services.clinical import visits
from services.listing.spec import ListQuery, Page

VISIT = Serializer(VisitOut, computed_fields=visits.add_computed_fields, entity="visit")


class VisitList(ApiResource):
    """/visits"""

    @endpoint(Permission.VISITS_READ, lists=visits.LIST, returns=VISIT)
    def get(self, listed: ListQuery) -> Page[Visit]:
        """List visits; `follow_up_due=true` is the worklist of patients to call."""
        return visits.find(current_actor(), listed)

    @endpoint(
        Permission.VISITS_DOCUMENT,
        body=VisitCreate,
        returns=VISIT,
        status=201,
        errors=("conflict", "insufficient_stock", "safety_alert"),
    )
    def post(self, data: VisitCreate) -> Visit:
        """Document a visit, with treatments, prescriptions and a payment if there are any.

        A visit made from an appointment completes it.
        """
        return visits.create(current_actor(), **data.model_dump())


class VisitItem(ApiResource):
    """/visits/<visit_id>"""

    @endpoint(Permission.VISITS_READ, loads=visits.get, returns=VISIT)
    def get(self, row: Visit) -> Visit:
        """Show a visit."""
        return row

    @endpoint(
        Permission.VISITS_WRITE, loads=visits.get, body=VisitPatch, returns=VISIT, errors=("read_only",)
    )
    def patch(self, row: Visit, data: BaseModel) -> Visit:
        """Change an open visit; `vitals` merges member by member."""
        return visits.update(current_actor(), row, **data.model_dump(exclude_unset=True))

    @endpoint(
        Permission.VISITS_VOID,
        loads=visits.get,
        body=VisitVoidIn,
        params=VisitVoidIn,
        returns=VISIT,
        errors=("read_only", "in_use"),
    )
    def delete(self, row: Visit, data: VisitVoidIn, params: VisitVoidIn) -> Visit:
        """Void a visit that is neither signed nor billed, for a reason in the body or the query."""
        return visits.void(current_actor(), row, data.reason or params.reason)


class VisitSignature(ApiResource):
    """/visits/<visit_id>/sign"""

    @endpoint(Permission.VISITS_DOCUMENT, loads=visits.get, returns=VISIT, errors=("invalid_transition",))
    def post(self, row: Visit) -> Visit:
        """Sign a visit: from then on it is read-only."""
        return visits.sign(current_actor(), row)


class VisitAddenda(ApiResource):
    """/visits/<visit_id>/addenda"""

    @endpoint(
        Permission.VISITS_DOCUMENT,
        loads=visits.get,
        body=AddendumIn,
        returns=Serializer(AddendumOut),
        status=201,
        errors=("conflict",),
    )
    def post(self, row: Visit, data: AddendumIn) -> Answer:
        """Add a correction to a signed visit."""
        addendum = visits.add_addendum(current_actor(), row, data.text)
        return Answer(addendum, headers={"Location": f"/visits/{row.id}"})
