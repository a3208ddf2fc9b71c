"""Prescriptions: with a new visit, and imported from another system."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from enums import PrescriptionStatus, Role
from errors import ClinicError
from security.permissions import Actor
from services.clinical import prescriptions
from tests.support.clinic import Clinic

IMPORTER = Actor(None, "import", Role.ADMIN)


def test_a_new_visit_may_contain_prescriptions(clinic: Clinic) -> None:
    visit = clinic.visit(prescriptions=[{"medications": ["Lisinopril"]}, {"details": "rest"}])

    assert [row["details"] for row in visit["prescriptions"]] == [None, "rest"]
    assert visit["prescriptions"][1]["warnings"][0]["code"] == "unchecked"


def test_an_import_accepts_any_status_at_a_signed_visit(clinic: Clinic) -> None:
    visit_id = clinic.visit()["id"]
    clinic.doctor.post(f"/visits/{visit_id}/sign")
    issued = datetime(2019, 5, 1, 9, tzinfo=UTC)

    with clinic.inside():
        for status in ("completed", "cancelled", "expired", "active"):
            prescriptions.prescribe(
                IMPORTER,
                visit_id=visit_id,
                medications=[{"name": "Warfarin", "duration_days": 30}],
                status=PrescriptionStatus(status),
                issued_at=issued,
                importing=True,
            )

    shown = clinic.doctor.get("/prescriptions?sort_by=id").get_json()
    assert [row["status"] for row in shown] == ["completed", "cancelled", "expired", "active"]
    assert {datetime.fromisoformat(row["issued_at"]) for row in shown} == {issued}


def test_an_imported_therapy_may_be_stopped(clinic: Clinic) -> None:
    visit = clinic.visit()
    issued = datetime(2019, 5, 1, 9, tzinfo=UTC)

    with clinic.inside():
        prescriptions.prescribe(
            IMPORTER,
            visit_id=visit["id"],
            medications=[{"name": "Warfarin"}],
            status=PrescriptionStatus.COMPLETED,
            stopped=(issued, "bleeding"),
            issued_at=issued,
            importing=True,
        )
    row = clinic.doctor.make("/prescriptions", visit_id=visit["id"], medications=["Coumadin"])

    (stopped,) = clinic.doctor.get(f"/prescriptions?id_ne={row['id']}").get_json()
    assert (stopped["status"], stopped["stop_reason"]) == ("completed", "bleeding")
    assert datetime.fromisoformat(stopped["stopped_at"]) == issued


def test_an_active_imported_prescription_is_checked(clinic: Clinic) -> None:
    visit_id = clinic.visit(prescriptions=[{"medications": ["Warfarin"]}])["id"]

    with clinic.inside(), pytest.raises(ClinicError) as refusal:
        prescriptions.prescribe(
            IMPORTER, visit_id=visit_id, medications=[{"name": "Coumadin"}], importing=True
        )

    assert refusal.value.code == "safety_alert"
