"""The endpoint to use in place of a method that a path does not have, for the message of a 405."""

from __future__ import annotations

from flask import current_app, request
from werkzeug.exceptions import HTTPException, MethodNotAllowed

_OTHER_TIME_OFF = "DELETE /doctors/{doctor_id}/time-off/{time_off_id} and POST /doctors/{doctor_id}/time-off"
ALTERNATIVES = {
    "DELETE /billings/{billing_id}": "POST /billings/{billing_id}/void",
    "GET /billings/{billing_id}/payments": "GET /billings/{billing_id}",
    "DELETE /billings/{billing_id}/payments": "POST /billings/{billing_id}/refunds",
    "GET /billings/{billing_id}/refunds": "GET /billings/{billing_id}",
    "GET /billings/{billing_id}/refunds/{refund_id}": "GET /billings/{billing_id}",
    "DELETE /billings/{billing_id}/refunds/{refund_id}": "PATCH /billings/{billing_id}/refunds/{refund_id}",
    "DELETE /billings/{billing_id}/claims/{claim_id}": "PATCH /billings/{billing_id}/claims/{claim_id}",
    "GET /visits/{visit_id}/addenda": "GET /visits/{visit_id}",
    "DELETE /patients/{patient_id}/medical-history": "PATCH /patients/{patient_id}/medical-history",
    "GET /auth/sessions/{session_id}": "GET /auth/sessions",
    "PATCH /doctors/{doctor_id}/schedule": "PUT /doctors/{doctor_id}/schedule",
    "PATCH /doctors/{doctor_id}/time-off/{time_off_id}": _OTHER_TIME_OFF,
    "PUT /doctors/{doctor_id}/time-off/{time_off_id}": _OTHER_TIME_OFF,
}


def alternative(error: MethodNotAllowed) -> str | None:
    """Return the endpoint to use in place of the refused one, such as `POST /billings/1/void`, or None."""
    methods, adapter = error.valid_methods or (), current_app.create_url_adapter(request)
    if adapter is None or not methods:
        return None
    try:
        rule, path = adapter.match(method=next(iter(methods)), return_rule=True)
    except HTTPException:
        return None
    template = ALTERNATIVES.get(f"{request.method} {rule.rule.replace('<int:', '{').replace('>', '}')}")
    if template is not None:
        return template.format(**path)
    return f"PATCH {request.path}" if request.method == "POST" and "PATCH" in methods else None
