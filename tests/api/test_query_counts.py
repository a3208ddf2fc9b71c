"""What every GET asks of the database: so many questions, however many rows it shows."""

from __future__ import annotations

from api.docs.registry import RegisteredEndpoint, registered_endpoints
from tests.support import queries
from tests.support.clinic import Clinic
from tests.support.furnished import COPIES, Rows, furnish

# Questions: statements that read. The caller's session is one, the head of the audit's chain another.
ASKED = {
    "/analytics/dashboard": 13,
    "/analytics/doctor-performance": 9,
    "/analytics/patient-stats": 7,
    "/analytics/revenue": 4,
    "/appointments": 3,
    "/appointments/search": 3,
    "/appointments/{appointment_id}": 5,
    "/audit-logs": 2,
    "/auth/me": 3,
    "/auth/sessions": 2,
    "/billings": 8,
    "/billings/{billing_id}": 7,
    "/billings/{billing_id}/claims": 5,
    "/billings/{billing_id}/claims/{claim_id}": 4,
    "/doctors": 4,
    "/doctors/search": 4,
    "/doctors/{doctor_id}": 4,
    "/doctors/{doctor_id}/availability": 3,
    "/doctors/{doctor_id}/schedule": 6,
    "/doctors/{doctor_id}/time-off": 3,
    "/doctors/{doctor_id}/time-off/{time_off_id}": 4,
    "/inventory": 4,
    "/inventory/alerts": 6,
    "/inventory/{item_id}": 4,
    "/inventory/{item_id}/movements": 3,
    "/metrics": 1,
    "/patients": 3,
    "/patients/search": 3,
    "/patients/{patient_id}": 3,
    "/patients/{patient_id}/access-log": 4,
    "/patients/{patient_id}/account": 10,
    "/patients/{patient_id}/medical-history": 8,
    "/patients/{patient_id}/timeline": 14,
    "/prescriptions": 8,
    "/prescriptions/{prescription_id}": 10,
    "/treatments": 5,
    "/treatments/{treatment_id}": 7,
    "/users": 2,
    "/users/{user_id}": 3,
    "/visits": 16,
    "/visits/{visit_id}": 18,
}


def asked(clinic: Clinic, rows: Rows) -> dict[str, int]:
    """The number of questions of every GET on a path, asked by the admin for the first row it names."""
    return {
        entry.path: queries.count(clinic, clinic.admin, address(entry, rows))
        for entry in registered_endpoints(clinic.app)
        if entry.method == "GET" and not entry.public
    }


def address(entry: RegisteredEndpoint, rows: Rows) -> str:
    """The path of the first row; a list with all rows on one page."""
    names = entry.path_ids
    path = entry.path.format(**dict(zip(names, rows[names][0], strict=True))) if names else entry.path
    return path if entry.spec.list_spec is None else f"{path}?per_page=1000"


def test_no_answer_asks_more_for_more_rows(clinic: Clinic) -> None:
    rows = furnish(clinic)

    few = asked(clinic, rows)
    furnish(clinic, first=COPIES + 1)
    many = asked(clinic, rows)

    assert many == few
    assert few == ASKED
