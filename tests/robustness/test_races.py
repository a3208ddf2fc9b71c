"""Many at once, on four worker processes: exactly one winner, no false refusal, no change lost.

Every race begins anew in each round; after the last one the invariants and the audit's chains are verified.
"""

from __future__ import annotations

import collections
import subprocess
import sys
from typing import Any

import pytest

from tests.robustness.fleet import Fleet, slot
from tests.robustness.scale import Scale
from tests.support.servers import ROOT

CLIENTS = 64


def booking(patient: int, doctor: int, number: int) -> dict[str, Any]:
    return {"patient_id": patient, "doctor_id": doctor, "date": slot(number)}


def number_of(bill: dict[str, Any]) -> int:
    """The running number of an invoice within its year."""
    return int(bill["invoice_number"].rsplit("-", 1)[1])


# --- The calendar --------------------------------------------------------------------------------------


def test_one_slot_is_booked_once(fleet: Fleet, scale: Scale) -> None:
    doctor = fleet.clinic.doctor_row()["id"]
    patients = [fleet.clinic.patient()["id"] for _ in range(CLIENTS)]

    for number in range(scale.rounds):
        statuses = fleet.count(
            [fleet.later("POST", "/appointments", booking(patient, doctor, number)) for patient in patients]
        )

        assert statuses == {201: 1, 409: CLIENTS - 1}


def test_different_free_times_are_all_booked(fleet: Fleet, scale: Scale) -> None:
    patients = [fleet.clinic.patient()["id"] for _ in range(CLIENTS)]

    for turn in range(scale.rounds):
        doctor = fleet.clinic.doctor_row()["id"]
        first = turn * CLIENTS  # no patient has two at once

        statuses = fleet.count(
            [
                fleet.later("POST", "/appointments", booking(patient, doctor, first + number))
                for number, patient in enumerate(patients)
            ]
        )

        assert statuses == {201: CLIENTS}


def test_two_that_swap_places_wait_for_a_free_one(fleet: Fleet, scale: Scale) -> None:
    one, two = (fleet.clinic.doctor_row()["id"] for _ in range(2))
    ann, bob = (fleet.clinic.patient()["id"] for _ in range(2))

    for number in range(0, scale.rounds * 4, 4):
        early = fleet.clinic.appointment(**booking(ann, one, number))
        late = fleet.clinic.appointment(**booking(bob, two, number + 1))
        to_late = {"date": late["date"], "doctor_id": two}
        to_early = {"date": early["date"], "doctor_id": one}

        swapped = fleet.count(
            [
                fleet.later("PATCH", f"/appointments/{early['id']}", to_late),
                fleet.later("PATCH", f"/appointments/{late['id']}", to_early),
            ]
            * 8
        )

        assert swapped == {409: 16}  # each stands in the other's way, whoever asks first
        aside = {"date": slot(number + 2)}
        moves = [(early, aside), (late, to_early), (early, to_late)]
        for row, change in moves:
            assert fleet.send("PATCH", f"/appointments/{row['id']}", change).status_code == 200
        assert fleet.get(f"/appointments/{early['id']}")["doctor_id"] == two
        assert fleet.get(f"/appointments/{late['id']}")["doctor_id"] == one


# --- One row -------------------------------------------------------------------------------------------


def test_one_version_is_changed_once(fleet: Fleet, scale: Scale) -> None:
    path = f"/patients/{fleet.clinic.patient()['id']}"

    for turn in range(scale.rounds):
        tag = fleet.send("GET", path).headers["ETag"]

        answers = fleet.at_once(
            [
                fleet.later("PATCH", path, {"address": f"Lane {turn}-{number}"}, **{"If-Match": tag})
                for number in range(scale.crowd)
            ]
        )

        statuses = collections.Counter(answer.status_code for answer in answers)
        assert statuses == {200: 1, 412: scale.crowd - 1}
        winner = next(answer.json() for answer in answers if answer.status_code == 200)
        assert fleet.get(path)["address"] == winner["address"]


