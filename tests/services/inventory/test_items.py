"""Inventory: items, movements, lots, alerts and permissions."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from models import AuditLog, StockMovement
from services import clock
from tests.support.clinic import Caller, Clinic
from tests.support.queries import count


def day(days: int) -> str:
    """Return the date `days` days from today, `YYYY-MM-DD`."""
    return (datetime.now(UTC).date() + timedelta(days=days)).isoformat()


def move(caller: Caller, item: dict[str, Any], movement_type: str, quantity: int, **members: Any) -> Any:
    body = {"type": movement_type, "quantity": quantity, **members}
    return caller.post(f"/inventory/{item['id']}/movements", body)


def lots(clinic: Clinic, item: dict[str, Any]) -> list[tuple[str | None, int]]:
    row = clinic.admin.get(f"/inventory/{item['id']}").get_json()
    return [(lot["lot_number"], lot["quantity"]) for lot in row["lots"]]


def movements(clinic: Clinic, item: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the movements of an item, the oldest first."""
    path = f"/inventory/{item['id']}/movements?sort_order=asc"
    rows: list[dict[str, Any]] = clinic.admin.get(path).get_json()
    return rows


# --- Items ---------------------------------------------------------------------------------------------


def test_an_item_needs_only_a_name(clinic: Clinic) -> None:
    answer = clinic.technician.post("/inventory", {"name": "Gauze"})

    row = answer.get_json()
    assert answer.status_code == 201
    assert answer.headers["Location"] == f"/inventory/{row['id']}"
    assert answer.headers["ETag"] == '"1"'
    assert (row["quantity"], row["min_quantity"], row["unit_cost"]) == (0, 5, "0.00")
    assert row["low_stock"] is True
    assert row["lots"] == []
    assert row["last_restocked"] is None


def test_a_first_quantity_is_a_restock_of_its_lot(clinic: Clinic) -> None:
    item = clinic.item(quantity=12, unit_cost="2.50", lot_number="A1", expires_on=day(90))

    assert item["quantity"] == item["available"] == 12
    assert item["stock_value"] == "30.00"
    assert item["lots"] == [{"lot_number": "A1", "expires_on": day(90), "quantity": 12}]
    assert item["last_restocked"] is not None
    assert [(row["type"], row["quantity"]) for row in movements(clinic, item)] == [("restock", 12)]


@pytest.mark.parametrize(
    ("members", "field"),
    [
        ({"name": " "}, "name"),
        ({"quantity": -1}, "quantity"),
        ({"quantity": 1.5}, "quantity"),
        ({"quantity": 1_000_001}, "quantity"),
        ({"min_quantity": -1}, "min_quantity"),
        ({"unit_cost": "-1.00"}, "unit_cost"),
        ({"unit_cost": "1.00005"}, "unit_cost"),
        ({"lot_number": "A1"}, "quantity"),
        ({"colour": "red"}, "colour"),
        ({"is_low": True}, "is_low"),
    ],
)
def test_an_invalid_item_reports_the_field(clinic: Clinic, members: dict[str, Any], field: str) -> None:
    answer = clinic.admin.post("/inventory", {"name": "Gauze", **members})

    assert answer.status_code == 422
    assert list(answer.get_json()["errors"]) == [field]


def test_a_sku_is_unique_among_active_and_retired_items(clinic: Clinic) -> None:
    item = clinic.item(quantity=1, sku="GZ-1")
    clinic.admin.delete(f"/inventory/{item['id']}")

    answer = clinic.admin.post("/inventory", {"name": "Other gauze", "sku": "GZ-1"})

    assert answer.status_code == 409
    assert answer.get_json()["error"] == "already_exists"
    assert "sku" in answer.get_json()["errors"]


