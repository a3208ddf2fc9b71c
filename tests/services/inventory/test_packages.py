"""Packages of an item, unit costs of four places, and the reorder proposal in packages."""

from __future__ import annotations

from typing import Any

from tests.support.clinic import Clinic

BOX, CARTON = {"name": "Box", "quantity": 100}, {"name": "carton", "quantity": 1000}


def move(clinic: Clinic, item: dict[str, Any], movement_type: str, quantity: int, **members: Any) -> Any:
    body = {"type": movement_type, "quantity": quantity, **members}
    return clinic.technician.post(f"/inventory/{item['id']}/movements", body)


def test_a_movement_may_count_packages(clinic: Clinic) -> None:
    item = clinic.item(packages=[BOX, CARTON])

    received = move(clinic, item, "restock", 2, package="box", unit_cost="0.0125")
    used = move(clinic, item, "usage", 30)
    corrected = move(clinic, item, "adjustment", -1, package="Box")

    assert item["packages"] == [BOX, CARTON]
    row = received.get_json()
    assert (row["quantity"], row["change"], row["package"], row["package_units"]) == (200, 200, "Box", 100)
    assert row["movements"][0]["package"] == "Box"
    assert used.get_json()["package"] is None
    assert corrected.get_json()["change"] == -100
    stored = clinic.admin.get(f"/inventory/{item['id']}").get_json()
    assert (stored["quantity"], stored["unit_cost"], stored["stock_value"]) == (70, "0.0125", "0.88")


def test_a_later_change_of_a_package_does_not_change_its_movements(clinic: Clinic) -> None:
    item = clinic.item(packages=[BOX])
    move(clinic, item, "restock", 2, package="Box")

    changed = clinic.technician.patch(f"/inventory/{item['id']}", {"packages": [BOX | {"quantity": 50}]})
    move(clinic, item, "restock", 2, package="Box")

    assert changed.get_json()["packages"] == [{"name": "Box", "quantity": 50}]
    rows = clinic.admin.get(f"/inventory/{item['id']}/movements?sort_by=id&sort_order=asc").get_json()
    assert [(row["change"], row["package_units"]) for row in rows] == [(200, 100), (100, 50)]


INVALID: list[Any] = [
    ("/movements", {"type": "restock", "quantity": 1, "package": "crate"}, "package"),
    ("/movements", {"type": "restock", "quantity": -1, "package": "Box"}, "quantity"),
    ("/movements", {"type": "restock", "quantity": 10_001, "package": "Box"}, "quantity"),
    ("", {"packages": [BOX, {"name": " box", "quantity": 5}]}, "packages"),
    ("", {"packages": [{"name": "Box", "quantity": 0}]}, "packages"),
    ("", {"packages": [{"name": "Box"}]}, "packages"),
]


def test_unknown_and_invalid_packages_are_422(clinic: Clinic) -> None:
    item = clinic.item(packages=[BOX])

    for path, body, field in INVALID:
        send = clinic.technician.post if path else clinic.technician.patch
        answer = send(f"/inventory/{item['id']}{path}", body)
        assert answer.status_code == 422, body
        assert all(name.startswith(field) for name in answer.get_json()["errors"])


def test_the_reorder_proposal_counts_whole_packages(clinic: Clinic) -> None:
    clinic.item(name="A", min_quantity=120, packages=[CARTON, BOX])
    clinic.item(name="B", min_quantity=120, reorder_quantity=150, packages=[BOX])
    clinic.item(name="C", min_quantity=120)

    alerts = clinic.technician.get("/inventory/alerts").get_json()["reorder"]

    names = ("reorder", "reorder_package", "reorder_packages")
    assert [tuple(alert[name] for name in names) for alert in alerts] == [
        (200, "Box", 2),
        (200, "Box", 2),
        (121, None, None),
    ]


def test_a_unit_cost_has_up_to_four_places(clinic: Clinic) -> None:
    for sent, stored in (("0.0125", "0.0125"), (0.5, "0.50"), ("12", "12.00"), ("0.1250", "0.125")):
        assert clinic.item(unit_cost=sent)["unit_cost"] == stored
    found = clinic.admin.get("/inventory?unit_cost=0.0125&unit_cost_lte=0.0125").get_json()
    assert [row["unit_cost"] for row in found] == ["0.0125"]
    assert clinic.admin.get("/inventory?unit_cost=0.00005").status_code == 422
    for invalid in ("0.00005", "-1", "NaN", "10000000000"):
        answer = clinic.technician.post("/inventory", {"name": "Gauze", "unit_cost": invalid})
        assert (answer.status_code, list(answer.get_json()["errors"])) == (422, ["unit_cost"])


def test_lots_of_a_retired_item_raise_no_alert(clinic: Clinic) -> None:
    retired = clinic.item(quantity=5, lot_number="E", expires_on="2020-01-01", allow_expired=True)
    clinic.admin.delete(f"/inventory/{retired['id']}")

    alerts = clinic.technician.get("/inventory/alerts").get_json()

    assert alerts == {"low": [], "out": [], "expiring": [], "expired": [], "reorder": []}


def test_an_error_names_the_position_of_the_inventory_item(clinic: Clinic) -> None:
    kept, retired = clinic.item(quantity=5), clinic.item(quantity=5)
    clinic.admin.delete(f"/inventory/{retired['id']}")
    treatment = clinic.treatment(inventory_items=[{"item_id": kept["id"], "quantity": 1}])
    usages = [{"item_id": item["id"], "quantity": 1} for item in (kept, retired)]

    answer = clinic.admin.patch(f"/treatments/{treatment['id']}", {"inventory_items": usages})

    assert (answer.status_code, list(answer.get_json()["errors"])) == (422, ["inventory_items.1.item_id"])
