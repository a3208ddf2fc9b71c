"""A clinic moves in: the synthetic population as spreadsheets, imported twice, and taken back."""

from __future__ import annotations

from typing import Any

from tests.robustness.conftest import Figures
from tests.robustness.load_level import LoadLevel
from tests.support import imports, population
from tests.support.clinic import Clinic

UNDO_ORDER = ("opening_balances", "appointments", "inventory", "price_list", "patients", "doctors")


def visible(clinic: Clinic) -> dict[str, Any]:
    """Return the figures of the lists and the reports: active records, balances and stock."""
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
    tables = population.population(level.imported_patients)
    files = {kind: population.xlsx(table) for kind, table in tables.items()}

    first = {kind: move_in(clinic, kind, content) for kind, content in files.items()}
    shown = visible(clinic)
    second = {kind: move_in(clinic, kind, content) for kind, content in files.items()}

    for kind, row in first.items():
        applied, skipped, refused = counts(row)
        figures[f"{kind}: applied, skipped, refused"] = (applied, skipped, refused)
        assert applied > 0, (kind, codes(clinic, row["id"]), row["mapping"])
        assert skipped == 0, kind
        assert codes(clinic, row["id"]) <= {"appointment_conflict", "possible_duplicate"}, kind
        assert counts(second[kind]) == (0, applied, refused), kind
    assert len(shown["/patients?is_active=true&per_page=1000"]) == first["patients"]["applied"] + 1
    assert visible(clinic) == shown
    assert verify(clinic) == ""

    for kind in UNDO_ORDER:
        undone = imports.undo(clinic.admin, first[kind]["id"])
        assert (undone["state"], undone["undone"]) == ("undone", first[kind]["applied"]), kind

    assert visible(clinic) == before
    assert verify(clinic) == ""


def move_in(clinic: Clinic, kind: str, content: bytes) -> dict[str, Any]:
    return imports.run(clinic.admin, content, kind=kind, name=f"{kind}.xlsx", on_error="skip")


def counts(row: dict[str, Any]) -> tuple[int, int, int]:
    """Return the applied, skipped and refused rows, which are all rows of the file."""
    assert row["rows"] == row["applied"] + row["skipped"] + row["refused"], row
    return row["applied"], row["skipped"], row["refused"]


def codes(clinic: Clinic, import_id: int) -> set[str]:
    """Return the codes of the refusals."""
    rows = clinic.admin.get(f"/imports/{import_id}/rows?state=refused&per_page=1000").get_json()
    return {problem["code"] for row in rows for problem in row["problems"]}


def verify(clinic: Clinic) -> str:
    return clinic.app.test_cli_runner().invoke(args=["verify"]).output
