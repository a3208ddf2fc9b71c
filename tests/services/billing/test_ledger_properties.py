"""Random bills, payments, refunds, voids, write-offs and claims against a plain model in whole cents.

The model knows no rows: it adds and subtracts. Whatever happens, bills, accounts and revenue must say the
same, and the same things must be refused.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
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

from enums import PaymentMethod, RefundStatus, Role
from errors import ClinicError
from extensions import db
from security.permissions import Actor
from services import integrity_checks
from services.audit import audit_log
from services.billing import (
    adjustments,
    bills,
    claims,
    ledger,
    payments,
    refunds,
)
from services.reports import periods, revenue
from tests.support.clinic import Clinic

EXAMPLES, STEPS = 12, 30
cents = st.integers(1, 9_000)
some_cents = st.integers(0, 9_000)


@dataclass
class PlainBill:
    """A bill as somebody with pencil and paper would keep it; all amounts in cents."""

    id: int
    patient: int
    subtotal: int
    rate: int  # hundredths of a percent
    discount: int = 0
    paid: int = 0
    asked: int = 0  # open refund requests
    written_off: int = 0
    void: bool = False

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
class PlainClaim:
    bill: PlainBill
    id: int
    approved: int
    paid: int = 0


@dataclass
class PlainRefund:
    bill: PlainBill
    id: int
    amount: int


@dataclass
class Books:
    """What the clinic's books should say."""

    bills: list[PlainBill] = field(default_factory=list)
    credit: Counter[int] = field(default_factory=Counter)
    moved: Counter[str] = field(default_factory=Counter)


def money(amount: int) -> Decimal:
    return Decimal(amount).scaleb(-2)


