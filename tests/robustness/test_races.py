"""Races on several worker processes: exactly one winner, no false refusal, no lost update.

Every round uses new rows. After the last round `flask verify` and `flask audit verify` run.
"""

from __future__ import annotations

import collections
import subprocess
import sys
from typing import Any

import pytest

from services.calendar_feeds.feeds import MAX_FEEDS
from tests.robustness.cluster import Cluster, slot
from tests.robustness.load_level import LoadLevel
from tests.support.keys import secrets_of
from tests.support.servers import ROOT

CLIENTS = 64


def booking(patient: int, doctor: int, number: int) -> dict[str, Any]:
    return {"patient_id": patient, "doctor_id": doctor, "date": slot(number)}


def invoice_number(bill: dict[str, Any]) -> int:
    """Return the number of an invoice within its year."""
    return int(bill["invoice_number"].rsplit("-", 1)[1])


# --- The calendar --------------------------------------------------------------------------------------


def test_one_slot_is_booked_only_once(cluster: Cluster, level: LoadLevel) -> None:
    doctor = cluster.clinic.doctor_row()["id"]
    patients = [cluster.clinic.patient()["id"] for _ in range(CLIENTS)]

    for number in range(level.rounds):
        statuses = cluster.count_statuses(
            [
                cluster.prepare("POST", "/appointments", booking(patient, doctor, number))
                for patient in patients
            ]
        )

        assert statuses == {201: 1, 409: CLIENTS - 1}


def test_different_free_slots_are_all_booked(cluster: Cluster, level: LoadLevel) -> None:
    patients = [cluster.clinic.patient()["id"] for _ in range(CLIENTS)]

    for turn in range(level.rounds):
        doctor = cluster.clinic.doctor_row()["id"]
        first = turn * CLIENTS  # no patient has two appointments at the same time

        statuses = cluster.count_statuses(
            [
                cluster.prepare("POST", "/appointments", booking(patient, doctor, first + number))
                for number, patient in enumerate(patients)
            ]
        )

        assert statuses == {201: CLIENTS}


def test_two_appointments_can_swap_only_through_a_free_slot(cluster: Cluster, level: LoadLevel) -> None:
    one, two = (cluster.clinic.doctor_row()["id"] for _ in range(2))
    ann, bob = (cluster.clinic.patient()["id"] for _ in range(2))

    for number in range(0, level.rounds * 4, 4):
        early = cluster.clinic.appointment(**booking(ann, one, number))
        late = cluster.clinic.appointment(**booking(bob, two, number + 1))
        to_late = {"date": late["date"], "doctor_id": two}
        to_early = {"date": early["date"], "doctor_id": one}

        swapped = cluster.count_statuses(
            [
                cluster.prepare("PATCH", f"/appointments/{early['id']}", to_late),
                cluster.prepare("PATCH", f"/appointments/{late['id']}", to_early),
            ]
            * 8
        )

        assert swapped == {409: 16}  # each occupies the slot of the other
        aside = {"date": slot(number + 2)}
        moves = [(early, aside), (late, to_early), (early, to_late)]
        for row, change in moves:
            assert cluster.send("PATCH", f"/appointments/{row['id']}", change).status_code == 200
        assert cluster.get(f"/appointments/{early['id']}")["doctor_id"] == two
        assert cluster.get(f"/appointments/{late['id']}")["doctor_id"] == one


# --- One row -------------------------------------------------------------------------------------------


def test_one_version_is_changed_only_once(cluster: Cluster, level: LoadLevel) -> None:
    path = f"/patients/{cluster.clinic.patient()['id']}"

    for turn in range(level.rounds):
        tag = cluster.send("GET", path).headers["ETag"]

        responses = cluster.send_concurrently(
            [
                cluster.prepare("PATCH", path, {"address": f"Lane {turn}-{number}"}, **{"If-Match": tag})
                for number in range(level.crowd)
            ]
        )

        statuses = collections.Counter(response.status_code for response in responses)
        assert statuses == {200: 1, 412: level.crowd - 1}
        winner = next(response.json() for response in responses if response.status_code == 200)
        assert cluster.get(path)["address"] == winner["address"]


