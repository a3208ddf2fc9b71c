"""Medical histories: who reads and writes them, lists as wholes, allergens, ICD-10-CM codes, versions."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from models import AuditLog
from tests.support.clinic import Clinic

HISTORY = {
    "allergies": [
        {"substance": "Penicillin", "reaction": "hives <1 h after", "severity": "severe"},
        {"substance": "Latex", "reaction": None, "severity": "unknown"},
    ],
    "conditions": [
        {"name": "Type 2 diabetes", "icd10": "E11.9", "since": "2015-03-01", "status": "active"},
        {"name": "Pneumonia", "icd10": None, "since": None, "status": "resolved"},
    ],
    "medications": [{"name": "Metformin", "dosage": "500 mg twice daily", "since": "2015-03-01"}],
    "surgical_history": "Appendectomy 1998",
    "family_history": "Father: MI at 52",
    "notes": "BP <140/90 & stable",
}


def path_of(patient: dict[str, Any]) -> str:
    return f"/patients/{patient['id']}/medical-history"


def test_a_new_patient_has_an_empty_history(clinic: Clinic) -> None:
    patient = clinic.patient()

    answer = clinic.doctor.get(path_of(patient))

    row = answer.get_json()
    assert answer.status_code == 200
    assert answer.headers["ETag"] == '"1"'
    assert row["patient_id"] == patient["id"]
    assert row["patient"] == {"id": patient["id"], "name": patient["name"]}
    assert row["patient_name"] == patient["name"]
    assert row["allergies"] == row["conditions"] == row["medications"] == []
    assert row["notes"] is None


def test_a_history_is_read_back_as_written(clinic: Clinic) -> None:
    patient = clinic.patient()

    written = clinic.doctor.patch(path_of(patient), HISTORY)

    row = clinic.technician.get(path_of(patient)).get_json()
    assert written.status_code == 200
    assert written.get_json() == row
    assert {name: row[name] for name in HISTORY} == HISTORY


def test_lists_are_replaced_as_wholes_and_the_rest_stays(clinic: Clinic) -> None:
    patient = clinic.patient()
    clinic.doctor.patch(path_of(patient), HISTORY)

    turned = list(reversed(HISTORY["allergies"]))
    answer = clinic.doctor.patch(path_of(patient), {"allergies": turned, "conditions": None})

    row = answer.get_json()
    assert row["allergies"] == turned
    assert row["conditions"] == []
    assert row["medications"] == HISTORY["medications"]
    assert row["notes"] == HISTORY["notes"]
    assert clinic.doctor.get(path_of(patient)).get_json() == row


PLAIN: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"allergies": "Penicillin"}, {"substance": "Penicillin", "reaction": None, "severity": "unknown"}),
    ({"allergies": ["Penicillin"]}, {"substance": "Penicillin", "reaction": None, "severity": "unknown"}),
    (
        {"conditions": "asthma, since childhood"},
        {"name": "asthma, since childhood", "icd10": None, "since": None, "status": "active"},
    ),
    ({"medications": "Aspirin 100"}, {"name": "Aspirin 100", "dosage": None, "since": None}),
]


def test_a_plain_text_is_one_entry(clinic: Clinic) -> None:
    for sent, read in PLAIN:
        answer = clinic.doctor.patch(path_of(clinic.patient()), sent)

        assert answer.status_code == 200, answer.get_json()
        assert answer.get_json()[next(iter(sent))] == [read]


def test_the_same_allergen_twice_is_refused(clinic: Clinic) -> None:
    patient = clinic.patient()
    clinic.doctor.patch(path_of(patient), {"allergies": ["Latex"]})

    answer = clinic.doctor.patch(
        path_of(patient), {"allergies": [{"substance": "Penicillín"}, {"substance": "PENICILLIN "}]}
    )

    assert answer.status_code == 409
    assert answer.get_json()["error"] == "already_exists"
    assert list(answer.get_json()["errors"]) == ["allergies.1.substance"]
    kept = clinic.doctor.get(path_of(patient)).get_json()["allergies"]
    assert [allergy["substance"] for allergy in kept] == ["Latex"]


def test_icd10_codes_are_checked_and_written_as_printed(clinic: Clinic) -> None:
    patient = clinic.patient()

    good = clinic.doctor.patch(path_of(patient), {"conditions": [{"name": "Diabetes", "icd10": "e119"}]})
    bad = clinic.doctor.patch(
        path_of(patient), {"conditions": [{"name": "Asthma"}, {"name": "Diabetes", "icd10": "E11.99"}]}
    )

    assert good.get_json()["conditions"][0]["icd10"] == "E11.9"
    assert bad.status_code == 422
    assert list(bad.get_json()["errors"]) == ["conditions.1.icd10"]


IMPOSSIBLE: list[tuple[dict[str, Any], str]] = [
    ({"allergies": [{"reaction": "hives"}]}, "allergies.0.substance"),
    ({"allergies": [{"substance": "Latex", "severity": "awful"}]}, "allergies.0.severity"),
    ({"allergies": [{"substance": "Latex", "since": "2015-01-01"}]}, "allergies.0.since"),
    ({"allergies": 7}, "allergies"),
    ({"conditions": [{"name": " "}]}, "conditions.0.name"),
    ({"conditions": [{"name": "Asthma", "status": "gone"}]}, "conditions.0.status"),
    ({"medications": [{"name": "Aspirin", "since": "soon"}]}, "medications.0.since"),
    ({"surgical_history": ["Appendectomy"]}, "surgical_history"),
    ({"smoker": True}, "smoker"),
]


def test_what_a_history_cannot_hold_is_refused_by_name(clinic: Clinic) -> None:
    path = path_of(clinic.patient())

    for change, field in IMPOSSIBLE:
        answer = clinic.doctor.patch(path, change)

        assert answer.status_code == 422
        assert list(answer.get_json()["errors"]) == [field]


def test_nothing_began_in_the_future(clinic: Clinic) -> None:
    patient = clinic.patient()
    tomorrow = (datetime.now(UTC).date() + timedelta(days=2)).isoformat()

    for name in ("conditions", "medications"):
        answer = clinic.doctor.patch(path_of(patient), {name: [{"name": "x", "since": tomorrow}]})

        assert answer.status_code == 422
        assert list(answer.get_json()["errors"]) == [f"{name}.0.since"]


def test_each_role_has_its_right_to_histories(clinic: Clinic) -> None:
    patient = clinic.patient()
    path = path_of(patient)
    change = {"notes": "walks with a cane"}

    assert clinic.receptionist.get(path).status_code == 403
    assert clinic.receptionist.patch(path, change).status_code == 403
    assert clinic.technician.get(path).status_code == 200
    assert clinic.technician.patch(path, change).status_code == 403
    assert clinic.doctor.patch(path, change).status_code == 200
    assert clinic.admin.get(path).get_json()["notes"] == "walks with a cane"
    assert clinic.nobody.get(path).status_code == 401
    assert clinic.doctor.get("/patients/987654/medical-history").status_code == 404


def test_the_version_rises_by_one_with_a_list_and_stands_still_without_change(clinic: Clinic) -> None:
    patient = clinic.patient()
    path = path_of(patient)

    first = clinic.doctor.patch(path, HISTORY, headers={"If-Match": '"1"'})
    same = clinic.doctor.put(path, first.get_json())
    emptied = clinic.doctor.patch(path, {"allergies": []}, headers={"If-Match": '"2"'})
    stale = clinic.doctor.patch(path, {"notes": "x"}, headers={"If-Match": '"2"'})

    assert first.headers["ETag"] == same.headers["ETag"] == '"2"'
    assert emptied.headers["ETag"] == '"3"'
    assert stale.status_code == 412


def test_a_text_that_says_what_is_recorded_changes_nothing(clinic: Clinic) -> None:
    patient = clinic.patient()
    clinic.doctor.patch(path_of(patient), {"allergies": "Latex"})

    again = clinic.doctor.patch(path_of(patient), {"allergies": "Latex"})

    assert again.headers["ETag"] == '"2"'


def test_a_change_is_one_entry_of_the_audit_with_names_of_fields_only(clinic: Clinic) -> None:
    patient = clinic.patient()

    clinic.doctor.patch(path_of(patient), {"allergies": "Latex", "notes": "secret"})
    clinic.doctor.patch(path_of(patient), {"allergies": []})

    with clinic.inside() as session:
        entries = session.query(AuditLog).filter(AuditLog.entity == "medical_history").order_by(AuditLog.id)
        assert [(entry.action, entry.fields, entry.patient_ids) for entry in entries] == [
            ("update", ["allergies", "notes"], [patient["id"]]),
            ("update", ["allergies"], [patient["id"]]),
        ]