def test_the_list_filters_by_low_stock_expiry_category_and_text(clinic: Clinic) -> None:
    low = clinic.item(quantity=5, name="Zinc plaster", sku="ZP-77", category="dressings")
    soon = clinic.item(quantity=50, name="Ibuprofène", lot_number="I", expires_on=day(10))
    clinic.item(quantity=50, name="Old vaccine", lot_number="V", expires_on=day(-1), allow_expired=True)

    def ids(query: str) -> list[int]:
        return [row["id"] for row in clinic.doctor.get(f"/inventory?{query}").get_json()]

    assert ids("low_stock=true") == [low["id"]]
    assert len(ids("low_stock=false")) == 2
    assert ids("expiring_within_days=10") == [soon["id"]]
    assert ids("expiring_within_days=9") == []
    assert ids("category=dressings") == ids("q=plaster") == ids("q=zp-7") == [low["id"]]
    assert ids("q=ibuprofene") == [soon["id"]]
    assert clinic.doctor.get("/inventory?expiring_within_days=-1").status_code == 422


def test_the_list_needs_the_same_number_of_queries_for_any_length(clinic: Clinic) -> None:
    clinic.item(quantity=1)
    few = count(clinic, clinic.admin, "/inventory?per_page=100")

    for _ in range(5):
        clinic.item(quantity=3, lot_number="L", expires_on=day(30))

    assert count(clinic, clinic.admin, "/inventory?per_page=100") == few


# --- Changes of an item --------------------------------------------------------------------------------


def test_a_counted_quantity_becomes_an_adjustment_of_the_difference(clinic: Clinic) -> None:
    item = clinic.item(quantity=10)

    answer = clinic.technician.patch(f"/inventory/{item['id']}", {"quantity": 7})

    assert answer.get_json()["quantity"] == 7
    last = movements(clinic, item)[-1]
    assert (last["type"], last["quantity"], last["change"]) == ("adjustment", -3, -3)
    assert last["created_by_id"] == clinic.technician.user_id


def test_a_signed_adjustment_is_added_to_the_quantity(clinic: Clinic) -> None:
    item = clinic.item(quantity=10)

    up = clinic.technician.patch(f"/inventory/{item['id']}", {"quantity_adjustment": 5, "name": "Renamed"})
    down = clinic.technician.patch(f"/inventory/{item['id']}", {"quantity_adjustment": -12})
    below = clinic.technician.patch(f"/inventory/{item['id']}", {"quantity_adjustment": -4})
    both = clinic.technician.patch(f"/inventory/{item['id']}", {"quantity_adjustment": 1, "quantity": 9})

    assert (up.get_json()["quantity"], up.get_json()["name"]) == (15, "Renamed")
    assert down.get_json()["quantity"] == 3
    assert (below.status_code, below.get_json()["error"]) == (409, "insufficient_stock")
    assert both.status_code == 422


def test_sending_back_a_stale_row_moves_no_stock(clinic: Clinic) -> None:
    item = clinic.item(quantity=10)
    move(clinic.technician, item, "usage", 4)

    without_version = clinic.technician.put(f"/inventory/{item['id']}", item | {"name": "Renamed"})
    stale = clinic.technician.put(
        f"/inventory/{item['id']}", item | {"name": "Renamed"}, headers={"If-Match": '"1"'}
    )

    assert (without_version.status_code, without_version.get_json()["error"]) == (428, "if_match_required")
    assert (stale.status_code, stale.get_json()["error"]) == (412, "stale_version")
    assert clinic.admin.get(f"/inventory/{item['id']}").get_json()["quantity"] == 6


def test_quantity_and_name_can_change_together_with_the_current_version(clinic: Clinic) -> None:
    item = clinic.item(quantity=10)
    etag = clinic.technician.get(f"/inventory/{item['id']}").headers["ETag"]

    answer = clinic.technician.put(
        f"/inventory/{item['id']}", item | {"name": "Renamed", "quantity": 8}, headers={"If-Match": etag}
    )

    assert answer.status_code == 200
    assert (answer.get_json()["name"], answer.get_json()["quantity"]) == ("Renamed", 8)


def test_every_movement_increases_the_version_of_the_item(clinic: Clinic) -> None:
    item = clinic.item(quantity=10)
    before = clinic.technician.get(f"/inventory/{item['id']}").headers["ETag"]

    move(clinic.technician, item, "usage", 1)

    assert clinic.technician.get(f"/inventory/{item['id']}").headers["ETag"] != before


