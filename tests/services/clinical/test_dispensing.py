"""Dispensing: quantities, refusals, overrides and races."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tests.support.clinic import Clinic
from tests.support.prescriptions import dispense, error, invalid_fields, prescribe, tablets


def test_medication_is_dispensed_up_to_its_refills(clinic: Clinic) -> None:
    row = prescribe(clinic, tablets(refills=2), tablets("Metformin", 5))

    answer = dispense(clinic.technician, row, (row["medications"][0]["id"], 10), ("metformin", 5))
    first = answer.get_json()
    second = dispense(clinic.technician, row, ("LISINOPRIL", 15), ("Lisinopril", 5)).get_json()

    assert [medication["remaining"] for medication in first["medications"]] == [20, 0]
    assert (first["status"], answer.headers["ETag"]) == ("active", '"2"')
    assert [medication["dispensed"] for medication in second["medications"]] == [30, 5]
    assert second["status"] == "completed"
    assert [(row["medication_name"], row["quantity"]) for row in second["dispensings"]] == [
        ("Lisinopril", 10),
        ("Metformin", 5),
        ("Lisinopril", 20),
    ]
    assert second["dispensings"][0]["dispensed_by"]["id"] == clinic.technician.user_id


def test_dispensing_more_than_prescribed_is_refused(clinic: Clinic) -> None:
    row = prescribe(clinic, tablets(), tablets("Metformin", 5))
    dispense(clinic.technician, row, ("Lisinopril", 4))

    answer = dispense(clinic.technician, row, ("Metformin", 1), ("Lisinopril", 4), ("Lisinopril", 3))

    assert error(answer) == (409, "excessive_dispensing")
    assert answer.get_json()["message"] == "Lisinopril: 6 remaining, 7 requested."
    assert answer.get_json()["remaining"][0]["remaining"] == 6
    shown = clinic.technician.get(f"/prescriptions/{row['id']}").get_json()
    assert [medication["dispensed"] for medication in shown["medications"]] == [4, 0]


def test_a_completed_prescription_cannot_be_dispensed(clinic: Clinic) -> None:
    row = prescribe(clinic, tablets(quantity=1))
    dispense(clinic.technician, row, ("Lisinopril", 1))

    assert error(dispense(clinic.technician, row, ("Lisinopril", 1))) == (409, "excessive_dispensing")


def test_a_medication_without_quantity_has_no_limit(clinic: Clinic) -> None:
    row = prescribe(clinic, "Lisinopril")

    first = dispense(clinic.technician, row, ("Lisinopril", 30)).get_json()
    dispense(clinic.technician, row, ("Lisinopril", 1_000_000))
    absurd = dispense(clinic.technician, row, *[("Lisinopril", 1_000_000)] * 99)

    (medication,) = first["medications"]
    assert (medication["dispensed"], medication["remaining"], first["status"]) == (30, None, "active")
    assert error(absurd) == (409, "excessive_dispensing")
    assert absurd.get_json()["remaining"][0]["dispensed"] == 1_000_030


def test_only_an_active_prescription_can_be_dispensed(clinic: Clinic) -> None:
    cancelled = prescribe(clinic, tablets())
    clinic.doctor.delete(f"/prescriptions/{cancelled['id']}")
    expired = prescribe(clinic, tablets(), issued_at="2020-01-01T09:00:00Z", expires_on="2020-06-30")

    for row in (cancelled, expired):
        assert error(dispense(clinic.technician, row, ("Lisinopril", 1))) == (409, "conflict")


def test_an_ambiguous_or_unknown_medication_is_refused(clinic: Clinic) -> None:
    row = prescribe(clinic, tablets(), tablets(), override_reason="morning and evening")
    evening = row["medications"][1]["id"]

    assert invalid_fields(dispense(clinic.technician, row, ("Lisinopril", 1))) == ["items.0.medication"]
    assert invalid_fields(dispense(clinic.technician, row, (evening, 1), ("Aspirin", 1))) == [
        "items.1.medication"
    ]
    assert invalid_fields(dispense(clinic.technician, row, (True, 1))) == ["items.0.medication"]
    assert invalid_fields(dispense(clinic.technician, row)) == ["items"]
    answer = dispense(clinic.technician, row, (str(evening), 1))
    assert [medication["dispensed"] for medication in answer.get_json()["medications"]] == [0, 1]


def test_concurrent_dispensing_never_exceeds_the_prescribed_quantity(clinic: Clinic) -> None:
    row = prescribe(clinic, tablets())
    caller = clinic.technician

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: dispense(caller, row, ("Lisinopril", 4)), range(4)))

    assert sorted(answer.status_code for answer in answers) == [200, 200, 409, 409]
    shown = caller.get(f"/prescriptions/{row['id']}").get_json()
    assert shown["medications"][0]["dispensed"] == 8
    assert sum(dispensing["quantity"] for dispensing in shown["dispensings"]) == 8


def test_dispensing_writes_one_audit_entry(clinic: Clinic) -> None:
    row = prescribe(clinic, tablets())
    dispense(clinic.technician, row, ("Lisinopril", 1))

    (entry,) = clinic.admin.get("/audit-logs?entity=prescription&action=dispense").get_json()

    assert (entry["entity_id"], entry["user_id"]) == (row["id"], clinic.technician.user_id)
    assert entry["patient_ids"] == [row["patient_id"]]
    assert set(entry["fields"]) == {"dispensings", "prescribed_medications"}


# --- Decimal quantities ---

QUANTITIES: list[tuple[float, str | None]] = [
    (100.5, "ml"),
    (0.001, "g"),
    (2.5, "tablet"),
    (1_000_000, "units"),
]


def test_decimal_quantities_are_exact(clinic: Clinic) -> None:
    names = ["Amoxicillin", "Hydrocortisone", "Lisinopril", "Insulin glargine"]
    medications = [
        {"name": name, "quantity": quantity, "unit": unit, "refills": 2}
        for name, (quantity, unit) in zip(names, QUANTITIES, strict=True)
    ]

    row = prescribe(clinic, *medications)

    stored = [(each["quantity"], each["unit"]) for each in row["medications"]]
    assert stored == QUANTITIES
    assert [each["remaining"] for each in row["medications"]] == [301.5, 0.003, 7.5, 3_000_000]
    answer = dispense(
        clinic.technician, row, ("Lisinopril", 0.1), ("Lisinopril", 0.2), ("Amoxicillin", 301.5)
    )
    dispensed = [each["dispensed"] for each in answer.get_json()["medications"]]
    assert dispensed == [301.5, 0, 0.3, 0]
    assert [each["quantity"] for each in answer.get_json()["dispensings"]] == [0.3, 301.5]


def test_a_whole_quantity_is_an_integer_in_json(clinic: Clinic) -> None:
    row = prescribe(clinic, tablets(quantity=5.0), tablets("Metformin", 2.5))

    answer = dispense(clinic.technician, row, ("Metformin", 1.5), ("Lisinopril", 5))

    assert b'"quantity":5,' in answer.data
    assert b'"quantity":2.5,' in answer.data
    assert b'"remaining":1,' in answer.data
    assert b'"dispensed":1.5,' in answer.data
    assert b"5.0" not in answer.data


def test_a_decimal_above_the_remaining_quantity_is_refused(clinic: Clinic) -> None:
    row = prescribe(clinic, tablets(quantity=2.5, unit="ml"))
    dispense(clinic.technician, row, ("Lisinopril", 2.4))

    answer = dispense(clinic.technician, row, ("Lisinopril", 0.101))
    last = dispense(clinic.technician, row, ("Lisinopril", 0.1))

    assert error(answer) == (409, "excessive_dispensing")
    assert answer.get_json()["message"] == "Lisinopril: 0.1 remaining, 0.101 requested."
    assert answer.get_json()["remaining"][0]["remaining"] == 0.1
    assert last.get_json()["status"] == "completed"


def test_an_invalid_quantity_is_refused(clinic: Clinic) -> None:
    visit_id = clinic.visit()["id"]
    row = prescribe(clinic, tablets(), visit_id=visit_id)
    quantities: list[Any] = [0, -1, -0.5, 0.0001, 1.0005, 1_000_000.5, 1e300, True, "5", [1]]

    for quantity in quantities:
        medications = [{"name": "Metformin", "quantity": quantity}]
        prescribed = clinic.doctor.post("/prescriptions", {"visit_id": visit_id, "medications": medications})
        assert invalid_fields(prescribed) == ["medications.0.quantity"]
        assert invalid_fields(dispense(clinic.technician, row, ("Lisinopril", quantity))) == [
            "items.0.quantity"
        ]


def test_a_unit_is_a_word(clinic: Clinic) -> None:
    visit_id = clinic.visit()["id"]

    answers = [
        clinic.doctor.post(
            "/prescriptions", {"visit_id": visit_id, "medications": [{"name": "Aspirin", "unit": unit}]}
        )
        for unit in ("5", " 2.5 ", "x" * 101, 5)
    ]

    assert [invalid_fields(answer) for answer in answers] == [["medications.0.unit"]] * 4
    for unit in ("5 ml spoon", "\u00b5g", "\u9320", "%"):
        row = prescribe(clinic, tablets(unit=unit))
        assert row["medications"][0]["unit"] == unit


def test_concurrent_decimal_dispensing_is_exact(clinic: Clinic) -> None:
    row = prescribe(clinic, tablets(quantity=1, unit="ml"))
    caller = clinic.technician

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: dispense(caller, row, ("Lisinopril", 0.3)), range(6)))

    assert sorted(answer.status_code for answer in answers) == [200, 200, 200, 409, 409, 409]
    (shown,) = caller.get(f"/prescriptions/{row['id']}").get_json()["medications"]
    assert (shown["dispensed"], shown["remaining"]) == (0.9, 0.1)
    assert clinic.app.test_cli_runner().invoke(args=["verify"]).output == ""
