"""Random bills, opening balances, payments, refunds, voids, write-offs and claims, compared with a model.

The model is in cents. It has no ledger entries: it adds and subtracts. After each operation, the bills, their
credit notes, the accounts and the revenue must agree with it. Both must refuse the same operations.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from enums import ClaimStatus, PaymentMethod, RefundStatus, Role
from errors import ClinicError
from extensions import db
from models import LedgerEntry
from security.permissions import Actor
from services import clock, integrity_checks
from services.audit import audit_log
from services.billing import (
    adjustments,
    bills,
    claims,
    ledger,
    opening_balances,
    payments,
    refunds,
)
from services.billing.bills import BillChanges
from services.patients import patients
from services.reports import periods, revenue
from tests.support.clinic import Clinic

EXAMPLES, STEPS = 12, 30
cents = st.integers(1, 9_000)
some_cents = st.integers(0, 9_000)


@dataclass
class ModelBill:
    """A bill of the model; all amounts in cents."""

    id: int
    patient: int
    subtotal: int
    rate: int  # hundredths of a percent
    discount: int = 0
    by_method: Counter[str] = field(default_factory=Counter)  # payments less refunds
    requests: Counter[str] = field(default_factory=Counter)  # open refund requests by method
    claims: list[ModelClaim] = field(default_factory=list)
    above_balance: int = 0  # paid by insurers; became credit of the patient
    owed_to_insurers: int = 0
    written_off: int = 0
    void: bool = False
    posted: bool = False  # the ledger has another entry than the items
    entry: int = 0  # the ledger entry of an opening balance
    credited: list[tuple[int, int]] = field(default_factory=list)  # amount and tax of each credit note

    @property
    def credited_amount(self) -> int:
        return sum(amount for amount, _tax in self.credited)

    def credit(self, limit: int) -> None:
        """Issue a credit note, up to the rest of the bill."""
        before, tax_before = self.credited_amount, sum(tax for _amount, tax in self.credited)
        if part := min(limit, self.amount - before):
            tax = (2 * self.tax * (before + part) + self.amount) // (2 * self.amount)
            self.credited.append((part, tax - tax_before))

    @property
    def paid(self) -> int:
        return self.by_method.total()

    @property
    def tax(self) -> int:
        return ((self.subtotal - self.discount) * self.rate + 5_000) // 10_000

    @property
    def amount(self) -> int:
        return self.subtotal - self.discount + self.tax

    @property
    def balance(self) -> int:
        return 0 if self.void else self.amount - self.paid - self.written_off

    @property
    def status(self) -> str:
        if self.void:
            return "void"
        if self.balance == 0:
            return "paid"
        return "partial" if self.paid else "unpaid"


@dataclass
class ModelClaim:
    bill: ModelBill
    id: int
    approved: int
    paid: int = 0
    open: bool = True


@dataclass
class ModelRefund:
    """A refund. Without a bill it refunds credit."""

    bill: ModelBill | None
    patient: int
    id: int
    amount: int
    method: str = "cash"


@dataclass
class Model:
    """The expected bills, credits and revenue."""

    bills: list[ModelBill] = field(default_factory=list)
    credit: Counter[int] = field(default_factory=Counter)
    credit_requests: Counter[int] = field(default_factory=Counter)
    revenue: Counter[str] = field(default_factory=Counter)


def money(amount: int) -> Decimal:
    return Decimal(amount).scaleb(-2)


class LedgerMachine(RuleBasedStateMachine):
    """Executes each operation on the database and on the model."""

    created: Bundle[ModelBill] = Bundle("bills")
    requests: Bundle[ModelRefund] = Bundle("requests")
    brought_credit: Bundle[tuple[int, int, int]] = Bundle("brought_credit")  # entry, patient, amount
    approved_claims: Bundle[ModelClaim] = Bundle("approved_claims")

    def __init__(self, clinic: Clinic) -> None:
        super().__init__()
        self.clinic = clinic
        self.model = Model()
        self.references = itertools.count(1)
        self.admin = Actor(clinic.admin.user_id, "Admin", Role.ADMIN)
        self.receptionist = Actor(clinic.receptionist.user_id, "Receptionist", Role.RECEPTIONIST)

    @initialize()
    def create_patients(self) -> None:
        self.patients = [int(self.clinic.patient()["id"]) for _ in range(2)]
        self.before = self.revenue()

    def perform(self, expected: str | None, action: Callable[[], Any]) -> Any:
        """Execute an action in its own transaction. It must succeed, or be refused with the expected code."""
        with self.clinic.app.app_context():
            try:
                answer = action()
                db.session.commit()
                code = None
            except ClinicError as refusal:
                db.session.rollback()
                answer, code = None, refusal.code
            finally:
                audit_log.discard_pending()
                db.session.remove()
        assert code == expected
        return answer

    def revenue(self) -> Counter[str]:
        with self.clinic.app.app_context():
            sums = revenue.totals(periods.today())
            totals = {
                "billed": sums.billed,
                "discounted": sums.discount,
                "written_off": sums.written_off,
                "collected": sums.collected,
                "refunded": sums.refunded,
                "outstanding": sum(revenue.ageing(periods.today()).values()),
            }
            db.session.remove()
        return Counter({name: int(amount * 100) for name, amount in totals.items()})

    # --- Operations ---

    @rule(target=created, patient=st.integers(0, 1), amount=cents)
    def bring_debt(self, patient: int, amount: int) -> Any:
        model_bill = ModelBill(0, self.patients[patient], amount, 0)
        model_bill.id, model_bill.entry = self._bring(model_bill.patient, amount)
        self.model.bills.append(model_bill)
        return model_bill

    @rule(target=brought_credit, patient=st.integers(0, 1), amount=cents)
    def bring_credit(self, patient: int, amount: int) -> Any:
        patient_id = self.patients[patient]
        _bill, entry = self._bring(patient_id, -amount)
        self.model.credit[patient_id] += amount
        return (entry, patient_id, amount)

    def _bring(self, patient_id: int, amount: int) -> Any:
        def bring() -> tuple[int, int]:
            entry = opening_balances.create(
                self.admin,
                patient_id=patient_id,
                amount=money(amount),
                date=clock.today() - timedelta(days=400),
                reference=str(next(self.references)),
            )
            db.session.flush()
            return entry.billing_id or 0, entry.id

        return self.perform(None, bring)

    @rule(credit=consumes(brought_credit))
    def undo_credit(self, credit: tuple[int, int, int]) -> None:
        entry, patient_id, amount = credit
        expected = "in_use" if amount > self.model.credit[patient_id] else None
        self.perform(expected, lambda: self._reverse(entry))
        if expected is None:
            self.model.credit[patient_id] -= amount

    @rule(model_bill=created)
    def undo_debt(self, model_bill: ModelBill) -> None:
        if not model_bill.entry:
            return
        is_open = model_bill.requests.total() or any(claim.open for claim in model_bill.claims)
        expected = "in_use" if is_open or model_bill.posted or model_bill.void else None
        self.perform(expected, lambda: self._reverse(model_bill.entry))
        if expected is None:
            self._apply_void(model_bill)

    def _reverse(self, entry_id: int) -> None:
        opening_balances.reverse(self.admin, db.session.get_one(LedgerEntry, entry_id), "undone")

    @rule(
        target=created,
        patient=st.integers(0, 1),
        lines=st.lists(st.tuples(st.integers(1, 3), some_cents), min_size=1, max_size=3),
        share=st.integers(0, 110),
        rate=st.sampled_from([0, 0, 750, 1_999, 10_000]),
    )
    def bill(self, patient: int, lines: list[tuple[int, int]], share: int, rate: int) -> Any:
        subtotal = sum(quantity * price for quantity, price in lines)
        model_bill = ModelBill(0, self.patients[patient], subtotal, rate, discount=subtotal * share // 100)
        expected = "validation_failed" if model_bill.discount > subtotal else None
        items = [{"description": "X", "quantity": q, "unit_price": money(price)} for q, price in lines]
        bill_id = self.perform(
            expected,
            lambda: (
                bills.create(
                    self.receptionist,
                    patient_id=model_bill.patient,
                    items=items,
                    discount=money(model_bill.discount),
                    discount_reason="agreed",
                    tax_rate=money(rate),
                ).id
            ),
        )
        if expected:
            return multiple()
        model_bill.id = bill_id
        self.model.bills.append(model_bill)
        self.model.revenue.update(billed=subtotal + model_bill.tax, discounted=model_bill.discount)
        return model_bill

    @rule(
        model_bill=created,
        amount=cents,
        method=st.sampled_from([PaymentMethod.CASH, PaymentMethod.INSURANCE, PaymentMethod.CREDIT]),
        allow_credit=st.booleans(),
        exactly=st.booleans(),
    )
    def pay(
        self, model_bill: ModelBill, amount: int, method: PaymentMethod, allow_credit: bool, exactly: bool
    ) -> None:
        if exactly and model_bill.balance:
            amount = model_bill.balance
        spending = method is PaymentMethod.CREDIT
        expected = None
        if model_bill.void:
            expected = "read_only"
        elif amount > model_bill.balance and (spending or not allow_credit):
            expected = "overpayment"
        elif spending and amount > self.model.credit[model_bill.patient]:
            expected = "insufficient_credit"
        self.perform(
            expected,
            lambda: payments.pay(
                self.receptionist,
                bills.get(self.receptionist, model_bill.id, lock=True),
                amount=money(amount),
                method=method,
                allow_credit=allow_credit,
            ),
        )
        if expected is None:
            self._apply_payment(model_bill, amount, method)

    def _apply_payment(self, model_bill: ModelBill, amount: int, method: str) -> None:
        """Apply a payment: the part above the balance becomes credit."""
        applied = min(amount, model_bill.balance)
        model_bill.by_method[method] += applied
        model_bill.posted |= applied > 0
        if method == "credit":
            self.model.credit[model_bill.patient] -= applied
        else:
            self.model.credit[model_bill.patient] += amount - applied
            self.model.revenue["collected"] += amount
        if method == "insurance":
            model_bill.above_balance += amount - applied

    @rule(patient=st.integers(0, 1), amount=cents)
    def pay_in_advance(self, patient: int, amount: int) -> None:
        patient_id = self.patients[patient]
        self.perform(
            None, lambda: ledger.pay_account(self.receptionist, patient_id, money(amount), PaymentMethod.CARD)
        )
        self.model.credit[patient_id] += amount
        self.model.revenue["collected"] += amount

    @rule(
        target=requests,
        model_bill=created,
        amount=cents,
        by_admin=st.booleans(),
        chosen=st.sampled_from([None, PaymentMethod.CASH, PaymentMethod.INSURANCE, PaymentMethod.CREDIT]),
    )
    def request_refund(
        self, model_bill: ModelBill, amount: int, by_admin: bool, chosen: PaymentMethod | None
    ) -> Any:
        paid = Counter({PaymentMethod.INSURANCE: model_bill.owed_to_insurers})
        if not model_bill.void:
            paid = model_bill.by_method
        methods = [method for method, total in paid.items() if total]
        method = chosen or (methods[0] if methods else PaymentMethod.OTHER)
        left = min(paid[method] - model_bill.requests[method], paid.total() - model_bill.requests.total())
        expected = None
        if model_bill.void and not model_bill.owed_to_insurers:
            expected = "read_only"
        elif chosen is None and len(methods) > 1:
            expected = "validation_failed"
        elif amount > left:
            expected = "excessive_refund"
        actor = self.admin if by_admin else self.receptionist
        refund_id = self.perform(
            expected,
            lambda: (
                refunds.request(
                    actor,
                    bills.get(actor, model_bill.id, lock=True),
                    amount=money(amount),
                    reason="x",
                    method=chosen,
                )
                .refunds[-1]
                .id
            ),
        )
        if expected:
            return multiple()
        refund = ModelRefund(model_bill, model_bill.patient, refund_id, amount, method)
        if by_admin:
            self._pay_out(refund)
            return multiple()
        model_bill.requests[method] += amount
        return refund

    @rule(target=requests, patient=st.integers(0, 1), amount=cents, by_admin=st.booleans())
    def request_refund_of_credit(self, patient: int, amount: int, by_admin: bool) -> Any:
        patient_id, model = self.patients[patient], self.model
        left = model.credit[patient_id] - model.credit_requests[patient_id]
        expected = "excessive_refund" if amount > left else None
        actor = self.admin if by_admin else self.receptionist
        refund_id = self.perform(
            expected,
            lambda: (
                refunds.request_from_account(
                    actor,
                    patients.get(actor, patient_id, lock=True),
                    amount=money(amount),
                    method=PaymentMethod.CASH,
                    reason="x",
                ).id
            ),
        )
        if expected:
            return multiple()
        refund = ModelRefund(None, patient_id, refund_id, amount)
        if by_admin:
            self._pay_out(refund)
            return multiple()
        model.credit_requests[patient_id] += amount
        return refund

    @rule(refund=consumes(requests), approve=st.booleans())
    def decide_refund(self, refund: ModelRefund, approve: bool) -> None:
        bill, patient_id = refund.bill, refund.patient
        status = RefundStatus.APPROVED if approve else RefundStatus.REJECTED
        spent = bill is None and refund.amount > self.model.credit[patient_id]
        expected = "excessive_refund" if approve and spent else None

        def decide(status: RefundStatus) -> None:
            row = (
                refunds.get_from_account(self.admin, patient_id, refund.id, lock=True)
                if bill is None
                else bills.get_refund(self.admin, bill.id, refund.id, lock=True)
            )
            refunds.decide(self.admin, row, status=status)

        self.perform(expected, lambda: decide(status))
        if expected:
            self.perform(None, lambda: decide(RefundStatus.REJECTED))
        if bill is None:
            self.model.credit_requests[patient_id] -= refund.amount
        else:
            bill.requests[refund.method] -= refund.amount
        if approve and not expected:
            self._pay_out(refund)

    def _pay_out(self, refund: ModelRefund) -> None:
        bill, amount = refund.bill, refund.amount
        if refund.method != "credit":
            self.model.revenue["refunded"] += amount
        if bill is None:
            self.model.credit[refund.patient] -= amount
        elif bill.void:
            bill.owed_to_insurers -= amount
        else:
            bill.credit(amount)
            bill.by_method[refund.method] -= amount
            if refund.method == "credit":
                self.model.credit[refund.patient] += amount

    @rule(model_bill=created, amount=cents)
    def write_off(self, model_bill: ModelBill, amount: int) -> None:
        expected = "read_only" if model_bill.void else "overpayment" if amount > model_bill.balance else None
        self.perform(
            expected,
            lambda: adjustments.write_off(
                self.admin, bills.get(self.admin, model_bill.id, lock=True), amount=money(amount), reason="x"
            ),
        )
        if expected is None:
            model_bill.written_off += amount
            model_bill.posted = True
            self.model.revenue["written_off"] += amount

    @rule(model_bill=created, share=st.integers(0, 110))
    def change_discount(self, model_bill: ModelBill, share: int) -> None:
        discount = model_bill.subtotal * share // 100
        current = 0 if model_bill.void else model_bill.discount
        expected = None
        if discount != current and (
            model_bill.void or model_bill.paid or model_bill.written_off or model_bill.credited
        ):
            expected = "read_only"
        elif discount > model_bill.subtotal:
            expected = "validation_failed"
        changes: BillChanges = {"discount": money(discount)}
        if discount != current:
            changes["discount_reason"] = "agreed"  # an opening balance has none
        self.perform(
            expected,
            lambda: bills.update(
                self.receptionist,
                bills.get(self.receptionist, model_bill.id, lock=True),
                if_match=False,
                **changes,
            ),
        )
        if expected is None and not model_bill.void:
            before = (model_bill.tax, model_bill.discount)
            model_bill.posted |= discount != current
            model_bill.discount = discount
            self.model.revenue.update(
                billed=model_bill.tax - before[0], discounted=model_bill.discount - before[1]
            )

    @rule(model_bill=created)
    def void(self, model_bill: ModelBill) -> None:
        is_open = model_bill.requests.total() or any(claim.open for claim in model_bill.claims)
        expected = "read_only" if model_bill.void else "in_use" if is_open else None
        self.perform(
            expected,
            lambda: adjustments.void(self.admin, bills.get(self.admin, model_bill.id, lock=True), reason="x"),
        )
        if expected is None:
            self._apply_void(model_bill)

    def _apply_void(self, model_bill: ModelBill) -> None:
        model_bill.credit(model_bill.amount)
        self.model.revenue.subtract(
            billed=0 if model_bill.entry else model_bill.subtotal + model_bill.tax,
            discounted=model_bill.discount,
            written_off=model_bill.written_off,
        )
        credit, insured = self.model.credit, model_bill.by_method["insurance"]
        credit[model_bill.patient] += model_bill.paid - insured
        above = min(model_bill.above_balance, credit[model_bill.patient])
        credit[model_bill.patient] -= above
        model_bill.owed_to_insurers = insured + above
        model_bill.void, model_bill.by_method = True, Counter()

    @rule(target=approved_claims, model_bill=created, share=st.integers(1, 110))
    def claim(self, model_bill: ModelBill, share: int) -> Any:
        amount = model_bill.amount * share // 100
        if not amount:
            return multiple()
        expected = (
            "read_only" if model_bill.void else "validation_failed" if amount > model_bill.amount else None
        )

        def make() -> int:
            bill = bills.get(self.receptionist, model_bill.id, lock=True)
            claim = claims.create(bill, insurer="Acme", policy_number="7", amount=money(amount))
            for status in ("submitted", "approved"):
                claims.update(self.receptionist, claim, status=claims.S(status))
            return claim.id

        claim_id = self.perform(expected, make)
        if expected:
            return multiple()
        model_claim = ModelClaim(model_bill, claim_id, amount)
        model_bill.claims.append(model_claim)
        return model_claim

    @rule(claim=consumes(approved_claims))
    def close_claim(self, claim: ModelClaim) -> None:
        """Withdraw a claim, or set it to paid if the insurer has paid a part."""
        status = ClaimStatus.PAID if claim.paid else ClaimStatus.WITHDRAWN

        def close() -> None:
            bill = bills.get(self.receptionist, claim.bill.id, lock=True)
            claims.update(self.receptionist, claims.of_bill(bill, claim.id, lock=True), status=status)

        self.perform(None, close)
        claim.open = False

    @rule(claim=approved_claims, share=st.integers(1, 120), allow_credit=st.booleans())
    def pay_claim(self, claim: ModelClaim, share: int, allow_credit: bool) -> None:
        model_bill, paid = claim.bill, claim.approved * share // 100
        more = paid - claim.paid
        expected = None
        if model_bill.void:
            expected = "read_only"
        elif paid > claim.approved:
            expected = "conflict"
        elif more < 0:
            expected = "validation_failed"
        elif more > model_bill.balance and not allow_credit:
            expected = "overpayment"

        def enter() -> None:
            bill = bills.get(self.receptionist, model_bill.id, lock=True)
            claims.update(
                self.receptionist,
                claims.of_bill(bill, claim.id, lock=True),
                paid_amount=money(paid),
                allow_credit=allow_credit,
            )

        self.perform(expected, enter)
        if expected is None:
            claim.paid = paid
            self._apply_payment(model_bill, more, "insurance")

    # --- Invariants ---

    @invariant()
    def the_database_agrees_with_the_model(self) -> None:
        if not hasattr(self, "patients"):
            return
        with self.clinic.app.app_context():
            rows = [bills.get(self.admin, model_bill.id) for model_bill in self.model.bills]
            bills.add_computed_fields(self.admin, rows)
            for model_bill, bill in zip(self.model.bills, rows, strict=True):
                assert (bill.status, bill.balance, bill.amount_paid) == (
                    model_bill.status,
                    money(model_bill.balance),
                    money(model_bill.paid),
                )
                assert [(note.amount, note.tax) for note in bill.credit_notes] == [
                    (money(amount), money(tax)) for amount, tax in model_bill.credited
                ]
                amount = 0 if model_bill.void else model_bill.amount
                assert (bill.amount, bill.is_paid) == (money(amount), model_bill.status == "paid")
            for patient in self.patients:
                owed = sum(
                    model_bill.balance for model_bill in self.model.bills if model_bill.patient == patient
                )
                sums = ledger.of_account(patient)
                assert sums.balance == money(owed - self.model.credit[patient])
                assert sums.credit == money(self.model.credit[patient])
                assert sums.owed_to_insurers == money(
                    sum(
                        model_bill.owed_to_insurers
                        for model_bill in self.model.bills
                        if model_bill.patient == patient
                    )
                )
            db.session.remove()
        actual = self.revenue()
        actual.subtract(self.before)
        outstanding = sum(model_bill.balance for model_bill in self.model.bills)
        expected = Counter(self.model.revenue)
        expected["outstanding"] = outstanding
        assert {name: actual[name] for name in actual} == {name: expected[name] for name in actual}


def test_random_operations_give_the_same_sums_as_a_reference_model(clinic: Clinic) -> None:
    run_state_machine_as_test(
        lambda: LedgerMachine(clinic),
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )

    with clinic.inside():
        assert list(integrity_checks.violations()) == []
