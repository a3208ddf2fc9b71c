"""Concurrent payments and stock movements: no overdraft, and every acknowledged change is in the totals."""

from __future__ import annotations

import collections
from decimal import Decimal
from typing import Any

import requests

from tests.robustness.cluster import Cluster, PreparedRequest
from tests.robustness.load_level import LoadLevel

CLIENTS = 64


def pay(cluster: Cluster, bill: dict[str, Any], amount: str) -> PreparedRequest:
    return cluster.prepare("POST", f"/billings/{bill['id']}/payments", {"amount": amount, "method": "cash"})


def approved_claim(cluster: Cluster, bill: dict[str, Any], amount: str) -> str:
    """Create an approved claim. Return its path."""
    body = {"insurer": "Acme Health", "policy_number": "P-77", "amount": amount, "claim_number": "C-1"}
    claim = cluster.clinic.admin.make(f"/billings/{bill['id']}/claims", **body)
    path = f"/billings/{bill['id']}/claims/{claim['id']}"
    for status in ("submitted", "approved"):
        assert cluster.clinic.admin.patch(path, {"status": status}).status_code == 200
    return path


def count_accepted(responses: list[requests.Response]) -> int:
    """Return the number of successful responses. The others must be 409."""
    accepted = sum(response.status_code in (200, 201) for response in responses)
    assert {response.status_code for response in responses} <= {200, 201, 409}
    return accepted


def test_concurrent_payments_do_not_overpay_a_bill(cluster: Cluster, level: LoadLevel) -> None:
    for _ in range(level.rounds):
        bill = cluster.clinic.bill("100.00")

        responses = cluster.send_concurrently([pay(cluster, bill, "40.00")] * CLIENTS)

        assert count_accepted(responses) == 2
        assert cluster.get(f"/billings/{bill['id']}")["amount_paid"] == "80.00"


def test_credit_is_spent_only_once(cluster: Cluster, level: LoadLevel) -> None:
    for _ in range(level.rounds):
        patient = cluster.clinic.patient()["id"]
        source = cluster.clinic.bill("10.00", patient_id=patient)
        body = {"amount": "60.00", "method": "cash", "allow_credit": True}
        assert cluster.send("POST", f"/billings/{source['id']}/payments", body).status_code == 201
        bills = [cluster.clinic.bill("20.00", patient_id=patient) for _ in range(8)]
        spend = {"amount": "20.00", "method": "credit"}

        responses = cluster.send_concurrently(
            [cluster.prepare("POST", f"/billings/{bill['id']}/payments", spend) for bill in bills] * 2
        )

        assert count_accepted(responses) == 2  # credit of 50.00
        assert cluster.get(f"/patients/{patient}/account")["account_balance"] == "110.00"


def test_concurrent_payments_refunds_claims_and_write_offs_add_up(cluster: Cluster, level: LoadLevel) -> None:
    for _ in range(level.rounds):
        bill = cluster.clinic.bill("100.00")
        path = f"/billings/{bill['id']}"
        claims = [approved_claim(cluster, bill, "15.00") for _ in range(4)]
        refund = {"amount": "10.00", "reason": "came too early", "method": "cash"}
        calls = {
            "paid": [pay(cluster, bill, "30.00")] * 6,
            "refunded": [cluster.prepare("POST", f"{path}/refunds", refund)] * 6,
            "insured": [cluster.prepare("PATCH", claim, {"status": "paid"}) for claim in claims],
            "written off": [
                cluster.prepare("POST", f"{path}/write-off", {"amount": "5.00", "reason": "hardship"})
            ]
            * 3,
        }

        responses = iter(cluster.send_concurrently([call for group in calls.values() for call in group]))

        done = {kind: count_accepted([next(responses) for _ in group]) for kind, group in calls.items()}
        paid = 30 * done["paid"] + 15 * done["insured"] - 10 * done["refunded"]
        row = cluster.get(path)
        assert Decimal(row["amount_paid"]) == paid
        assert Decimal(row["balance"]) == 100 - paid - 5 * done["written off"] >= 0


