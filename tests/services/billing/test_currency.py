"""The currency: its places in requests, responses and tax, and its storage with the ledger."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import select

from models import LedgerCurrency
from services import integrity_checks
from tests.support.clinic import Clinic

MakeClinic = Callable[..., Clinic]


def test_bills_and_the_index_show_the_currency(make_clinic: MakeClinic) -> None:
    clinic = make_clinic(currency="KES")

    assert clinic.bill("100.00")["currency"] == "KES"
    assert clinic.nobody.get("/").get_json()["currency"] == "KES"
    with clinic.inside() as session:
        assert session.execute(select(LedgerCurrency.code)).scalars().all() == ["KES"]


def test_amounts_of_a_currency_without_decimals_have_none(make_clinic: MakeClinic) -> None:
    clinic = make_clinic(currency="JPY")

    bill = clinic.bill("105", tax_rate="7.5", discount="1", discount_reason="staff")

    # 104 x 7.5 % = 7.8; 7.5 % has places of its own
    assert (bill["amount"], bill["tax"], bill["tax_rate"]) == ("112", "8", "7.50")
    url = f"/billings/{bill['id']}"
    wrong = [
        clinic.admin.post(f"{url}/payments", {"amount": "1.50", "method": "cash"}),
        clinic.admin.post(f"{url}/payments", {"amount": 1.5, "method": "cash"}),
        clinic.admin.post(f"{url}/refunds", {"amount": "0.01", "reason": "x"}),
        clinic.admin.post(f"{url}/write-off", {"amount": "0.5", "reason": "x"}),
        clinic.admin.patch(url, {"discount": "0.50", "discount_reason": "x"}),
        clinic.admin.post(
            "/doctors", {"name": "A", "specialty": "x", "license_number": "1"} | {"consultation_fee": "10.50"}
        ),
    ]
    assert [answer.status_code for answer in wrong] == [422] * len(wrong)
    above = clinic.admin.post(f"{url}/payments", {"amount": "113", "method": "cash"})
    assert (above.status_code, above.get_json()["balance"]) == (409, "112")
    assert clinic.admin.get("/analytics/revenue").get_json()["totals"]["billed"] == "113"


@pytest.mark.parametrize(("price", "tax"), [("10", "1"), ("4", "0"), ("5", "1"), ("14", "1"), ("15", "2")])
def test_tax_is_rounded_half_up_to_the_places_of_the_currency(
    make_clinic: MakeClinic, price: str, tax: str
) -> None:
    assert make_clinic(currency="JPY").bill(price, tax_rate="10")["tax"] == tax


def test_the_currency_cannot_change_once_the_ledger_has_rows(make_clinic: MakeClinic) -> None:
    first = make_clinic()
    first.patient()
    second = make_clinic(currency="EUR")  # no amounts yet
    second.numbers = first.numbers  # for the names of users
    assert second.bill("10.00")["currency"] == "EUR"
    third = make_clinic(currency="USD")
    third.numbers = first.numbers

    refused = third.sign_in("admin").get("/billings")
    ready = third.nobody.get("/health/ready")

    for answer in (refused, ready):
        problem: dict[str, Any] = answer.get_json()
        assert (answer.status_code, problem["error"]) == (503, "unavailable")
        assert "Set CURRENCY to EUR" in problem["message"]
    assert third.nobody.get("/health/live").status_code == 200
    with third.inside():
        rules = [rule for rule, _ids in integrity_checks.violations()]
    assert rules == ["The ledger has the currency of the settings."]
    fourth = make_clinic(currency="EUR")
    fourth.numbers = first.numbers
    assert fourth.nobody.get("/health/ready").status_code == 200
    assert fourth.sign_in("admin").get("/billings").status_code == 200
