"""Credit notes: their causes, amounts, tax and numbers, and their agreement with the ledger."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import select, text

from enums import Role
from extensions import db
from models import CreditNote, DocumentCounter, Event
from security.permissions import Actor
from services import clock, integrity_checks
from services.billing import credit_notes, opening_balances
from services.jobs.transactions import transaction
from tests.support.clinic import Caller, Clinic
from tests.support.concurrency import run_concurrently

Row = dict[str, Any]


def send(caller: Caller, bill: Row, action: str, **members: Any) -> Row:
    """Send an action on a bill and return the bill."""
    response = caller.post(f"/billings/{bill['id']}/{action}", {"reason": "typed twice"} | members)
    assert response.status_code in (200, 201), response.get_data(as_text=True)
    row: Row = response.get_json()
    return row


def pay(clinic: Clinic, bill: Row, amount: str, method: str = "cash") -> None:
    clinic.admin.make(f"/billings/{bill['id']}/payments", amount=amount, method=method)


def notes_of(bill: Row) -> list[tuple[str, str]]:
    """Return amount and tax of the credit notes of a bill."""
    return [(note["amount"], note["tax"]) for note in bill["credit_notes"]]


def violations(clinic: Clinic) -> list[Any]:
    with clinic.inside():
        return list(integrity_checks.violations())


def numbers(clinic: Clinic) -> list[str]:
    with clinic.inside() as session:
        return list(session.scalars(select(CreditNote.number).order_by(CreditNote.id)))


# payments, refunds -> (amount, tax) of each credit note, after a void. The bill is 110 with 10 tax.
CASES: list[tuple[list[str], list[str], list[tuple[str, str]]]] = [
    ([], [], [("110.00", "10.00")]),
    (["60"], [], [("110.00", "10.00")]),
    (["110"], ["33.33"], [("33.33", "3.03"), ("76.67", "6.97")]),
    (["110"], ["0.05", "0.05"], [("0.05", "0.00"), ("0.05", "0.01"), ("109.90", "9.99")]),
    (["110"], ["110"], [("110.00", "10.00")]),
]


@pytest.mark.parametrize(("payments", "refunds", "expected"), CASES)
def test_refunds_and_void_credit_the_bill_exactly_once(
    clinic: Clinic, payments: list[str], refunds: list[str], expected: list[tuple[str, str]]
) -> None:
    bill = clinic.bill("100.00", tax_rate="10")
    for amount in payments:
        pay(clinic, bill, amount)

    for number, amount in enumerate(refunds, start=1):
        bill = send(clinic.admin, bill, "refunds", amount=amount)
        assert len(bill["credit_notes"]) == number
    bill = send(clinic.admin, bill, "void")

    assert notes_of(bill) == expected
    assert sum(Decimal(note["amount"]) for note in bill["credit_notes"]) == 110
    assert violations(clinic) == []


def test_a_bill_that_is_paid_and_refunded_again_is_credited_up_to_its_amount(clinic: Clinic) -> None:
    bill = clinic.bill("100.00")
    for amount in ("70", "70"):
        pay(clinic, bill, amount)
        bill = send(clinic.admin, bill, "refunds", amount=amount)
    pay(clinic, bill, "100")
    bill = send(clinic.admin, bill, "refunds", amount="20")
    assert notes_of(bill) == [("70.00", "0.00"), ("30.00", "0.00")]

    bill = send(clinic.admin, bill, "void")

    assert notes_of(bill) == [("70.00", "0.00"), ("30.00", "0.00")]
    assert violations(clinic) == []


def test_a_request_has_no_credit_note_until_it_is_approved(clinic: Clinic) -> None:
    bill = clinic.bill("100.00", amount_paid="100.00", payment_method="cash")
    requests = [send(clinic.receptionist, bill, "refunds", amount="10")["refunds"][-1] for _ in range(2)]
    assert numbers(clinic) == []

    for request, status in zip(requests, ("rejected", "approved"), strict=True):
        path = f"/billings/{bill['id']}/refunds/{request['id']}"
        assert clinic.admin.patch(path, {"status": status}).status_code == 200

    shown = clinic.admin.get(f"/billings/{bill['id']}").get_json()["credit_notes"]
    assert [note["refund_id"] for note in shown] == [requests[1]["id"]]
    assert (shown[0]["reason"], shown[0]["created_by_id"]) == ("typed twice", clinic.admin.user_id)
    assert violations(clinic) == []


def test_refunds_without_a_bill_and_voids_of_nothing_have_no_credit_note(clinic: Clinic) -> None:
    free = clinic.bill("0.00")
    assert send(clinic.admin, free, "void")["credit_notes"] == []
    bill = clinic.bill("10.00")
    body = {"amount": "30", "method": "cash", "allow_credit": True}
    clinic.admin.make(f"/billings/{bill['id']}/payments", **body)
    path = f"/patients/{bill['patient_id']}/account/refunds"
    refund = clinic.admin.make(path, amount="20", method="cash", reason="Paid too much")

    assert refund["status"] == "approved"
    assert numbers(clinic) == []
    assert violations(clinic) == []


def test_the_money_of_an_insurer_on_a_void_bill_is_paid_back_without_another_note(clinic: Clinic) -> None:
    bill = clinic.bill("100.00")
    pay(clinic, bill, "80", "insurance")
    bill = send(clinic.admin, bill, "void")
    bill = send(clinic.admin, bill, "refunds", amount="80", method="insurance")

    assert notes_of(bill) == [("100.00", "0.00")]
    assert violations(clinic) == []


def test_a_void_credits_the_amount_after_a_discount_and_before_a_write_off(clinic: Clinic) -> None:
    bill = clinic.bill("100.00", tax_rate="10", discount="50", discount_reason="staff")
    discount = {"discount": "20", "discount_reason": "staff"}
    assert clinic.admin.patch(f"/billings/{bill['id']}", discount).status_code == 200
    send(clinic.admin, bill, "write-off", amount="8")

    bill = send(clinic.admin, bill, "void")

    assert notes_of(bill) == [("88.00", "8.00")]
    assert violations(clinic) == []


def test_the_amount_of_a_credited_bill_cannot_change(clinic: Clinic) -> None:
    bill = clinic.bill("100.00", amount_paid="100.00", payment_method="cash")
    send(clinic.admin, bill, "refunds", amount="100")
    discount = {"discount": "20", "discount_reason": "staff"}

    refused = clinic.admin.patch(f"/billings/{bill['id']}", discount)

    assert (refused.status_code, refused.get_json()["error"]) == (409, "read_only")
    assert violations(clinic) == []


def test_a_credit_note_is_an_event_and_an_audit_entry_of_the_patient(clinic: Clinic) -> None:
    bill = send(clinic.admin, clinic.bill("100.00"), "void")

    (entry,) = clinic.admin.get("/audit-logs?entity=credit_note").get_json()
    with clinic.inside() as session:
        events = session.execute(
            select(Event.type, Event.entity_id, Event.patient_id).where(Event.entity == "credit_note")
        ).all()
    note_id = bill["credit_notes"][0]["id"]
    assert (entry["action"], entry["entity_id"], entry["patient_ids"]) == (
        "create",
        note_id,
        [bill["patient_id"]],
    )
    assert [tuple(event) for event in events] == [("credit_note.issued", note_id, bill["patient_id"])]


def test_a_void_that_fails_leaves_no_gap(clinic: Clinic, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = clinic.bill("10.00"), clinic.bill("20.00")
    with monkeypatch.context() as patch:
        issue = credit_notes.issue_for_void

        def fail(*arguments: Any) -> None:
            issue(*arguments)
            raise RuntimeError

        patch.setattr(credit_notes, "issue_for_void", fail)
        failed = clinic.admin.post(f"/billings/{first['id']}/void", {"reason": "typed twice"})
    assert failed.status_code == 500
    assert numbers(clinic) == []

    for bill in (second, first):
        send(clinic.admin, bill, "void")

    assert [number[-6:] for number in numbers(clinic)] == ["000001", "000002"]
    assert clinic.admin.get(f"/billings/{first['id']}").get_json()["status"] == "void"


def test_concurrent_refunds_and_voids_have_numbers_without_gap(clinic: Clinic) -> None:
    bills = [clinic.bill("100.00", amount_paid="100.00", payment_method="cash") for _ in range(8)]
    caller = clinic.admin
    actions = [(bill, "refunds", {"amount": "30"}) for bill in bills for _ in range(3)]
    actions += [(bill, "void", {}) for bill in bills]

    def act(bill: Row, action: str, members: Row) -> int:
        body = {"reason": "typed twice"} | members
        return caller.post(f"/billings/{bill['id']}/{action}", body).status_code

    codes = run_concurrently([lambda action=action: act(*action) for action in actions])

    assert set(codes) <= {200, 201, 409}
    assert codes.count(200) == 8
    with clinic.inside() as session:
        issued = session.scalars(select(CreditNote.number).order_by(CreditNote.number)).all()
        last = session.scalars(
            select(DocumentCounter.last_number).where(DocumentCounter.series == "CRN")
        ).one()
    assert len(issued) == codes.count(201) + 8
    assert [int(number[-6:]) for number in issued] == list(range(1, last + 1))
    assert violations(clinic) == []


def bring_and_undo(clinic: Clinic, patient_id: int) -> None:
    importer = Actor(None, "import", Role.ADMIN)
    with clinic.app.app_context(), transaction("import 1"):
        entry = opening_balances.create(
            importer, patient_id=patient_id, amount=Decimal("7.00"), date=clock.today()
        )
        opening_balances.reverse(importer, entry, "import undone")


DAMAGES = {
    "UPDATE document_counters SET last_number = last_number + 1 WHERE series = 'CRN'": "no gaps",
    "UPDATE refunds SET status = 'rejected'": "for a paid refund of its bill",
    "UPDATE billings SET voided_at = NULL": "for the void of its bill",
    "UPDATE credit_notes SET amount = amount - 1 WHERE refund_id IS NULL": "up to its amount",
    "UPDATE credit_notes SET tax = tax - 1 WHERE refund_id IS NULL AND tax > 0": "up to its amount",
    "DELETE FROM credit_notes WHERE refund_id IS NOT NULL": "up to its amount",
    "DELETE FROM credit_notes WHERE reason = 'import undone'": "all of it if it is void",
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_verify_reports_damaged_credit_notes(clinic: Clinic, damage: str) -> None:
    bill = clinic.bill("100.00", tax_rate="10", amount_paid="50", payment_method="cash")
    send(clinic.admin, bill, "refunds", amount="20")
    send(clinic.admin, bill, "void")
    bring_and_undo(clinic, bill["patient_id"])
    assert violations(clinic) == []

    with clinic.inside() as session:
        if db.engine.dialect.name == "postgresql":
            session.execute(text("ALTER TABLE credit_notes DISABLE TRIGGER USER"))
        else:
            for event in ("update", "delete"):
                session.execute(text(f"DROP TRIGGER append_only_credit_notes_{event}"))
        session.execute(text(damage))

    assert DAMAGES[damage] in " ".join(rule for rule, _ids in violations(clinic))