def test_payments_during_a_void_become_credit(cluster: Cluster, level: LoadLevel) -> None:
    for _ in range(level.rounds):
        bill = cluster.clinic.bill("100.00")
        path = f"/billings/{bill['id']}"

        responses = cluster.send_concurrently(
            [pay(cluster, bill, "10.00")] * 8
            + [cluster.prepare("POST", f"{path}/void", {"reason": "Wrong patient"})] * 4
        )

        assert count_accepted(responses[8:]) == 1
        paid = count_accepted(responses[:8])
        row = cluster.get(path)
        assert (row["status"], row["balance"]) == ("void", "0.00")
        assert Decimal(row["account_balance"]) == -10 * paid


def test_a_visit_is_billed_only_once(cluster: Cluster, level: LoadLevel) -> None:
    for _ in range(level.rounds):
        treatment = cluster.clinic.treatment()
        by_visit = cluster.prepare("POST", "/billings", {"visit_id": treatment["visit_id"]})
        by_treatment = cluster.prepare("POST", "/billings", {"treatment_id": treatment["id"]})

        assert cluster.count_statuses([by_visit, by_treatment] * 8) == {201: 1, 409: 15}


# --- Stock ---------------------------------------------------------------------------------------------


def test_concurrent_usage_does_not_exceed_the_stock(cluster: Cluster, level: LoadLevel) -> None:
    for _ in range(level.rounds):
        path = f"/inventory/{cluster.clinic.item(10)['id']}"

        responses = cluster.send_concurrently(
            [cluster.prepare("POST", f"{path}/movements", {"type": "usage", "quantity": 1})] * CLIENTS
        )

        assert count_accepted(responses) == 10
        quantities = [
            response.json()["item_quantity"] for response in responses if response.status_code == 201
        ]
        assert sorted(quantities) == list(range(10))
        assert cluster.get(path)["quantity"] == 0


def test_treatments_with_items_in_opposite_order_do_not_deadlock(cluster: Cluster, level: LoadLevel) -> None:
    visit = cluster.clinic.visit()["id"]
    pairs = level.crowd // 4

    for _ in range(level.rounds):
        one, two = (cluster.clinic.item(pairs)["id"] for _ in range(2))

        statuses = cluster.count_statuses(
            [treat(cluster, visit, one, two), treat(cluster, visit, two, one)] * pairs
        )

        assert statuses == {201: pairs, 409: pairs}


def treat(cluster: Cluster, visit: int, *items: int) -> PreparedRequest:
    """Return a request for a treatment that uses one of each item."""
    usages = [{"item_id": item, "quantity": 1} for item in items]
    body = {"visit_id": visit, "name": "Dressing", "cost": "1.00", "inventory_items": usages}
    return cluster.prepare("POST", "/treatments", body)


def test_concurrent_usage_deliveries_and_returns_add_up(cluster: Cluster, level: LoadLevel) -> None:
    visit = cluster.clinic.visit()["id"]

    for _ in range(level.rounds):
        items = [cluster.clinic.item(8)["id"] for _ in range(2)]
        treatments = [treat(cluster, visit, *items)().json()["id"] for _ in range(4)]
        calls: dict[str, list[PreparedRequest]] = {
            "used": [treat(cluster, visit, *items), treat(cluster, visit, *reversed(items))] * 6,
            "returned": [
                cluster.prepare("DELETE", f"/treatments/{treatment}", {"reason": "Entered twice"})
                for treatment in treatments
            ],
            "restocked": [
                cluster.prepare("POST", f"/inventory/{item}/movements", {"type": "restock", "quantity": 2})
                for item in items
            ],
        }

        responses = iter(cluster.send_concurrently([call for group in calls.values() for call in group]))

        done = collections.Counter(
            {kind: count_accepted([next(responses) for _ in group]) for kind, group in calls.items()}
        )
        assert (done["returned"], done["restocked"]) == (4, 2)
        assert done["used"] >= 4  # the stock before any return
        for item in items:
            assert cluster.get(f"/inventory/{item}")["quantity"] == 8 - 4 + 4 + 2 - done["used"]