def test_concurrent_changes_of_different_members_are_all_kept(cluster: Cluster, level: LoadLevel) -> None:
    path = f"/patients/{cluster.clinic.patient()['id']}"

    for turn in range(level.rounds):
        changes = {
            "address": f"Harbour Lane {turn}",
            "insurance_provider": f"Harbour Mutual {turn}",
            "emergency_contact_name": f"Contact {turn}",
            "review_notes": f"Exchange {turn} times",
        }

        statuses = cluster.count_statuses(
            [cluster.prepare("PATCH", path, {name: value}) for name, value in changes.items()] * 2
        )

        row = cluster.get(path)
        assert statuses == {200: 8}
        assert {name: row[name] for name in changes} == changes


def test_one_idempotency_key_has_one_effect(cluster: Cluster, level: LoadLevel) -> None:
    other = cluster.clinic.sign_in("admin")

    for turn in range(level.rounds):
        key = {"Idempotency-Key": f"registration-{turn}"}
        body = {"name": f"Once Only{turn}", "allow_duplicate": True}

        responses = cluster.send_concurrently([cluster.prepare("POST", "/patients", body, **key)] * 32)
        again = cluster.send("POST", "/patients", body, **key)
        changed = cluster.send("POST", "/patients", body | {"gender": "other"}, **key)
        of_another = cluster.send("POST", "/patients", body, by=other, **key)

        assert {response.status_code for response in responses} == {201}
        assert len({response.content for response in responses}) == 1
        assert sum("Idempotency-Replayed" not in response.headers for response in responses) == 1
        assert (again.content, again.headers["Idempotency-Replayed"]) == (responses[0].content, "true")
        assert (changed.status_code, changed.json()["error"]) == (422, "idempotency_mismatch")
        assert of_another.json()["id"] != again.json()["id"]
        matches = cluster.send("GET", f"/patients?name=Once%20Only{turn}")
        assert matches.headers["X-Total-Count"] == "2"


# --- Unique values -------------------------------------------------------------------------------------


def test_a_unique_value_is_stored_only_once(cluster: Cluster, level: LoadLevel) -> None:
    for turn in range(level.rounds):
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
            statuses = cluster.count_statuses([cluster.prepare("POST", path, body)] * (level.crowd // 2))

            assert statuses == {201: 1, 409: level.crowd // 2 - 1}


def test_numbers_are_unique_and_invoice_numbers_have_no_gap(cluster: Cluster, level: LoadLevel) -> None:
    patient = cluster.clinic.patient()["id"]
    items = [{"description": "Consultation", "quantity": 1, "unit_price": "10.00"}]
    refused = {"patient_id": patient, "items": items, "amount_paid": "11.00"}

    for turn in range(level.rounds):
        first = invoice_number(cluster.clinic.bill("1.00"))

        # a refused bill releases its number
        responses = cluster.send_concurrently(
            [
                cluster.prepare("POST", "/billings", {"patient_id": patient, "items": items}),
                cluster.prepare("POST", "/billings", refused),
            ]
            * 16
        )
        registered = cluster.send_concurrently(
            [cluster.prepare("POST", "/patients", {"name": f"Number {turn}"})] * 16
        )

        numbers = [invoice_number(response.json()) for response in responses if response.status_code == 201]
        assert sorted(numbers) == list(range(first + 1, first + 17))
        assert len({response.json()["file_number"] for response in registered}) == 16


@pytest.mark.parametrize("shared_cluster", ["postgresql"], indirect=True)
def test_a_doctor_has_at_most_five_calendar_feeds(cluster: Cluster, level: LoadLevel) -> None:
    for _ in range(level.rounds):
        path = f"/doctors/{cluster.clinic.doctor_row()['id']}/calendar-feeds"

        statuses = cluster.count_statuses(
            [cluster.prepare("POST", path, {}) for _caller in range(CLIENTS // 2)]
        )

        assert statuses == {201: MAX_FEEDS, 409: CLIENTS // 2 - MAX_FEEDS}
        assert len(cluster.clinic.admin.get(path).get_json()) == MAX_FEEDS


def test_flask_verify_runs_from_outside(cluster: Cluster) -> None:
    cluster.clinic.patient()

    environment = {
        "DATABASE_URI": cluster.clinic.settings.database_uri or "",
        **secrets_of(cluster.clinic.settings),
        "AUDIT_HEADS_FILE": str(cluster.clinic.settings.heads_file),
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
