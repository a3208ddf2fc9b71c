"""The price list: items, and the bills and treatments that copy their names and prices."""

from __future__ import annotations

from typing import Any

import pytest

from models import AuditLog
from tests.support.clinic import Clinic

ITEM = {"code": "LAB-FBC", "name": "Full blood count", "category": "laboratory", "unit_price": "25.00"}


def item(clinic: Clinic, **members: Any) -> dict[str, Any]:
    return clinic.admin.make("/price-list", **ITEM | members)


def treat(clinic: Clinic, **members: Any) -> Any:
    return clinic.doctor.post("/treatments", {"visit_id": clinic.visit()["id"]} | members)


def test_all_roles_read_the_price_list_and_administrators_change_it(clinic: Clinic) -> None:
    row = item(clinic)
    path = f"/price-list/{row['id']}"

    for role in ("doctor", "receptionist", "technician"):
        caller = clinic.caller(role)
        assert caller.get(path).get_json() == row
        assert caller.post("/price-list", ITEM | {"code": "X"}).status_code == 403
        assert caller.patch(path, {"unit_price": "1"}).status_code == 403
        assert caller.delete(path).status_code == 403
    changed = clinic.admin.patch(path, {"unit_price": "30", "name": "Blood count"}).get_json()

    assert (changed["unit_price"], changed["name"], changed["is_active"]) == ("30.00", "Blood count", True)


def test_the_list_filters_by_category_state_and_text(clinic: Clinic) -> None:
    count = item(clinic)["id"]
    visit = item(clinic, code="KONS-1", name="Consultation générale", category=None, unit_price="60")["id"]
    clinic.admin.delete(f"/price-list/{visit}")

    def ids(query: str) -> list[int]:
        return [row["id"] for row in clinic.doctor.get(f"/price-list?{query}").get_json()]

    assert ids("category=laboratory") == ids("is_active=true") == ids("q=lab-f") == [count]
    assert ids("q=generale") == ids("is_active=false") == ids("unit_price_gte=26") == [visit]
    assert ids("sort_by=unit_price&sort_order=desc") == [visit, count]


@pytest.mark.parametrize(
    ("members", "field"),
    [({"code": " "}, "code"), ({"name": ""}, "name"), ({"unit_price": "-1"}, "unit_price"), ({"x": 1}, "x")],
)
def test_an_invalid_item_reports_the_field(clinic: Clinic, members: dict[str, Any], field: str) -> None:
    answer = clinic.admin.post("/price-list", ITEM | members)

    assert (answer.status_code, list(answer.get_json()["errors"])) == (422, [field])


def test_an_item_is_deactivated_once_and_can_come_back(clinic: Clinic) -> None:
    path = f"/price-list/{item(clinic)['id']}"

    first, second = clinic.admin.delete(path), clinic.admin.delete(path)
    back = clinic.admin.patch(path, {"is_active": True})

    assert [answer.get_json()["is_active"] for answer in (first, second, back)] == [False, False, True]
    with clinic.inside() as session:
        query = session.query(AuditLog.action).filter_by(entity="price_list_item").order_by(AuditLog.id)
        assert [action for (action,) in query] == ["create", "deactivate", "update"]


def test_a_bill_copies_name_and_price_and_keeps_them(clinic: Clinic) -> None:
    row = item(clinic)
    patient = clinic.patient()["id"]
    lines: list[dict[str, Any]] = [
        {"price_list_item_id": row["id"], "quantity": 2},
        {"price_list_item_id": row["id"], "description": "Count, urgent", "unit_price": "40.00"},
        {"price_list_item_id": row["id"], "unit_price": "0"},
        {"description": "Taxi", "unit_price": "5.00"},
    ]

    bill = clinic.receptionist.make("/billings", patient_id=patient, items=lines)
    clinic.admin.patch(f"/price-list/{row['id']}", {"unit_price": "99.00", "name": "Renamed"})

    stored = clinic.admin.get(f"/billings/{bill['id']}").get_json()
    assert stored == bill
    names = ("price_list_item_id", "description", "unit_price", "amount")
    assert [tuple(line[name] for name in names) for line in stored["items"]] == [
        (row["id"], "Full blood count", "25.00", "50.00"),
        (row["id"], "Count, urgent", "40.00", "40.00"),
        (row["id"], "Full blood count", "0.00", "0.00"),
        (None, "Taxi", "5.00", "5.00"),
    ]
    assert stored["amount"] == "95.00"


def test_a_treatment_copies_name_and_price_and_passes_the_item_to_its_bill(clinic: Clinic) -> None:
    row = item(clinic)

    listed = treat(clinic, price_list_item_id=row["id"]).get_json()
    named = treat(clinic, price_list_item_id=row["id"], name="Count, urgent", cost="40.00").get_json()
    bill = clinic.admin.make("/billings", treatment_id=named["id"])

    names = ("name", "cost", "price_list_item_id")
    assert [listed[name] for name in names] == ["Full blood count", "25.00", row["id"]]
    assert [named[name] for name in names] == ["Count, urgent", "40.00", row["id"]]
    assert [(line["description"], line["price_list_item_id"]) for line in bill["items"]] == [
        ("Count, urgent", row["id"])
    ]
    of_item = clinic.admin.get(f"/treatments?price_list_item_id={row['id']}").get_json()
    assert {each["id"] for each in of_item} == {listed["id"], named["id"]}
    visit = clinic.visit(treatments=[{"price_list_item_id": row["id"]}])
    assert visit["treatments"][0]["name"] == "Full blood count"


def test_an_unknown_or_inactive_item_and_a_missing_member_are_named(clinic: Clinic) -> None:
    retired = item(clinic)["id"]
    clinic.admin.delete(f"/price-list/{retired}")
    patient = clinic.patient()["id"]

    for line, field in (
        ({"price_list_item_id": retired}, "items.0.price_list_item_id"),
        ({"price_list_item_id": 999}, "items.0.price_list_item_id"),
        ({"unit_price": "5"}, "items.0.description"),
        ({"description": "Cast"}, "items.0.unit_price"),
    ):
        answer = clinic.admin.post("/billings", {"patient_id": patient, "items": [line]})
        assert (answer.status_code, list(answer.get_json()["errors"])) == (422, [field]), line
    members: dict[str, Any]
    for members, field in (
        ({"price_list_item_id": retired}, "price_list_item_id"),
        ({"cost": "5"}, "name"),
        ({"name": "Cast"}, "cost"),
    ):
        answer = treat(clinic, **members)
        assert (answer.status_code, list(answer.get_json()["errors"])) == (422, [field]), members
    for member in ("name", "cost"):
        row = clinic.treatment()
        answer = clinic.admin.patch(f"/treatments/{row['id']}", {member: None})
        assert (answer.status_code, list(answer.get_json()["errors"])) == (422, [member])
