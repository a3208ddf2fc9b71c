"""Prescriptions: ordering, changing, cancelling, handing out; who may, and what is refused."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
import time_machine
from werkzeug.test import TestResponse

from enums import PrescriptionStatus, Role
from errors import ClinicError
from security.permissions import Actor
from services.clinical import prescriptions
from tests.support import queries
from tests.support.clinic import Caller, Clinic

COMMAND = Actor(None, "import", Role.ADMIN)


def today() -> date:
    return datetime.now(UTC).date()


def order(clinic: Clinic, *medications: Any, **members: Any) -> dict[str, Any]:
    """A prescription of the doctor's, at a visit of its own unless told otherwise."""
    if "visit_id" not in members:
        members["visit_id"] = clinic.visit()["id"]
    return clinic.doctor.make("/prescriptions", medications=list(medications), **members)


def tablets(name: str = "Lisinopril", quantity: int = 10, **members: Any) -> dict[str, Any]:
    return {"name": name, "quantity": quantity} | members


def hand_out(caller: Caller, row: dict[str, Any], *items: tuple[int | str, int]) -> TestResponse:
    """(medication, quantity) of the prescription."""
    body = {"items": [{"medication": medication, "quantity": quantity} for medication, quantity in items]}
    return caller.post(f"/prescriptions/{row['id']}/dispense", body)


def error(answer: TestResponse) -> tuple[int, str]:
    return answer.status_code, answer.get_json()["error"]


def wrong(answer: TestResponse) -> list[str]:
    """The fields that a 422 names."""
    assert answer.status_code == 422, answer.get_data(as_text=True)
    return list(answer.get_json()["errors"])


# --- Ordering ---


def test_a_prescription_names_its_patient_and_doctor_by_the_visit(clinic: Clinic) -> None:
    visit = clinic.visit()

    answer = clinic.doctor.post("/prescriptions", {"visit_id": visit["id"], "medications": ["Amoxicillin"]})

    row = answer.get_json()
    assert answer.headers["Location"] == f"/prescriptions/{row['id']}"
    assert (row["patient_id"], row["patient_name"]) == (visit["patient_id"], visit["patient_name"])
    assert row["patient"] == {"id": visit["patient_id"], "name": visit["patient_name"]}
    assert row["doctor"]["id"] == row["doctor_id"] == clinic.doctor.doctor_id
    assert row["doctor_name"] == row["doctor"]["name"]
    assert (row["status"], row["expires_on"], row["override_reason"]) == ("active", None, None)
    assert datetime.fromisoformat(row["issued_at"]).date() == today()


def test_a_medication_is_kept_as_written(clinic: Clinic) -> None:
    written = {
        "name": "Amoxicillin 500 mg",
        "dosage": "500 mg",
        "frequency": "q8h, if temp >38.5",
        "route": "oral",
        "duration_days": 7,
        "quantity": 21,
        "refills": 2,
        "instructions": "1 <b>with</b> food & water",
    }

    (shown,) = order(clinic, written)["medications"]

    assert {name: shown[name] for name in written if name != "instructions"} == {
        name: value for name, value in written.items() if name != "instructions"
    }
    assert (shown["dispensed"], shown["remaining"]) == (0, 63)


def test_a_plain_string_reads_as_a_medication(clinic: Clinic) -> None:
    row = clinic.doctor.make("/prescriptions", visit_id=clinic.visit()["id"], medications="Ibuprofen 400")

    assert [one["name"] for one in row["medications"]] == ["Ibuprofen 400"]
    assert row["medications"][0]["remaining"] is None


def test_details_alone_are_a_prescription(clinic: Clinic) -> None:
    row = order(clinic, details="Salt water gargle <3 times a day")

    assert row["details"] == "Salt water gargle <3 times a day"
    assert row["medications"] == []


NONSENSE: list[tuple[dict[str, Any], str]] = [
    ({}, "medications"),
    ({"details": "  ", "medications": []}, "medications"),
    ({"medications": [{"dosage": "5 mg"}]}, "medications.0.name"),
    ({"medications": [{"name": "A", "quantity": 0}]}, "medications.0.quantity"),
    ({"medications": [{"name": "A", "refills": 100}]}, "medications.0.refills"),
    ({"medications": [{"name": "A", "strength": "5"}]}, "medications.0.strength"),
    ({"medications": ["A"] * 101}, "medications"),
    ({"details": "x", "issued_at": "2199-01-01T00:00:00Z"}, "issued_at"),
    ({"details": "x", "issued_at": "2025-05-02T10:00:00Z", "expires_on": "2025-05-01"}, "expires_on"),
    ({"details": "x", "status": "completed"}, "status"),
    ({"details": "x", "visit_id": 987654}, "visit_id"),
    ({"details": "x", "patient_id": 987654}, "patient_id"),
    ({"details": "x", "doctor_id": 987654}, "doctor_id"),
]


