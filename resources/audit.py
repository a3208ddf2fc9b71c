"""The audit over HTTP."""

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
    """/audit-logs"""

    @endpoint(Permission.AUDIT_READ, lists=audit_search.LIST, returns=ENTRY)
    def get(self, listed: ListQuery) -> Page[AuditLog]:
        """List what was done, read and refused, and by whom."""
        return audit_search.find(current_actor(), listed)
