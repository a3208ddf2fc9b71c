"""Money and stock, many at once: never beyond what is there, and every acknowledged change in the sums."""

from __future__ import annotations

import collections
from decimal import Decimal
from typing import Any

import requests

from tests.robustness.fleet import Call, Fleet
from tests.robustness.scale import Scale

CLIENTS = 64


def paying(fleet: Fleet, bill: dict[str, Any], amount: str) -> Call:
    return fleet.later("POST", f"/billings/{bill['id']}/payments", {"amount": amount, "method": "cash"})


def approved_claim(fleet: Fleet, bill: dict[str, Any], amount: str) -> str:
    """The path of a claim that waits for the insurer's money."""
    body = {"insurer": "Acme Health", "policy_number": "P-77", "amount": amount, "claim_number": "C-1"}
    claim = fleet.clinic.admin.make(f"/billings/{bill['id']}/claims", **body)
    path = f"/billings/{bill['id']}/claims/{claim['id']}"
    for status in ("submitted", "approved"):
        assert fleet.clinic.admin.patch(path, {"status": status}).status_code == 200
    return path


def accepted(answers: list[requests.Response]) -> int:
    """How many were done; every other one must have been refused for the state of things."""
    done = sum(answer.status_code in (200, 201) for answer in answers)
    assert {answer.status_code for answer in answers} <= {200, 201, 409}
    return done


def test_a_bill_is_not_paid_beyond_its_amount(fleet: Fleet, scale: Scale) -> None:
    for _ in range(scale.rounds):
        bill = fleet.clinic.bill("100.00")

        answers = fleet.at_once([paying(fleet, bill, "40.00")] * CLIENTS)

        assert accepted(answers) == 2
        assert fleet.get(f"/billings/{bill['id']}")["amount_paid"] == "80.00"


def test_credit_is_spent_once(fleet: Fleet, scale: Scale) -> None:
    for _ in range(scale.rounds):
        patient = fleet.clinic.patient()["id"]
        source = fleet.clinic.bill("10.00", patient_id=patient)
        body = {"amount": "60.00", "method": "cash", "allow_credit": True}
        assert fleet.send("POST", f"/billings/{source['id']}/payments", body).status_code == 201
        bills = [fleet.clinic.bill("20.00", patient_id=patient) for _ in range(8)]
        spend = {"amount": "20.00", "method": "credit"}

        answers = fleet.at_once(
            [fleet.later("POST", f"/billings/{bill['id']}/payments", spend) for bill in bills] * 2
        )

        assert accepted(answers) == 2  # of 50.00
        assert fleet.get(f"/patients/{patient}/account")["account_balance"] == "110.00"


def test_payments_refunds_claims_and_write_offs_of_one_bill_add_up(fleet: Fleet, scale: Scale) -> None:
    for _ in range(scale.rounds):
        bill = fleet.clinic.bill("100.00")
        path = f"/billings/{bill['id']}"
        claims = [approved_claim(fleet, bill, "15.00") for _ in range(4)]
        refund = {"amount": "10.00", "reason": "came too early"}
        calls = {
            "paid": [paying(fleet, bill, "30.00")] * 6,
            "refunded": [fleet.later("POST", f"{path}/refunds", refund)] * 6,
            "insured": [fleet.later("PATCH", claim, {"status": "paid"}) for claim in claims],
            "given up": [fleet.later("POST", f"{path}/write-off", {"amount": "5.00", "reason": "hardship"})]
            * 3,
        }

        answers = iter(fleet.at_once([call for several in calls.values() for call in several]))

        done = {kind: accepted([next(answers) for _ in several]) for kind, several in calls.items()}
        paid = 30 * done["paid"] + 15 * done["insured"] - 10 * done["refunded"]
        row = fleet.get(path)
        assert Decimal(row["amount_paid"]) == paid
        assert Decimal(row["balance"]) == 100 - paid - 5 * done["given up"] >= 0


