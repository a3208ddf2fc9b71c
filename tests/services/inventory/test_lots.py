"""Receipts and returns of lots: expiry dates, lot numbers, and the limit of a return."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.support.clinic import Clinic
from tests.support.concurrency import run_concurrently


def day(days: int) -> str:
    """Return the date `days` days from today, `YYYY-MM-DD`."""
    return (datetime.now(UTC).date() + timedelta(days=days)).isoformat()


def move(clinic: Clinic, item: dict[str, Any], movement_type: str, quantity: int, **members: Any) -> Any:
    body = {"type": movement_type, "quantity": quantity, **members}
    return clinic.technician.post(f"/inventory/{item['id']}/movements", body)


def lots(clinic: Clinic, item: dict[str, Any]) -> dict[str | None, int]:
    row = clinic.admin.get(f"/inventory/{item['id']}").get_json()
    return {lot["lot_number"]: lot["quantity"] for lot in row["lots"]}


# --- Returns -------------------------------------------------------------------------------------------


def test_a_return_is_at_most_the_quantity_used_from_its_lot(clinic: Clinic) -> None:
    item = clinic.item(quantity=100, lot_number="A", expires_on=day(30))
    move(clinic, item, "restock", 100, lot_number="B", expires_on=day(60))
    move(clinic, item, "usage", 10, lot_number="A")
    move(clinic, item, "waste", 20, lot_number="B")

    refused = [
        move(clinic, item, "return", 1_000, lot_number="B"),
        move(clinic, item, "return", 1, lot_number="B"),
        move(clinic, item, "return", 11, lot_number="A"),
        move(clinic, item, "return", 11),
    ]
    first = move(clinic, item, "return", 6, lot_number="A")
    second = move(clinic, item, "return", 5, lot_number="A")
    rest = move(clinic, item, "return", 4)

    assert [(answer.status_code, answer.get_json()["error"]) for answer in refused] == [(409, "conflict")] * 4
    assert [answer.get_json()["returnable"] for answer in refused] == [0, 0, 10, 10]
    assert (first.status_code, second.status_code, rest.status_code) == (201, 409, 201)
    assert second.get_json()["returnable"] == 4
    assert lots(clinic, item) == {"A": 100, "B": 80}


@pytest.mark.parametrize(("movement_type", "quantity"), [("usage", 1), ("waste", 1), ("adjustment", -1)])
def test_taking_from_an_empty_lot_is_a_shortage(clinic: Clinic, movement_type: str, quantity: int) -> None:
    item = clinic.item(quantity=5, lot_number="A", expires_on=day(30))
    move(clinic, item, "restock", 5, lot_number="B", expires_on=day(60))
    move(clinic, item, "usage", 5, lot_number="A")

    empty = move(clinic, item, movement_type, quantity, lot_number="A")
    by_expiry = move(clinic, item, movement_type, quantity, expires_on=day(30))
    unknown = move(clinic, item, movement_type, quantity, lot_number="Z")

    assert [answer.status_code for answer in (empty, by_expiry, unknown)] == [409, 409, 422]
    assert empty.get_json()["items"] == [
        {"item_id": item["id"], "name": item["name"], "needed": 1, "available": 0}
    ]
    assert lots(clinic, item) == {"B": 5}


def test_a_return_to_an_unknown_lot_is_422(clinic: Clinic) -> None:
    item = clinic.item(quantity=10, lot_number="A", expires_on=day(30))
    move(clinic, item, "usage", 5)

    for members, field in (
        ({"lot_number": "Z"}, "lot_number"),
        ({"expires_on": day(31)}, "expires_on"),
        ({"lot_number": "A", "expires_on": day(31)}, "lot_number"),
    ):
        answer = move(clinic, item, "return", 1, **members)
        assert (answer.status_code, list(answer.get_json()["errors"])) == (422, [field])
    assert lots(clinic, item) == {"A": 5}


def test_a_return_without_a_lot_goes_to_the_lots_that_were_used_last(clinic: Clinic) -> None:
    item = clinic.item(quantity=3, lot_number="A", expires_on=day(30))
    move(clinic, item, "restock", 9, lot_number="B", expires_on=day(60))
    move(clinic, item, "usage", 5)

    answer = move(clinic, item, "return", 4)

    assert [(row["lot_number"], row["change"]) for row in answer.get_json()["movements"]] == [
        ("B", 2),
        ("A", 2),
    ]
    assert lots(clinic, item) == {"A": 2, "B": 9}


def test_units_of_a_treatment_return_once_by_hand_or_by_its_void(clinic: Clinic) -> None:
    item = clinic.item(quantity=10, lot_number="A", expires_on=day(30))
    treatment = clinic.treatment(inventory_items=[{"item_id": item["id"], "quantity": 6}])

    by_hand = move(clinic, item, "return", 2, lot_number="A")
    voided = clinic.admin.delete(f"/treatments/{treatment['id']}")
    again = move(clinic, item, "return", 1, lot_number="A")

    assert (by_hand.status_code, voided.status_code, again.status_code) == (201, 200, 409)
    assert by_hand.get_json()["movements"][0]["treatment_id"] == treatment["id"]
    assert lots(clinic, item) == {"A": 10}


def test_concurrent_returns_and_a_void_return_each_unit_once(clinic: Clinic) -> None:
    item = clinic.item(quantity=10, lot_number="A", expires_on=day(30))
    treatment = clinic.treatment(inventory_items=[{"item_id": item["id"], "quantity": 6}])
    caller = clinic.technician
    body = {"type": "return", "quantity": 1, "lot_number": "A"}
    calls: list[Any] = [
        lambda: caller.post(f"/inventory/{item['id']}/movements", body).status_code for _ in range(10)
    ]
    admin = clinic.admin

    statuses = run_concurrently([*calls, lambda: admin.delete(f"/treatments/{treatment['id']}").status_code])

    assert statuses[-1] == 200
    assert set(statuses[:-1]) <= {201, 409}
    assert statuses[:-1].count(201) <= 6
    assert lots(clinic, item) == {"A": 10}


# --- Receipts ------------------------------------------------------------------------------------------


def test_an_expired_lot_is_received_only_with_allow_expired(clinic: Clinic) -> None:
    item = clinic.item()
    expired = {"lot_number": "E", "expires_on": day(-1)}

    refused = move(clinic, item, "restock", 5, **expired)
    created = clinic.technician.post("/inventory", {"name": "Gauze", "quantity": 5, **expired})
    adjusted = move(clinic, item, "adjustment", 5, **expired)
    allowed = move(clinic, item, "restock", 5, **expired, allow_expired=True)
    by_number = move(clinic, item, "restock", 5, lot_number="E")
    counted = move(clinic, item, "adjustment", 2, lot_number="E")
    today = move(clinic, item, "restock", 5, lot_number="T", expires_on=day(0))

    for answer in (refused, created, adjusted, by_number):
        assert (answer.status_code, list(answer.get_json()["errors"])) == (422, ["expires_on"])
    assert (allowed.status_code, counted.status_code, today.status_code) == (201, 201, 201)
    assert lots(clinic, item) == {"E": 7, "T": 5}


@pytest.mark.parametrize("expires_on", ["1926-05-01", "2199-01-01", "2126-12-31"])
def test_an_implausible_expiry_is_422_also_with_allow_expired(clinic: Clinic, expires_on: str) -> None:
    item = clinic.item()

    answer = move(clinic, item, "restock", 5, lot_number="X", expires_on=expires_on, allow_expired=True)

    assert (answer.status_code, list(answer.get_json()["errors"])) == (422, ["expires_on"])


def test_a_lot_number_has_one_expiry_date(clinic: Clinic) -> None:
    item = clinic.item(quantity=5, lot_number="A", expires_on=day(30))
    move(clinic, item, "restock", 5, lot_number="B")

    other = move(clinic, item, "restock", 5, lot_number="A", expires_on=day(31))
    same = move(clinic, item, "restock", 5, lot_number=" A ", expires_on=day(30))
    without = move(clinic, item, "restock", 5, lot_number="A")
    completed = move(clinic, item, "restock", 5, lot_number="B", expires_on=day(60))

    assert (other.status_code, list(other.get_json()["errors"])) == (422, ["expires_on"])
    assert (same.status_code, without.status_code, completed.status_code) == (201, 201, 201)
    row = clinic.admin.get(f"/inventory/{item['id']}").get_json()
    assert [tuple(lot.values()) for lot in row["lots"]] == [("A", day(30), 15), ("B", day(60), 10)]


# --- Corrections ---------------------------------------------------------------------------------------


def correct(clinic: Clinic, item: dict[str, Any], lot_number: str, expires_on: str, **members: Any) -> Any:
    body = {"lot_number": lot_number, "expires_on": expires_on, "reason": "Wrong year typed", **members}
    return clinic.technician.post(f"/inventory/{item['id']}/correct-expiry", body)


def test_a_corrected_expiry_date_holds_for_the_stock_and_for_later_returns(clinic: Clinic) -> None:
    item = clinic.item(quantity=10, lot_number="A", expires_on=day(400))
    move(clinic, item, "usage", 4, lot_number="A")
    tag = clinic.admin.get(f"/inventory/{item['id']}").headers["ETag"]

    corrected = correct(clinic, item, " A ", day(-5))
    again = correct(clinic, item, "A", day(-5))

    row = corrected.get_json()
    assert (corrected.status_code, row["quantity"], row["available"]) == (200, 6, 0)
    assert row["lots"] == [{"lot_number": "A", "expires_on": day(-5), "quantity": 6}]
    assert corrected.headers["ETag"] != tag
    assert again.headers["ETag"] == corrected.headers["ETag"]
    assert move(clinic, item, "usage", 1).get_json()["error"] == "insufficient_stock"
    assert move(clinic, item, "return", 4).status_code == 201
    movements = clinic.admin.get(f"/inventory/{item['id']}/movements?type=adjustment").get_json()
    reason = f"Expiry date {day(400)} corrected to {day(-5)}: Wrong year typed"
    assert [(one["change"], one["reason"]) for one in movements] == [(6, reason), (-6, reason)]
    assert {one["created_by_id"] for one in movements} == {clinic.technician.user_id}
    assert clinic.admin.get("/inventory/alerts").get_json()["expired"][0]["quantity"] == 10
    entries = clinic.admin.get("/audit-logs?action=correct_expiry").get_json()
    assert [entry["entity_id"] for entry in entries] == [item["id"]]
    assert clinic.app.test_cli_runner().invoke(args=["verify"]).output == ""


def test_the_date_of_an_empty_lot_can_be_corrected_before_the_next_delivery(clinic: Clinic) -> None:
    item = clinic.item(quantity=3, lot_number="A", expires_on=day(400))
    move(clinic, item, "waste", 3)

    refused = move(clinic, item, "restock", 5, lot_number="A", expires_on=day(40))
    corrected = correct(clinic, item, "A", day(40))

    assert "correct-expiry" in refused.get_json()["errors"]["expires_on"]
    assert (corrected.status_code, corrected.get_json()["lots"]) == (200, [])
    assert move(clinic, item, "restock", 5, lot_number="A", expires_on=day(40)).status_code == 201


def test_a_correction_needs_a_known_lot_a_plausible_date_and_a_reason(clinic: Clinic) -> None:
    item = clinic.item(quantity=3, lot_number="A", expires_on=day(400))

    answers = [
        correct(clinic, item, "B", day(40)),
        correct(clinic, item, "A", "2150-01-01"),
        correct(clinic, item, "A", day(40), reason=" "),
    ]
    doctor = clinic.doctor.post(f"/inventory/{item['id']}/correct-expiry", {})

    assert [list(answer.get_json()["errors"]) for answer in answers] == [
        ["lot_number"],
        ["expires_on"],
        ["reason"],
    ]
    assert doctor.status_code == 403
    assert clinic.admin.get(f"/inventory/{item['id']}").get_json()["lots"][0]["expires_on"] == day(400)
