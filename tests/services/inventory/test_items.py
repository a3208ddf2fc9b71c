"""The stock room: items, movements, lots, alerts, and who may touch them."""

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
    """A date so many days from now, `YYYY-MM-DD`."""
    return (datetime.now(UTC).date() + timedelta(days=days)).isoformat()


def move(caller: Caller, item: dict[str, Any], kind: str, quantity: int, **members: Any) -> Any:
    return caller.post(f"/inventory/{item['id']}/movements", {"type": kind, "quantity": quantity, **members})


def lots(clinic: Clinic, item: dict[str, Any]) -> list[tuple[str | None, int]]:
    row = clinic.admin.get(f"/inventory/{item['id']}").get_json()
    return [(lot["lot_number"], lot["quantity"]) for lot in row["lots"]]


def history(clinic: Clinic, item: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = clinic.admin.get(f"/inventory/{item['id']}/movements").get_json()
    return found


# --- Items ---------------------------------------------------------------------------------------------


def test_an_item_needs_a_name_only(clinic: Clinic) -> None:
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
    assert [(one["type"], one["quantity"]) for one in history(clinic, item)] == [("restock", 12)]


@pytest.mark.parametrize(
    ("members", "field"),
    [
        ({"name": " "}, "name"),
        ({"quantity": -1}, "quantity"),
        ({"quantity": 1.5}, "quantity"),
        ({"quantity": 1_000_001}, "quantity"),
        ({"min_quantity": -1}, "min_quantity"),
        ({"unit_cost": "-1.00"}, "unit_cost"),
        ({"unit_cost": "1.005"}, "unit_cost"),
        ({"lot_number": "A1"}, "quantity"),
        ({"colour": "red"}, "colour"),
        ({"low_stock": True}, "low_stock"),
    ],
)
def test_a_wrong_item_is_refused_by_the_name_of_the_field(
    clinic: Clinic, members: dict[str, Any], field: str
) -> None:
    answer = clinic.admin.post("/inventory", {"name": "Gauze", **members})

    assert answer.status_code == 422
    assert list(answer.get_json()["errors"]) == [field]


def test_a_sku_is_unique_even_against_a_retired_item(clinic: Clinic) -> None:
    item = clinic.item(quantity=1, sku="GZ-1")
    clinic.admin.delete(f"/inventory/{item['id']}")

    answer = clinic.admin.post("/inventory", {"name": "Other gauze", "sku": "GZ-1"})

    assert answer.status_code == 409
    assert answer.get_json()["error"] == "already_exists"
    assert "sku" in answer.get_json()["errors"]


def test_the_list_finds_low_expiring_and_named_items(clinic: Clinic) -> None:
    low = clinic.item(quantity=5, name="Zinc plaster", sku="ZP-77", category="dressings")
    soon = clinic.item(quantity=50, name="Ibuprofène", lot_number="I", expires_on=day(10))
    clinic.item(quantity=50, name="Old vaccine", lot_number="V", expires_on=day(-1))

    def ids(query: str) -> list[int]:
        return [row["id"] for row in clinic.doctor.get(f"/inventory?{query}").get_json()]

    assert ids("low_stock=true") == [low["id"]]
    assert len(ids("low_stock=false")) == 2
    assert ids("expiring_within_days=10") == [soon["id"]]
    assert ids("expiring_within_days=9") == []
    assert ids("category=dressings") == ids("q=plaster") == ids("q=zp-7") == [low["id"]]
    assert ids("q=ibuprofene") == [soon["id"]]
    assert clinic.doctor.get("/inventory?expiring_within_days=-1").status_code == 422


def test_the_list_takes_the_same_number_of_queries_however_long_it_is(clinic: Clinic) -> None:
    clinic.item(quantity=1)
    few = count(clinic, clinic.admin, "/inventory?per_page=100")

    for _ in range(5):
        clinic.item(quantity=3, lot_number="L", expires_on=day(30))

    assert count(clinic, clinic.admin, "/inventory?per_page=100") == few


# --- Changing an item ----------------------------------------------------------------------------------


def test_a_counted_quantity_becomes_an_adjustment_of_the_difference(clinic: Clinic) -> None:
    item = clinic.item(quantity=10)

    answer = clinic.technician.patch(f"/inventory/{item['id']}", {"quantity": 7})

    assert answer.get_json()["quantity"] == 7
    last = history(clinic, item)[-1]
    assert (last["type"], last["quantity"], last["change"]) == ("adjustment", -3, -3)
    assert last["created_by_id"] == clinic.technician.user_id


def test_a_signed_adjustment_adds_to_what_there_is(clinic: Clinic) -> None:
    item = clinic.item(quantity=10)

    up = clinic.technician.patch(f"/inventory/{item['id']}", {"quantity_adjustment": 5, "name": "Renamed"})
    down = clinic.technician.patch(f"/inventory/{item['id']}", {"quantity_adjustment": -12})
    below = clinic.technician.patch(f"/inventory/{item['id']}", {"quantity_adjustment": -4})
    both = clinic.technician.patch(f"/inventory/{item['id']}", {"quantity_adjustment": 1, "quantity": 9})

    assert (up.get_json()["quantity"], up.get_json()["name"]) == (15, "Renamed")
    assert down.get_json()["quantity"] == 3
    assert (below.status_code, below.get_json()["error"]) == (409, "insufficient_stock")
    assert both.status_code == 422


def test_a_stale_row_sent_back_whole_moves_no_stock(clinic: Clinic) -> None:
    item = clinic.item(quantity=10)
    move(clinic.technician, item, "usage", 4)

    blind = clinic.technician.put(f"/inventory/{item['id']}", item | {"name": "Renamed"})
    stale = clinic.technician.put(
        f"/inventory/{item['id']}", item | {"name": "Renamed"}, headers={"If-Match": '"1"'}
    )

    assert (blind.status_code, blind.get_json()["error"]) == (428, "if_match_required")
    assert (stale.status_code, stale.get_json()["error"]) == (412, "stale_version")
    assert clinic.admin.get(f"/inventory/{item['id']}").get_json()["quantity"] == 6


def test_quantity_and_name_change_together_with_the_current_version(clinic: Clinic) -> None:
    item = clinic.item(quantity=10)
    etag = clinic.technician.get(f"/inventory/{item['id']}").headers["ETag"]

    answer = clinic.technician.put(
        f"/inventory/{item['id']}", item | {"name": "Renamed", "quantity": 8}, headers={"If-Match": etag}
    )

    assert answer.status_code == 200
    assert (answer.get_json()["name"], answer.get_json()["quantity"]) == ("Renamed", 8)


def test_every_movement_raises_the_version_of_the_item(clinic: Clinic) -> None:
    item = clinic.item(quantity=10)
    before = clinic.technician.get(f"/inventory/{item['id']}").headers["ETag"]

    move(clinic.technician, item, "usage", 1)

    assert clinic.technician.get(f"/inventory/{item['id']}").headers["ETag"] != before


def test_an_item_with_movements_is_deactivated_and_one_without_goes(clinic: Clinic) -> None:
    used, unused = clinic.item(quantity=1), clinic.item()

    retired = clinic.admin.delete(f"/inventory/{used['id']}")
    gone = clinic.admin.delete(f"/inventory/{unused['id']}")

    assert (retired.status_code, retired.get_json()["is_active"]) == (200, False)
    assert (gone.status_code, gone.get_json()["id"]) == (200, unused["id"])
    assert clinic.admin.get(f"/inventory/{used['id']}").status_code == 200
    assert clinic.admin.get(f"/inventory/{unused['id']}").status_code == 404
    assert clinic.admin.patch(f"/inventory/{used['id']}", {"is_active": True}).get_json()["is_active"]


def test_a_retired_item_takes_no_new_stock(clinic: Clinic) -> None:
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


def test_usage_leaves_by_earliest_expiry_and_never_takes_what_has_expired(clinic: Clinic) -> None:
    item = clinic.item(quantity=5, lot_number="old", expires_on=day(-1))
    move(clinic.technician, item, "restock", 5)
    move(clinic.technician, item, "restock", 5, lot_number="late", expires_on=day(60))
    move(clinic.technician, item, "restock", 5, lot_number="today", expires_on=day(0))

    answer = move(clinic.technician, item, "usage", 7)

    posting = answer.get_json()
    assert answer.status_code == 201
    assert (posting["quantity"], posting["change"], posting["item_quantity"]) == (7, -7, 13)
    assert [(one["lot_number"], one["quantity"]) for one in posting["movements"]] == [
        ("today", 5),
        ("late", 2),
    ]
    assert lots(clinic, item) == [("old", 5), ("late", 3), (None, 5)]
    assert clinic.technician.get(answer.headers["Location"]).get_json() == posting["movements"]


def test_expired_units_count_but_are_not_available(clinic: Clinic) -> None:
    item = clinic.item(quantity=5, lot_number="old", expires_on=day(-1))

    answer = move(clinic.technician, item, "usage", 1)
    named = move(clinic.technician, item, "usage", 1, lot_number="old")

    row = clinic.admin.get(f"/inventory/{item['id']}").get_json()
    assert (row["quantity"], row["available"]) == (5, 0)
    assert (answer.status_code, answer.get_json()["error"]) == (409, "insufficient_stock")
    assert answer.get_json()["items"] == [
        {"item_id": item["id"], "name": item["name"], "needed": 1, "available": 0}
    ]
    assert named.status_code == 409


def test_waste_and_corrections_take_expired_units_first(clinic: Clinic) -> None:
    item = clinic.item(quantity=5, lot_number="fresh", expires_on=day(30))
    move(clinic.technician, item, "restock", 5, lot_number="old", expires_on=day(-1))

    move(clinic.technician, item, "waste", 3, reason="expired")
    move(clinic.technician, item, "adjustment", -3)

    assert lots(clinic, item) == [("fresh", 4)]


def test_a_movement_may_name_its_lot(clinic: Clinic) -> None:
    item = clinic.item(quantity=5, lot_number="A", expires_on=day(10))
    move(clinic.technician, item, "restock", 5, lot_number="B", expires_on=day(20))

    used = move(clinic.technician, item, "usage", 2, lot_number="B")
    more = move(clinic.technician, item, "return", 1, lot_number="A")
    unknown = move(clinic.technician, item, "usage", 1, lot_number="C")
    too_much = move(clinic.technician, item, "usage", 4, lot_number="B")

    assert used.status_code == more.status_code == 201
    assert lots(clinic, item) == [("A", 6), ("B", 3)]
    assert (unknown.status_code, list(unknown.get_json()["errors"])) == (422, ["lot_number"])
    assert (too_much.status_code, too_much.get_json()["items"][0]["available"]) == (409, 3)


@pytest.mark.parametrize(
    ("kind", "quantity", "members", "field"),
    [
        ("restock", 0, {}, "quantity"),
        ("restock", -1, {}, "quantity"),
        ("usage", -1, {}, "quantity"),
        ("adjustment", 0, {}, "quantity"),
        ("usage", 1, {"unit_cost": "1.00"}, "unit_cost"),
        ("gift", 1, {}, "type"),
    ],
)
def test_a_wrong_movement_is_refused(
    clinic: Clinic, kind: str, quantity: int, members: dict[str, Any], field: str
) -> None:
    item = clinic.item(quantity=10)

    answer = move(clinic.technician, item, kind, quantity, **members)

    assert (answer.status_code, list(answer.get_json()["errors"])) == (422, [field])


def test_the_price_of_the_last_restock_values_the_stock(clinic: Clinic) -> None:
    item = clinic.item(quantity=2, unit_cost="1.00")

    move(clinic.technician, item, "restock", 2, unit_cost="1.50")

    row = clinic.admin.get(f"/inventory/{item['id']}").get_json()
    assert (row["unit_cost"], row["stock_value"]) == ("1.50", "6.00")


def test_the_quantity_is_the_sum_of_the_movements(clinic: Clinic) -> None:
    item = clinic.item(quantity=10)
    for kind, quantity in (("restock", 7), ("usage", 3), ("waste", 1), ("return", 2), ("adjustment", -4)):
        move(clinic.technician, item, kind, quantity)

    row = clinic.admin.get(f"/inventory/{item['id']}").get_json()

    assert row["quantity"] == 11 == sum(one["change"] for one in history(clinic, item))
    assert [one["quantity"] for one in history(clinic, item)] == [10, 7, 3, 1, 2, -4]
    only = clinic.admin.get(f"/inventory/{item['id']}/movements?type=usage").get_json()
    assert [one["change"] for one in only] == [-3]


def test_one_entry_in_the_audit_tells_of_a_movement(clinic: Clinic) -> None:
    item = clinic.item(quantity=10)

    move(clinic.technician, item, "usage", 1)

    with clinic.inside() as session:
        entries = session.query(AuditLog).filter_by(user_id=clinic.technician.user_id).all()
        told = [(one.entity, one.entity_id, one.fields) for one in entries]
    assert told == [("inventory_item", item["id"], ["inventory_lots", "quantity", "stock_movements"])]


def test_sixty_four_who_take_one_of_ten_at_once_get_ten(clinic: Clinic) -> None:
    item = clinic.item(quantity=10)
    caller = clinic.technician
    answers: list[int] = []

    def take() -> None:
        answers.append(move(caller, item, "usage", 1).status_code)

    threads = [threading.Thread(target=take) for _ in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(answers) == [201] * 10 + [409] * 54
    row = clinic.admin.get(f"/inventory/{item['id']}").get_json()
    assert (row["quantity"], row["lots"]) == (0, [])
    assert sum(one["change"] for one in history(clinic, item)) == 0


# --- Alerts --------------------------------------------------------------------------------------------


def test_alerts_name_what_is_low_out_expiring_and_expired(clinic: Clinic) -> None:
    low = clinic.item(quantity=3, min_quantity=5)
    out = clinic.item(min_quantity=5)
    soon = clinic.item(quantity=50, lot_number="S", expires_on=day(30))
    old = clinic.item(quantity=50, lot_number="O", expires_on=day(-2))
    fine = clinic.item(quantity=50, lot_number="F", expires_on=day(31))

    found = clinic.receptionist.get("/inventory/alerts").get_json()

    assert [one["item_id"] for one in found["low"]] == [low["id"]]
    # what has expired is not there to be used
    assert [one["item_id"] for one in found["out"]] == [out["id"], old["id"]]
    assert [(one["item_id"], one["days"]) for one in found["expiring"]] == [(soon["id"], 30)]
    assert [(one["item_id"], one["days"], one["quantity"]) for one in found["expired"]] == [
        (old["id"], -2, 50)
    ]
    assert fine["id"] not in [one["item_id"] for one in found["reorder"]]


def test_the_order_covers_the_minimum_in_whole_packs(clinic: Clinic) -> None:
    clinic.item(quantity=5, min_quantity=5, name="A")
    clinic.item(quantity=3, min_quantity=20, reorder_quantity=10, name="B")

    found = clinic.technician.get("/inventory/alerts").get_json()

    assert {one["name"]: one["reorder"] for one in found["reorder"]} == {"A": 1, "B": 20}


def test_the_order_covers_what_planned_treatments_need(clinic: Clinic) -> None:
    item = clinic.item(quantity=10, min_quantity=5)
    needs = [{"item_id": item["id"], "quantity": 8}]
    clinic.treatment(status="planned", inventory_items=needs)

    found = clinic.technician.get("/inventory/alerts").get_json()

    assert [(one["open_need"], one["reorder"]) for one in found["reorder"]] == [(8, 4)]
    assert found["low"] == []


def test_use_is_counted_by_the_days_in_stock(clinic: Clinic, monkeypatch: pytest.MonkeyPatch) -> None:
    now = datetime.now(UTC)
    with monkeypatch.context() as past:
        past.setattr(clock, "now", lambda: now - timedelta(days=20))
        item = clinic.item(quantity=20, min_quantity=0)
    with monkeypatch.context() as past:
        # sold out on the tenth of its days: ten more days on an empty shelf say nothing
        past.setattr(clock, "now", lambda: now - timedelta(days=11))
        move(clinic.technician, item, "usage", 20)

    found = clinic.technician.get("/inventory/alerts").get_json()["out"]

    assert [(one["daily_use"], one["reorder"]) for one in found] == [(2.0, 61)]


def test_what_a_voided_treatment_gives_back_was_not_used(clinic: Clinic) -> None:
    item = clinic.item(quantity=20, min_quantity=0)
    move(clinic.technician, item, "usage", 14)
    move(clinic.technician, item, "return", 14)

    with clinic.inside() as session:
        assert session.query(StockMovement).count() == 3
    found = clinic.technician.get("/inventory/alerts").get_json()

    assert found["reorder"] == found["low"] == found["out"] == []
