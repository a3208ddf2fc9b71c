"""Medication safety check: alerts for allergies and duplicate therapy, overrides and warnings."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from werkzeug.test import TestResponse

from services.clinical import drugs, interactions, medication_safety
from tests.support.clinic import Caller, Clinic


def visit(clinic: Clinic, *allergies: Any, taking: tuple[str, ...] = ()) -> int:
    """Create an open visit of a new patient with these allergies and home medications."""
    patient_id = clinic.patient()["id"]
    record(clinic, patient_id, allergies=list(allergies), medications=list(taking))
    visit_id: int = clinic.visit(patient_id=patient_id)["id"]
    return visit_id


def record(clinic: Clinic, patient_id: int, **history: list[Any]) -> None:
    answer = clinic.admin.patch(f"/patients/{patient_id}/medical-history", history)
    assert answer.status_code == 200, answer.get_data(as_text=True)


def prescribe(clinic: Clinic, visit_id: int, *medications: Any, **members: Any) -> TestResponse:
    body = {"visit_id": visit_id, "medications": list(medications)} | members
    return clinic.doctor.post("/prescriptions", body)


def prescribed(clinic: Clinic, visit_id: int, *medications: Any, **members: Any) -> dict[str, Any]:
    answer = prescribe(clinic, visit_id, *medications, **members)
    assert answer.status_code == 201, answer.get_data(as_text=True)
    row: dict[str, Any] = answer.get_json()
    return row


def alerts(answer: TestResponse) -> list[tuple[str, str, str]]:
    """Return (code, medication, with) of each alert of a refusal."""
    assert answer.status_code == 409, answer.get_data(as_text=True)
    problem = answer.get_json()
    assert problem["error"] == "safety_alert"
    return [(alert["code"], alert["medication"], alert["with"]) for alert in problem["alerts"]]


def dispense(caller: Caller, row: dict[str, Any], quantity: int = 1, **members: Any) -> TestResponse:
    """Dispense the first medication of the prescription."""
    items = [{"medication": row["medications"][0]["id"], "quantity": quantity}]
    return caller.post(f"/prescriptions/{row['id']}/dispense", {"items": items} | members)


# --- Allergies ---


def test_a_recorded_allergy_refuses_the_medication(clinic: Clinic) -> None:
    for allergy, medication, code in (
        ("Amoxicillin", "AMOXICILLIN 500 mg caps", "allergy_ingredient"),
        ("penicillin", "Augmentin", "allergy_class"),
        ("Penicillin", "Keflex", "cross_reactivity"),
    ):
        answer = prescribe(clinic, visit(clinic, "latex", allergy), "Lisinopril 10 mg", medication)

        assert alerts(answer) == [(code, medication, allergy)]
        assert medication in answer.get_json()["message"]
    assert clinic.doctor.get("/prescriptions").get_json() == []


def test_a_general_word_for_an_allergen_refuses_what_it_may_name(clinic: Clinic) -> None:
    visit_id = visit(
        clinic, "insulin", "iodine", "procaine", "muscle relaxants", "hyoscine", "digitalis", "quinine"
    )

    answer = prescribe(
        clinic,
        visit_id,
        "Lantus",
        "NovoRapid",
        "Omnipaque",
        "amiodarone 200 mg",
        "procaine penicillin",
        "suxamethonium",
        "rocuronium",
        "Buscopan",
        "digoxin 250 mcg",
        "quinidine",
    )

    refused = [alert for alert in alerts(answer) if alert[0].startswith("allergy")]
    assert refused == [
        ("allergy_class", "Lantus", "insulin"),
        ("allergy_class", "NovoRapid", "insulin"),
        ("allergy_class", "Omnipaque", "iodine"),
        ("allergy_ingredient", "amiodarone 200 mg", "iodine"),
        ("allergy_ingredient", "procaine penicillin", "procaine"),
        ("allergy_class", "suxamethonium", "muscle relaxants"),
        ("allergy_class", "rocuronium", "muscle relaxants"),
        ("allergy_ingredient", "Buscopan", "hyoscine"),
        ("allergy_class", "digoxin 250 mcg", "digitalis"),
        ("allergy_class", "quinidine", "quinine"),
    ]


def test_a_refusal_contains_every_alert(clinic: Clinic) -> None:
    visit_id = visit(clinic, "penicillin", "sulfa", taking=("Zocor",))

    answer = prescribe(clinic, visit_id, "Augmentin", "Bactrim DS", "Lipitor")

    assert {code for code, _, _ in alerts(answer)} == {"allergy_class", "duplicate_class"}
    assert {medication for _, medication, _ in alerts(answer)} == {"Augmentin", "Bactrim DS", "Lipitor"}


def test_records_of_other_patients_are_ignored(clinic: Clinic) -> None:
    prescribed(clinic, visit(clinic, "penicillin", taking=("Lisinopril",)), "Ibuprofen")

    row = prescribed(clinic, visit(clinic, "latex"), "Augmentin", "Lisinopril", "Ibuprofen")

    assert row["warnings"] == []


# --- Duplicates ---


def test_the_same_ingredient_in_an_active_prescription_is_a_duplicate(clinic: Clinic) -> None:
    visit_id = visit(clinic)
    first = prescribed(clinic, visit_id, "Tylenol")

    answer = prescribe(clinic, visit_id, "paracetamol 500 mg")

    assert alerts(answer) == [("duplicate_ingredient", "paracetamol 500 mg", "Tylenol")]
    assert answer.get_json()["alerts"][0]["prescription_id"] == first["id"]


def test_a_home_medication_is_compared_for_duplicates(clinic: Clinic) -> None:
    visit_id = visit(clinic, taking=("Metformin 500 mg",))

    answer = prescribe(clinic, visit_id, "Glucophage")

    assert alerts(answer) == [("duplicate_ingredient", "Glucophage", "Metformin 500 mg")]


def test_two_members_of_a_class_are_a_duplicate(clinic: Clinic) -> None:
    visit_id = visit(clinic)
    prescribed(clinic, visit_id, "simvastatin 20 mg")

    answer = prescribe(clinic, visit_id, "Lipitor")

    assert alerts(answer) == [("duplicate_class", "Lipitor", "simvastatin 20 mg")]


def test_medications_of_one_prescription_are_compared_with_each_other(clinic: Clinic) -> None:
    answer = prescribe(clinic, visit(clinic), "Prednisone 20 mg", "Lisinopril", "Prednisone 5 mg")

    assert alerts(answer) == [("duplicate_ingredient", "Prednisone 5 mg", "Prednisone 20 mg")]


def test_medicines_in_one_name_are_compared_with_each_other(clinic: Clinic) -> None:
    visit_id = visit(clinic)

    answer = prescribe(clinic, visit_id, "Warfarin 5 mg and aspirin 75 mg")

    (alert,) = answer.get_json()["alerts"]
    assert (answer.status_code, alert["code"], alert["severity"]) == (409, "interaction", "serious")
    name = "ibuprofen + diclofenac"
    assert alerts(prescribe(clinic, visit_id, name)) == [("duplicate_class", name, name)]
    for combination in ("Fiorinal with codeine", "lopinavir/ritonavir", "amlodipine + losartan", "insulin"):
        assert prescribe(clinic, visit_id, combination).status_code == 201, combination


def test_a_therapy_that_is_over_is_not_a_duplicate(clinic: Clinic) -> None:
    visit_id = visit(clinic)
    cancelled = prescribed(clinic, visit_id, "Lisinopril")
    clinic.doctor.delete(f"/prescriptions/{cancelled['id']}")
    stopped = prescribed(clinic, visit_id, "Lisinopril")
    clinic.doctor.post(f"/prescriptions/{stopped['id']}/stop", {"reason": "cough"})
    prescribed(clinic, visit_id, "Lisinopril", issued_at="2020-01-01T09:00:00Z", expires_on="2020-06-30")

    answer = prescribe(clinic, visit_id, "Lisinopril")

    assert answer.status_code == 201


def test_a_completed_prescription_without_an_end_is_a_duplicate(clinic: Clinic) -> None:
    visit_id = visit(clinic)
    completed = prescribed(clinic, visit_id, "Lisinopril")
    clinic.doctor.patch(f"/prescriptions/{completed['id']}", {"status": "completed"})

    answer = prescribe(clinic, visit_id, "Zestril")

    assert alerts(answer) == [("duplicate_ingredient", "Zestril", "Lisinopril")]


def test_a_prescription_that_expires_today_is_still_active(clinic: Clinic) -> None:
    visit_id = visit(clinic)
    first = prescribed(clinic, visit_id, "Lisinopril")
    clinic.doctor.patch(f"/prescriptions/{first['id']}", {"expires_on": first["issued_at"][:10]})

    answer = prescribe(clinic, visit_id, "Zestril")

    assert alerts(answer) == [("duplicate_ingredient", "Zestril", "Lisinopril")]


def test_one_of_several_concurrent_duplicate_prescriptions_succeeds(clinic: Clinic) -> None:
    visit_id = visit(clinic)
    caller = clinic.doctor

    with ThreadPoolExecutor(4) as pool:
        answers = list(
            pool.map(
                lambda _: caller.post("/prescriptions", {"visit_id": visit_id, "medications": ["Warfarin"]}),
                range(4),
            )
        )

    assert sorted(answer.status_code for answer in answers) == [201, 409, 409, 409]


# --- Overrides ---


def test_a_doctor_overrides_an_alert_with_a_stored_reason(clinic: Clinic) -> None:
    visit_id = visit(clinic, "penicillin")

    row = prescribed(clinic, visit_id, "Augmentin", override_reason="tolerated it in 2024")

    assert row["override_reason"] == "tolerated it in 2024"
    (alert,) = row["overridden_alerts"]
    assert (alert["code"], alert["medication"], alert["with"]) == ("allergy_class", "Augmentin", "penicillin")
    assert alert["reason"] == "tolerated it in 2024"
    assert alert["overridden_by"].startswith("Doctor")


def test_an_override_is_audited_as_override(clinic: Clinic) -> None:
    visit_id = visit(clinic, "penicillin")
    prescribe(clinic, visit_id, "Augmentin")
    row = prescribed(clinic, visit_id, "Augmentin", override_reason="tolerated")

    entries = clinic.admin.get("/audit-logs?entity=prescription&sort_by=id").get_json()

    assert [(entry["action"], entry["outcome"], entry["detail"]) for entry in entries] == [
        ("refused", "refused", "safety_alert"),
        ("override", "success", None),
    ]
    assert entries[1]["entity_id"] == row["id"]
    assert entries[0]["patient_ids"] == [row["patient_id"]]
    assert "tolerated" not in str(entries)


def test_a_blank_reason_overrides_nothing(clinic: Clinic) -> None:
    answer = prescribe(clinic, visit(clinic, "penicillin"), "Augmentin", override_reason="  ")

    assert alerts(answer) == [("allergy_class", "Augmentin", "penicillin")]


def test_an_admin_may_override_an_alert(clinic: Clinic) -> None:
    body = {
        "visit_id": visit(clinic, "penicillin"),
        "medications": ["Augmentin"],
        "override_reason": "agreed",
    }

    row = clinic.admin.make("/prescriptions", **body)

    assert len(row["overridden_alerts"]) == 1


# --- Changes ---


def test_changed_medications_are_checked_again(clinic: Clinic) -> None:
    row = prescribed(clinic, visit(clinic, "penicillin"), "Azithromycin")
    path = f"/prescriptions/{row['id']}"

    refused = clinic.doctor.patch(path, {"medications": ["Amoxicillin"]})
    overridden = clinic.doctor.patch(path, {"medications": ["Amoxicillin"], "override_reason": "agreed"})

    assert alerts(refused) == [("allergy_class", "Amoxicillin", "penicillin")]
    assert overridden.get_json()["overridden_alerts"][0]["reason"] == "agreed"


def test_an_overridden_alert_does_not_refuse_a_change(clinic: Clinic) -> None:
    row = prescribed(clinic, visit(clinic, "penicillin"), "Amoxicillin", override_reason="agreed")
    path = f"/prescriptions/{row['id']}"

    same = clinic.doctor.patch(path, {"medications": [{"name": "Amoxicillin", "quantity": 14}]})
    worse = clinic.doctor.patch(path, {"medications": ["Amoxicillin", "Keflex"]})

    assert same.status_code == 200
    assert alerts(worse) == [("cross_reactivity", "Keflex", "penicillin")]


def test_a_prescription_is_not_a_duplicate_of_itself(clinic: Clinic) -> None:
    row = prescribed(clinic, visit(clinic), "Lisinopril")

    answer = clinic.doctor.patch(
        f"/prescriptions/{row['id']}", {"medications": [{"name": "Lisinopril", "dosage": "10 mg"}]}
    )

    assert answer.status_code == 200


# --- Dispensing ---


def test_an_overridden_alert_does_not_refuse_dispensing(clinic: Clinic) -> None:
    visit_id = visit(clinic, "penicillin", taking=("Lisinopril",))
    tablets = [{"name": name, "quantity": 5} for name in ("Augmentin", "Zestril", "Zestril 5 mg")]
    row = prescribed(clinic, visit_id, *tablets, override_reason="agreed")
    items = [{"medication": medication["id"], "quantity": 1} for medication in reversed(row["medications"])]

    answer = clinic.technician.post(f"/prescriptions/{row['id']}/dispense", {"items": items})

    assert answer.status_code == 200


def test_an_allergy_recorded_after_prescribing_refuses_dispensing(clinic: Clinic) -> None:
    row = prescribed(clinic, visit(clinic), {"name": "Augmentin", "quantity": 10})
    record(clinic, row["patient_id"], allergies=["penicillin"])

    answer = dispense(clinic.technician, row)

    assert alerts(answer) == [("allergy_class", "Augmentin", "penicillin")]
    assert clinic.doctor.get(f"/prescriptions/{row['id']}").get_json()["dispensings"] == []


def test_an_allergy_that_became_severe_refuses_dispensing_again(clinic: Clinic) -> None:
    visit_id = visit(clinic, {"substance": "penicillin", "severity": "mild"})
    row = prescribed(clinic, visit_id, "Amoxicillin", override_reason="only a mild rash")
    assert dispense(clinic.technician, row).status_code == 200

    record(clinic, row["patient_id"], allergies=[{"substance": "penicillin", "severity": "severe"}])
    refused = dispense(clinic.technician, row)

    assert refused.status_code == 409
    (alert,) = refused.get_json()["alerts"]
    assert (alert["code"], alert["allergy"]) == ("allergy_class", "penicillin (severe)")


def test_a_later_duplicate_refuses_dispensing_the_first_prescription(clinic: Clinic) -> None:
    visit_id = visit(clinic)
    first = prescribed(clinic, visit_id, {"name": "Lisinopril", "quantity": 10})
    second = prescribed(clinic, visit_id, {"name": "Zestril", "quantity": 10}, override_reason="replaces it")

    refused = dispense(clinic.technician, first)

    assert alerts(refused) == [("duplicate_ingredient", "Lisinopril", "Zestril")]
    assert dispense(clinic.technician, second).status_code == 200


def test_a_new_alert_refuses_only_its_own_medication(clinic: Clinic) -> None:
    tablets = [{"name": name, "quantity": 5} for name in ("Lisinopril", "Augmentin")]
    row = prescribed(clinic, visit(clinic), *tablets)
    record(clinic, row["patient_id"], allergies=["penicillin"])

    assert dispense(clinic.technician, row).status_code == 200


def test_a_doctor_overrides_a_new_alert_at_dispensing_once(clinic: Clinic) -> None:
    row = prescribed(clinic, visit(clinic), {"name": "Augmentin", "quantity": 10})
    record(clinic, row["patient_id"], allergies=["penicillin"])

    refused = dispense(clinic.technician, row, override_reason="looks fine")
    overridden = dispense(clinic.doctor, row, override_reason="tolerated it in 2024")
    later = dispense(clinic.technician, row)

    assert (refused.status_code, refused.get_json()["error"]) == (403, "forbidden")
    assert overridden.get_json()["overridden_alerts"][0]["reason"] == "tolerated it in 2024"
    assert later.get_json()["medications"][0]["dispensed"] == 2


# --- Warnings ---

UNKNOWN: list[tuple[tuple[str, ...], tuple[str, ...], str, str]] = [
    (("latex",), (), "Zorblaxine 5", "Zorblaxine 5 is not known"),
    (("latex",), (), "Amoxicillin and zorblaxine", "zorblaxine"),
    (("zorblaxine",), (), "Lisinopril", "allergy zorblaxine"),
    (("lactose",), (), "Lisinopril", "allergy lactose"),
    (("latex",), ("zorblaxine drops",), "Lisinopril", "home medication: zorblaxine drops"),
]


def test_unknown_medications_and_allergies_give_a_warning(clinic: Clinic) -> None:
    for allergies, taking, medication, text in UNKNOWN:
        row = prescribed(clinic, visit(clinic, *allergies, taking=taking), medication)

        (warning,) = row["warnings"]
        assert (warning["medication"], warning["code"]) == (medication, "unchecked")
        assert text in warning["message"]
        assert clinic.technician.get(f"/prescriptions/{row['id']}").get_json()["warnings"] == [warning]
        listed = clinic.technician.get(f"/prescriptions?id={row['id']}").get_json()
        assert listed[0]["warnings"] == [warning]


def test_a_typing_error_is_checked_and_gives_a_warning(clinic: Clinic) -> None:
    visit_id = visit(clinic, "latex", taking=("warfarin",))

    row = prescribed(clinic, visit_id, "amoxcillin 500 mg")

    (warning,) = row["warnings"]
    assert (warning["code"], warning["medication"]) == ("understood_as", "amoxcillin 500 mg")
    assert "amoxcillin 500 mg was understood as amoxicillin" in warning["message"]
    assert clinic.technician.get(f"/prescriptions/{row['id']}").get_json()["warnings"] == [warning]
    assert alerts(prescribe(clinic, visit_id, "ibuprofn")) == [("interaction", "ibuprofn", "warfarin")]


def test_a_typing_error_in_the_record_is_checked_and_gives_a_warning(clinic: Clinic) -> None:
    visit_id = visit(clinic, "peniciline", taking=("lisinopri",))

    row = prescribed(clinic, visit_id, "Paracetamol")

    assert [(warning["code"], warning.get("medication")) for warning in row["warnings"]] == [
        ("understood_as", None),
        ("understood_as", None),
    ]
    first, second = (warning["message"] for warning in row["warnings"])
    assert "allergy peniciline was understood as" in first
    assert "Penicillin-class" in first
    assert "home medication: lisinopri was understood as lisinopril" in second
    assert alerts(prescribe(clinic, visit_id, "Augmentin", "Zestril")) == [
        ("allergy_class", "Augmentin", "peniciline"),
        ("duplicate_ingredient", "Zestril", "lisinopri"),
    ]


def test_a_typing_error_between_two_medicines_lists_both(clinic: Clinic) -> None:
    row = prescribed(clinic, visit(clinic, "latex"), "prednisolne 5 mg")

    (warning,) = row["warnings"]
    assert (warning["code"], warning["medication"]) == ("unchecked", "prednisolne 5 mg")
    assert "similar names: prednisolone, prednisone" in warning["message"]


def test_free_text_alone_gives_a_warning(clinic: Clinic) -> None:
    row = prescribed(clinic, visit(clinic, "penicillin"), details="Amoxicillin 500 mg, three times a day")

    (warning,) = row["warnings"]
    assert warning["code"] == "unchecked"
    assert set(warning) == {"code", "message"}


def test_a_medicine_in_free_text_gives_a_warning_now_and_later(clinic: Clinic) -> None:
    visit_id = visit(clinic, "penicillin")
    beside = prescribed(clinic, visit_id, "Paracetamol", details="Also amoxicillin 500 mg, avoid alcohol")
    listed = prescribed(clinic, visit_id, "Cetirizine", details="Take one cetirizine with water")
    alone = prescribed(clinic, visit_id, details="Warfarin 5 mg daily")
    later = prescribed(clinic, visit_id, "Ibuprofen")

    (warning,) = beside["warnings"]
    assert (warning["code"], "name amoxicillin." in warning["message"]) == ("unchecked", True)
    assert listed["warnings"] == []
    (warning,) = later["warnings"]
    assert (warning["code"], warning["medication"]) == ("unchecked", "Ibuprofen")
    assert f"prescription {alone['id']}: Warfarin 5 mg daily" in warning["message"]

    assert clinic.doctor.delete(f"/prescriptions/{alone['id']}").status_code == 200
    assert clinic.doctor.get(f"/prescriptions/{later['id']}").get_json()["warnings"] == []


def test_a_patient_without_recorded_allergies_gives_a_warning(clinic: Clinic) -> None:
    patient_id = clinic.patient()["id"]
    visit_id = clinic.visit(patient_id=patient_id, prescriptions=[{"details": "rest"}])["id"]
    row = prescribed(clinic, visit_id, "Lisinopril")

    (warning,) = row["warnings"]
    at_the_visit = clinic.doctor.get(f"/visits/{visit_id}").get_json()["prescriptions"]
    record(clinic, patient_id, allergies=["NKDA"])
    asked = clinic.doctor.get(f"/prescriptions/{row['id']}").get_json()

    assert warning["code"] == "allergies_not_asked"
    assert set(warning) == {"code", "message"}
    assert [[each["code"] for each in row["warnings"]] for row in at_the_visit] == [
        ["unchecked", "allergies_not_asked"],
        ["allergies_not_asked"],
    ]
    assert asked["warnings"] == []


def test_a_known_medication_with_known_allergies_gives_no_warning(clinic: Clinic) -> None:
    for allergies in (("peanuts", "latex"), ("NKDA",)):
        row = prescribed(clinic, visit(clinic, *allergies), "Lisinopril", details="with food")

        assert row["warnings"] == []


def test_a_guessed_trade_name_is_checked_and_also_reported_as_unchecked(clinic: Clinic) -> None:
    visit_id = visit(clinic)
    row = prescribed(clinic, visit_id, "Augmantin 625")

    assert [warning["code"] for warning in row["warnings"]][:2] == ["understood_as", "unchecked"]
    assert "augmantin is not a known name" in row["warnings"][1]["message"]
    other = prescribed(clinic, visit(clinic, taking=("Augmantin 625",)), "paracetamol")
    assert [warning["code"] for warning in other["warnings"]][:2] == ["understood_as", "unchecked"]
    assert (
        "not checked against unknown entries: home medication: Augmantin" in other["warnings"][1]["message"]
    )


# --- Bounds ---


def test_the_work_of_a_check_is_bounded_and_the_rest_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    older = [
        medication_safety.CurrentMedication("warfarin", f"prescription {number}", number)
        for number in range(1, 1001)
    ]
    at_home = medication_safety.CurrentMedication("Lisinopril", "home medication")
    record = medication_safety.MedicationRecord(1, medications=[*older, *older, at_home])
    compared: list[str] = []
    find_interactions = interactions.find_interactions

    def counted(
        name: str, drug: drugs.Drug, other_name: str, other_drug: drugs.Drug
    ) -> list[interactions.InteractionMatch]:
        compared.append(other_name)
        return find_interactions(name, drug, other_name, other_drug)

    monkeypatch.setattr(interactions, "find_interactions", counted)

    alerts = medication_safety.find_alerts(["Ibuprofen"] * 3, record)
    (warning,) = medication_safety.find_warnings(["Cetirizine"], record, None)[:1]

    assert len(compared) == 1 + medication_safety.MAX_CURRENT
    assert {"Ibuprofen", "Lisinopril"} <= set(compared)
    # the newest therapies are compared
    assert [alert["prescription_id"] for alert in alerts] == [None, *range(502, 1001)]
    assert (warning["code"], warning["medication"]) == ("unchecked", "Cetirizine")
    assert "501 older current medications" in warning["message"]


def test_a_warning_names_a_bounded_number_of_unknown_entries() -> None:
    home = [medication_safety.CurrentMedication(f"zorb{n}", "home medication") for n in range(60)]
    record = medication_safety.MedicationRecord(1, medications=home, no_known_allergies=True)

    (warning,) = medication_safety.find_warnings(["Cetirizine", "Cetirizine"], record)

    assert warning["message"].count("home medication") == medication_safety.MAX_NAMED
    assert "10 more" in warning["message"]


def test_a_visit_has_a_bounded_number_of_medications(clinic: Clinic) -> None:
    names = [f"zorb{number} drops" for number in range(100)]
    body: dict[str, Any] = {"patient_id": clinic.patient()["id"], "date": "2025-01-01"}

    refused = clinic.doctor.post(
        "/visits", body | {"prescriptions": [{"medications": names}, {"medications": "Amoxicillin"}]}
    )

    assert refused.status_code == 422
    assert "100 medications" in refused.get_json()["errors"]["prescriptions"]