def test_a_bill_made_void_while_others_pay_leaves_their_money_as_credit(fleet: Fleet, scale: Scale) -> None:
    for _ in range(scale.rounds):
        bill = fleet.clinic.bill("100.00")
        path = f"/billings/{bill['id']}"

        answers = fleet.at_once(
            [paying(fleet, bill, "10.00")] * 8
            + [fleet.later("POST", f"{path}/void", {"reason": "Wrong patient"})] * 4
        )

        assert accepted(answers[8:]) == 1
        paid = accepted(answers[:8])
        row = fleet.get(path)
        assert (row["status"], row["balance"]) == ("void", "0.00")
        assert Decimal(row["account_balance"]) == -10 * paid


def test_a_visit_is_billed_once(fleet: Fleet, scale: Scale) -> None:
    for _ in range(scale.rounds):
        treatment = fleet.clinic.treatment()
        by_visit = fleet.later("POST", "/billings", {"visit_id": treatment["visit_id"]})
        by_treatment = fleet.later("POST", "/billings", {"treatment_id": treatment["id"]})

        assert fleet.count([by_visit, by_treatment] * 8) == {201: 1, 409: 15}


# --- Stock ---------------------------------------------------------------------------------------------


def test_stock_is_not_used_twice(fleet: Fleet, scale: Scale) -> None:
    for _ in range(scale.rounds):
        path = f"/inventory/{fleet.clinic.item(10)['id']}"

        answers = fleet.at_once(
            [fleet.later("POST", f"{path}/movements", {"type": "usage", "quantity": 1})] * CLIENTS
        )

        assert accepted(answers) == 10
        left = [answer.json()["item_quantity"] for answer in answers if answer.status_code == 201]
        assert sorted(left) == list(range(10))
        assert fleet.get(path)["quantity"] == 0


def test_treatments_that_name_items_in_opposite_order_do_not_deadlock(fleet: Fleet, scale: Scale) -> None:
    visit = fleet.clinic.visit()["id"]
    pairs = scale.crowd // 4

    for _ in range(scale.rounds):
        one, two = (fleet.clinic.item(pairs)["id"] for _ in range(2))

        statuses = fleet.count([treating(fleet, visit, one, two), treating(fleet, visit, two, one)] * pairs)

        assert statuses == {201: pairs, 409: pairs}


def treating(fleet: Fleet, visit: int, *items: int) -> Call:
    """A treatment that takes one of each item."""
    usages = [{"item_id": item, "quantity": 1} for item in items]
    body = {"visit_id": visit, "name": "Dressing", "cost": "1.00", "inventory_items": usages}
    return fleet.later("POST", "/treatments", body)


def test_stock_used_restocked_and_returned_at_once_is_the_sum_of_what_was_done(
    fleet: Fleet, scale: Scale
) -> None:
    visit = fleet.clinic.visit()["id"]

    for _ in range(scale.rounds):
        items = [fleet.clinic.item(8)["id"] for _ in range(2)]
        given = [treating(fleet, visit, *items)().json()["id"] for _ in range(4)]
        calls: dict[str, list[Call]] = {
            "used": [treating(fleet, visit, *items), treating(fleet, visit, *reversed(items))] * 6,
            "returned": [
                fleet.later("DELETE", f"/treatments/{treatment}", {"reason": "Entered twice"})
                for treatment in given
            ],
            "restocked": [
                fleet.later("POST", f"/inventory/{item}/movements", {"type": "restock", "quantity": 2})
                for item in items
            ],
        }

        answers = iter(fleet.at_once([call for several in calls.values() for call in several]))

        done = collections.Counter(
            {kind: accepted([next(answers) for _ in several]) for kind, several in calls.items()}
        )
        assert (done["returned"], done["restocked"]) == (4, 2)
        assert done["used"] >= 4  # as much as lay there before anything came back
        for item in items:
            assert fleet.get(f"/inventory/{item}")["quantity"] == 8 - 4 + 4 + 2 - done["used"]
