"""The kinds of imports: how a row names patients and doctors, what it creates, and its undo."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from enums import ImportSubject, Role
from errors import ClinicError
from extensions import db
from models import Appointment, InventoryItem, PriceListItem
from resources.import_kinds import IMPORT_KINDS
from security.permissions import Actor
from services import clock
from services.imports.kinds import ImportKind, ImportRow
from services.jobs.transactions import transaction
from services.spreadsheets.mapping import propose_mapping
from tests.support import imports
from tests.support.clinic import Clinic
from tests.support.servers import ROOT

IMPORTER = Actor(None, "import", Role.ADMIN)
NINE = "2030-03-04T09:00:00"


@pytest.fixture(autouse=True)
def inside(clinic: Clinic) -> Any:
    with clinic.app.app_context():
        yield


def import_row(kind: str, members: Mapping[str, Any], source: str = "old") -> int:
    """Create a row as an import does, and return its id."""
    declared = IMPORT_KINDS[ImportSubject(kind)]
    row = ImportRow(source, declared.validate(members), frozenset(members))
    with transaction("import 1"):
        declared.lock([row])
        created: Any = declared.create(IMPORTER, row)
        db.session.flush()
        created_id: int = created.id
        return created_id


def undo(kind: str, row_id: int) -> None:
    declared = IMPORT_KINDS[ImportSubject(kind)]
    with transaction("import 1 undo"):
        created = declared.lock_created([row_id]) if declared.lock_created else {}
        declared.undo_create(IMPORTER, created.get(row_id) or db.session.get_one(declared.model, row_id))


def used(kind: str, row_id: int) -> list[int]:
    return list(IMPORT_KINDS[ImportSubject(kind)].find_used([row_id]))


def refused(kind: str, members: Mapping[str, Any]) -> tuple[str, list[str]]:
    with pytest.raises(ClinicError) as error:
        import_row(kind, members)
    return error.value.code, list(error.value.errors)


# --- Appointments --------------------------------------------------------------------------------------


def test_patient_and_doctor_are_found_by_identifiers_and_never_by_name(clinic: Clinic) -> None:
    patient = clinic.patient(name="Ada Okoye", file_number="K-7", email="ada@example.com")
    clinic.patient(name="Ada Okoye", file_number="K-8", email="family@example.com")
    clinic.patient(name="Ben Okoye", file_number="K-9", email="Family@example.com")
    doctor = clinic.doctor_row(license_number="MD-1")
    licence = {"doctor_license_number": " md-1"}
    right = {"patient_file_number": "k-7 ", "patient_email": "ADA@example.com", "start": NINE, **licence}

    row = db.session.get_one(Appointment, import_row("appointments", right))

    assert (row.patient_id, row.doctor_id) == (patient["id"], doctor["id"])
    db.session.rollback()
    for changes, field in (
        ({"patient_file_number": None, "patient_email": None}, "patient_file_number"),
        ({"patient_file_number": "Ada Okoye", "patient_email": None}, "patient_file_number"),
        ({"patient_file_number": "K-8"}, "patient_email"),  # another patient
        ({"patient_file_number": None, "patient_email": "family@example.com"}, "patient_email"),
        ({"doctor_license_number": None}, "doctor_license_number"),
        ({"doctor_license_number": "MD-2"}, "doctor_license_number"),
    ):
        assert refused("appointments", right | changes) == ("validation_failed", [field]), changes
    assert refused("appointments", right | {"patient_name": "Ada Okoye"})[1] == ["patient_name"]


@pytest.mark.parametrize(
    ("members", "field"),
    [
        ({}, "date"),
        ({"date": "2030-03-04"}, "time"),
        ({"start": "2030-03-04"}, "start"),
        ({"start": "2020-03-04T09:00"}, "status"),
        ({"start": NINE, "status": "completed"}, "status"),
        ({"start": NINE, "duration": 3}, "duration"),
        ({"date": "2030-03-04", "time": "09:00", "end_time": "08:00"}, "end"),
    ],
)
def test_a_wrong_time_reports_the_column(clinic: Clinic, members: dict[str, Any], field: str) -> None:
    people = {
        "patient_file_number": clinic.patient()["file_number"],
        "doctor_license_number": clinic.doctor_row()["license_number"],
    }

    assert refused("appointments", people | members) == ("validation_failed", [field])


def test_past_appointments_follow_the_booking_rules_and_are_imported_once(clinic: Clinic) -> None:
    people = {
        "patient_file_number": clinic.patient()["file_number"],
        "doctor_license_number": clinic.doctor_row()["license_number"],
    }
    past = people | {"date": "2020-03-04", "time": "09:00", "end_time": "09:20"}

    row_id = import_row("appointments", past | {"status": "completed"})
    missed = import_row("appointments", past | {"status": "no_show"})

    row = db.session.get_one(Appointment, row_id)
    assert (row.status, row.duration) == ("completed", 20)
    db.session.rollback()
    for status in ("completed", "no_show"):
        assert refused("appointments", past | {"status": status})[0] == "already_exists"
    overlap = past | {"status": "completed", "time": "09:10"}
    assert refused("appointments", overlap)[0] == "appointment_conflict"
    for each in (row_id, missed):
        undo("appointments", each)
    assert [db.session.get_one(Appointment, each).status for each in (row_id, missed)] == ["cancelled"] * 2
    db.session.rollback()
    again = import_row("appointments", past | {"status": "completed"})
    assert again > missed


def test_an_appointment_with_a_visit_is_in_use(clinic: Clinic) -> None:
    patient, doctor = clinic.patient(), clinic.doctor_row()
    row_id = import_row(
        "appointments",
        {
            "patient_file_number": patient["file_number"],
            "doctor_license_number": doctor["license_number"],
            "start": (clock.now() - timedelta(hours=2)).isoformat(),
            "status": "completed",
        },
    )
    assert used("appointments", row_id) == []
    people = {"patient_id": patient["id"], "doctor_id": doctor["id"]}
    clinic.admin.make("/visits", appointment_id=row_id, **people)

    assert used("appointments", row_id) == [row_id]
    with pytest.raises(ClinicError) as error:
        undo("appointments", row_id)
    assert error.value.code == "in_use"


# --- Inventory -----------------------------------------------------------------------------------------


def test_opening_stock_is_a_movement_of_a_lot_and_its_undo_another(clinic: Clinic) -> None:
    members = {
        "name": "Amoxicillin 500 mg",
        "sku": "AMX-500",
        "quantity": "120",
        "unit_cost": Decimal("0.0375"),
        "lot_number": "L-1",
        "expires_on": "2024-12-31",
        "min_quantity": None,
    }

    item_id = import_row("inventory", members | {"quantity": 120})

    path = f"/inventory/{item_id}"
    item = clinic.admin.get(path).get_json()
    names = ("quantity", "available", "unit_cost", "min_quantity", "lots")
    lots = [{"lot_number": "L-1", "expires_on": "2024-12-31", "quantity": 120}]
    assert [item[name] for name in names] == [120, 0, "0.0375", 5, lots]
    assert used("inventory", item_id) == []

    undo("inventory", item_id)

    item = clinic.admin.get(path).get_json()
    assert (item["quantity"], item["is_active"], item["lots"]) == (0, False, [])
    movements = clinic.admin.get(f"{path}/movements?sort_order=asc").get_json()
    assert [(row["type"], row["change"]) for row in movements] == [("restock", 120), ("adjustment", -120)]
    assert clinic.app.test_cli_runner().invoke(args=["verify"]).output == ""
    import_row("inventory", members | {"quantity": 120})  # the SKU is free again


def test_items_without_sku_are_imported_once_by_name(clinic: Clinic) -> None:
    import_row("inventory", {"name": "Gauze 10 cm"})

    assert refused("inventory", {"name": "gauze  10 CM"}) == ("already_exists", ["name"])
    import_row("inventory", {"name": "Gauze 10 cm", "sku": "G-10"})


def test_an_update_keeps_the_stock(clinic: Clinic) -> None:
    item_id = import_row("inventory", {"name": "Gauze", "sku": "G-1", "quantity": 5})
    kind = IMPORT_KINDS[ImportSubject.INVENTORY]
    assert None not in (kind.update, kind.snapshot, kind.undo_update)

    def update(**members: Any) -> dict[str, Any]:
        row = ImportRow("old", kind.validate(members), frozenset(members))
        with transaction("import 2"):
            item = db.session.get_one(InventoryItem, item_id)
            previous = kind.snapshot(item)  # type: ignore[misc]
            kind.update(IMPORTER, item, row)  # type: ignore[misc]
            return previous

    previous = update(name="Gauze", sku="G-1", quantity=5, supplier="Acme", unit_cost="0.1234")
    assert db.session.get_one(InventoryItem, item_id).supplier == "Acme"
    db.session.rollback()
    with pytest.raises(ClinicError) as error:
        update(name="Gauze", quantity=6)
    assert list(error.value.errors) == ["quantity"]
    with transaction("import 2 undo"):
        kind.undo_update(IMPORTER, db.session.get_one(InventoryItem, item_id), previous)  # type: ignore[misc]
    item = db.session.get_one(InventoryItem, item_id)
    assert (item.supplier, item.quantity, str(item.unit_cost)) == (None, 5, "0.0000")


# --- Price list ----------------------------------------------------------------------------------------


def test_an_undone_price_is_inactive_and_its_code_is_free(clinic: Clinic) -> None:
    members = {"code": "LAB-1", "name": "Blood count", "unit_price": Decimal(25), "category": None}
    item_id = import_row("price_list", members)

    undo("price_list", item_id)

    item = db.session.get_one(PriceListItem, item_id)
    assert (item.is_active, item.code) == (False, f"LAB-1 (undone {item_id})")
    db.session.rollback()
    second = import_row("price_list", members)
    bill = {"patient_id": clinic.patient()["id"], "items": [{"price_list_item_id": second}]}
    clinic.admin.make("/billings", **bill)
    assert used("price_list", second) == [second]


# --- Opening balances ----------------------------------------------------------------------------------


def test_balances_are_found_posted_and_reversed(clinic: Clinic) -> None:
    patient = clinic.patient()
    row = {"patient_file_number": patient["file_number"], "date": "2019-06-30", "reference": "K"}
    path = f"/patients/{patient['id']}/account"

    debt = import_row("opening_balances", row | {"amount": Decimal("120.5")})
    credit = import_row("opening_balances", row | {"amount": Decimal(-30), "reference": "L"})

    account = clinic.admin.get(path).get_json()
    assert (account["account_balance"], account["credit"]) == ("90.50", "30.00")
    kind = IMPORT_KINDS[ImportSubject.OPENING_BALANCES]
    assert kind.versions
    other = clinic.patient()
    brought = {"patient_file_number": other["file_number"], "amount": Decimal(-30)}
    assert used("patients", other["id"]) == []
    returned = import_row("opening_balances", row | brought)
    assert used("patients", other["id"]) == [other["id"]]
    db.session.rollback()
    undo("opening_balances", returned)
    assert used("patients", other["id"]) == []
    db.session.rollback()
    before = kind.versions([debt, credit])
    assert used("opening_balances", debt) == used("opening_balances", credit) == []
    db.session.rollback()
    bill = account["open_bills"][0]["id"]
    clinic.admin.make(f"/billings/{bill}/payments", amount="30.00", method="credit")
    assert used("opening_balances", debt) == [debt]
    assert used("opening_balances", credit) == [credit]
    after = kind.versions([debt, credit])
    assert after[debt] > before[debt]
    db.session.rollback()
    assert refused("opening_balances", row | {"amount": "1"}) == ("already_exists", ["reference"])
    for members, field in (
        ({"amount": "1,5"}, "amount"),
        ({"amount": None}, "amount"),
        ({"amount": "5", "currency": "XAF"}, "currency"),
        ({"amount": "5", "date": None}, "date"),
    ):
        assert refused("opening_balances", row | {"reference": "M"} | members)[1] == [field]


def test_a_balance_from_another_source_is_a_duplicate(clinic: Clinic) -> None:
    file = imports.csv_file(
        ("File number", "Balance", "As of"), [(clinic.patient()["file_number"], "12.50", "2019-06-30")]
    )
    kind = {"kind": "opening_balances", "on_error": "skip"}

    rows = [
        imports.run(clinic.admin, file, **kind | fields)
        for fields in (
            {"source": "a"},
            {"source": "a"},
            {"source": "b"},
            {"source": "c", "on_duplicate": "skip"},
        )
    ]

    states = [(row["applied"], row["skipped"], row["refused"]) for row in rows]
    assert states == [(1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 1, 0)]
    for row in rows[2:]:
        assert imports.problems(clinic.admin, row["id"]) == {2: [("reference", "already_exists")]}
    assert clinic.admin.get("/analytics/dashboard").get_json()["outstanding"] == "12.50"


# --- Columns -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", IMPORT_KINDS.values(), ids=lambda kind: kind.name)
def test_every_column_is_documented_and_found_by_its_names(kind: ImportKind) -> None:
    page = (ROOT / "docs" / "import-columns.md").read_text(encoding="utf-8")

    for column in kind.all_columns:
        written = f"**`{column.name}`**" if column.required else f"`{column.name}`"
        assert written in page, column.name
        for name in (column.name, *column.synonyms):
            assert propose_mapping([name], kind.all_columns).get(name) == column.name, name