def test_changes_of_different_fields_are_both_kept(fleet: Fleet, scale: Scale) -> None:
    path = f"/patients/{fleet.clinic.patient()['id']}"

    for turn in range(scale.rounds):
        wanted = {
            "address": f"Harbour Lane {turn}",
            "insurance_provider": f"Harbour Mutual {turn}",
            "emergency_contact_name": f"Contact {turn}",
            "review_notes": f"Asked {turn} times",
        }

        statuses = fleet.count(
            [fleet.later("PATCH", path, {name: value}) for name, value in wanted.items()] * 2
        )

        row = fleet.get(path)
        assert statuses == {200: 8}
        assert {name: row[name] for name in wanted} == wanted


def test_one_idempotency_key_has_one_effect(fleet: Fleet, scale: Scale) -> None:
    other = fleet.clinic.sign_in("admin")

    for turn in range(scale.rounds):
        key = {"Idempotency-Key": f"registration-{turn}"}
        body = {"name": f"Once Only{turn}", "allow_duplicate": True}

        answers = fleet.at_once([fleet.later("POST", "/patients", body, **key)] * 32)
        again = fleet.send("POST", "/patients", body, **key)
        changed = fleet.send("POST", "/patients", body | {"gender": "other"}, **key)
        of_another = fleet.send("POST", "/patients", body, by=other, **key)

        assert {answer.status_code for answer in answers} == {201}
        assert len({answer.content for answer in answers}) == 1
        assert sum("Idempotency-Replayed" not in answer.headers for answer in answers) == 1
        assert (again.content, again.headers["Idempotency-Replayed"]) == (answers[0].content, "true")
        assert (changed.status_code, changed.json()["error"]) == (422, "idempotency_mismatch")
        assert of_another.json()["id"] != again.json()["id"]
        found = fleet.send("GET", f"/patients?name=Once%20Only{turn}")
        assert found.headers["X-Total-Count"] == "2"


# --- Unique values -------------------------------------------------------------------------------------


def test_a_unique_value_is_taken_once(fleet: Fleet, scale: Scale) -> None:
    for turn in range(scale.rounds):
        address, license_number = f"race{turn}@clinic.example", f"LIC-RACE-{turn}"
        password = "a quiet harbour at dusk"
        user = {"name": "Ada Quill", "email": address, "password": password, "role": "technician"}
        doctor = {"name": "Ada Quill", "specialty": "surgery", "license_number": license_number}
        races = [
            ("/users", user),
            ("/doctors", doctor),
            ("/patients", {"name": "Ada Quill", "file_number": f"RACE-{turn}", "allow_duplicate": True}),
            ("/inventory", {"name": "Gauze", "sku": f"RACE-{turn}"}),
        ]

        for path, body in races:
            statuses = fleet.count([fleet.later("POST", path, body)] * (scale.crowd // 2))

            assert statuses == {201: 1, 409: scale.crowd // 2 - 1}


def test_invoice_and_file_numbers_have_no_twin_and_invoices_no_gap(fleet: Fleet, scale: Scale) -> None:
    patient = fleet.clinic.patient()["id"]
    items = [{"description": "Consultation", "quantity": 1, "unit_price": "10.00"}]
    refused = {"patient_id": patient, "items": items, "amount_paid": "11.00"}

    for turn in range(scale.rounds):
        first = number_of(fleet.clinic.bill("1.00"))

        # a refused bill gives its number back, whoever waits for it
        answers = fleet.at_once(
            [
                fleet.later("POST", "/billings", {"patient_id": patient, "items": items}),
                fleet.later("POST", "/billings", refused),
            ]
            * 16
        )
        registered = fleet.at_once([fleet.later("POST", "/patients", {"name": f"Number {turn}"})] * 16)

        made = [number_of(answer.json()) for answer in answers if answer.status_code == 201]
        assert sorted(made) == list(range(first + 1, first + 17))
        assert len({answer.json()["file_number"] for answer in registered}) == 16


@pytest.mark.parametrize("workers", ["postgresql"], indirect=True)
def test_the_commands_agree_from_outside(fleet: Fleet) -> None:
    fleet.clinic.patient()

    environment = {
        "DATABASE_URI": fleet.clinic.settings.database_uri or "",
        "JWT_SECRET_KEY": fleet.clinic.settings.jwt_secret_key,
        "AUDIT_KEY": fleet.clinic.settings.audit_key,
        "AUDIT_HEADS_FILE": str(fleet.clinic.settings.heads_file),
    }
    result = subprocess.run(
        [sys.executable, "-m", "flask", "--app", "app", "verify"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert (result.returncode, result.stdout) == (0, "")
