"""Bills: creation, changes, access, and filters."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import pytest
import time_machine
from sqlalchemy import select
from werkzeug.test import TestResponse

from models import AuditLog, Billing, DocumentCounter
from services import clock
from services.billing import ledger
from tests.support import queries
from tests.support.clinic import Clinic


def error_of(answer: TestResponse) -> tuple[int, str]:
    return answer.status_code, answer.get_json()["error"]


def pay(clinic: Clinic, bill: dict[str, Any], amount: str, **members: Any) -> TestResponse:
    body = {"amount": amount, "method": "cash"} | members
    return clinic.receptionist.post(f"/billings/{bill['id']}/payments", body)


def get_bill(clinic: Clinic, bill: dict[str, Any]) -> dict[str, Any]:
    row: dict[str, Any] = clinic.admin.get(f"/billings/{bill['id']}").get_json()
    return row


def create_doctor_with_fee(clinic: Clinic, fee: str) -> int:
    return int(clinic.doctor_row(consultation_fee=fee)["id"])


# --- Creation --------------------------------------------------------------------------------------------


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


def test_a_free_bill_is_paid(clinic: Clinic) -> None:
    bill = clinic.bill("0.00")

    assert (bill["status"], bill["is_paid"], bill["amount"]) == ("paid", True, "0.00")


def test_the_completed_treatments_of_a_visit_are_billed_once(clinic: Clinic) -> None:
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


def test_one_treatment_can_be_billed_separately(clinic: Clinic) -> None:
    treatment = clinic.treatment(cost="45.50")

    bill = clinic.admin.make("/billings", treatment_id=treatment["id"], patient_id=treatment["patient_id"])

    assert (bill["amount"], bill["visit_id"]) == ("45.50", treatment["visit_id"])


def test_a_planned_treatment_cannot_be_billed(clinic: Clinic) -> None:
    treatment = clinic.treatment(status="planned")

    answer = clinic.admin.post("/billings", {"treatment_id": treatment["id"]})

    assert error_of(answer) == (409, "nothing_to_bill")


def test_a_consultation_costs_the_doctors_fee_by_default(clinic: Clinic) -> None:
    doctor_id = create_doctor_with_fee(clinic, "75.00")
    patient_id = clinic.patient()["id"]
    items = [
        {"description": "consultation"},
        {"description": "Consultation", "unit_price": "60.00"},
    ]

    bill = clinic.admin.make("/billings", patient_id=patient_id, doctor_id=doctor_id, items=items)

    assert [item["unit_price"] for item in bill["items"]] == ["75.00", "60.00"]


def test_an_item_without_a_default_price_needs_a_unit_price(clinic: Clinic) -> None:
    body = {"patient_id": clinic.patient()["id"], "items": [{"description": "consultation"}]}
    unpriced = body | {"doctor_id": clinic.doctor.doctor_id, "items": [{"description": "X-ray"}]}

    for wrong in (body, unpriced):
        answer = clinic.admin.post("/billings", wrong)
        assert answer.status_code == 422
        assert list(answer.get_json()["errors"]) == ["items.0.unit_price"]


def test_a_bill_needs_exactly_one_of_visit_treatment_and_items(clinic: Clinic) -> None:
    treatment = clinic.treatment()
    items = [{"description": "X", "unit_price": "1.00"}]
    wrong: list[dict[str, Any]] = [
        {},
        {"patient_id": treatment["patient_id"]},
        {"items": items},
        {"visit_id": treatment["visit_id"], "treatment_id": treatment["id"]},
        {"visit_id": treatment["visit_id"], "items": items, "patient_id": treatment["patient_id"]},
        {"visit_id": treatment["visit_id"], "patient_id": clinic.patient()["id"]},
        {"visit_id": treatment["visit_id"], "doctor_id": create_doctor_with_fee(clinic, "1.00")},
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
        ({"total": "5.00"}, "total"),
        ({"items": [{"description": "X", "quantity": 0, "unit_price": "1"}]}, "items.0.quantity"),
        ({"items": [{"description": "X", "quantity": 9, "unit_price": "9999999999"}]}, "items"),
        ({"items": [{"description": "X", "unit_price": "NaN"}]}, "items.0.unit_price"),
        ({"items": [{"description": "X", "unit_price": "1.001"}]}, "items.0.unit_price"),
    ],
)
def test_the_error_names_the_invalid_member(clinic: Clinic, members: dict[str, Any], field: str) -> None:
    body = {"patient_id": clinic.patient()["id"], "items": [{"description": "X", "unit_price": "100.00"}]}

    answer = clinic.admin.post("/billings", body | members)

    assert answer.status_code == 422
    assert list(answer.get_json()["errors"]) == [field]
    with clinic.inside() as session:
        assert session.execute(select(Billing.id)).all() == []


def test_the_amount_of_a_bill_with_tax_is_within_the_limit_of_money(clinic: Clinic) -> None:
    limit, patient_id = "9999999999.99", clinic.patient()["id"]
    items = [{"description": "X", "unit_price": limit}]
    body = {"patient_id": patient_id, "items": items, "discount_reason": "staff"}

    for tax_rate in ("100", "0.01"):
        refused = clinic.admin.post("/billings", body | {"tax_rate": tax_rate})
        assert (refused.status_code, list(refused.get_json()["errors"])) == (422, ["tax_rate"])
    bill = clinic.admin.make("/billings", **(body | {"tax_rate": "100", "discount": "5000000000.00"}))
    url = f"/billings/{bill['id']}"
    raised = clinic.admin.patch(url, {"discount": "0.00"})
    lowered = clinic.admin.patch(url, {"discount": "5000000000.01"})

    assert bill["amount"] == "9999999999.98"
    assert (raised.status_code, list(raised.get_json()["errors"])) == (422, ["discount"])
    assert lowered.get_json()["amount"] == "9999999999.96"
    assert clinic.admin.patch(url, {"amount_paid": "9999999999.96"}).status_code == 200
    assert clinic.admin.post(f"{url}/void", {"reason": "mistake"}).status_code == 200
    second = clinic.bill(limit, patient_id=patient_id)
    assert second["account_balance"] == "0.03"


def test_a_bill_has_a_date_of_issue(clinic: Clinic) -> None:
    with clinic.inside():
        today = clock.today()
    days = {"old": today - timedelta(days=366), "early": today - timedelta(days=40)}

    rows = {name: clinic.bill("10.00", date=day.isoformat()) for name, day in days.items()}
    new = clinic.bill("10.00")

    assert [row["date"] for row in (*rows.values(), new)] == [
        *(day.isoformat() for day in days.values()),
        today.isoformat(),
    ]
    assert rows["old"]["invoice_number"].startswith(f"INV-{days['old'].year}-")
    day = days["early"].isoformat()
    listed = clinic.admin.get(f"/billings?start_date={day}&end_date={day}").get_json()
    assert [row["id"] for row in listed] == [rows["early"]["id"]]
    totals = clinic.admin.get(f"/analytics/revenue?start_date={day}&end_date={day}").get_json()
    assert (totals["totals"]["billed"], totals["ageing"]["current"]) == ("10.00", "10.00")


def test_dates_far_away_are_refused(clinic: Clinic) -> None:
    with clinic.inside():
        today = clock.today()
    bill = clinic.bill("10.00", due_date=today.isoformat())
    body = {"patient_id": bill["patient_id"], "items": [{"description": "X", "unit_price": "1.00"}]}
    wrong = {
        "date": (date(1900, 1, 1), today - timedelta(days=367), today + timedelta(days=1)),
        "due_date": (date(1900, 1, 1), today - timedelta(days=367), date(2199, 1, 1)),
    }

    for field, field_days in wrong.items():
        for day in field_days:
            answer = clinic.admin.post("/billings", body | {field: day.isoformat()})
            assert (answer.status_code, list(answer.get_json()["errors"])) == (422, [field])
    changed = clinic.admin.patch(f"/billings/{bill['id']}", {"due_date": "1900-01-01"})
    assert (changed.status_code, list(changed.get_json()["errors"])) == (422, ["due_date"])


def test_a_bill_can_be_created_with_a_payment(clinic: Clinic) -> None:
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


def test_invoice_numbers_have_no_gaps_within_a_year_of_the_clinic(make_clinic: Any) -> None:
    clinic = make_clinic(clinic_timezone="Pacific/Auckland")
    patient = clinic.patient()["id"]
    wrong = {"patient_id": patient, "items": [{"description": "X", "unit_price": "1"}], "discount": "2.00"}

    with time_machine.travel("2027-12-31T10:00:00Z", tick=True), clinic.inside():
        old = _bill_as_new_admin(clinic, patient)
    with time_machine.travel("2027-12-31T12:00:00Z", tick=True), clinic.inside():  # 1 a.m. in Auckland
        caller = clinic.sign_in("admin")
        assert caller.post("/billings", wrong).status_code == 422  # takes no number
        new = [_bill_as_new_admin(clinic, patient) for _ in range(2)]

    assert [old, *new] == ["INV-2027-000001", "INV-2028-000001", "INV-2028-000002"]


def _bill_as_new_admin(clinic: Clinic, patient_id: int) -> str:
    items = [{"description": "X", "unit_price": "1"}]
    bill = clinic.sign_in("admin").make("/billings", patient_id=patient_id, items=items)
    return str(bill["invoice_number"])


def test_concurrent_bills_have_no_number_gap_and_bill_no_treatment_twice(clinic: Clinic) -> None:
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
        assert session.execute(select(DocumentCounter.last_number)).scalar_one() == 7
    assert [number[-6:] for number in numbers] == [f"{n:06}" for n in range(1, 8)]


# --- Changes ------------------------------------------------------------------------------------------


def test_a_higher_amount_paid_posts_a_payment_of_the_difference(clinic: Clinic) -> None:
    bill = clinic.bill("100.00", amount_paid="30.00", payment_method="card")

    row = clinic.admin.patch(f"/billings/{bill['id']}", {"amount_paid": "50"}).get_json()

    assert [(p["amount"], p["method"]) for p in row["payments"]] == [("30.00", "card"), ("20.00", "card")]


def test_null_clears_the_method_and_a_payment_may_set_it(clinic: Clinic) -> None:
    bill = clinic.bill("100.00", payment_method="card")
    url = f"/billings/{bill['id']}"

    cleared = clinic.admin.patch(url, {"payment_method": None}).get_json()
    paid = clinic.admin.patch(url, {"payment_method": "cash", "amount_paid": "40.00"}).get_json()
    by_other = clinic.admin.patch(url, {"payment_method": None, "amount_paid": "50.00"}).get_json()

    assert (cleared["payment_method"], paid["payment_method"], by_other["payment_method"]) == (
        None,
        "cash",
        None,
    )
    assert [payment["method"] for payment in by_other["payments"]] == ["cash", "other"]


def test_the_same_amount_paid_sent_twice_posts_one_payment(clinic: Clinic) -> None:
    bill = clinic.bill("100.00")

    for _ in range(2):
        assert clinic.admin.patch(f"/billings/{bill['id']}", {"amount_paid": 50}).status_code == 200

    assert len(get_bill(clinic, bill)["payments"]) == 1


def test_amount_paid_below_the_payments_or_above_the_amount_is_refused(clinic: Clinic) -> None:
    bill = clinic.bill("100.00", amount_paid="30.00")

    lower = clinic.admin.patch(f"/billings/{bill['id']}", {"amount_paid": "29.99"})
    above = clinic.admin.patch(f"/billings/{bill['id']}", {"amount_paid": "100.01"})

    assert lower.status_code == 422
    assert error_of(above) == (409, "overpayment")


def test_a_payment_together_with_other_changes_needs_if_match(clinic: Clinic) -> None:
    bill = clinic.bill("100.00")
    url = f"/billings/{bill['id']}"
    changes = {"amount_paid": "10.00", "notes": "called"}
    etag = clinic.admin.get(url).headers["ETag"]

    without_if_match = clinic.admin.patch(url, changes)
    matched = clinic.admin.patch(url, changes, headers={"If-Match": etag})
    stale = clinic.admin.patch(url, changes | {"amount_paid": "20.00"}, headers={"If-Match": etag})

    assert error_of(without_if_match) == (428, "if_match_required")
    assert (matched.status_code, matched.get_json()["amount_paid"]) == (200, "10.00")
    assert matched.headers["ETag"] != etag
    assert stale.status_code == 412


def test_unchanged_members_of_a_complete_bill_are_ignored(clinic: Clinic) -> None:
    bill = clinic.bill("100.00", amount_paid="10.00", discount="5.00", discount_reason="staff")
    url = f"/billings/{bill['id']}"
    etag = clinic.admin.get(url).headers["ETag"]

    answer = clinic.admin.put(url, get_bill(clinic, bill))
    noted = clinic.admin.put(url, get_bill(clinic, bill) | {"notes": "called"})

    assert (answer.status_code, answer.headers["ETag"]) == (200, etag)
    assert (noted.status_code, noted.get_json()["notes"]) == (200, "called")
    assert noted.get_json()["amount_paid"] == "10.00"


def test_the_discount_can_change_until_the_first_payment(clinic: Clinic) -> None:
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


def test_a_new_discount_needs_a_reason_and_is_at_most_the_subtotal(clinic: Clinic) -> None:
    bill = clinic.bill("100.00")
    url = f"/billings/{bill['id']}"

    incomplete = clinic.admin.patch(url, {"discount": "5.00"})
    above = clinic.admin.patch(url, {"discount": "100.01", "discount_reason": "x"})

    assert list(incomplete.get_json()["errors"]) == ["discount_reason"]
    assert list(above.get_json()["errors"]) == ["discount"]
    assert get_bill(clinic, bill)["amount"] == "100.00"


# --- Access -----------------------------------------------------------------------------------------------


def test_a_doctor_sees_only_the_bills_of_their_own_visits(clinic: Clinic) -> None:
    own = clinic.bill("10.00", doctor_id=clinic.doctor.doctor_id)
    other = clinic.bill("20.00", doctor_id=create_doctor_with_fee(clinic, "1.00"))
    clinic.bill("30.00")

    listed = clinic.doctor.get("/billings").get_json()
    visible = clinic.doctor.get(f"/billings/{own['id']}")
    hidden = clinic.doctor.get(f"/billings/{other['id']}")

    assert [row["id"] for row in listed] == [own["id"]]
    assert visible.status_code == 200
    assert error_of(hidden) == (404, "not_found")
    with clinic.inside() as session:
        refused = session.execute(select(AuditLog).where(AuditLog.detail == "not_found")).scalar_one()
        assert (refused.entity, refused.entity_id, refused.user_id) == (
            "billing",
            other["id"],
            clinic.doctor.user_id,
        )
        assert refused.patient_ids == [other["patient_id"]]


def test_a_doctor_user_without_a_doctor_record_sees_no_bill(clinic: Clinic) -> None:
    clinic.bill("30.00")
    caller = clinic.sign_in("doctor")
    clinic.admin.patch(f"/doctors/{caller.doctor_id}", {"user_id": None})

    assert caller.get("/billings").get_json() == []


@pytest.mark.parametrize("role", ["doctor", "technician"])
def test_doctors_and_technicians_cannot_create_bills_or_payments(clinic: Clinic, role: str) -> None:
    bill = clinic.bill("10.00", doctor_id=clinic.doctor.doctor_id)
    caller = clinic.caller(role)

    made = caller.post("/billings", {"patient_id": bill["patient_id"]})
    paid = caller.post(f"/billings/{bill['id']}/payments", {"amount": "1", "method": "cash"})

    assert (made.status_code, paid.status_code) == (403, 403)


def test_a_receptionist_cannot_write_off_or_void(clinic: Clinic) -> None:
    bill = clinic.bill("10.00")

    answers = [
        clinic.receptionist.post(f"/billings/{bill['id']}/write-off", {"amount": "1", "reason": "x"}),
        clinic.receptionist.post(f"/billings/{bill['id']}/void", {"reason": "x"}),
    ]

    assert [answer.status_code for answer in answers] == [403, 403]


# --- Filters and sums ----------------------------------------------------------------------------------


def test_bills_can_be_filtered_by_payment_status(clinic: Clinic) -> None:
    unpaid = clinic.bill("10.00")
    partial = clinic.bill("10.00", amount_paid="1.00")
    paid = clinic.bill("10.00", amount_paid="10.00")
    void = clinic.bill("10.00")
    clinic.admin.post(f"/billings/{void['id']}/void", {"reason": "x"})

    def filtered_ids(query: str) -> list[int]:
        return [row["id"] for row in clinic.admin.get(f"/billings?{query}").get_json()]

    assert filtered_ids("status=unpaid") == [unpaid["id"]]
    assert filtered_ids("status=partial") == [partial["id"]]
    assert filtered_ids("status=paid") == filtered_ids("is_paid=true") == [paid["id"]]
    assert filtered_ids("status=void") == [void["id"]]
    assert filtered_ids("is_paid=false") == [void["id"], partial["id"], unpaid["id"]]
    assert filtered_ids("status=unpaid&status=partial") == [partial["id"], unpaid["id"]]
    assert filtered_ids("status_ne=unpaid&status_ne=partial") == [void["id"], paid["id"]]
    assert filtered_ids(f"q={paid['invoice_number']}") == [paid["id"]]
    assert filtered_ids(f"patient_id={paid['patient_id']}") == [paid["id"]]


def test_a_page_of_bills_takes_as_many_queries_as_one_bill(clinic: Clinic) -> None:
    clinic.bill("10.00", amount_paid="1.00", doctor_id=clinic.doctor.doctor_id)
    one = queries.count(clinic, clinic.admin, "/billings?per_page=50")
    for _ in range(5):
        bill = clinic.bill("10.00", amount_paid="1.00", doctor_id=create_doctor_with_fee(clinic, "1.00"))
        body = {"insurer": "Acme", "policy_number": "7", "amount": "1.00"}
        clinic.admin.make(f"/billings/{bill['id']}/claims", **body)

    assert queries.count(clinic, clinic.admin, "/billings?per_page=50") == one


def test_half_cents_are_rounded_away_from_zero() -> None:
    halves = {"0.005": "0.01", "0.015": "0.02", "2.675": "2.68", "-0.005": "-0.01", "0.0049": "0.00"}

    assert {text: str(ledger.half_up(Decimal(text))) for text in halves} == halves