class LedgerMachine(RuleBasedStateMachine):
    """The clinic's money beside the model."""

    made: Bundle[PlainBill] = Bundle("bills")
    requests: Bundle[PlainRefund] = Bundle("requests")
    agreed: Bundle[PlainClaim] = Bundle("agreed")

    def __init__(self, clinic: Clinic) -> None:
        super().__init__()
        self.clinic = clinic
        self.books = Books()
        self.admin = Actor(clinic.admin.user_id, "Admin", Role.ADMIN)
        self.desk = Actor(clinic.receptionist.user_id, "Desk", Role.RECEPTIONIST)

    @initialize()
    def open_the_books(self) -> None:
        self.patients = [int(self.clinic.patient()["id"]) for _ in range(2)]
        self.before = self.revenue()

    def perform(self, expected: str | None, action: Callable[[], Any]) -> Any:
        """Do it in a transaction of its own; it must be refused with the code expected, or succeed."""
        with self.clinic.app.app_context():
            try:
                answer = action()
                db.session.commit()
                code = None
            except ClinicError as refusal:
                db.session.rollback()
                answer, code = None, refusal.code
            finally:
                audit_log.forget()
                db.session.remove()
        assert code == expected
        return answer

    def revenue(self) -> Counter[str]:
        with self.clinic.app.app_context():
            sums = revenue.totals(periods.today())
            found = {
                "billed": sums.billed,
                "discounted": sums.discount,
                "written_off": sums.written_off,
                "collected": sums.collected,
                "refunded": sums.refunded,
                "outstanding": sum(revenue.ageing(periods.today()).values()),
            }
            db.session.remove()
        return Counter({name: int(amount * 100) for name, amount in found.items()})

    # --- What people do ---

    @rule(
        target=made,
        patient=st.integers(0, 1),
        lines=st.lists(st.tuples(st.integers(1, 3), some_cents), min_size=1, max_size=3),
        share=st.integers(0, 110),
        rate=st.sampled_from([0, 0, 750, 1_999, 10_000]),
    )
    def bill(self, patient: int, lines: list[tuple[int, int]], share: int, rate: int) -> Any:
        subtotal = sum(quantity * price for quantity, price in lines)
        plain = PlainBill(0, self.patients[patient], subtotal, rate, discount=subtotal * share // 100)
        expected = "validation_failed" if plain.discount > subtotal else None
        items = [{"description": "X", "quantity": q, "unit_price": money(price)} for q, price in lines]
        made = self.perform(
            expected,
            lambda: (
                bills.create(
                    self.desk,
                    patient_id=plain.patient,
                    items=items,
                    discount=money(plain.discount),
                    discount_reason="agreed",
                    tax_rate=money(rate),
                ).id
            ),
        )
        if expected:
            return multiple()
        plain.id = made
        self.books.bills.append(plain)
        self.books.moved.update(billed=subtotal + plain.tax, discounted=plain.discount)
        return plain

    @rule(
        plain=made,
        amount=cents,
        method=st.sampled_from([PaymentMethod.CASH, PaymentMethod.INSURANCE, PaymentMethod.CREDIT]),
        allow_credit=st.booleans(),
        exactly=st.booleans(),
    )
    def pay(
        self, plain: PlainBill, amount: int, method: PaymentMethod, allow_credit: bool, exactly: bool
    ) -> None:
        if exactly and plain.balance:
            amount = plain.balance
        spending = method is PaymentMethod.CREDIT
        expected = None
        if plain.void:
            expected = "read_only"
        elif amount > plain.balance and (spending or not allow_credit):
            expected = "overpayment"
        elif spending and amount > self.books.credit[plain.patient]:
            expected = "insufficient_credit"
        self.perform(
            expected,
            lambda: payments.pay(
                self.desk,
                bills.get(self.desk, plain.id, lock=True),
                amount=money(amount),
                method=method,
                allow_credit=allow_credit,
            ),
        )
        if expected is None:
            self._receive(plain, amount, spending=spending)

    def _receive(self, plain: PlainBill, amount: int, *, spending: bool = False) -> None:
        applied = min(amount, plain.balance)
        plain.paid += applied
        if spending:
            self.books.credit[plain.patient] -= applied
        else:
            self.books.credit[plain.patient] += amount - applied
            self.books.moved["collected"] += amount

    @rule(patient=st.integers(0, 1), amount=cents)
    def pay_in_advance(self, patient: int, amount: int) -> None:
        patient_id = self.patients[patient]
        self.perform(
            None, lambda: ledger.pay_account(self.desk, patient_id, money(amount), PaymentMethod.CARD)
        )
        self.books.credit[patient_id] += amount
        self.books.moved["collected"] += amount

    @rule(target=requests, plain=made, amount=cents, by_admin=st.booleans())
    def ask_refund(self, plain: PlainBill, amount: int, by_admin: bool) -> Any:
        expected = None
        if plain.void:
            expected = "read_only"
        elif amount > plain.paid - plain.asked:
            expected = "excessive_refund"
        actor = self.admin if by_admin else self.desk
        refund_id = self.perform(
            expected,
            lambda: (
                refunds.request(
                    actor, bills.get(actor, plain.id, lock=True), amount=money(amount), reason="x"
                )
                .refunds[-1]
                .id
            ),
        )
        if expected:
            return multiple()
        if by_admin:
            self._give_back(plain, amount)
            return multiple()
        plain.asked += amount
        return PlainRefund(plain, refund_id, amount)

    @rule(refund=consumes(requests), approve=st.booleans())
    def decide_refund(self, refund: PlainRefund, approve: bool) -> None:
        status = RefundStatus.APPROVED if approve else RefundStatus.REJECTED
        self.perform(
            None,
            lambda: refunds.decide(
                self.admin,
                bills.get_refund(self.admin, refund.bill.id, refund.id, lock=True),
                status=status,
            ),
        )
        refund.bill.asked -= refund.amount
        if approve:
            self._give_back(refund.bill, refund.amount)

    def _give_back(self, plain: PlainBill, amount: int) -> None:
        plain.paid -= amount
        self.books.moved["refunded"] += amount

    @rule(plain=made, amount=cents)
    def write_off(self, plain: PlainBill, amount: int) -> None:
        expected = "read_only" if plain.void else "overpayment" if amount > plain.balance else None
        self.perform(
            expected,
            lambda: adjustments.write_off(
                self.admin, bills.get(self.admin, plain.id, lock=True), amount=money(amount), reason="x"
            ),
        )
        if expected is None:
            plain.written_off += amount
            self.books.moved["written_off"] += amount

    @rule(plain=made, share=st.integers(0, 110))
    def change_discount(self, plain: PlainBill, share: int) -> None:
        discount = plain.subtotal * share // 100
        said = 0 if plain.void else plain.discount
        expected = None
        if discount != said and (plain.void or plain.paid or plain.written_off):
            expected = "read_only"
        elif discount > plain.subtotal:
            expected = "validation_failed"
        self.perform(
            expected,
            lambda: bills.update(
                self.desk,
                bills.get(self.desk, plain.id, lock=True),
                if_match=False,
                discount=money(discount),
            ),
        )
        if expected is None and not plain.void:
            before = (plain.tax, plain.discount)
            plain.discount = discount
            self.books.moved.update(billed=plain.tax - before[0], discounted=plain.discount - before[1])

    @rule(plain=made)
    def void(self, plain: PlainBill) -> None:
        expected = "read_only" if plain.void else "in_use" if plain.asked else None
        self.perform(
            expected,
            lambda: adjustments.void(self.admin, bills.get(self.admin, plain.id, lock=True), reason="x"),
        )
        if expected is None:
            self.books.moved.subtract(
                billed=plain.subtotal + plain.tax,
                discounted=plain.discount,
                written_off=plain.written_off,
            )
            self.books.credit[plain.patient] += plain.paid
            plain.void, plain.paid = True, 0

    @rule(target=agreed, plain=made, share=st.integers(1, 110))
    def claim(self, plain: PlainBill, share: int) -> Any:
        amount = plain.amount * share // 100
        if not amount:
            return multiple()
        expected = "read_only" if plain.void else "validation_failed" if amount > plain.amount else None

        def make() -> int:
            bill = bills.get(self.desk, plain.id, lock=True)
            made = claims.create(bill, insurer="Acme", policy_number="7", amount=money(amount))
            for status in ("submitted", "approved"):
                claims.update(self.desk, made, status=claims.S(status))
            return made.id

        claim_id = self.perform(expected, make)
        return multiple() if expected else PlainClaim(plain, claim_id, amount)

    @rule(claim=agreed, share=st.integers(1, 120), allow_credit=st.booleans())
    def pay_claim(self, claim: PlainClaim, share: int, allow_credit: bool) -> None:
        plain, paid = claim.bill, claim.approved * share // 100
        more = paid - claim.paid
        expected = None
        if plain.void:
            expected = "read_only"
        elif paid > claim.approved:
            expected = "conflict"
        elif more < 0:
            expected = "validation_failed"
        elif more > plain.balance and not allow_credit:
            expected = "overpayment"

        def enter() -> None:
            bill = bills.get(self.desk, plain.id, lock=True)
            claims.update(
                self.desk,
                claims.of_bill(bill, claim.id, lock=True),
                paid_amount=money(paid),
                allow_credit=allow_credit,
            )

        self.perform(expected, enter)
        if expected is None:
            claim.paid = paid
            self._receive(plain, more)

    # --- What must be so ---

    @invariant()
    def the_books_agree(self) -> None:
        if not hasattr(self, "patients"):
            return
        with self.clinic.app.app_context():
            found = [bills.get(self.admin, plain.id) for plain in self.books.bills]
            bills.add_computed_fields(self.admin, found)
            for plain, bill in zip(self.books.bills, found, strict=True):
                assert (bill.status, bill.balance, bill.amount_paid) == (
                    plain.status,
                    money(plain.balance),
                    money(plain.paid),
                )
                amount = 0 if plain.void else plain.amount
                assert (bill.amount, bill.is_paid) == (money(amount), plain.status == "paid")
            balances = ledger.balances(self.patients)
            for patient in self.patients:
                owed = sum(plain.balance for plain in self.books.bills if plain.patient == patient)
                assert balances[patient] == money(owed - self.books.credit[patient])
                assert ledger.credit_of(patient) == money(self.books.credit[patient])
            db.session.remove()
        moved = self.revenue()
        moved.subtract(self.before)
        outstanding = sum(plain.balance for plain in self.books.bills)
        expected = Counter(self.books.moved)
        expected["outstanding"] = outstanding
        assert {name: moved[name] for name in moved} == {name: expected[name] for name in moved}


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
