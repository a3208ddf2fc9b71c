"""Stock, property-based: random movements and treatments keep quantities, movements and lots consistent."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.clinic import Clinic

# Lot number -> days until its expiry, in the order of use.
DATED_LOTS = {"expired": -1, "soon": 3, "later": 30}
LOTS = (*DATED_LOTS, "unnamed")  # "unnamed" is the lot without number and expiry
USABLE_LOTS = ("soon", "later", "unnamed")

units = st.integers(1, 9)
lot_names = st.none() | st.sampled_from(list(DATED_LOTS))
indexes = st.integers(0, 3)
Step = tuple[Any, ...]
steps: st.SearchStrategy[Step] = st.one_of(
    st.tuples(st.just("restock"), units, lot_names),
    st.tuples(st.just("return"), units, lot_names),
    st.tuples(st.just("usage"), units, lot_names),
    st.tuples(st.just("waste"), units, lot_names),
    st.tuples(st.just("adjustment"), units.map(lambda n: -n), st.none()),
    st.tuples(st.just("count"), st.integers(0, 20)),
    st.tuples(st.just("treat"), units),
    st.tuples(st.just("amend"), indexes, units),
    st.tuples(st.just("void"), indexes),
)


@dataclass
class StockModel:
    """The expected stock: units by lot, and the units that each treatment used by lot; 0 is manual usage."""

    lots: Counter[str] = field(default_factory=Counter)
    known: set[str] = field(default_factory=set)
    used: dict[int, Counter[str]] = field(default_factory=lambda: {0: Counter()})

    @property
    def quantity(self) -> int:
        return sum(self.lots.values())

    def take(self, quantity: int, names: tuple[str, ...]) -> Counter[str] | None:
        """Take units from the lots in their order. Return None and take nothing if there are too few."""
        taken: Counter[str] = Counter()
        for name in names:
            taken[name] = min(self.lots[name], quantity - taken.total())
        if taken.total() < quantity:
            return None
        self.lots -= taken
        return +taken

    def give_back(self, quantity: int, names: tuple[str, ...]) -> bool:
        """Return units by hand: the last lot first, manual usage first, then the last treatment."""
        if sum(used[name] for used in self.used.values() for name in names) < quantity:
            return False
        for name in reversed(names):
            for treatment in (0, *sorted(self.used.keys() - {0}, reverse=True)):
                returned = min(quantity, self.used[treatment][name])
                self.used[treatment][name] -= returned
                self.lots[name] += returned
                quantity -= returned
        return True

    def put_back(self, treatment: int, surplus: int) -> None:
        """Put back units of a treatment; the lot used last comes first."""
        for name in reversed(USABLE_LOTS):
            quantity = min(surplus, self.used[treatment][name])
            self.used[treatment][name] -= quantity
            self.lots[name] += quantity
            surplus -= quantity


class Scenario:
    """One item and one visit. Each step runs in the application and in the model."""

    def __init__(self, clinic: Clinic) -> None:
        self.clinic = clinic
        self.model = StockModel()
        self.item = clinic.item()["id"]
        self.visit = clinic.visit()["id"]
        self.treatments: list[int] = []

    def run(self, step: Step) -> None:
        name, *arguments = step
        status = getattr(self, name)(*arguments) if hasattr(self, name) else self.move(*step)
        assert status in (200, 201, 409, 422), (step, status)

    def post(self, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        answer = self.clinic.admin.post(path, body)
        return answer.status_code, answer.get_json()

    def move(self, movement_type: str, quantity: int, lot: str | None) -> int:
        body: dict[str, Any] = {"type": movement_type, "quantity": quantity}
        if lot is not None:
            body["lot_number"] = lot
            body["expires_on"] = (datetime.now(UTC).date() + timedelta(days=DATED_LOTS[lot])).isoformat()
        if movement_type == "restock":
            body["allow_expired"] = True
        status, _row = self.post(f"/inventory/{self.item}/movements", body)
        names = LOTS if lot is None else (lot,)
        if movement_type == "restock":
            assert status == 201
            self.model.lots[lot or "unnamed"] += quantity
            self.model.known.add(lot or "unnamed")
            return status
        if movement_type == "return":
            if lot is not None and lot not in self.model.known:
                assert status == 422
                return status
            assert (status == 201) is self.model.give_back(quantity, names)
            return status
        if movement_type == "usage":
            names = tuple(name for name in names if name in USABLE_LOTS)
        taken = self.model.take(abs(quantity), names)
        assert (status == 201) is (taken is not None)
        if taken is not None and movement_type == "usage":
            self.model.used[0] += taken
        return status

    def count(self, quantity: int) -> int:
        answer = self.clinic.admin.patch(f"/inventory/{self.item}", {"quantity": quantity})
        difference = quantity - self.model.quantity
        if difference < 0:
            self.model.take(-difference, LOTS)
        self.model.lots["unnamed"] += max(difference, 0)
        return answer.status_code

    def treat(self, quantity: int) -> int:
        body = {
            "visit_id": self.visit,
            "name": "Dressing",
            "cost": 1,
            "inventory_items": self.usages(quantity),
        }
        status, row = self.post("/treatments", body)
        taken = self.model.take(quantity, USABLE_LOTS)
        assert (status == 201) is (taken is not None)
        if taken is not None:
            self.treatments.append(row["id"])
            self.model.used[row["id"]] = taken
        return status

    def amend(self, index: int, quantity: int) -> int:
        if index >= len(self.treatments):
            return 200
        treatment = self.treatments[index]
        answer = self.clinic.admin.patch(
            f"/treatments/{treatment}", {"inventory_items": self.usages(quantity)}
        )
        missing = quantity - self.model.used[treatment].total()
        taken = self.model.take(missing, USABLE_LOTS) if missing > 0 else Counter[str]()
        assert (answer.status_code == 200) is (taken is not None)
        if taken is not None:
            self.model.used[treatment] += taken
            self.model.put_back(treatment, max(-missing, 0))
        return answer.status_code

    def void(self, index: int) -> int:
        if index >= len(self.treatments):
            return 200
        treatment = self.treatments.pop(index)
        self.model.put_back(treatment, self.model.used[treatment].total())
        return self.clinic.admin.delete(f"/treatments/{treatment}").status_code

    def usages(self, quantity: int) -> list[dict[str, int]]:
        return [{"item_id": self.item, "quantity": quantity}]

    def check(self) -> None:
        row = self.clinic.admin.get(f"/inventory/{self.item}").get_json()
        movements = self.clinic.admin.get(f"/inventory/{self.item}/movements?per_page=1000").get_json()
        in_lots: Counter[str] = Counter()
        for lot in row["lots"]:
            assert lot["quantity"] > 0
            in_lots[lot["lot_number"] or "unnamed"] += lot["quantity"]
        assert row["quantity"] == sum(movement["change"] for movement in movements) == in_lots.total() >= 0
        assert in_lots == +self.model.lots
        assert row["available"] == sum(in_lots[name] for name in USABLE_LOTS)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(scenario_steps=st.lists(steps, max_size=14))
def test_the_quantity_is_the_sum_of_movements_and_of_lots_and_never_negative(
    clinic: Clinic, scenario_steps: list[Step]
) -> None:
    scenario = Scenario(clinic)

    for step in scenario_steps:
        scenario.run(step)
        scenario.check()
