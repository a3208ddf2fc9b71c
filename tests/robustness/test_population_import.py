"""A clinic moves in: the synthetic population as spreadsheets, imported twice, and taken back."""

from __future__ import annotations

from typing import Any

from tests.robustness.conftest import Figures
from tests.robustness.load_level import LoadLevel
from tests.support import imports
from tests.support.clinic import Clinic

UNDO_ORDER = ("opening_balances", "appointments", "inventory", "price_list", "patients", "doctors")


def visible(clinic: Clinic) -> dict[str, Any]:
    """Return what the lists and the reports show: active records, balances and stock."""
    lists = {
        path: clinic.admin.get(path).get_json()
        for path in (
            "/patients?is_active=true&per_page=1000",
            "/doctors?is_active=true&per_page=1000",
            "/appointments?status=scheduled&per_page=1000",
            "/appointments?status=completed&per_page=1000",
            "/inventory?is_active=true&per_page=1000",
            "/price-list?is_active=true&per_page=1000",
            "/billings?status=unpaid&per_page=1000",
        )
    }
    lists["outstanding"] = clinic.admin.get("/analytics/dashboard").get_json()["outstanding"]
    return lists


def test_the_population_is_imported_once_and_taken_back(
    clinic: Clinic, level: LoadLevel, figures: Figures
) -> None:
    clinic.item(5, name="Own item", sku="OWN-1")
    clinic.bill("10.00")
    before = visible(clinic)
    files = {kind: imports.xlsx(table) for kind, table in imports.population(level.imported_patients).items()}

    first = {kind: imports.apply(clinic, kind, content) for kind, content in files.items()}
    shown = visible(clinic)
    second = {kind: imports.apply(clinic, kind, content) for kind, content in files.items()}

    for kind, row in first.items():
        applied, skipped, refused = imports.counts(row)
        figures[f"{kind}: applied, skipped, refused"] = (applied, skipped, refused)
        assert applied > 0, kind
        assert skipped == 0, kind
        assert set(codes(clinic, row["id"])) <= {"appointment_conflict", "possible_duplicate"}, kind
        assert imports.counts(second[kind]) == (0, applied, refused), kind
    assert len(shown["/patients?is_active=true&per_page=1000"]) == first["patients"]["applied"] + 1
    assert visible(clinic) == shown
    assert verify(clinic) == ""

    for kind in UNDO_ORDER:
        undone = imports.run(clinic, first[kind]["id"], "undo")
        assert (undone["state"], undone["undone"]) == ("undone", first[kind]["applied"]), kind

    assert visible(clinic) == before
    assert verify(clinic) == ""


def codes(clinic: Clinic, import_id: int) -> list[str]:
    return [code for row in imports.problems(clinic, import_id).values() for _field, code in row]


def verify(clinic: Clinic) -> str:
    return clinic.app.test_cli_runner().invoke(args=["verify"]).output
