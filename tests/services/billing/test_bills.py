"""Bills and payments: what is charged, what is owed, and that money is neither lost nor made."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
import time_machine
from sqlalchemy import select
from werkzeug.test import TestResponse

from models import AuditLog, Billing, InvoiceCounter, LedgerEntry
from services.billing import ledger
from tests.support import queries
from tests.support.clinic import Clinic


def error_of(answer: TestResponse) -> tuple[int, str]:
    return answer.status_code, answer.get_json()["error"]


def pay(clinic: Clinic, bill: dict[str, Any], amount: str, **members: Any) -> TestResponse:
    body = {"amount": amount, "method": "cash"} | members
    return clinic.receptionist.post(f"/billings/{bill['id']}/payments", body)


def shown(clinic: Clinic, bill: dict[str, Any]) -> dict[str, Any]:
    row: dict[str, Any] = clinic.admin.get(f"/billings/{bill['id']}").get_json()
    return row


def priced_doctor(clinic: Clinic, fee: str) -> int:
    return int(clinic.doctor_row(consultation_fee=fee)["id"])


# --- Making --------------------------------------------------------------------------------------------


def test_a_bill_adds_up_its_items_less_discount_plus_tax_on_the_rest(clinic: Clinic) -> None:
    bill = clinic.admin.make(
        "/billings",
        patient_id=clinic.patient()["id"],
        items=[
            {"description": "Suture", "quantity": 3, "unit_price": "33.33"},
            {"description": "Dressing", "unit_price": 0.06},
        ],
        discount="10.00",
        discount_reason="staff",
        tax_rate="7.5",
    )

    # (99.99 + 0.06 - 10.00) x 7.5 % = 6.75375
    amounts = {name: bill[name] for name in ("subtotal", "discount", "tax", "amount", "balance")}
    assert amounts == {
        "subtotal": "100.05",
        "discount": "10.00",
        "tax": "6.75",
        "amount": "96.80",
        "balance": "96.80",
    }
    assert (bill["status"], bill["is_paid"], bill["tax_rate"]) == ("unpaid", False, "7.50")
    assert [(item["quantity"], item["amount"]) for item in bill["items"]] == [(3, "99.99"), (1, "0.06")]


def test_tax_is_rounded_half_up(clinic: Clinic) -> None:
    bill = clinic.bill("0.50", tax_rate=5)

    assert bill["tax"] == "0.03"  # 0.025


def test_a_bill_of_nothing_is_paid(clinic: Clinic) -> None:
    bill = clinic.bill("0.00")

    assert (bill["status"], bill["is_paid"], bill["amount"]) == ("paid", True, "0.00")


def test_a_visit_is_billed_over_its_completed_treatments_once(clinic: Clinic) -> None:
    visit = clinic.visit()
    done = clinic.treatment(visit_id=visit["id"], cost="80.00")
    clinic.treatment(visit_id=visit["id"], cost="20.00", status="planned")

    bill = clinic.receptionist.make("/billings", visit_id=visit["id"])
    again = clinic.receptionist.post("/billings", {"visit_id": visit["id"]})

    assert [item["treatment_id"] for item in bill["items"]] == [done["id"]]
    assert (bill["amount"], bill["patient_id"], bill["doctor_id"]) == (
        "80.00",
        visit["patient_id"],
        visit["doctor_id"],
    )
    assert clinic.admin.get(f"/treatments/{done['id']}").get_json()["billing_id"] == bill["id"]
    assert error_of(again) == (409, "nothing_to_bill")


def test_one_treatment_is_billed_alone(clinic: Clinic) -> None:
    treatment = clinic.treatment(cost="45.50")

    bill = clinic.admin.make("/billings", treatment_id=treatment["id"], patient_id=treatment["patient_id"])

    assert (bill["amount"], bill["visit_id"]) == ("45.50", treatment["visit_id"])


def test_a_treatment_that_is_not_done_cannot_be_billed(clinic: Clinic) -> None:
    treatment = clinic.treatment(status="planned")

    answer = clinic.admin.post("/billings", {"treatment_id": treatment["id"]})

    assert error_of(answer) == (409, "nothing_to_bill")


def test_a_consultation_costs_the_doctors_fee_unless_it_names_a_price(clinic: Clinic) -> None:
    doctor_id = priced_doctor(clinic, "75.00")
    patient_id = clinic.patient()["id"]
    items = [
        {"description": "consultation"},
        {"description": "Consultation", "unit_price": "60.00"},
    ]

    bill = clinic.admin.make("/billings", patient_id=patient_id, doctor_id=doctor_id, items=items)

    assert [item["unit_price"] for item in bill["items"]] == ["75.00", "60.00"]


def test_an_item_without_price_is_refused_where_none_is_known(clinic: Clinic) -> None:
    body = {"patient_id": clinic.patient()["id"], "items": [{"description": "consultation"}]}
    unpriced = body | {"doctor_id": clinic.doctor.doctor_id, "items": [{"description": "X-ray"}]}

    for wrong in (body, unpriced):
        answer = clinic.admin.post("/billings", wrong)
        assert answer.status_code == 422
        assert list(answer.get_json()["errors"]) == ["items.0.unit_price"]


def test_a_bill_takes_exactly_one_of_visit_treatment_and_items(clinic: Clinic) -> None:
    treatment = clinic.treatment()
    items = [{"description": "X", "unit_price": "1.00"}]
    wrong: list[dict[str, Any]] = [
        {},
        {"patient_id": treatment["patient_id"]},
        {"items": items},
        {"visit_id": treatment["visit_id"], "treatment_id": treatment["id"]},
        {"visit_id": treatment["visit_id"], "items": items, "patient_id": treatment["patient_id"]},
        {"visit_id": treatment["visit_id"], "patient_id": clinic.patient()["id"]},
        {"visit_id": treatment["visit_id"], "doctor_id": priced_doctor(clinic, "1.00")},
        {"visit_id": 999},
        {"treatment_id": 999},
        {"patient_id": 999, "items": items},
        {"patient_id": treatment["patient_id"], "items": []},
    ]

    answers = [clinic.admin.post("/billings", body).status_code for body in wrong]

    assert answers == [422] * len(wrong)


@pytest.mark.parametrize(
    ("members", "field"),
    [
        ({"discount": "5.00"}, "discount_reason"),
        ({"discount": "100.01", "discount_reason": "x"}, "discount"),
        ({"tax_rate": "100.01"}, "tax_rate"),
        ({"tax_rate": "-1"}, "tax_rate"),
        ({"amount_paid": "-1"}, "amount_paid"),
        ({"payment_method": "gold"}, "payment_method"),
        ({"amount": "5.00"}, "amount"),
        ({"items": [{"description": "X", "quantity": 0, "unit_price": "1"}]}, "items.0.quantity"),
        ({"items": [{"description": "X", "quantity": 9, "unit_price": "9999999999"}]}, "items"),
        ({"items": [{"description": "X", "unit_price": "NaN"}]}, "items.0.unit_price"),
        ({"items": [{"description": "X", "unit_price": "1.001"}]}, "items.0.unit_price"),
    ],
)
def test_what_is_wrong_with_a_bill_is_named(clinic: Clinic, members: dict[str, Any], field: str) -> None:
    body = {"patient_id": clinic.patient()["id"], "items": [{"description": "X", "unit_price": "100.00"}]}

    answer = clinic.admin.post("/billings", body | members)

    assert answer.status_code == 422
    assert list(answer.get_json()["errors"]) == [field]
    with clinic.inside() as session:
        assert session.execute(select(Billing.id)).all() == []


def test_a_bill_can_be_paid_as_it_is_made(clinic: Clinic) -> None:
    bill = clinic.bill("100.00", amount_paid="30.00", payment_method="card")

    assert (bill["amount_paid"], bill["balance"], bill["status"]) == ("30.00", "70.00", "partial")
    assert [(paid["amount"], paid["method"]) for paid in bill["payments"]] == [("30.00", "card")]
    assert error_of(
        clinic.admin.post(
            "/billings",
            {
                "patient_id": bill["patient_id"],
                "items": [{"description": "X", "unit_price": "10.00"}],
                "amount_paid": "10.01",
            },
        )
    ) == (409, "overpayment")


def test_invoice_numbers_run_without_gap_through_the_clinics_year(make_clinic: Any) -> None:
    clinic = make_clinic(clinic_timezone="Pacific/Auckland")
    patient = clinic.patient()["id"]
    wrong = {"patient_id": patient, "items": [{"description": "X", "unit_price": "1"}], "discount": "2.00"}

    with time_machine.travel("2027-12-31T10:00:00Z", tick=True), clinic.inside():
        old = _sign_in_and_bill(clinic, patient)
    with time_machine.travel("2027-12-31T12:00:00Z", tick=True), clinic.inside():  # 1 a.m. in Auckland
        caller = clinic.sign_in("admin")
        assert caller.post("/billings", wrong).status_code == 422  # takes no number
        new = [_sign_in_and_bill(clinic, patient) for _ in range(2)]

    assert [old, *new] == ["INV-2027-000001", "INV-2028-000001", "INV-2028-000002"]


def _sign_in_and_bill(clinic: Clinic, patient_id: int) -> str:
    items = [{"description": "X", "unit_price": "1"}]
    bill = clinic.sign_in("admin").make("/billings", patient_id=patient_id, items=items)
    return str(bill["invoice_number"])


def test_bills_made_at_once_leave_no_gap_and_bill_nothing_twice(clinic: Clinic) -> None:
    visit = clinic.visit()
    for _ in range(3):
        clinic.treatment(visit_id=visit["id"])
    patient_id, caller = clinic.patient()["id"], clinic.receptionist
    items = [{"description": "X", "unit_price": "1"}]
    bodies = [{"visit_id": visit["id"]}] * 6 + [{"patient_id": patient_id, "items": items}] * 6

    with ThreadPoolExecutor(12) as pool:
        codes = sorted(pool.map(lambda body: caller.post("/billings", body).status_code, bodies))

    assert codes == [201] * 7 + [409] * 5
    with clinic.inside() as session:
        numbers = sorted(session.execute(select(Billing.invoice_number)).scalars())
        assert session.execute(select(InvoiceCounter.last_number)).scalar_one() == 7
    assert [number[-6:] for number in numbers] == [f"{n:06}" for n in range(1, 8)]


# --- Paying --------------------------------------------------------------------------------------------


def test_payments_lower_the_balance_until_the_bill_is_paid(clinic: Clinic) -> None:
    bill = clinic.bill("100.00")

    first = pay(clinic, bill, "40.00", reference="till 2")
    second = pay(clinic, bill, "60.00", method="mobile_money")

    assert first.status_code == 201
    assert first.headers["Location"] == f"/billings/{bill['id']}"
    assert (first.get_json()["status"], first.get_json()["balance"]) == ("partial", "60.00")
    row = second.get_json()
    assert (row["status"], row["is_paid"], row["amount_paid"], row["balance"]) == (
        "paid",
        True,
        "100.00",
        "0.00",
    )
    assert [(p["amount"], p["method"], p["reference"]) for p in row["payments"]] == [
        ("40.00", "cash", "till 2"),
        ("60.00", "mobile_money", None),
    ]
    assert row["payments"][0]["created_by"]["id"] == clinic.receptionist.user_id


def test_more_than_is_owed_is_refused_and_nothing_is_taken(clinic: Clinic) -> None:
    bill = clinic.bill("100.00")

    answer = pay(clinic, bill, "100.01")

    assert error_of(answer) == (409, "overpayment")
    assert answer.get_json()["balance"] == "100.00"
    assert shown(clinic, bill)["payments"] == []


def test_what_exceeds_a_bill_becomes_credit_where_that_is_asked_for(clinic: Clinic) -> None:
    bill = clinic.bill("100.00")

    row = pay(clinic, bill, "130.00", allow_credit=True).get_json()

    assert (row["amount_paid"], row["balance"], row["account_balance"]) == ("100.00", "0.00", "-30.00")


def test_credit_is_spent_when_asked_for_and_never_by_itself(clinic: Clinic) -> None:
    first = clinic.bill("100.00")
    pay(clinic, first, "130.00", allow_credit=True)
    second = clinic.bill("50.00", patient_id=first["patient_id"])

    assert (second["status"], second["account_balance"]) == ("unpaid", "20.00")
    too_much = pay(clinic, second, "30.01", method="credit")
    row = pay(clinic, second, "30.00", method="credit").get_json()

    assert error_of(too_much) == (409, "insufficient_credit")
    assert (row["amount_paid"], row["balance"], row["account_balance"]) == ("30.00", "20.00", "20.00")
    assert [(p["amount"], p["method"]) for p in row["payments"]] == [("30.00", "credit")]
    assert error_of(pay(clinic, second, "0.01", method="credit")) == (409, "insufficient_credit")
    assert error_of(pay(clinic, second, "20.01", method="credit", allow_credit=True)) == (409, "overpayment")


def test_credit_of_one_patient_is_not_anothers(clinic: Clinic) -> None:
    pay(clinic, clinic.bill("10.00"), "50.00", allow_credit=True)
    other = clinic.bill("10.00")

    assert error_of(pay(clinic, other, "10.00", method="credit")) == (409, "insufficient_credit")


def test_a_payment_may_be_entered_later_but_not_in_advance(clinic: Clinic) -> None:
    bill = clinic.bill("100.00")
    future = (datetime.now(UTC) + timedelta(hours=1)).isoformat()

    answer = pay(clinic, bill, "10.00", received_at="2026-01-05T10:00:00Z")
    refused = pay(clinic, bill, "10.00", received_at=future)

    received = answer.get_json()["payments"][0]["received_at"]
    assert datetime.fromisoformat(received) == datetime(2026, 1, 5, 10, tzinfo=UTC)
    assert refused.status_code == 422
    assert list(refused.get_json()["errors"]) == ["received_at"]


@pytest.mark.parametrize("amount", ["0", "0.00", "-5", "1.001", "NaN", "1e99", True, None])
def test_a_payment_is_a_positive_amount(clinic: Clinic, amount: Any) -> None:
    answer = pay(clinic, clinic.bill(), amount)

    assert answer.status_code == 422
    assert "amount" in answer.get_json()["errors"]


def test_two_of_many_payments_of_40_fit_a_bill_of_100(clinic: Clinic) -> None:
    bill = clinic.bill("100.00")
    caller = clinic.receptionist
    body = {"amount": "40.00", "method": "cash"}

    with ThreadPoolExecutor(16) as pool:
        answers = list(
            pool.map(lambda _n: caller.post(f"/billings/{bill['id']}/payments", body).status_code, range(16))
        )

    assert sorted(answers) == [201] * 2 + [409] * 14
    assert shown(clinic, bill)["balance"] == "20.00"


def test_credit_is_spent_once_on_two_bills_at_once(clinic: Clinic) -> None:
    first = clinic.bill("10.00")
    pay(clinic, first, "60.00", allow_credit=True)
    bills = [clinic.bill("50.00", patient_id=first["patient_id"]) for _ in range(8)]

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda bill: pay(clinic, bill, "50.00", method="credit").status_code, bills))

    assert sorted(answers) == [201] + [409] * 7
    assert shown(clinic, first)["account_balance"] == "350.00"


# --- Changing ------------------------------------------------------------------------------------------


def test_a_higher_amount_paid_is_a_payment_of_the_difference(clinic: Clinic) -> None:
    bill = clinic.bill("100.00", amount_paid="30.00", payment_method="card")

    row = clinic.admin.patch(f"/billings/{bill['id']}", {"amount_paid": "50"}).get_json()

    assert [(p["amount"], p["method"]) for p in row["payments"]] == [("30.00", "card"), ("20.00", "card")]


def test_the_same_amount_paid_sent_twice_pays_once(clinic: Clinic) -> None:
    bill = clinic.bill("100.00")

    for _ in range(2):
        assert clinic.admin.patch(f"/billings/{bill['id']}", {"amount_paid": 50}).status_code == 200

    assert len(shown(clinic, bill)["payments"]) == 1


def test_amount_paid_neither_falls_nor_exceeds_the_bill(clinic: Clinic) -> None:
    bill = clinic.bill("100.00", amount_paid="30.00")

    lower = clinic.admin.patch(f"/billings/{bill['id']}", {"amount_paid": "29.99"})
    beyond = clinic.admin.patch(f"/billings/{bill['id']}", {"amount_paid": "100.01"})

    assert lower.status_code == 422
    assert error_of(beyond) == (409, "overpayment")


def test_a_payment_together_with_other_changes_needs_if_match(clinic: Clinic) -> None:
    bill = clinic.bill("100.00")
    url = f"/billings/{bill['id']}"
    changes = {"amount_paid": "10.00", "notes": "called"}
    etag = clinic.admin.get(url).headers["ETag"]

    bare = clinic.admin.patch(url, changes)
    matched = clinic.admin.patch(url, changes, headers={"If-Match": etag})
    stale = clinic.admin.patch(url, changes | {"amount_paid": "20.00"}, headers={"If-Match": etag})

    assert error_of(bare) == (428, "if_match_required")
    assert (matched.status_code, matched.get_json()["amount_paid"]) == (200, "10.00")
    assert matched.headers["ETag"] != etag
    assert stale.status_code == 412


def test_a_grid_sends_the_whole_row_back_without_harm(clinic: Clinic) -> None:
    bill = clinic.bill("100.00", amount_paid="10.00", discount="5.00", discount_reason="staff")
    url = f"/billings/{bill['id']}"
    etag = clinic.admin.get(url).headers["ETag"]

    answer = clinic.admin.put(url, shown(clinic, bill))
    noted = clinic.admin.put(url, shown(clinic, bill) | {"notes": "called"})

    assert (answer.status_code, answer.headers["ETag"]) == (200, etag)
    assert (noted.status_code, noted.get_json()["notes"]) == (200, "called")
    assert noted.get_json()["amount_paid"] == "10.00"


def test_the_discount_changes_while_nothing_is_paid(clinic: Clinic) -> None:
    bill = clinic.bill("100.00", discount="10.00", discount_reason="staff", tax_rate="10")
    url = f"/billings/{bill['id']}"

    row = clinic.admin.patch(url, {"discount": "20.00"}).get_json()
    gone = clinic.admin.patch(url, {"discount": "0"}).get_json()
    pay(clinic, bill, "1.00")
    refused = clinic.admin.patch(url, {"discount": "5.00"})

    assert (row["discount"], row["tax"], row["amount"], row["balance"]) == (
        "20.00",
        "8.00",
        "88.00",
        "88.00",
    )
    assert (gone["discount"], gone["tax"], gone["amount"]) == ("0.00", "10.00", "110.00")
    assert error_of(refused) == (409, "read_only")


def test_a_new_discount_needs_a_reason_and_stays_within_the_subtotal(clinic: Clinic) -> None:
    bill = clinic.bill("100.00")
    url = f"/billings/{bill['id']}"

    bare = clinic.admin.patch(url, {"discount": "5.00"})
    beyond = clinic.admin.patch(url, {"discount": "100.01", "discount_reason": "x"})

    assert list(bare.get_json()["errors"]) == ["discount_reason"]
    assert list(beyond.get_json()["errors"]) == ["discount"]
    assert shown(clinic, bill)["amount"] == "100.00"


def test_every_payment_moves_the_version(clinic: Clinic) -> None:
    bill = clinic.bill("100.00")
    etag = clinic.admin.get(f"/billings/{bill['id']}").headers["ETag"]

    answer = pay(clinic, bill, "10.00")
    stale = clinic.admin.patch(f"/billings/{bill['id']}", {"notes": "x"}, headers={"If-Match": etag})

    assert answer.headers["ETag"] != etag
    assert error_of(stale) == (412, "stale_version")


# --- Giving up, undoing --------------------------------------------------------------------------------


def test_a_write_off_gives_up_at_most_the_balance(clinic: Clinic) -> None:
    bill = clinic.bill("100.00", amount_paid="60.00")
    url = f"/billings/{bill['id']}/write-off"

    beyond = clinic.admin.post(url, {"amount": "40.01", "reason": "hardship"})
    bare = clinic.admin.post(url, {"amount": "40.00"})
    row = clinic.admin.post(url, {"amount": "40.00", "reason": "hardship"}).get_json()

    assert error_of(beyond) == (409, "overpayment")
    assert bare.status_code == 422
    assert (row["written_off"], row["balance"], row["status"]) == ("40.00", "0.00", "paid")
    assert row["amount_paid"] == "60.00"


def test_a_void_reverses_the_bill_and_keeps_what_was_paid_as_credit(clinic: Clinic) -> None:
    bill = clinic.bill("100.00", discount="10.00", discount_reason="staff", tax_rate="10")
    pay(clinic, bill, "50.00")
    url = f"/billings/{bill['id']}"

    bare = clinic.admin.post(f"{url}/void", {})
    row = clinic.admin.post(f"{url}/void", {"reason": "wrong patient"}).get_json()

    assert bare.status_code == 422
    assert (row["status"], row["balance"], row["amount_paid"], row["is_paid"]) == (
        "void",
        "0.00",
        "0.00",
        False,
    )
    assert row["account_balance"] == "-50.00"
    with clinic.inside() as session:
        entries = session.execute(select(LedgerEntry).where(LedgerEntry.billing_id == bill["id"])).scalars()
        assert sum(entry.amount for entry in entries) == 0


def test_a_void_bill_is_read_only(clinic: Clinic) -> None:
    bill = clinic.bill("100.00", amount_paid="10.00")
    url = f"/billings/{bill['id']}"
    clinic.admin.post(f"{url}/void", {"reason": "mistake"})

    answers = [
        clinic.admin.patch(url, {"notes": "x"}),
        pay(clinic, bill, "1.00"),
        clinic.admin.post(f"{url}/refunds", {"amount": "1.00", "reason": "x"}),
        clinic.admin.post(f"{url}/write-off", {"amount": "1.00", "reason": "x"}),
        clinic.admin.post(f"{url}/void", {"reason": "x"}),
        clinic.admin.post(f"{url}/claims", {"insurer": "A", "policy_number": "1", "amount": "1.00"}),
    ]

    assert [error_of(answer) for answer in answers] == [(409, "read_only")] * 6


def test_treatments_of_a_void_bill_can_be_billed_again(clinic: Clinic) -> None:
    treatment = clinic.treatment(cost="80.00")
    bill = clinic.admin.make("/billings", treatment_id=treatment["id"])

    clinic.admin.post(f"/billings/{bill['id']}/void", {"reason": "mistake"})
    again = clinic.admin.make("/billings", treatment_id=treatment["id"])

    assert again["amount"] == "80.00"
    assert clinic.admin.get(f"/treatments/{treatment['id']}").get_json()["billing_id"] == again["id"]


# --- Who -----------------------------------------------------------------------------------------------


def test_a_doctor_sees_the_bills_of_own_visits_only(clinic: Clinic) -> None:
    own = clinic.bill("10.00", doctor_id=clinic.doctor.doctor_id)
    other = clinic.bill("20.00", doctor_id=priced_doctor(clinic, "1.00"))
    clinic.bill("30.00")

    listed = clinic.doctor.get("/billings").get_json()
    found = clinic.doctor.get(f"/billings/{own['id']}")
    hidden = clinic.doctor.get(f"/billings/{other['id']}")

    assert [row["id"] for row in listed] == [own["id"]]
    assert found.status_code == 200
    assert error_of(hidden) == (404, "not_found")
    with clinic.inside() as session:
        refused = session.execute(select(AuditLog).where(AuditLog.detail == "not_found")).scalar_one()
        assert (refused.entity, refused.entity_id, refused.user_id) == (
            "billing",
            other["id"],
            clinic.doctor.user_id,
        )
        assert refused.patient_ids == [other["patient_id"]]


def test_a_doctors_account_without_doctor_sees_no_bill(clinic: Clinic) -> None:
    clinic.bill("30.00")
    caller = clinic.sign_in("doctor")
    clinic.admin.patch(f"/doctors/{caller.doctor_id}", {"user_id": None})

    assert caller.get("/billings").get_json() == []


@pytest.mark.parametrize("role", ["doctor", "technician"])
def test_only_the_desk_bills_and_takes_money(clinic: Clinic, role: str) -> None:
    bill = clinic.bill("10.00", doctor_id=clinic.doctor.doctor_id)
    caller = clinic.caller(role)

    made = caller.post("/billings", {"patient_id": bill["patient_id"]})
    paid = caller.post(f"/billings/{bill['id']}/payments", {"amount": "1", "method": "cash"})

    assert (made.status_code, paid.status_code) == (403, 403)


def test_the_desk_neither_writes_off_nor_voids(clinic: Clinic) -> None:
    bill = clinic.bill("10.00")

    answers = [
        clinic.receptionist.post(f"/billings/{bill['id']}/write-off", {"amount": "1", "reason": "x"}),
        clinic.receptionist.post(f"/billings/{bill['id']}/void", {"reason": "x"}),
    ]

    assert [answer.status_code for answer in answers] == [403, 403]


def test_a_payment_leaves_one_entry_that_says_so(clinic: Clinic) -> None:
    bill = clinic.bill("10.00")

    pay(clinic, bill, "5.00")

    with clinic.inside() as session:
        where = (AuditLog.user_id == clinic.receptionist.user_id, AuditLog.entity == "billing")
        entry = session.execute(select(AuditLog).where(*where)).scalar_one()
        assert (entry.action, entry.entity_id) == ("pay", bill["id"])
        assert entry.patient_ids == [bill["patient_id"]]


# --- Finding -------------------------------------------------------------------------------------------


def test_bills_are_found_by_what_is_owed(clinic: Clinic) -> None:
    unpaid = clinic.bill("10.00")
    partial = clinic.bill("10.00", amount_paid="1.00")
    paid = clinic.bill("10.00", amount_paid="10.00")
    void = clinic.bill("10.00")
    clinic.admin.post(f"/billings/{void['id']}/void", {"reason": "x"})

    def found(query: str) -> list[int]:
        return [row["id"] for row in clinic.admin.get(f"/billings?{query}").get_json()]

    assert found("status=unpaid") == [unpaid["id"]]
    assert found("status=partial") == [partial["id"]]
    assert found("status=paid") == found("is_paid=true") == [paid["id"]]
    assert found("status=void") == [void["id"]]
    assert found("is_paid=false") == [unpaid["id"], partial["id"], void["id"]]
    assert found(f"q={paid['invoice_number']}") == [paid["id"]]
    assert found(f"patient_id={paid['patient_id']}") == [paid["id"]]


def test_a_page_of_bills_takes_as_many_queries_as_one_bill(clinic: Clinic) -> None:
    clinic.bill("10.00", amount_paid="1.00", doctor_id=clinic.doctor.doctor_id)
    one = queries.count(clinic, clinic.admin, "/billings?per_page=50")
    for _ in range(5):
        bill = clinic.bill("10.00", amount_paid="1.00", doctor_id=priced_doctor(clinic, "1.00"))
        body = {"insurer": "Acme", "policy_number": "7", "amount": "1.00"}
        clinic.admin.make(f"/billings/{bill['id']}/claims", **body)

    assert queries.count(clinic, clinic.admin, "/billings?per_page=50") == one


def test_half_cents_are_rounded_away_from_zero() -> None:
    halves = {"0.005": "0.01", "0.015": "0.02", "2.675": "2.68", "-0.005": "-0.01", "0.0049": "0.00"}

    assert {text: str(ledger.half_up(Decimal(text))) for text in halves} == halves
