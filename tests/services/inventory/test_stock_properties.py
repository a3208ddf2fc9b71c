"""Whatever is moved, treated, amended and voided in whatever order: the books of the stock room agree."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.clinic import Clinic

# lot number -> days until it expires, in the order in which they leave
DATED = {"expired": -1, "soon": 3, "later": 30}
LOTS = (*DATED, "unnamed")  # the last is the lot without number and expiry
USABLE = ("soon", "later", "unnamed")

units = st.integers(1, 9)
lot = st.none() | st.sampled_from(list(DATED))
choice = st.integers(0, 3)
Step = tuple[Any, ...]
steps: st.SearchStrategy[Step] = st.one_of(
    st.tuples(st.just("restock"), units, lot),
    st.tuples(st.just("return"), units, lot),
    st.tuples(st.just("usage"), units, lot),
    st.tuples(st.just("waste"), units, lot),
    st.tuples(st.just("adjustment"), units.map(lambda n: -n), st.none()),
    st.tuples(st.just("count"), st.integers(0, 20)),
    st.tuples(st.just("treat"), units),
    st.tuples(st.just("amend"), choice, units),
    st.tuples(st.just("void"), choice),
)


@dataclass
class Shelf:
    """What should be there: units by lot, and what each standing treatment took of which lot."""

    lots: Counter[str] = field(default_factory=Counter)
    taken: dict[int, Counter[str]] = field(default_factory=dict)

    @property
    def quantity(self) -> int:
        return sum(self.lots.values())

    def out(self, wanted: int, names: tuple[str, ...]) -> Counter[str] | None:
        """Take earliest first; None and nothing taken where there is not enough."""
        found: Counter[str] = Counter()
        for name in names:
            found[name] = min(self.lots[name], wanted - found.total())
        if found.total() < wanted:
            return None
        self.lots -= found
        return +found

    def back(self, treatment: int, surplus: int) -> None:
        """Give back what left last."""
        for name in reversed(USABLE):
            given = min(surplus, self.taken[treatment][name])
            self.taken[treatment][name] -= given
            self.lots[name] += given
            surplus -= given


class Story:
    """One item and one visit, told step by step to the clinic and to the model."""

    def __init__(self, clinic: Clinic) -> None:
        self.clinic = clinic
        self.shelf = Shelf()
        self.item = clinic.item()["id"]
        self.visit = clinic.visit()["id"]
        self.treatments: list[int] = []

    def tell(self, step: Step) -> None:
        kind, *rest = step
        status = getattr(self, kind, self.move)(*(rest if hasattr(self, kind) else step))
        assert status in (200, 201, 409, 422), (step, status)

    def post(self, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        answer = self.clinic.admin.post(path, body)
        return answer.status_code, answer.get_json()

    def move(self, kind: str, quantity: int, name: str | None) -> int:
        body: dict[str, Any] = {"type": kind, "quantity": quantity}
        if name is not None:
            body["lot_number"] = name
            body["expires_on"] = (datetime.now(UTC).date() + timedelta(days=DATED[name])).isoformat()
        status, _row = self.post(f"/inventory/{self.item}/movements", body)
        if kind in ("restock", "return"):
            assert status == 201
            self.shelf.lots[name or "unnamed"] += quantity
            return status
        names = LOTS if name is None else (name,)
        if kind == "usage":
            names = tuple(one for one in names if one in USABLE)
        assert (status == 201) is (self.shelf.out(abs(quantity), names) is not None)
        return status

    def count(self, quantity: int) -> int:
        answer = self.clinic.admin.patch(f"/inventory/{self.item}", {"quantity": quantity})
        difference = quantity - self.shelf.quantity
        if difference < 0:
            self.shelf.out(-difference, LOTS)
        self.shelf.lots["unnamed"] += max(difference, 0)
        return answer.status_code

    def treat(self, quantity: int) -> int:
        body = {
            "visit_id": self.visit,
            "name": "Dressing",
            "cost": 1,
            "inventory_items": self.needs(quantity),
        }
        status, row = self.post("/treatments", body)
        took = self.shelf.out(quantity, USABLE)
        assert (status == 201) is (took is not None)
        if took is not None:
            self.treatments.append(row["id"])
            self.shelf.taken[row["id"]] = took
        return status

    def amend(self, which: int, quantity: int) -> int:
        if which >= len(self.treatments):
            return 200
        treatment = self.treatments[which]
        answer = self.clinic.admin.patch(
            f"/treatments/{treatment}", {"inventory_items": self.needs(quantity)}
        )
        missing = quantity - self.shelf.taken[treatment].total()
        took = self.shelf.out(missing, USABLE) if missing > 0 else Counter[str]()
        assert (answer.status_code == 200) is (took is not None)
        if took is not None:
            self.shelf.taken[treatment] += took
            self.shelf.back(treatment, max(-missing, 0))
        return answer.status_code

    def void(self, which: int) -> int:
        if which >= len(self.treatments):
            return 200
        treatment = self.treatments.pop(which)
        self.shelf.back(treatment, self.shelf.taken[treatment].total())
        return self.clinic.admin.delete(f"/treatments/{treatment}").status_code

    def needs(self, quantity: int) -> list[dict[str, int]]:
        return [{"item_id": self.item, "quantity": quantity}]

    def check(self) -> None:
        row = self.clinic.admin.get(f"/inventory/{self.item}").get_json()
        moved = self.clinic.admin.get(f"/inventory/{self.item}/movements?per_page=1000").get_json()
        held: Counter[str] = Counter()
        for one in row["lots"]:
            assert one["quantity"] > 0
            held[one["lot_number"] or "unnamed"] += one["quantity"]
        assert row["quantity"] == sum(one["change"] for one in moved) == held.total() >= 0
        assert held == +self.shelf.lots
        assert row["available"] == sum(held[name] for name in USABLE)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(told=st.lists(steps, max_size=14))
def test_quantity_is_the_sum_of_movements_and_of_lots_and_never_negative(
    clinic: Clinic, told: list[Step]
) -> None:
    story = Story(clinic)

    for step in told:
        story.tell(step)
        story.check()