def test_an_item_with_movements_is_deactivated_and_one_without_is_deleted(clinic: Clinic) -> None:
    used, unused = clinic.item(quantity=1), clinic.item()

    retired = clinic.admin.delete(f"/inventory/{used['id']}")
    deleted = clinic.admin.delete(f"/inventory/{unused['id']}")

    assert (retired.status_code, retired.get_json()["is_active"]) == (200, False)
    assert (deleted.status_code, deleted.get_json()["id"]) == (200, unused["id"])
    assert clinic.admin.get(f"/inventory/{used['id']}").status_code == 200
    assert clinic.admin.get(f"/inventory/{unused['id']}").status_code == 404
    assert clinic.admin.patch(f"/inventory/{used['id']}", {"is_active": True}).get_json()["is_active"]


def test_a_retired_item_cannot_be_restocked(clinic: Clinic) -> None:
    item = clinic.item(quantity=1)
    clinic.admin.delete(f"/inventory/{item['id']}")

    answer = move(clinic.technician, item, "restock", 5)

    assert (answer.status_code, answer.get_json()["error"]) == (409, "read_only")


def test_only_admins_and_technicians_write_and_only_admins_retire(clinic: Clinic) -> None:
    item = clinic.item(quantity=1)
    path = f"/inventory/{item['id']}"

    for caller in (clinic.doctor, clinic.receptionist):
        assert caller.get(path).status_code == 200
        assert caller.patch(path, {"name": "x"}).status_code == 403
        assert move(caller, item, "usage", 1).status_code == 403
    assert clinic.technician.delete(path).status_code == 403
    assert clinic.technician.patch(path, {"is_active": False}).status_code == 403
    assert clinic.technician.post("/inventory", {"name": "x", "is_active": False}).status_code == 403
    assert clinic.technician.patch(path, {"is_active": True, "name": "y"}).status_code == 200


# --- Movements -----------------------------------------------------------------------------------------


def test_usage_takes_the_earliest_expiry_first_and_never_expired_units(clinic: Clinic) -> None:
    item = clinic.item(quantity=5, lot_number="old", expires_on=day(-1), allow_expired=True)
    move(clinic.technician, item, "restock", 5)
    move(clinic.technician, item, "restock", 5, lot_number="late", expires_on=day(60))
    move(clinic.technician, item, "restock", 5, lot_number="today", expires_on=day(0))

    answer = move(clinic.technician, item, "usage", 7)

    posting = answer.get_json()
    assert answer.status_code == 201
    assert (posting["quantity"], posting["change"], posting["item_quantity"]) == (7, -7, 13)
    assert [(row["lot_number"], row["quantity"]) for row in posting["movements"]] == [
        ("today", 5),
        ("late", 2),
    ]
    assert lots(clinic, item) == [("old", 5), ("late", 3), (None, 5)]
    created = clinic.technician.get(answer.headers["Location"]).get_json()
    assert created == posting["movements"][::-1]  # lists of movements begin with the newest


def test_expired_units_are_in_the_quantity_but_not_available(clinic: Clinic) -> None:
    item = clinic.item(quantity=5, lot_number="old", expires_on=day(-1), allow_expired=True)

    answer = move(clinic.technician, item, "usage", 1)
    with_lot = move(clinic.technician, item, "usage", 1, lot_number="old")

    row = clinic.admin.get(f"/inventory/{item['id']}").get_json()
    assert (row["quantity"], row["available"]) == (5, 0)
    assert (answer.status_code, answer.get_json()["error"]) == (409, "insufficient_stock")
    assert answer.get_json()["items"] == [
        {"item_id": item["id"], "name": item["name"], "needed": 1, "available": 0}
    ]
    assert with_lot.status_code == 409


