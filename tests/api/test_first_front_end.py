"""Recorded requests of front ends: the product's first one, react-admin, refine and FullCalendar.

The first front end is a React application with data grids. It sends every field of its forms: empty fields as
an empty text or null, and computed fields with the last known value.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

import pytest

from tests.support.clinic import Caller, Clinic, soon
from tests.support.furnished import furnish

ORIGIN = "http://localhost:5173"
LISTS = {
    "patients": "name",
    "doctors": "specialty",
    "appointments": "date",
    "visits": "date",
    "billings": "invoice_number",
    "inventory": "name",
}
GRID = {"_start": 0, "_end": 10, "_order": "ASC", "q": ""}


class Browser:
    """A signed-in front end on another origin. Every request must succeed."""

    def __init__(self, caller: Caller) -> None:
        self.caller = caller

    def send(self, method: str, path: str, body: Any = None, **query: Any) -> Any:
        headers = {"Origin": ORIGIN, "Accept": "application/json"}
        if query:
            path += "?" + urlencode(query, doseq=True)
        response = self.caller.send(method, path, body, headers=headers)
        assert 200 <= response.status_code < 300, (method, path, response.get_data(as_text=True))
        assert response.headers["Access-Control-Allow-Origin"] == ORIGIN
        return response.get_json()

    def count(self, path: str, **query: Any) -> int:
        headers = {"Origin": ORIGIN}
        response = self.caller.get(f"{path}?{urlencode(query, doseq=True)}", headers=headers)
        assert response.status_code == 200, (path, response.get_data(as_text=True))
        assert "X-Total-Count" in response.headers["Access-Control-Expose-Headers"]
        return int(response.headers["X-Total-Count"])


@pytest.fixture
def furnished(make_clinic: Callable[..., Clinic]) -> Clinic:
    clinic = make_clinic(allowed_origins=ORIGIN)
    furnish(clinic)
    return clinic


def test_the_first_front_end_shows_its_six_lists(furnished: Clinic) -> None:
    browser = Browser(furnished.admin)
    for name, column in LISTS.items():
        rows = browser.send("GET", f"/{name}", **GRID, _sort=column)
        descending = browser.send("GET", f"/{name}", **{**GRID, "_order": "DESC"}, _sort="id")
        assert rows
        assert descending[0]["id"] == max(row["id"] for row in descending), name
        assert browser.count(f"/{name}", **GRID, _sort="id") == len(rows), name
        assert isinstance(browser.send("GET", f"/{name}", **{**GRID, "q": "number1"}), list), name


def test_the_first_front_end_adds_a_visit(furnished: Clinic) -> None:
    browser = Browser(furnished.doctor)
    patient = furnished.patient()["id"]
    form = {
        "patient_id": patient,
        "doctor_id": furnished.doctor.doctor_id,
        "appointment_id": "",
        "date": datetime.now(UTC).date().isoformat(),
        "visit_type": "consultation",
        "summary": "Cough for a week",
        "procedure_details": "",
        "notes": "",
        "amount_paid": "20",
        "balance": None,
        "treatments": [
            {"name": "Dressing", "cost": 50, "description": "", "doctor_id": "", "notes": None},
            {"name": "X-ray", "cost": "80.00", "status": "planned", "id": None, "visit_id": None},
        ],
    }

    visit = browser.send("POST", "/visits", form)

    assert [treatment["name"] for treatment in visit["treatments"]] == ["Dressing", "X-ray"]
    assert (visit["amount_paid"], visit["appointment_id"]) == ("20.00", None)
    for amount in (None, "", 0):
        cloned = browser.send("POST", "/visits", form | {"amount_paid": amount, "treatments": []})
        assert cloned["amount_paid"] == "0.00"


def test_the_first_front_end_edits_and_deletes_a_visit(furnished: Clinic) -> None:
    browser = Browser(furnished.admin)
    row = browser.send("GET", "/visits", **GRID, _sort="id")[0]
    for letter in furnished.admin.get(f"/visits/{row['id']}/letters").get_json():
        furnished.admin.post(f"/letters/{letter['id']}/void", {"reason": "Wrong patient"})

    edited = browser.send("PATCH", f"/visits/{row['id']}", row | {"summary": "Better", "notes": ""})
    billed = browser.send("PUT", f"/visits/{row['id']}", edited | {"balance": "0.00", "amount_paid": ""})
    deleted = browser.send("DELETE", f"/visits/{row['id']}")

    assert edited["summary"] == billed["summary"] == "Better"
    assert (billed["balance"], billed["notes"]) == (row["balance"], None)
    assert deleted["status"] == "void"


def test_the_first_front_end_edits_a_row_of_each_list(furnished: Clinic) -> None:
    browser = Browser(furnished.admin)
    for name, changes in {
        "patients": {"address": "Harbour Lane 1", "email": ""},
        "doctors": {"phone": "555-767-7476", "certifications": ""},
        "appointments": {"reason": "Cough and fever", "notes": ""},
        "billings": {"notes": "Called", "due_date": ""},
        "inventory": {"supplier": "Acme", "category": ""},
    }.items():
        row = browser.send("GET", f"/{name}", **GRID, _sort="id")[0]
        for method in ("PATCH", "PUT"):
            edited = browser.send(method, f"/{name}/{row['id']}", row | changes)
            assert edited["id"] == row["id"]


def test_the_first_front_end_adds_a_row_to_each_list(furnished: Clinic) -> None:
    browser, patient = Browser(furnished.admin), furnished.patient()["id"]
    doctor = furnished.doctor.doctor_id
    for name, form in {
        "patients": {
            "name": "Ada Quill",
            "gender": "",
            "date_of_birth": "",
            "phone": "",
            "email": "",
            "account_balance": None,
        },
        "doctors": {
            "name": "Amina Yusuf",
            "email": "",
            "specialty": "surgery",
            "license_number": "MD-1",
            "patient_count": None,
        },
        "appointments": {
            "patient_id": patient,
            "doctor_id": doctor,
            "date": soon(days=30),
            "duration": "",
            "status": "scheduled",
            "visit_id": None,
        },
        "billings": {
            "patient_id": patient,
            "items": [{"description": "Consultation", "quantity": 1, "unit_price": 50, "amount": 50}],
            "amount": 50,
            "amount_paid": 0,
            "balance": 50,
            "is_paid": False,
            "visit_id": "",
        },
        "inventory": {"name": "Gauze", "quantity": 5, "unit_cost": "", "sku": "", "low_stock": False},
    }.items():
        created = browser.send("POST", f"/{name}", form)
        assert browser.send("GET", f"/{name}/{created['id']}")["id"] == created["id"]


def test_react_admin_lists_reads_and_updates_whole_rows(furnished: Clinic) -> None:
    browser = Browser(furnished.admin)
    query = {"range": "[0, 9]", "sort": '["id", "DESC"]'}

    for name in (*LISTS, "treatments", "prescriptions", "users"):
        rows = browser.send("GET", f"/{name}", filter="{}", **query)
        ids = [row["id"] for row in rows][:2]
        many = browser.send("GET", f"/{name}", filter=json.dumps({"id": ids}))
        repeated = browser.send("GET", f"/{name}", id=ids)
        updated = browser.send("PUT", f"/{name}/{ids[0]}", rows[0])

        assert {row["id"] for row in many} == {row["id"] for row in repeated} == set(ids), name
        assert updated == browser.send("GET", f"/{name}/{ids[0]}"), name
        if "patient_id" in rows[0]:  # getManyReference
            of_patient = json.dumps({"patient_id": rows[0]["patient_id"]})
            assert browser.send("GET", f"/{name}", filter=of_patient, **query), name


def test_react_admin_creates_and_deletes(furnished: Clinic) -> None:
    browser = Browser(furnished.admin)
    created = browser.send(
        "POST", "/inventory", {"name": "Gauze", "packages": [{"name": "box", "quantity": 10}]}
    )

    assert browser.send("DELETE", f"/inventory/{created['id']}")["id"] == created["id"]
    for name in ("appointments", "treatments", "prescriptions", "doctors", "users"):
        newest = browser.send("GET", f"/{name}", range="[0, 0]", sort='["id", "DESC"]')[0]
        query = {"on_conflict": "cancel"} if name == "doctors" else {}
        browser.send("DELETE", f"/{name}/{newest['id']}", **query)


def test_refine_pages_filters_and_patches(furnished: Clinic) -> None:
    browser = Browser(furnished.admin)

    rows = browser.send("GET", "/patients", _start=0, _end=2, _sort="name", _order="desc", name_like="number")
    visits = browser.send("GET", "/visits", _start=0, _end=10, date_gte="2020-01-01", doctor_id_ne=99)
    patched = browser.send("PATCH", f"/patients/{rows[0]['id']}", {"address": "Harbour Lane 2"})

    assert len(rows) == 2
    assert visits
    assert patched["address"] == "Harbour Lane 2"


def test_fullcalendar_reads_moves_and_resizes_events(furnished: Clinic) -> None:
    browser, start = Browser(furnished.receptionist), datetime.now(UTC)
    window = {"start": start.isoformat(), "end": (start + timedelta(days=7)).isoformat()}

    events = browser.send("GET", "/appointments", **window, timeZone="UTC")
    event = events[0]
    moved = datetime.fromisoformat(event["start"]) + timedelta(days=20)
    path = f"/appointments/{event['id']}"
    dropped = browser.send(
        "PATCH", path, {"start": moved.isoformat(), "end": (moved + timedelta(hours=1)).isoformat()}
    )
    resized = browser.send("PATCH", path, dropped | {"end": (moved + timedelta(hours=2)).isoformat()})

    assert all(event["title"] for event in events)
    assert (dropped["duration"], resized["duration"]) == (60, 120)
