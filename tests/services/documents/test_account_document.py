"""The account statement on paper: balances of all days and of a range, and the view of a doctor."""

from __future__ import annotations

from datetime import timedelta

import pytest

from services import clock
from tests.support import pdf
from tests.support.clinic import Caller, Clinic


def statement(caller: Caller, patient_id: int, query: str = "") -> str:
    response = caller.get(f"/patients/{patient_id}/account/statement?{query}")
    assert response.status_code == 200, response.get_data(as_text=True)
    return pdf.text_of(response.get_data())


def test_the_balances_of_a_range_continue_those_before_it(clinic: Clinic) -> None:
    patient_id = clinic.patient(name="Njeri Wanjiku")["id"]
    days = [(clock.today() - timedelta(days=number)).isoformat() for number in (40, 20, 10)]
    old = clinic.bill("100.00", patient_id=patient_id, date=days[0], doctor_id=clinic.doctor.doctor_id)
    clinic.admin.post(
        f"/billings/{old['id']}/payments", {"amount": "30.00", "method": "cash", "received_at": days[0]}
    )
    new = clinic.bill("50.00", patient_id=patient_id, date=days[1], tax_rate="10")
    body = {"amount": "75.00", "method": "cash", "received_at": days[2], "allow_credit": True}
    clinic.admin.post(f"/billings/{new['id']}/payments", body)

    everything = statement(clinic.receptionist, patient_id)
    middle = statement(clinic.receptionist, patient_id, f"start_date={days[1]}&end_date={days[1]}")
    before = statement(clinic.receptionist, patient_id, f"end_date={days[0]}")
    own = statement(clinic.doctor, patient_id)

    for text, opening, closing in (
        (everything, "0.00", "$50.00"),
        (middle, "70.00", "$125.00"),
        (before, "0.00", "$70.00"),
        (own, "0.00", "$70.00"),
    ):
        assert f"Opening balance {opening}" in text
        assert f"Closing balance {closing}" in text
    account = clinic.admin.get(f"/patients/{patient_id}/account").get_json()
    assert account["account_balance"] == "50.00"
    assert f"Credit available today ${account['credit']}" in everything
    assert [bill["invoice_number"] for bill in account["open_bills"]] == [old["invoice_number"]]
    assert f"{old['invoice_number']}" in everything.split("Unpaid invoices")[1]
    assert new["invoice_number"] not in everything.split("Unpaid invoices")[1]
    assert new["invoice_number"] not in own
    assert ("only invoices of one doctor" in own, "Credit available" in own) == (True, False)


def test_a_long_statement_has_its_header_on_each_page(clinic: Clinic) -> None:
    patient_id = clinic.patient()["id"]
    items = [{"description": f"Item {number}", "quantity": 1, "unit_price": "1"} for number in range(60)]
    clinic.bill(patient_id=patient_id, items=items)

    text = statement(clinic.receptionist, patient_id)

    assert text.count("Invoice Amount Balance") >= 2
    assert text.index("Item 0 ") < text.index("Item 59 ")
    assert "Closing balance $60.00" in text
    assert clinic.technician.get(f"/patients/{patient_id}/account/statement").status_code == 403


def test_a_statement_with_too_many_postings_asks_for_fewer_days(
    clinic: Clinic, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.billing.account_statement.MAX_POSTINGS", 2)
    patient_id = clinic.patient()["id"]
    clinic.bill("10.00", patient_id=patient_id, tax_rate="10")
    complete = statement(clinic.receptionist, patient_id)
    clinic.bill("10.00", patient_id=patient_id)

    refused = clinic.receptionist.get(f"/patients/{patient_id}/account/statement")

    assert "Closing balance $11.00" in complete
    assert (refused.status_code, list(refused.get_json()["errors"])) == (422, ["start_date"])