def test_waste_and_negative_adjustments_take_expired_units_first(clinic: Clinic) -> None:
    item = clinic.item(quantity=5, lot_number="fresh", expires_on=day(30))
    move(clinic.technician, item, "restock", 5, lot_number="old", expires_on=day(-1), allow_expired=True)

    move(clinic.technician, item, "waste", 3, reason="expired")
    move(clinic.technician, item, "adjustment", -3)

    assert lots(clinic, item) == [("fresh", 4)]


def test_a_movement_may_contain_its_lot(clinic: Clinic) -> None:
    item = clinic.item(quantity=5, lot_number="A", expires_on=day(10))
    move(clinic.technician, item, "restock", 5, lot_number="B", expires_on=day(20))

    used = move(clinic.technician, item, "usage", 2, lot_number="B")
    returned = move(clinic.technician, item, "return", 1, lot_number="B")
    unknown = move(clinic.technician, item, "usage", 1, lot_number="C")
    too_much = move(clinic.technician, item, "usage", 5, lot_number="B")

    assert used.status_code == returned.status_code == 201
    assert lots(clinic, item) == [("A", 5), ("B", 4)]
    assert (unknown.status_code, list(unknown.get_json()["errors"])) == (422, ["lot_number"])
    assert (too_much.status_code, too_much.get_json()["items"][0]["available"]) == (409, 4)


@pytest.mark.parametrize(
    ("movement_type", "quantity", "members", "field"),
    [
        ("restock", 0, {}, "quantity"),
        ("restock", -1, {}, "quantity"),
        ("usage", -1, {}, "quantity"),
        ("adjustment", 0, {}, "quantity"),
        ("usage", 1, {"unit_cost": "1.00"}, "unit_cost"),
        ("gift", 1, {}, "type"),
    ],
)
def test_an_invalid_movement_reports_the_field(
    clinic: Clinic, movement_type: str, quantity: int, members: dict[str, Any], field: str
) -> None:
    item = clinic.item(quantity=10)

    answer = move(clinic.technician, item, movement_type, quantity, **members)

    assert (answer.status_code, list(answer.get_json()["errors"])) == (422, [field])


def test_the_unit_cost_of_the_last_restock_values_the_stock(clinic: Clinic) -> None:
    item = clinic.item(quantity=2, unit_cost="1.00")

    move(clinic.technician, item, "restock", 2, unit_cost="1.50")

    row = clinic.admin.get(f"/inventory/{item['id']}").get_json()
    assert (row["unit_cost"], row["stock_value"]) == ("1.50", "6.00")


def test_the_quantity_is_the_sum_of_the_movements(clinic: Clinic) -> None:
    item = clinic.item(quantity=10)
    for movement_type, quantity in (
        ("restock", 7),
        ("usage", 3),
        ("waste", 1),
        ("return", 2),
        ("adjustment", -4),
    ):
        move(clinic.technician, item, movement_type, quantity)

    row = clinic.admin.get(f"/inventory/{item['id']}").get_json()

    assert row["quantity"] == 11 == sum(movement["change"] for movement in movements(clinic, item))
    assert [movement["quantity"] for movement in movements(clinic, item)] == [10, 7, 3, 1, 2, -4]
    usages = clinic.admin.get(f"/inventory/{item['id']}/movements?type=usage").get_json()
    assert [movement["change"] for movement in usages] == [-3]


def test_a_movement_writes_one_audit_entry(clinic: Clinic) -> None:
    item = clinic.item(quantity=10)

    move(clinic.technician, item, "usage", 1)

    with clinic.inside() as session:
        entries = session.query(AuditLog).filter_by(user_id=clinic.technician.user_id).all()
        rows = [(entry.entity, entry.entity_id, entry.fields) for entry in entries]
    assert rows == [("inventory_item", item["id"], ["inventory_lots", "quantity", "stock_movements"])]


