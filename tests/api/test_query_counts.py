"""The number of SELECT statements of every GET request, which does not depend on the number of rows."""

from __future__ import annotations

from api.docs.registry import RegisteredEndpoint, registered_endpoints
from tests.support import queries
from tests.support.clinic import Clinic
from tests.support.furnished import COPIES, Rows, furnish

# Path -> SELECT statements. One reads the session of the caller, one the head of the audit chain.
EXPECTED = {
    "/analytics/dashboard": 13,
    "/analytics/doctor-performance": 9,
    "/analytics/patient-stats": 7,
    "/analytics/report": 30,
    "/analytics/revenue": 4,
    "/appointments": 3,
    "/appointments/search": 3,
    "/appointments/{appointment_id}": 5,
    "/appointments/{appointment_id}.ics": 4,
    "/audit-logs": 2,
    "/auth/me": 3,
    "/auth/mfa": 4,
    "/auth/mfa/passkeys": 2,
    "/auth/sessions": 2,
    "/billings": 9,
    "/billings/{billing_id}": 8,
    "/billings/{billing_id}/claims": 6,
    "/billings/{billing_id}/claims/{claim_id}": 4,
    "/billings/{billing_id}/document": 9,
    "/billings/{billing_id}/payments/{payment_id}/receipt": 10,
    "/clinic": 2,
    "/clinic/logo": 3,
    "/doctors": 4,
    "/doctors/search": 4,
    "/doctors/{doctor_id}": 4,
    "/doctors/{doctor_id}/availability": 3,
    "/doctors/{doctor_id}/calendar-feeds": 3,
    "/doctors/{doctor_id}/calendar-feeds/{calendar_feed_id}": 3,
    "/doctors/{doctor_id}/schedule": 6,
    "/doctors/{doctor_id}/time-off": 3,
    "/doctors/{doctor_id}/time-off/{time_off_id}": 4,
    "/emergency-access": 3,
    "/emergency-access/{emergency_access_id}": 5,
    "/imports": 3,
    "/imports/{import_id}": 4,
    "/imports/{import_id}/report.xlsx": 5,
    "/imports/{import_id}/rows": 3,
    "/inventory": 4,
    "/inventory/alerts": 6,
    "/inventory/{item_id}": 4,
    "/inventory/{item_id}/movements": 3,
    "/exports": 2,
    "/exports/{export_id}": 2,
    "/exports/{export_id}/file": 6,
    "/jobs": 2,
    "/jobs/{job_id}": 2,
    "/letters": 3,
    "/letters/{letter_id}": 5,
    "/letters/{letter_id}/document": 5,
    "/messages": 3,
    "/messages/settings": 2,
    "/messages/templates": 3,
    "/messages/templates/{kind}/{channel}/{locale}": 3,
    "/messages/{message_id}": 4,
    "/metrics": 4,
    "/patients": 3,
    "/patients/search": 3,
    "/patients/{patient_id}": 3,
    "/patients/{patient_id}/access-log": 4,
    "/patients/{patient_id}/account": 12,
    "/patients/{patient_id}/account/statement": 12,
    "/patients/{patient_id}/contact-preferences": 6,
    "/patients/{patient_id}/medical-history": 8,
    "/patients/{patient_id}/timeline": 16,
    "/prescriptions": 8,
    "/price-list": 2,
    "/price-list/{price_list_item_id}": 2,
    "/prescriptions/{prescription_id}": 10,
    "/prescriptions/{prescription_id}/document": 7,
    "/treatments": 5,
    "/treatments/{treatment_id}": 7,
    "/users": 2,
    "/users/{user_id}": 3,
    "/visits": 16,
    "/visits/{visit_id}": 18,
    "/visits/{visit_id}/document": 12,
    "/visits/{visit_id}/letters": 4,
}


def count_all(clinic: Clinic, rows: Rows) -> dict[str, int]:
    """Return the number of SELECT statements of each GET request of an administrator."""
    return {
        endpoint.path: queries.count(clinic, clinic.admin, path_of(endpoint, rows))
        for endpoint in registered_endpoints(clinic.app)
        if endpoint.method == "GET" and not endpoint.public
    }


def path_of(endpoint: RegisteredEndpoint, rows: Rows) -> str:
    """Return the path of the first row, or of a list with all rows on one page."""
    names = endpoint.path_ids
    path = endpoint.path.format(**dict(zip(names, rows[names][0], strict=True))) if names else endpoint.path
    return path if endpoint.spec.list_spec is None else f"{path}?per_page=1000"


def test_more_rows_need_no_more_statements(clinic: Clinic) -> None:
    rows = furnish(clinic)

    few = count_all(clinic, rows)
    furnish(clinic, first=COPIES + 1)
    many = count_all(clinic, rows)

    assert many == few
    assert few == EXPECTED
