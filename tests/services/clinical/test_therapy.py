"""The duration of a therapy: its last day, the safety check while it lasts, and its stop."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
import time_machine
from werkzeug.test import TestResponse

from services.clinical import medication_safety, therapy
from tests.support.clinic import Caller, Clinic
from tests.support.prescriptions import dispense, error, invalid_fields, prescribe, tablets, today

ISSUED = date(2026, 1, 1)
# (expires_on, duration_days, quantity, dispensings as (day, quantity), last day); days count from the issue
LAST_DAYS: list[tuple[int | None, int | None, str | None, list[tuple[int, str]], int | None]] = [
    # before the first dispensing
    (None, 90, "90", [], 90),
    (None, 90, None, [], 90),
    (30, 90, "90", [], 90),
    (180, 90, "90", [], 180),
    # without duration or expires_on
    (None, None, "90", [], None),
    (None, None, None, [], None),
    (None, None, "90", [(0, "90")], None),
    (30, None, "90", [], 30),
    (30, None, "90", [(29, "90")], 30),
    # one dispensing, from its day
    (None, 90, "90", [(0, "90")], 90),
    (None, 90, "90", [(20, "90")], 110),
    (30, 90, "90", [(20, "90")], 110),
    (180, 90, "90", [(20, "90")], 180),
    # a partial dispensing, with the fraction of a day rounded up
    (None, 90, "90", [(0, "30")], 30),
    (None, 90, "90", [(10, "0.5")], 11),
    (None, 10, "3", [(0, "1")], 4),
    (None, 10, "3", [(0, "1"), (0, "1")], 7),
    (None, 10, "3", [(0, "1"), (0, "1"), (0, "1")], 10),
    (None, 7, "100.5", [(0, "33.5"), (0, "67")], 7),
    (None, 30, "90", [(0, "180")], 60),
    # an early refill begins at the end of the earlier supply
    (None, 30, "30", [(0, "30"), (25, "30")], 60),
    (None, 30, "30", [(0, "30"), (30, "30")], 60),
    (None, 30, "30", [(0, "30"), (1, "30"), (2, "30")], 90),
    # a late refill begins at its day
    (None, 30, "30", [(0, "30"), (50, "30")], 80),
    (None, 30, "30", [(0, "30"), (50, "30"), (60, "30")], 110),
    (None, 30, "30", [(0, "10"), (5, "20")], 30),
    # without a quantity, each dispensing adds the duration
    (None, 7, None, [(3, "1")], 10),
    (None, 7, None, [(3, "500"), (3, "0.5")], 17),
    (None, 7, None, [(0, "1"), (20, "1")], 27),
    (100, 7, None, [(0, "1"), (20, "1")], 100),
]


def on(day: int) -> date:
    return ISSUED + timedelta(days=day)


@pytest.mark.parametrize(("expires", "duration", "quantity", "dispensings", "expected"), LAST_DAYS)
def test_the_last_day_of_a_therapy(
    expires: int | None,
    duration: int | None,
    quantity: str | None,
    dispensings: list[tuple[int, str]],
    expected: int | None,
) -> None:
    last_day = therapy.last_day(
        ISSUED,
        expires_on=None if expires is None else on(expires),
        duration_days=duration,
        quantity=None if quantity is None else Decimal(quantity),
        dispensings=[(on(day), Decimal(dispensed)) for day, dispensed in dispensings],
    )

    assert last_day == (None if expected is None else on(expected))


def test_the_last_day_is_in_the_calendar() -> None:
    dispensings = [(ISSUED, Decimal(1))] * 1_000

    last_day = therapy.last_day(
        ISSUED, expires_on=None, duration_days=3650, quantity=None, dispensings=dispensings
    )

    assert last_day == date.max


# --- The safety check ---


def post(caller: Caller, visit_id: int, *medications: Any, **members: Any) -> TestResponse:
    return caller.post("/prescriptions", {"visit_id": visit_id, "medications": list(medications)} | members)


def test_a_dispensed_supply_stays_in_the_check(clinic: Clinic) -> None:
    visit_id = clinic.visit()["id"]
    row = prescribe(clinic, tablets("Warfarin", 90, duration_days=90), visit_id=visit_id)
    completed = dispense(clinic.technician, row, ("Warfarin", 90)).get_json()

    refused = post(clinic.doctor, visit_id, "Coumadin")

    assert completed["status"] == "completed"
    assert completed["medications"][0]["ends_on"] == (today() + timedelta(days=90)).isoformat()
    assert error(refused) == (409, "safety_alert")
    (alert,) = refused.get_json()["alerts"]
    assert (alert["code"], alert["prescription_id"]) == ("duplicate_ingredient", row["id"])


# (members of the prescription, members of the medication, dispensed days ago, is a current therapy)
THERAPIES: list[tuple[dict[str, Any], dict[str, Any], list[tuple[int, float]], bool]] = [
    ({}, {"duration_days": 30}, [(30, 30)], True),
    ({}, {"duration_days": 30}, [(31, 30)], False),
    ({}, {"duration_days": 30}, [(31, 15), (20, 15)], False),
    ({}, {"duration_days": 30}, [(31, 20), (31, 10)], False),
    ({}, {"duration_days": 30, "refills": 1}, [(59, 30), (40, 30)], True),
    ({}, {"duration_days": 30, "refills": 1}, [(61, 30), (40, 30)], False),
    ({}, {"duration_days": 30, "quantity": None}, [(40, 1), (39, 1)], True),
    ({}, {"duration_days": 60}, [], True),
    ({}, {"duration_days": 59}, [], False),
    ({}, {}, [(60, 30)], True),
    ({"expires_on": 0}, {"duration_days": 7}, [(59, 30)], True),
    ({"expires_on": -1}, {"duration_days": 7}, [(59, 30)], False),
    ({"expires_on": -1}, {"duration_days": 60}, [], True),
    ({"expires_on": -1}, {}, [(59, 30)], False),
]


def test_a_therapy_is_checked_until_its_supply_ends(clinic: Clinic) -> None:
    start = datetime.combine(today(), datetime.min.time(), tzinfo=UTC) + timedelta(hours=12)
    answers = []
    for members, medication, dispensings, _current in THERAPIES:
        visit_id = clinic.visit()["id"]
        dates = {name: (today() + timedelta(days=days)).isoformat() for name, days in members.items()}
        row = prescribe(
            clinic,
            tablets("Warfarin", 30) | medication,
            visit_id=visit_id,
            issued_at=noon(60),
            **dates,
        )
        for days, quantity in dispensings:
            with time_machine.travel(start - timedelta(days=days)):
                technician = clinic.sign_in("technician")
                assert dispense(technician, row, ("Warfarin", quantity)).status_code == 200
        answers.append(post(clinic.doctor, visit_id, "Coumadin").status_code)

    assert answers == [409 if current else 201 for *_, current in THERAPIES]


def test_an_expired_prescription_with_supply_is_checked_at_prescribing(clinic: Clinic) -> None:
    visit_id = clinic.visit()["id"]
    dates = {"issued_at": "2026-01-01T09:00:00Z", "expires_on": "2026-01-31"}
    prescribe(clinic, "Warfarin", visit_id=visit_id)

    lasting = post(clinic.doctor, visit_id, tablets("Coumadin", duration_days=3650), **dates)
    over = post(clinic.doctor, visit_id, tablets("Coumadin", duration_days=7), **dates)

    assert error(lasting) == (409, "safety_alert")
    assert (over.status_code, over.get_json()["status"]) == (201, "expired")


def test_a_later_end_is_checked_again(clinic: Clinic) -> None:
    visit_id = clinic.visit()["id"]
    first = prescribe(
        clinic, tablets("Warfarin", duration_days=7), visit_id=visit_id, issued_at="2026-01-01T09:00:00Z"
    )
    second = prescribe(clinic, "Coumadin", visit_id=visit_id)
    path = f"/prescriptions/{first['id']}"
    later = {"expires_on": (today() + timedelta(days=7)).isoformat()}

    refused = clinic.doctor.patch(path, later)
    noted = clinic.doctor.patch(path, {"details": "with food"})
    overridden = clinic.doctor.patch(path, later | {"override_reason": "replaces it"})

    assert error(refused) == (409, "safety_alert")
    assert refused.get_json()["alerts"][0]["prescription_id"] == second["id"]
    assert noted.status_code == 200
    assert overridden.get_json()["medications"][0]["ends_on"] == later["expires_on"]


def test_each_medication_has_its_own_last_day(clinic: Clinic) -> None:
    visit_id = clinic.visit()["id"]
    medications = [tablets("Amoxicillin", 21, duration_days=7), tablets("Warfarin", 90, duration_days=90)]
    row = prescribe(clinic, *medications, visit_id=visit_id, issued_at=noon(20))

    amoxicillin, warfarin = (post(clinic.doctor, visit_id, name) for name in ("Amoxil", "Coumadin"))
    path = f"/prescriptions/{row['id']}"
    changed = clinic.doctor.patch(path, {"issued_at": noon(30)}).get_json()

    assert [each["ends_on"] for each in row["medications"]] == [days_ago(13), days_ago(-70)]
    assert (amoxicillin.status_code, warfarin.status_code) == (201, 409)
    assert [each["ends_on"] for each in changed["medications"]] == [days_ago(23), days_ago(-60)]


def days_ago(days: int) -> str:
    return (today() - timedelta(days=days)).isoformat()


def noon(days: int) -> str:
    return f"{days_ago(days)}T12:00:00Z"


def test_a_dispensed_supply_keeps_its_warnings(clinic: Clinic) -> None:
    row = prescribe(clinic, tablets("Zorblaxine", 10, duration_days=10))

    completed = dispense(clinic.technician, row, ("Zorblaxine", 10)).get_json()

    assert (completed["status"], completed["warnings"][0]["code"]) == ("completed", "unchecked")


def test_only_current_therapies_are_read(clinic: Clinic) -> None:
    visit = clinic.visit()
    for _ in range(4):
        row = prescribe(clinic, tablets("Warfarin", duration_days=1), visit_id=visit["id"])
        dispense(clinic.technician, row, ("Warfarin", 10))
        clinic.doctor.post(f"/prescriptions/{row['id']}/stop", {"reason": "course is over"})
    prescribe(clinic, tablets("Lisinopril", 5, duration_days=1), visit_id=visit["id"])

    with clinic.inside():
        records = medication_safety.load_records([visit["patient_id"]])

    assert [each.name for each in records[visit["patient_id"]].medications] == ["Lisinopril"]


# --- Stop ---


def stop(caller: Caller, row: dict[str, Any], reason: str = "bleeding") -> TestResponse:
    return caller.post(f"/prescriptions/{row['id']}/stop", {"reason": reason})


def test_a_stop_ends_the_therapy_and_keeps_the_status(clinic: Clinic) -> None:
    visit_id = clinic.visit()["id"]
    row = prescribe(clinic, tablets("Warfarin", 90, duration_days=90), visit_id=visit_id)
    dispense(clinic.technician, row, ("Warfarin", 90))

    answer = stop(clinic.doctor, row)
    again = stop(clinic.admin, row)
    prescribed = post(clinic.doctor, visit_id, "Coumadin")

    stopped = answer.get_json()
    assert (stopped["status"], stopped["stop_reason"], stopped["warnings"]) == ("completed", "bleeding", [])
    assert datetime.fromisoformat(stopped["stopped_at"]).date() == today()
    assert answer.headers["ETag"] == '"3"'
    assert error(again) == (409, "conflict")
    assert prescribed.status_code == 201
    (entry,) = clinic.admin.get("/audit-logs?entity=prescription&action=stop").get_json()
    assert (entry["entity_id"], set(entry["fields"])) == (row["id"], {"stopped_at", "stop_reason"})


def test_a_stop_at_the_same_time_as_dispensings_leaves_none_after_it(clinic: Clinic) -> None:
    row = prescribe(clinic, tablets(quantity=2.5))
    doctor, technician = clinic.doctor, clinic.technician

    with ThreadPoolExecutor(6) as pool:
        stops = [pool.submit(stop, doctor, row) for _ in range(3)]
        dispensings = [pool.submit(dispense, technician, row, ("Lisinopril", 0.5)) for _ in range(3)]
        statuses = sorted(future.result().status_code for future in stops)

    accepted = sum(future.result().status_code == 200 for future in dispensings)
    shown = doctor.get(f"/prescriptions/{row['id']}").get_json()
    assert statuses == [200, 409, 409]
    assert shown["medications"][0]["dispensed"] == accepted / 2
    assert clinic.app.test_cli_runner().invoke(args=["verify"]).output == ""


def test_a_stopped_therapy_cannot_be_dispensed_or_changed(clinic: Clinic) -> None:
    row = prescribe(clinic, tablets())
    stop(clinic.admin, row)
    path = f"/prescriptions/{row['id']}"

    assert error(dispense(clinic.technician, row, ("Lisinopril", 1))) == (409, "conflict")
    assert error(clinic.doctor.patch(path, {"details": "x"})) == (409, "read_only")
    cancelled = clinic.doctor.delete(path).get_json()
    assert (cancelled["status"], cancelled["stop_reason"]) == ("cancelled", "bleeding")


def test_who_and_what_can_be_stopped(clinic: Clinic) -> None:
    row = prescribe(clinic, tablets())
    cancelled = prescribe(clinic, tablets())
    clinic.doctor.delete(f"/prescriptions/{cancelled['id']}")
    expired = prescribe(clinic, tablets(), issued_at="2026-01-01T09:00:00Z", expires_on="2026-01-31")

    for caller in (clinic.sign_in("doctor"), clinic.technician, clinic.receptionist):
        assert error(stop(caller, row)) == (403, "forbidden")
    assert error(stop(clinic.doctor, cancelled)) == (409, "conflict")
    assert stop(clinic.doctor, expired).get_json()["status"] == "expired"
    for body in ({}, {"reason": " "}, {"reason": None}):
        assert invalid_fields(clinic.doctor.post(f"/prescriptions/{row['id']}/stop", body)) == ["reason"]


def test_the_list_filters_and_sorts_by_the_stop(clinic: Clinic) -> None:
    rows = [prescribe(clinic, tablets()) for _ in range(3)]
    for row in (rows[1], rows[0]):
        stop(clinic.doctor, row)

    def ids(query: str) -> list[int]:
        return [row["id"] for row in clinic.doctor.get(f"/prescriptions?{query}").get_json()]

    assert ids(f"stopped_at_gte={days_ago(1)}&sort_by=stopped_at") == [rows[1]["id"], rows[0]["id"]]
    assert ids("sort_by=stopped_at") == [rows[1]["id"], rows[0]["id"], rows[2]["id"]]
    assert ids("stop_reason=bleeding&sort_by=id&sort_order=asc") == [rows[0]["id"], rows[1]["id"]]


def test_the_therapy_of_an_archived_patient_can_be_stopped(clinic: Clinic) -> None:
    row = prescribe(clinic, tablets())
    archived = clinic.admin.delete(f"/patients/{row['patient_id']}")

    assert archived.status_code == 200
    assert stop(clinic.doctor, row).status_code == 200


def test_voiding_a_visit_ends_its_therapies(clinic: Clinic) -> None:
    visit_id = clinic.visit()["id"]
    active, completed = (prescribe(clinic, name, visit_id=visit_id) for name in ("Lisinopril", "Warfarin"))
    clinic.doctor.patch(f"/prescriptions/{completed['id']}", {"status": "completed"})

    clinic.admin.delete(f"/visits/{visit_id}", {"reason": "wrong patient"})

    get = clinic.doctor.get
    assert get(f"/prescriptions/{active['id']}").get_json()["status"] == "cancelled"
    assert get(f"/prescriptions/{completed['id']}").get_json()["stop_reason"] == "wrong patient"