def test_sixty_four_concurrent_usages_of_ten_units_use_ten(clinic: Clinic) -> None:
    item = clinic.item(quantity=10)
    caller = clinic.technician
    answers: list[int] = []

    def use_unit() -> None:
        answers.append(move(caller, item, "usage", 1).status_code)

    threads = [threading.Thread(target=use_unit) for _ in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(answers) == [201] * 10 + [409] * 54
    row = clinic.admin.get(f"/inventory/{item['id']}").get_json()
    assert (row["quantity"], row["lots"]) == (0, [])
    assert sum(movement["change"] for movement in movements(clinic, item)) == 0


# --- Alerts --------------------------------------------------------------------------------------------


def test_alerts_report_low_out_of_stock_expiring_and_expired(clinic: Clinic) -> None:
    low = clinic.item(quantity=3, min_quantity=5)
    out = clinic.item(min_quantity=5)
    soon = clinic.item(quantity=50, lot_number="S", expires_on=day(30))
    old = clinic.item(quantity=50, lot_number="O", expires_on=day(-2), allow_expired=True)
    fine = clinic.item(quantity=50, lot_number="F", expires_on=day(31))

    alerts = clinic.receptionist.get("/inventory/alerts").get_json()

    assert [alert["item_id"] for alert in alerts["low"]] == [low["id"]]
    # expired units are not available
    assert [alert["item_id"] for alert in alerts["out"]] == [out["id"], old["id"]]
    assert [(alert["item_id"], alert["days"]) for alert in alerts["expiring"]] == [(soon["id"], 30)]
    assert [(alert["item_id"], alert["days"], alert["quantity"]) for alert in alerts["expired"]] == [
        (old["id"], -2, 50)
    ]
    assert fine["id"] not in [alert["item_id"] for alert in alerts["reorder"]]


def test_the_reorder_quantity_covers_the_minimum_in_whole_packs(clinic: Clinic) -> None:
    clinic.item(quantity=5, min_quantity=5, name="A")
    clinic.item(quantity=3, min_quantity=20, reorder_quantity=10, name="B")

    alerts = clinic.technician.get("/inventory/alerts").get_json()

    assert {alert["name"]: alert["reorder"] for alert in alerts["reorder"]} == {"A": 1, "B": 20}


def test_the_reorder_quantity_covers_planned_treatments(clinic: Clinic) -> None:
    item = clinic.item(quantity=10, min_quantity=5)
    usages = [{"item_id": item["id"], "quantity": 8}]
    clinic.treatment(status="planned", inventory_items=usages)

    alerts = clinic.technician.get("/inventory/alerts").get_json()

    assert [(alert["open_need"], alert["reorder"]) for alert in alerts["reorder"]] == [(8, 4)]
    assert alerts["low"] == []


@pytest.mark.parametrize(
    ("units", "days_in_stock", "expected"),
    [(20, 10, (2.0, 61)), (31, 30, (1.03, 32))],  # with floats, 31 / 30 x 30 is more than 31
)
def test_daily_use_counts_only_the_days_in_stock(
    clinic: Clinic,
    monkeypatch: pytest.MonkeyPatch,
    units: int,
    days_in_stock: int,
    expected: tuple[float, int],
) -> None:
    now = datetime.now(UTC)
    with monkeypatch.context() as past:
        past.setattr(clock, "now", lambda: now - timedelta(days=10 + days_in_stock))
        item = clinic.item(quantity=units, min_quantity=0)
    with monkeypatch.context() as past:
        # Used up after some days in stock. The days after that, without stock, do not count.
        past.setattr(clock, "now", lambda: now - timedelta(days=11))
        move(clinic.technician, item, "usage", units)

    alerts = clinic.technician.get("/inventory/alerts").get_json()["out"]

    assert [(alert["daily_use"], alert["reorder"]) for alert in alerts] == [expected]


def test_returned_units_do_not_count_as_use(clinic: Clinic) -> None:
    item = clinic.item(quantity=20, min_quantity=0)
    move(clinic.technician, item, "usage", 14)
    move(clinic.technician, item, "return", 14)

    with clinic.inside() as session:
        assert session.query(StockMovement).count() == 3
    alerts = clinic.technician.get("/inventory/alerts").get_json()

    assert alerts["reorder"] == alerts["low"] == alerts["out"] == []
