"""Endpoints of the audit log."""

from __future__ import annotations

from api.endpoint import endpoint
from api.request_context import current_actor
from api.resource import ApiResource
from api.serialization import Serializer
from models import AuditLog
from schemas.audit import AuditLogOut
from security.permissions import Permission
from services.audit import audit_search
from services.listing.spec import ListQuery, Page

ENTRY = Serializer(AuditLogOut)


class AuditLogList(ApiResource):
    """Route `/audit-logs`."""

    @endpoint(Permission.AUDIT_READ, list_spec=audit_search.LIST, returns=ENTRY)
    def get(self, query: ListQuery) -> Page[AuditLog]:
        """List the audit log: changes, reads and refused requests, with their users."""
        return audit_search.find(current_actor(), query)