def test_what_is_wrong_is_named(clinic: Clinic) -> None:
    visit_id = clinic.visit()["id"]

    answers = [clinic.doctor.post("/prescriptions", {"visit_id": visit_id} | body) for body, _ in NONSENSE]

    assert [wrong(answer) for answer in answers] == [[field] for _, field in NONSENSE]


def test_who_names_the_visit_s_patient_and_doctor_agrees_with_it(clinic: Clinic) -> None:
    visit = clinic.visit()

    row = order(
        clinic, "Aspirin", visit_id=visit["id"], patient_id=visit["patient_id"], doctor_id=visit["doctor_id"]
    )

    assert row["patient_id"] == visit["patient_id"]


def test_a_doctor_prescribes_at_own_visits_only(clinic: Clinic) -> None:
    visit_id = clinic.visit(doctor_id=clinic.sign_in("doctor").doctor_id)["id"]

    answer = clinic.doctor.post("/prescriptions", {"visit_id": visit_id, "details": "rest"})

    assert error(answer) == (403, "forbidden")


def test_a_signed_visit_takes_no_more_prescriptions(clinic: Clinic) -> None:
    visit_id = clinic.visit()["id"]
    row = order(clinic, "Lisinopril", visit_id=visit_id)
    clinic.doctor.post(f"/visits/{visit_id}/sign")

    answer = clinic.doctor.post("/prescriptions", {"visit_id": visit_id, "details": "rest"})
    changed = clinic.doctor.patch(f"/prescriptions/{row['id']}", {"details": "with food"})

    assert error(answer) == (409, "read_only")
    assert changed.status_code == 200


def test_a_void_visit_takes_no_prescription(clinic: Clinic) -> None:
    visit_id = clinic.visit()["id"]
    clinic.admin.delete(f"/visits/{visit_id}", {"reason": "wrong patient"})

    answer = clinic.admin.post("/prescriptions", {"visit_id": visit_id, "details": "rest"})

    assert error(answer) == (409, "read_only")


def test_receptionists_see_no_prescriptions(clinic: Clinic) -> None:
    row = order(clinic, "Lisinopril")

    assert error(clinic.receptionist.get("/prescriptions")) == (403, "forbidden")
    assert error(clinic.receptionist.get(f"/prescriptions/{row['id']}")) == (403, "forbidden")
    assert error(hand_out(clinic.receptionist, row, ("Lisinopril", 1))) == (403, "forbidden")


# --- Finding ---


def ids(answer: TestResponse) -> list[int]:
    assert answer.status_code == 200, answer.get_data(as_text=True)
    return [row["id"] for row in answer.get_json()]


def test_an_active_prescription_expires_by_itself_everywhere(clinic: Clinic) -> None:
    until = today() + timedelta(days=3)
    short = order(clinic, "Lisinopril", expires_on=until.isoformat())
    long = order(clinic, "Lisinopril")
    get = clinic.technician.get

    with time_machine.travel(datetime(until.year, until.month, until.day, 23, 59, tzinfo=UTC)):
        caller = clinic.sign_in("technician")
        on_the_last_day = caller.get(f"/prescriptions/{short['id']}").get_json()["status"]
    with time_machine.travel(datetime(until.year, until.month, until.day, 23, 59, tzinfo=UTC) + timedelta(1)):
        get = clinic.sign_in("technician").get
        assert get(f"/prescriptions/{short['id']}").get_json()["status"] == "expired"
        assert ids(get("/prescriptions?status=expired")) == [short["id"]]
        assert ids(get("/prescriptions?status=active")) == [long["id"]]
        assert ids(get("/prescriptions?status_ne=active")) == [short["id"]]
        assert ids(get("/prescriptions?status=active&status=expired")) == [short["id"], long["id"]]
        assert ids(get("/prescriptions?sort_by=status&sort_order=desc")) == [short["id"], long["id"]]
        assert ids(get("/prescriptions?sort_by=status")) == [long["id"], short["id"]]

    assert on_the_last_day == "active"


