"""The endpoint to use in place of a method that a path does not have, for the message of a 405."""

from __future__ import annotations

from flask import current_app, request
from werkzeug.exceptions import HTTPException, MethodNotAllowed

_FEEDS = "/doctors/{doctor_id}/calendar-feeds"
_OTHER_FEED = f"DELETE {_FEEDS}/{{calendar_feed_id}} and POST {_FEEDS}"
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
    "GET /patients/{patient_id}/account/refunds": "GET /patients/{patient_id}/account",
    "GET /patients/{patient_id}/account/refunds/{refund_id}": "GET /patients/{patient_id}/account",
    "DELETE /patients/{patient_id}/account/refunds/{refund_id}": (
        "PATCH /patients/{patient_id}/account/refunds/{refund_id}"
    ),
    "DELETE /patients/{patient_id}/contact-preferences": "PATCH /patients/{patient_id}/contact-preferences",
    "GET /patients/{patient_id}/emergency-access": "GET /emergency-access",
    "PATCH /emergency-access/{emergency_access_id}": "POST /emergency-access/{emergency_access_id}/review",
    "PUT /emergency-access/{emergency_access_id}": "POST /emergency-access/{emergency_access_id}/review",
    "GET /appointments/{appointment_id}/messages": "GET /messages",
    "DELETE /messages/{message_id}": "POST /messages/{message_id}/cancel",
    "PATCH /jobs/{job_id}": "POST /jobs/{job_id}/retry",
    "PUT /jobs/{job_id}": "POST /jobs/{job_id}/retry",
    "DELETE /letters/{letter_id}": "POST /letters/{letter_id}/void",
    "PATCH /letters/{letter_id}": "POST /letters/{letter_id}/void",
    "PUT /letters/{letter_id}": "POST /letters/{letter_id}/void",
    "GET /auth/mfa/passkeys/{passkey_id}": "GET /auth/mfa/passkeys",
    "GET /auth/sessions/{session_id}": "GET /auth/sessions",
    "POST /doctors/{doctor_id}/schedule": "PUT /doctors/{doctor_id}/schedule",
    "PATCH /doctors/{doctor_id}/calendar-feeds/{calendar_feed_id}": _OTHER_FEED,
    "PUT /doctors/{doctor_id}/calendar-feeds/{calendar_feed_id}": _OTHER_FEED,
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
