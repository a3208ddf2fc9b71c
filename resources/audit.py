"""The audit over HTTP."""

from __future__ import annotations

from models import AuditLog
from resources.answers import View
from resources.base import ApiResource, current_actor, endpoint
from schemas.audit import AuditLogOut
from security.permissions import Permission
from services import audit_search
from services.listing import ListQuery, Page

ENTRY = View(AuditLogOut)


class AuditLogList(ApiResource):
    """/audit-logs"""

    @endpoint(Permission.AUDIT_READ, lists=audit_search.LIST, returns=ENTRY)
    def get(self, listed: ListQuery) -> Page[AuditLog]:
        """List what was done, read and refused, and by whom."""
        return audit_search.find(current_actor(), listed)