def test_prescriptions_are_found_by_medicine_text_and_patient(clinic: Clinic) -> None:
    zoe = clinic.visit(patient_id=clinic.patient(name="Zoë Brontë")["id"])["id"]
    first = order(clinic, "Lisinopril", "Metformin 500 mg", visit_id=zoe)["id"]
    second = order(clinic, details="Physiotherapy, 100% of it")["id"]
    get = clinic.doctor.get

    assert ids(get("/prescriptions?q=metFORMIN")) == [first]
    assert ids(get("/prescriptions?q=bronte zoe")) == [first]
    assert ids(get("/prescriptions?q=100%25")) == [second]
    assert ids(get("/prescriptions?patient_name=zoe")) == [first]
    assert ids(get("/prescriptions?medication=lisin")) == [first]
    assert ids(get("/prescriptions?doctor_name=nobody")) == []
    assert ids(get(f"/prescriptions?visit_id={zoe}")) == [first]
    assert ids(get(f"/prescriptions?doctor_id={clinic.doctor.doctor_id}")) == [first, second]


def test_prescriptions_are_bounded_by_their_day_of_issue(clinic: Clinic) -> None:
    order(clinic, details="old", issued_at="2024-02-29T12:00:00Z")
    recent = order(clinic, details="new", issued_at="2024-03-01T00:00:00Z")["id"]

    assert ids(clinic.admin.get("/prescriptions?start_date=2024-03-01&end_date=2024-03-01")) == [recent]


def test_a_list_costs_the_same_whatever_its_length(clinic: Clinic) -> None:
    for _ in range(2):
        hand_out(clinic.technician, order(clinic, tablets()), ("Lisinopril", 1))
    few = queries.count(clinic, clinic.technician, "/prescriptions")
    for _ in range(4):
        hand_out(clinic.technician, order(clinic, tablets(), "Metformin"), ("Lisinopril", 1))

    many = queries.count(clinic, clinic.technician, "/prescriptions")
    shown = ids(clinic.technician.get("/prescriptions"))

    assert len(shown) == 6
    assert many == few


# --- Changing ---


def test_changed_medications_raise_the_version(clinic: Clinic) -> None:
    row = order(clinic, "Lisinopril 5 mg")
    path = f"/prescriptions/{row['id']}"

    answer = clinic.doctor.patch(path, {"medications": [tablets("Lisinopril 10 mg")]})
    stale = clinic.doctor.patch(path, {"details": "x"}, headers={"If-Match": '"1"'})

    assert [one["name"] for one in answer.get_json()["medications"]] == ["Lisinopril 10 mg"]
    assert answer.headers["ETag"] == '"2"'
    assert error(stale) == (412, "stale_version")


def test_a_whole_row_sent_back_changes_nothing(clinic: Clinic) -> None:
    row = order(clinic, tablets(), details="with food", expires_on=today().isoformat())
    edited = [{**row["medications"][0], "dosage": "10 mg"}]

    same = clinic.doctor.put(f"/prescriptions/{row['id']}", row)
    changed = clinic.doctor.put(f"/prescriptions/{row['id']}", row | {"medications": edited})

    assert same.get_json() == row
    assert same.headers["ETag"] == '"1"'
    assert changed.get_json()["medications"][0]["dosage"] == "10 mg"


def test_a_change_cannot_make_nonsense(clinic: Clinic) -> None:
    path = f"/prescriptions/{order(clinic, 'Lisinopril')['id']}"
    changes: list[tuple[dict[str, Any], str]] = [
        ({"medications": []}, "medications"),
        ({"issued_at": None}, "issued_at"),
        ({"expires_on": "2001-01-01"}, "expires_on"),
        ({"cancellation_reason": "why"}, "cancellation_reason"),
        ({"colour": "red"}, "colour"),
    ]

    answers = [clinic.doctor.patch(path, change) for change, _ in changes]

    assert [wrong(answer) for answer in answers] == [[field] for _, field in changes]


def test_a_reason_that_passed_an_alert_stays(clinic: Clinic) -> None:
    row = order(clinic, "Lisinopril", "Zestril", override_reason="two strengths")
    path = f"/prescriptions/{row['id']}"

    cleared = clinic.doctor.patch(path, {"override_reason": None})

    assert wrong(cleared) == ["override_reason"]


def test_nothing_changes_once_something_was_handed_out(clinic: Clinic) -> None:
    row = order(clinic, tablets())
    hand_out(clinic.technician, row, ("Lisinopril", 1))

    answer = clinic.doctor.patch(f"/prescriptions/{row['id']}", {"details": "x"})
    cancelled = clinic.doctor.patch(
        f"/prescriptions/{row['id']}", {"status": "cancelled", "cancellation_reason": "cough"}
    )

    assert error(answer) == (409, "read_only")
    assert (cancelled.get_json()["status"], cancelled.get_json()["cancellation_reason"]) == (
        "cancelled",
        "cough",
    )


