"""Endpoints of visits."""

from __future__ import annotations

from pydantic import BaseModel

from api import request_body
from api.endpoint import endpoint
from api.request_context import current_actor
from api.resource import ApiResource
from api.serialization import EndpointResult, Serializer
from models import Visit
from resources.doctor import positive_ids
from schemas.visit import AddendumIn, AddendumOut, VisitCreate, VisitOut, VisitPatch, VisitVoidIn
from security.permissions import Actor, Permission
from services.clinical import visits
from services.listing.spec import ListQuery, Page

VISIT = Serializer(VisitOut, computed_fields=visits.add_computed_fields, entity="visit")


def _load(actor: Actor, visit_id: int, *, lock: bool = False) -> Visit:
    """Return a visit, for a change locked after the appointment in the body."""
    members = request_body.body_members() if lock else {}
    return visits.get(actor, visit_id, lock=lock, appointment_ids=positive_ids(members, "appointment_id"))


class VisitList(ApiResource):
    """Route `/visits`."""

    @endpoint(Permission.VISITS_READ, list_spec=visits.LIST, returns=VISIT)
    def get(self, query: ListQuery) -> Page[Visit]:
        """List visits.

        `follow_up_due=true` selects the visits whose follow-up is due: the patients to call.
        """
        return visits.find(current_actor(), query)

    @endpoint(
        Permission.VISITS_DOCUMENT,
        body=VisitCreate,
        returns=VISIT,
        status=201,
        errors=("conflict", "patient_inactive", "insufficient_stock", "safety_alert"),
    )
    def post(self, data: VisitCreate) -> Visit:
        """Document a visit, with optional treatments, prescriptions and a payment. Doctors: own only.

        A visit with an `appointment_id` completes the appointment.
        """
        return visits.create(current_actor(), **data.model_dump())


class VisitItem(ApiResource):
    """Route `/visits/<visit_id>`."""

    @endpoint(Permission.VISITS_READ, load=visits.get, returns=VISIT)
    def get(self, row: Visit) -> Visit:
        """Show a visit."""
        return row

    @endpoint(Permission.VISITS_WRITE, load=_load, body=VisitPatch, returns=VISIT, errors=("read_only",))
    def patch(self, row: Visit, data: BaseModel) -> Visit:
        """Change an open visit. Doctors: own only. Technicians: vitals only.

        `vitals` is merged member by member.
        """
        return visits.update(current_actor(), row, **data.model_dump(exclude_unset=True))

    @endpoint(
        Permission.VISITS_VOID,
        load=visits.get,
        body=VisitVoidIn,
        query=VisitVoidIn,
        returns=VISIT,
        errors=("read_only", "in_use"),
    )
    def delete(self, row: Visit, data: VisitVoidIn, query: VisitVoidIn) -> Visit:
        """Void a visit that is not signed and not billed.

        Send the reason in the body or in the query string.
        """
        return visits.void(current_actor(), row, data.reason or query.reason)


class VisitSign(ApiResource):
    """Route `/visits/<visit_id>/sign`."""

    @endpoint(Permission.VISITS_DOCUMENT, load=visits.get, returns=VISIT, errors=("invalid_transition",))
    def post(self, row: Visit) -> Visit:
        """Sign a visit. Doctors: own only.

        A signed visit is read-only.
        """
        return visits.sign(current_actor(), row)


class VisitAddendumList(ApiResource):
    """Route `/visits/<visit_id>/addenda`."""

    @endpoint(
        Permission.VISITS_DOCUMENT,
        load=visits.get,
        body=AddendumIn,
        returns=Serializer(AddendumOut),
        status=201,
        errors=("conflict",),
    )
    def post(self, row: Visit, data: AddendumIn) -> EndpointResult:
        """Add an addendum to a signed visit. Doctors: own only."""
        addendum = visits.add_addendum(current_actor(), row, data.text)
        return EndpointResult(addendum, headers={"Location": f"/visits/{row.id}"})
