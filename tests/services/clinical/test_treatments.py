"""Treatments: order, carry out, void; used and returned stock; refused changes."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from models import AuditLog
from tests.support.clinic import Clinic
from tests.support.queries import count


def day(days: int) -> str:
    """Return the date `days` days from today, `YYYY-MM-DD`."""
    return (datetime.now(UTC).date() + timedelta(days=days)).isoformat()


def usages(*pairs: tuple[dict[str, Any], int]) -> list[dict[str, int]]:
    return [{"item_id": item["id"], "quantity": quantity} for item, quantity in pairs]


def quantity(clinic: Clinic, item: dict[str, Any]) -> int:
    units: int = clinic.admin.get(f"/inventory/{item['id']}").get_json()["quantity"]
    return units


def restock(clinic: Clinic, item: dict[str, Any], units: int, **lot: Any) -> None:
    clinic.admin.make(f"/inventory/{item['id']}/movements", type="restock", quantity=units, **lot)


# --- Recording -----------------------------------------------------------------------------------------


def test_a_treatment_needs_a_visit_a_name_and_a_cost(clinic: Clinic) -> None:
    visit = clinic.visit()

    answer = clinic.doctor.post("/treatments", {"visit_id": visit["id"], "name": "X-ray", "cost": 80})

    row = answer.get_json()
    assert answer.status_code == 201
    assert answer.headers["Location"] == f"/treatments/{row['id']}"
    assert (row["status"], row["cost"], row["billing_id"]) == ("completed", "80.00", None)
    assert row["doctor"]["id"] == visit["doctor_id"]
    assert (row["patient_id"], row["patient_name"]) == (visit["patient_id"], visit["patient_name"])
    for body, names in (
        ({}, {"visit_id", "name", "cost"}),
        ({"visit_id": visit["id"], "name": "", "cost": ""}, {"name", "cost"}),
    ):
        missing = clinic.doctor.post("/treatments", body)
        assert (missing.status_code, set(missing.get_json()["errors"])) == (422, names)


@pytest.mark.parametrize(
    ("members", "field"),
    [
        ({"cost": "-1.00"}, "cost"),
        ({"cost": "1.005"}, "cost"),
        ({"status": "cancelled"}, "status"),
        ({"status": "done"}, "status"),
        ({"visit_id": 987654}, "visit_id"),
        ({"doctor_id": 987654}, "doctor_id"),
        ({"inventory_items": [{"item_id": 987654, "quantity": 1}]}, "inventory_items.0.item_id"),
        ({"inventory_items": [{"item_id": 1, "quantity": 0}]}, "inventory_items.0.quantity"),
        ({"inventory_items": [{"item_id": 1, "quantity": 1}] * 2}, "inventory_items"),
        ({"tooth": 1}, "tooth"),
    ],
)
def test_an_invalid_treatment_reports_the_field(clinic: Clinic, members: dict[str, Any], field: str) -> None:
    visit = clinic.visit()

    answer = clinic.admin.post(
        "/treatments", {"visit_id": visit["id"], "name": "X-ray", "cost": "80.00"} | members
    )

    assert answer.status_code == 422
    assert list(answer.get_json()["errors"]) == [field]


def test_a_retired_item_is_refused(clinic: Clinic) -> None:
    item = clinic.item(quantity=5)
    visit = clinic.visit()
    clinic.admin.delete(f"/inventory/{item['id']}")

    answer = clinic.doctor.post(
        "/treatments",
        {"visit_id": visit["id"], "name": "X", "cost": 1, "inventory_items": usages((item, 1))},
    )

    assert answer.status_code == 422


# --- Stock ---------------------------------------------------------------------------------------------


def test_completing_uses_the_lots_that_expire_first(clinic: Clinic) -> None:
    item = clinic.item(quantity=5, lot_number="late", expires_on=day(60))
    restock(clinic, item, 2, lot_number="soon", expires_on=day(5))
    restock(clinic, item, 9, lot_number="expired", expires_on=day(-1), allow_expired=True)

    row = clinic.treatment(inventory_items=usages((item, 4)))

    assert row["inventory_items"] == usages((item, 4))
    assert [(lot["lot_number"], lot["expires_on"], lot["quantity"]) for lot in row["inventory_used"]] == [
        ("late", day(60), 2),
        ("soon", day(5), 2),
    ]
    assert {lot["name"] for lot in row["inventory_used"]} == {item["name"]}
    assert quantity(clinic, item) == 12


def test_a_planned_treatment_uses_its_stock_once_when_it_is_completed(clinic: Clinic) -> None:
    item = clinic.item(quantity=10)
    planned = clinic.treatment(status="planned", inventory_items=usages((item, 3)))
    path = f"/treatments/{planned['id']}"
    assert (planned["inventory_used"], quantity(clinic, item)) == ([], 10)

    clinic.technician.patch(path, {"status": "in_progress"})
    in_progress = quantity(clinic, item)
    clinic.technician.patch(path, {"status": "completed"})
    again = clinic.technician.patch(path, {"status": "completed", "notes": "well tolerated"})

    assert in_progress == 10
    assert again.status_code == 200
    assert quantity(clinic, item) == 7


def test_a_shortage_reports_every_missing_item_and_uses_nothing(clinic: Clinic) -> None:
    enough, short, none = clinic.item(quantity=10), clinic.item(quantity=2), clinic.item()
    items = usages((enough, 1), (short, 3), (none, 1))
    visit = clinic.visit()

    answer = clinic.doctor.post(
        "/treatments", {"visit_id": visit["id"], "name": "X", "cost": 1, "inventory_items": items}
    )

    assert (answer.status_code, answer.get_json()["error"]) == (409, "insufficient_stock")
    assert answer.get_json()["items"] == [
        {"item_id": short["id"], "name": short["name"], "needed": 3, "available": 2},
        {"item_id": none["id"], "name": none["name"], "needed": 1, "available": 0},
    ]
    assert quantity(clinic, enough) == 10
    assert clinic.doctor.get("/treatments").get_json() == []


def test_voiding_returns_the_stock_to_the_same_lots(clinic: Clinic) -> None:
    item = clinic.item(quantity=2, lot_number="A", expires_on=day(5))
    restock(clinic, item, 5, lot_number="B", expires_on=day(60))
    row = clinic.treatment(inventory_items=usages((item, 4)))
    before = clinic.admin.get(f"/inventory/{item['id']}").get_json()["lots"]

    answer = clinic.doctor.delete(f"/treatments/{row['id']}", {"reason": "wrong patient"})
    again = clinic.doctor.delete(f"/treatments/{row['id']}?reason=twice")

    voided = answer.get_json()
    assert (answer.status_code, again.status_code) == (200, 200)
    assert (voided["status"], voided["void_reason"]) == ("cancelled", "wrong patient")
    assert again.get_json()["void_reason"] == "wrong patient"
    assert voided["inventory_used"] == []
    after = clinic.admin.get(f"/inventory/{item['id']}").get_json()["lots"]
    assert [lot["quantity"] for lot in before] == [3]
    assert [(lot["lot_number"], lot["quantity"]) for lot in after] == [("A", 2), ("B", 5)]
    returns = clinic.admin.get(f"/inventory/{item['id']}/movements?type=return").get_json()
    assert {movement["treatment_id"] for movement in returns} == {row["id"]}


def test_changed_items_of_a_completed_treatment_are_used_and_returned(clinic: Clinic) -> None:
    gauze, gloves = clinic.item(quantity=10), clinic.item(quantity=10)
    row = clinic.treatment()
    path = f"/treatments/{row['id']}"

    clinic.technician.patch(path, {"inventory_items": usages((gauze, 4), (gloves, 2))})
    after_use = quantity(clinic, gauze), quantity(clinic, gloves)
    changed = clinic.technician.patch(path, {"inventory_items": usages((gauze, 1))})

    assert after_use == (6, 8)
    assert changed.get_json()["inventory_items"] == usages((gauze, 1))
    assert (quantity(clinic, gauze), quantity(clinic, gloves)) == (9, 10)


def test_a_partial_return_goes_to_the_lot_that_was_used_last(clinic: Clinic) -> None:
    item = clinic.item(quantity=2, lot_number="A", expires_on=day(5))
    restock(clinic, item, 5, lot_number="B", expires_on=day(60))
    row = clinic.treatment(inventory_items=usages((item, 4)))

    clinic.technician.patch(f"/treatments/{row['id']}", {"inventory_items": usages((item, 3))})

    lots = clinic.admin.get(f"/inventory/{item['id']}").get_json()["lots"]
    assert [(lot["lot_number"], lot["quantity"]) for lot in lots] == [("B", 4)]


def test_a_change_of_the_items_increases_the_version(clinic: Clinic) -> None:
    item = clinic.item(quantity=10)
    row = clinic.treatment(status="planned")
    path = f"/treatments/{row['id']}"

    first = clinic.doctor.patch(path, {"inventory_items": usages((item, 1))}, headers={"If-Match": '"1"'})
    stale = clinic.doctor.patch(path, {"notes": "x"}, headers={"If-Match": '"1"'})

    assert first.status_code == 200
    assert first.headers["ETag"] == '"2"'
    assert stale.status_code == 412


def test_treatments_with_the_same_items_in_opposite_order_do_not_deadlock(clinic: Clinic) -> None:
    first, second = clinic.item(quantity=100), clinic.item(quantity=100)
    visits = [clinic.visit() for _ in range(2)]
    doctor = clinic.doctor
    answers: list[int] = []

    def treat(number: int) -> None:
        pairs = [(first, 1), (second, 1)]
        for _ in range(8):
            body = {"visit_id": visits[number]["id"], "name": "X", "cost": 1}
            items = usages(*(pairs if number else reversed(pairs)))
            answers.append(doctor.post("/treatments", body | {"inventory_items": items}).status_code)

    threads = [threading.Thread(target=treat, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert answers == [201] * 16
    assert quantity(clinic, first) == quantity(clinic, second) == 84


def test_concurrent_completions_use_the_stock_once(clinic: Clinic) -> None:
    item = clinic.item(quantity=10)
    row = clinic.treatment(status="planned", inventory_items=usages((item, 3)))
    caller = clinic.technician

    def complete() -> None:
        caller.patch(f"/treatments/{row['id']}", {"status": "completed"})

    threads = [threading.Thread(target=complete) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert quantity(clinic, item) == 7


# --- Changes -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("statuses", "allowed"),
    [
        (("planned", "in_progress", "completed", "cancelled"), True),
        (("planned", "completed"), True),
        (("planned", "cancelled"), True),
        (("in_progress", "cancelled"), True),
        (("in_progress", "planned"), False),
        (("completed", "planned"), False),
        (("completed", "in_progress"), False),
        (("planned", "cancelled", "planned"), False),
        (("completed", "cancelled", "completed"), False),
    ],
)
def test_the_status_changes_only_by_an_allowed_transition(
    clinic: Clinic, statuses: tuple[str, ...], allowed: bool
) -> None:
    row = clinic.treatment(status=statuses[0])

    for status in statuses[1:]:
        answer = clinic.doctor.patch(f"/treatments/{row['id']}", {"status": status})

    assert answer.status_code == (200 if allowed else 409)
    if not allowed:
        assert answer.get_json()["error"] == "invalid_transition"
        assert statuses[-1] not in answer.get_json()["allowed"]


def test_a_cancelled_treatment_is_read_only(clinic: Clinic) -> None:
    row = clinic.treatment(status="planned")
    clinic.doctor.delete(f"/treatments/{row['id']}")

    answer = clinic.doctor.patch(f"/treatments/{row['id']}", {"cost": 5})

    assert (answer.status_code, answer.get_json()["error"]) == (409, "read_only")


def test_a_billed_treatment_cannot_change_until_the_bill_is_void(clinic: Clinic) -> None:
    row = clinic.treatment()
    path = f"/treatments/{row['id']}"
    bill = clinic.admin.make("/billings", visit_id=row["visit_id"])

    changed = clinic.doctor.patch(path, {"cost": "1.00"})
    noted = clinic.technician.patch(path, {"notes": "x"})
    voided = clinic.doctor.delete(path)
    same = clinic.doctor.put(path, row)

    assert clinic.doctor.get(path).get_json()["billing_id"] == bill["id"]
    for answer in (changed, noted, voided):
        assert (answer.status_code, answer.get_json()["error"]) == (409, "read_only")
    assert same.status_code == 200
    clinic.admin.post(f"/billings/{bill['id']}/void", {"reason": "wrong price"})
    assert clinic.doctor.patch(path, {"cost": "1.00"}).status_code == 200


def test_a_planned_treatment_can_be_carried_out_after_the_visit_is_signed(clinic: Clinic) -> None:
    item = clinic.item(quantity=5)
    visit = clinic.visit()
    planned = clinic.treatment(visit_id=visit["id"], status="planned", inventory_items=usages((item, 2)))
    completed = clinic.treatment(visit_id=visit["id"])
    clinic.doctor.post(f"/visits/{visit['id']}/sign")

    def refused(answer: Any) -> bool:
        return (answer.status_code, answer.get_json()["error"]) == (409, "read_only")

    body = {"visit_id": visit["id"], "name": "X", "cost": 1}
    assert refused(clinic.doctor.post("/treatments", body))
    assert refused(clinic.doctor.patch(f"/treatments/{planned['id']}", {"cost": 1}))
    assert refused(clinic.technician.patch(f"/treatments/{completed['id']}", {"notes": "x"}))
    assert refused(clinic.doctor.delete(f"/treatments/{completed['id']}"))
    carried_out = clinic.technician.patch(
        f"/treatments/{planned['id']}", {"status": "completed", "notes": "given"}
    )
    assert carried_out.status_code == 200
    assert quantity(clinic, item) == 3


def test_a_treatment_cannot_move_to_another_visit(clinic: Clinic) -> None:
    row, other = clinic.treatment(), clinic.visit()

    answer = clinic.doctor.patch(f"/treatments/{row['id']}", {"visit_id": other["id"]})

    assert (answer.status_code, answer.get_json()["error"]) == (409, "read_only")


# --- Permissions ---------------------------------------------------------------------------------------


def test_a_doctor_writes_own_treatments_only(clinic: Clinic) -> None:
    row = clinic.treatment()
    other = clinic.sign_in("doctor")
    path = f"/treatments/{row['id']}"

    assert other.get(path).status_code == 200
    assert other.patch(path, {"notes": "x"}).status_code == 403
    assert other.delete(path).status_code == 403
    assert other.post("/treatments", {"visit_id": row["visit_id"], "name": "X", "cost": 1}).status_code == 403
    assert clinic.doctor.patch(path, {"doctor_id": other.doctor_id}).status_code == 403
    own = other.post(
        "/treatments", {"visit_id": row["visit_id"], "doctor_id": other.doctor_id, "name": "X", "cost": 1}
    )
    assert own.status_code == 201


def test_a_technician_changes_status_notes_and_items_only(clinic: Clinic) -> None:
    row = clinic.treatment(status="planned")
    path = f"/treatments/{row['id']}"

    refused = clinic.technician.patch(path, {"cost": "1.00", "notes": "x"})
    whole = clinic.technician.put(path, clinic.technician.get(path).get_json() | {"notes": "seen"})

    assert (refused.status_code, list(refused.get_json()["errors"])) == (403, ["cost"])
    assert (whole.status_code, whole.get_json()["notes"]) == (200, "seen")
    assert "billing_id" not in whole.get_json()
    assert clinic.technician.patch(path, {"status": "cancelled"}).status_code == 403
    assert clinic.technician.delete(path).status_code == 403
    assert clinic.technician.post("/treatments", {"visit_id": 1, "name": "X", "cost": 1}).status_code == 403


def test_a_receptionist_reads_treatments_without_notes(clinic: Clinic) -> None:
    row = clinic.treatment(notes="anxious")
    path = f"/treatments/{row['id']}"

    assert "notes" not in clinic.receptionist.get(path).get_json()
    assert "notes" not in clinic.receptionist.get("/treatments").get_json()[0]
    assert clinic.receptionist.get("/treatments?notes_like=a").status_code == 403
    assert clinic.receptionist.patch(path, {"name": "x"}).status_code == 403


# --- Lists and audit -----------------------------------------------------------------------------------


def test_the_list_filters_by_status_visit_doctor_and_name(clinic: Clinic) -> None:
    patient = clinic.patient(name="Zoë Marín")
    visit = clinic.visit(patient_id=patient["id"])
    planned = clinic.treatment(visit_id=visit["id"], name="X-ray", status="planned", procedure_code="71045")
    clinic.treatment(name="Suture")

    def ids(query: str) -> list[int]:
        return [row["id"] for row in clinic.doctor.get(f"/treatments?{query}").get_json()]

    assert ids("status=planned") == ids(f"visit_id={visit['id']}") == [planned["id"]]
    assert ids("q=ray") == ids("q=71045") == ids("q=marin") == [planned["id"]]
    assert len(ids(f"doctor_id={clinic.doctor.doctor_id}")) == 2
    assert clinic.doctor.get("/treatments?inventory_used=1").status_code == 422


def test_the_list_needs_the_same_number_of_queries_for_any_length(clinic: Clinic) -> None:
    item = clinic.item(quantity=50)
    clinic.treatment(inventory_items=usages((item, 1)))
    few = count(clinic, clinic.admin, "/treatments?per_page=100")

    for _ in range(4):
        doctor = clinic.sign_in("doctor")
        visit = clinic.visit(doctor_id=doctor.doctor_id)
        clinic.treatment(visit_id=visit["id"], inventory_items=usages((item, 1)))

    assert count(clinic, clinic.admin, "/treatments?per_page=100") == few


def test_voiding_writes_one_audit_entry_for_the_treatment_and_one_for_the_item(clinic: Clinic) -> None:
    item = clinic.item(quantity=5)
    row = clinic.treatment(inventory_items=usages((item, 1)))

    clinic.doctor.delete(f"/treatments/{row['id']}")

    with clinic.inside() as session:
        entries = session.query(AuditLog).filter_by(user_id=clinic.doctor.user_id).all()
        rows = {(row.action, row.entity, row.entity_id, tuple(row.patient_ids)) for row in entries}
    assert rows == {
        ("void", "treatment", row["id"], (row["patient_id"],)),
        ("update", "inventory_item", item["id"], ()),
    }