def test_another_doctor_s_prescription_is_read_only(clinic: Clinic) -> None:
    row = order(clinic, tablets())
    other = clinic.sign_in("doctor")
    path = f"/prescriptions/{row['id']}"

    assert other.get(path).status_code == 200
    assert error(other.patch(path, {"details": "x"})) == (403, "forbidden")
    assert error(other.delete(path)) == (403, "forbidden")
    assert error(hand_out(other, row, ("Lisinopril", 1))) == (403, "forbidden")


def test_a_step_that_is_not_in_the_graph_is_refused(clinic: Clinic) -> None:
    steps: list[tuple[str | None, str, list[str]]] = [
        ("completed", "cancelled", []),
        ("completed", "active", []),
        ("cancelled", "active", []),
        ("cancelled", "completed", []),
        (None, "expired", ["completed", "cancelled"]),
    ]
    for first, then, allowed in steps:
        path = f"/prescriptions/{order(clinic, 'Lisinopril')['id']}"
        if first is not None:
            assert clinic.doctor.patch(path, {"status": first}).get_json()["status"] == first

        answer = clinic.doctor.patch(path, {"status": then})

        assert error(answer) == (409, "invalid_transition")
        assert answer.get_json()["allowed"] == allowed


def test_an_expired_prescription_is_only_cancelled(clinic: Clinic) -> None:
    row = order(clinic, "Lisinopril", issued_at="2020-01-01T09:00:00Z", expires_on="2020-06-30")
    path = f"/prescriptions/{row['id']}"

    longer = clinic.doctor.patch(path, {"expires_on": "2199-01-01"})
    cancelled = clinic.doctor.patch(path, {"status": "cancelled"})

    assert error(longer) == (409, "read_only")
    assert cancelled.get_json()["status"] == "cancelled"


def test_deleting_cancels_with_a_reason_and_stays_visible(clinic: Clinic) -> None:
    first, second = (f"/prescriptions/{order(clinic, name)['id']}" for name in ("Lisinopril", "Metformin"))

    by_query = clinic.doctor.delete(f"{first}?cancellation_reason=written twice")
    by_body = clinic.doctor.delete(second, {"cancellation_reason": "written twice"})

    for path, answer in ((first, by_query), (second, by_body)):
        assert (answer.status_code, answer.get_json()["status"]) == (200, "cancelled")
        assert clinic.doctor.get(path).get_json()["cancellation_reason"] == "written twice"
        assert clinic.doctor.delete(path).get_json()["cancellation_reason"] == "written twice"


def test_what_is_completed_cannot_be_deleted(clinic: Clinic) -> None:
    row = order(clinic, tablets(quantity=1))
    hand_out(clinic.technician, row, ("Lisinopril", 1))

    assert error(clinic.admin.delete(f"/prescriptions/{row['id']}")) == (409, "invalid_transition")


# --- Handing out ---


def test_medicine_is_handed_out_up_to_its_refills(clinic: Clinic) -> None:
    row = order(clinic, tablets(refills=2), tablets("Metformin", 5))

    answer = hand_out(clinic.technician, row, (row["medications"][0]["id"], 10), ("metformin", 5))
    first = answer.get_json()
    second = hand_out(clinic.technician, row, ("LISINOPRIL", 15), ("Lisinopril", 5)).get_json()

    assert [one["remaining"] for one in first["medications"]] == [20, 0]
    assert (first["status"], answer.headers["ETag"]) == ("active", '"2"')
    assert [one["dispensed"] for one in second["medications"]] == [30, 5]
    assert second["status"] == "completed"
    assert [(one["medication_name"], one["quantity"]) for one in second["dispensings"]] == [
        ("Lisinopril", 10),
        ("Metformin", 5),
        ("Lisinopril", 20),
    ]
    assert second["dispensings"][0]["dispensed_by"]["id"] == clinic.technician.user_id


def test_more_than_was_prescribed_is_not_handed_out(clinic: Clinic) -> None:
    row = order(clinic, tablets(), tablets("Metformin", 5))
    hand_out(clinic.technician, row, ("Lisinopril", 4))

    answer = hand_out(clinic.technician, row, ("Metformin", 1), ("Lisinopril", 4), ("Lisinopril", 3))

    assert error(answer) == (409, "excessive_dispensing")
    assert answer.get_json()["message"] == "6 of Lisinopril are left, 7 were asked for."
    assert answer.get_json()["remaining"][0]["remaining"] == 6
    shown = clinic.technician.get(f"/prescriptions/{row['id']}").get_json()
    assert [one["dispensed"] for one in shown["medications"]] == [4, 0]


def test_a_completed_prescription_gives_nothing_more(clinic: Clinic) -> None:
    row = order(clinic, tablets(quantity=1))
    hand_out(clinic.technician, row, ("Lisinopril", 1))

    assert error(hand_out(clinic.technician, row, ("Lisinopril", 1))) == (409, "excessive_dispensing")


def test_what_has_no_quantity_cannot_be_handed_out(clinic: Clinic) -> None:
    row = order(clinic, "Lisinopril")

    answer = hand_out(clinic.technician, row, ("Lisinopril", 1))

    assert error(answer) == (409, "excessive_dispensing")
    assert "no prescribed quantity" in answer.get_json()["message"]


def test_only_an_active_prescription_is_handed_out(clinic: Clinic) -> None:
    cancelled = order(clinic, tablets())
    clinic.doctor.delete(f"/prescriptions/{cancelled['id']}")
    expired = order(clinic, tablets(), issued_at="2020-01-01T09:00:00Z", expires_on="2020-06-30")

    for row in (cancelled, expired):
        assert error(hand_out(clinic.technician, row, ("Lisinopril", 1))) == (409, "conflict")


def test_a_medication_is_named_without_doubt(clinic: Clinic) -> None:
    row = order(clinic, tablets(), tablets(), override_reason="morning and evening")
    evening = row["medications"][1]["id"]

    assert wrong(hand_out(clinic.technician, row, ("Lisinopril", 1))) == ["items.0.medication"]
    assert wrong(hand_out(clinic.technician, row, (evening, 1), ("Aspirin", 1))) == ["items.1.medication"]
    assert wrong(hand_out(clinic.technician, row, (True, 1))) == ["items.0.medication"]
    assert wrong(hand_out(clinic.technician, row)) == ["items"]
    answer = hand_out(clinic.technician, row, (str(evening), 1))
    assert [one["dispensed"] for one in answer.get_json()["medications"]] == [0, 1]


def test_two_at_once_never_hand_out_more_than_prescribed(clinic: Clinic) -> None:
    row = order(clinic, tablets())
    caller = clinic.technician

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: hand_out(caller, row, ("Lisinopril", 4)), range(4)))

    assert sorted(answer.status_code for answer in answers) == [200, 200, 409, 409]
    shown = caller.get(f"/prescriptions/{row['id']}").get_json()
    assert shown["medications"][0]["dispensed"] == 8
    assert sum(one["quantity"] for one in shown["dispensings"]) == 8


def test_handing_out_leaves_one_entry_in_the_audit(clinic: Clinic) -> None:
    row = order(clinic, tablets())
    hand_out(clinic.technician, row, ("Lisinopril", 1))

    (entry,) = clinic.admin.get("/audit-logs?entity=prescription&action=dispense").get_json()

    assert (entry["entity_id"], entry["user_id"]) == (row["id"], clinic.technician.user_id)
    assert entry["patient_ids"] == [row["patient_id"]]
    assert set(entry["fields"]) == {"dispensings", "prescribed_medications"}


# --- With a visit, and from elsewhere ---


def test_a_visit_prescribes_along(clinic: Clinic) -> None:
    visit = clinic.visit(prescriptions=[{"medications": ["Lisinopril"]}, {"details": "rest"}])

    assert [row["details"] for row in visit["prescriptions"]] == [None, "rest"]
    assert visit["prescriptions"][1]["warnings"][0]["code"] == "unchecked"


def test_an_import_brings_history_in_as_it_was(clinic: Clinic) -> None:
    visit_id = clinic.visit()["id"]
    clinic.doctor.post(f"/visits/{visit_id}/sign")
    issued = datetime(2019, 5, 1, 9, tzinfo=UTC)

    with clinic.inside():
        for status in ("completed", "cancelled", "expired", "active"):
            prescriptions.prescribe(
                COMMAND,
                visit_id=visit_id,
                medications=[{"name": "Warfarin"}],
                status=PrescriptionStatus(status),
                issued_at=issued,
                importing=True,
            )

    shown = clinic.doctor.get("/prescriptions").get_json()
    assert [row["status"] for row in shown] == ["completed", "cancelled", "expired", "active"]
    assert {datetime.fromisoformat(row["issued_at"]) for row in shown} == {issued}


def test_an_imported_prescription_in_force_is_judged(clinic: Clinic) -> None:
    visit_id = order(clinic, "Warfarin")["visit_id"]

    with clinic.inside(), pytest.raises(ClinicError) as refusal:
        prescriptions.prescribe(
            COMMAND, visit_id=visit_id, medications=[{"name": "Coumadin"}], importing=True
        )

    assert refusal.value.code == "safety_alert"
