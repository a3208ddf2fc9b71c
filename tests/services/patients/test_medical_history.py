"""Medical histories: permissions, replaced lists, allergens, ICD-10-CM codes, versions."""

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


def history_path(patient: dict[str, Any]) -> str:
    return f"/patients/{patient['id']}/medical-history"


def test_a_new_patient_has_an_empty_history(clinic: Clinic) -> None:
    patient = clinic.patient()

    answer = clinic.doctor.get(history_path(patient))

    row = answer.get_json()
    assert answer.status_code == 200
    assert answer.headers["ETag"] == '"1"'
    assert row["patient_id"] == patient["id"]
    assert row["patient"] == {"id": patient["id"], "name": patient["name"]}
    assert row["patient_name"] == patient["name"]
    assert row["allergies"] == row["conditions"] == row["medications"] == []
    assert row["notes"] is None


def test_a_history_is_returned_as_written(clinic: Clinic) -> None:
    patient = clinic.patient()

    written = clinic.doctor.patch(history_path(patient), HISTORY)

    row = clinic.technician.get(history_path(patient)).get_json()
    assert written.status_code == 200
    assert written.get_json() == row
    assert {name: row[name] for name in HISTORY} == HISTORY


def test_a_given_list_is_replaced_and_absent_members_stay(clinic: Clinic) -> None:
    patient = clinic.patient()
    clinic.doctor.patch(history_path(patient), HISTORY)

    reordered = list(reversed(HISTORY["allergies"]))
    answer = clinic.doctor.patch(history_path(patient), {"allergies": reordered, "conditions": None})

    row = answer.get_json()
    assert row["allergies"] == reordered
    assert row["conditions"] == []
    assert row["medications"] == HISTORY["medications"]
    assert row["notes"] == HISTORY["notes"]
    assert clinic.doctor.get(history_path(patient)).get_json() == row


PLAIN_TEXTS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"allergies": "Penicillin"}, {"substance": "Penicillin", "reaction": None, "severity": "unknown"}),
    ({"allergies": ["Penicillin"]}, {"substance": "Penicillin", "reaction": None, "severity": "unknown"}),
    (
        {"conditions": "asthma, since childhood"},
        {"name": "asthma, since childhood", "icd10": None, "since": None, "status": "active"},
    ),
    ({"medications": "Aspirin 100"}, {"name": "Aspirin 100", "dosage": None, "since": None}),
]


def test_a_plain_text_becomes_one_entry(clinic: Clinic) -> None:
    for sent, read in PLAIN_TEXTS:
        answer = clinic.doctor.patch(history_path(clinic.patient()), sent)

        assert answer.status_code == 200, answer.get_json()
        assert answer.get_json()[next(iter(sent))] == [read]


def test_the_same_allergen_twice_is_refused(clinic: Clinic) -> None:
    patient = clinic.patient()
    clinic.doctor.patch(history_path(patient), {"allergies": ["Latex"]})

    answer = clinic.doctor.patch(
        history_path(patient), {"allergies": [{"substance": "Penicillín"}, {"substance": "PENICILLIN "}]}
    )

    assert answer.status_code == 409
    assert answer.get_json()["error"] == "already_exists"
    assert list(answer.get_json()["errors"]) == ["allergies.1.substance"]
    stored = clinic.doctor.get(history_path(patient)).get_json()["allergies"]
    assert [allergy["substance"] for allergy in stored] == ["Latex"]


def test_icd10_codes_are_validated_and_stored_with_a_dot(clinic: Clinic) -> None:
    patient = clinic.patient()

    good = clinic.doctor.patch(history_path(patient), {"conditions": [{"name": "Diabetes", "icd10": "e119"}]})
    bad = clinic.doctor.patch(
        history_path(patient), {"conditions": [{"name": "Asthma"}, {"name": "Diabetes", "icd10": "E11.99"}]}
    )

    assert good.get_json()["conditions"][0]["icd10"] == "E11.9"
    assert bad.status_code == 422
    assert list(bad.get_json()["errors"]) == ["conditions.1.icd10"]


INVALID_CHANGES: list[tuple[dict[str, Any], str]] = [
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


def test_an_invalid_member_is_422_and_named(clinic: Clinic) -> None:
    path = history_path(clinic.patient())

    for change, field in INVALID_CHANGES:
        answer = clinic.doctor.patch(path, change)

        assert answer.status_code == 422
        assert list(answer.get_json()["errors"]) == [field]


def test_since_must_not_be_in_the_future(clinic: Clinic) -> None:
    patient = clinic.patient()
    tomorrow = (datetime.now(UTC).date() + timedelta(days=2)).isoformat()

    for name in ("conditions", "medications"):
        answer = clinic.doctor.patch(history_path(patient), {name: [{"name": "x", "since": tomorrow}]})

        assert answer.status_code == 422
        assert list(answer.get_json()["errors"]) == [f"{name}.0.since"]


def test_each_role_has_its_permissions_on_histories(clinic: Clinic) -> None:
    patient = clinic.patient()
    path = history_path(patient)
    change = {"notes": "walks with a cane"}

    assert clinic.receptionist.get(path).status_code == 403
    assert clinic.receptionist.patch(path, change).status_code == 403
    assert clinic.technician.get(path).status_code == 200
    assert clinic.technician.patch(path, change).status_code == 403
    assert clinic.doctor.patch(path, change).status_code == 200
    assert clinic.admin.get(path).get_json()["notes"] == "walks with a cane"
    assert clinic.nobody.get(path).status_code == 401
    assert clinic.doctor.get("/patients/987654/medical-history").status_code == 404


def test_a_changed_list_raises_the_version_by_one_and_no_change_keeps_it(clinic: Clinic) -> None:
    patient = clinic.patient()
    path = history_path(patient)

    first = clinic.doctor.patch(path, HISTORY, headers={"If-Match": '"1"'})
    same = clinic.doctor.put(path, first.get_json())
    emptied = clinic.doctor.patch(path, {"allergies": []}, headers={"If-Match": '"2"'})
    stale = clinic.doctor.patch(path, {"notes": "x"}, headers={"If-Match": '"2"'})

    assert first.headers["ETag"] == same.headers["ETag"] == '"2"'
    assert emptied.headers["ETag"] == '"3"'
    assert stale.status_code == 412


def test_a_text_equal_to_the_stored_list_changes_nothing(clinic: Clinic) -> None:
    patient = clinic.patient()
    clinic.doctor.patch(history_path(patient), {"allergies": "Latex"})

    again = clinic.doctor.patch(history_path(patient), {"allergies": "Latex"})

    assert again.headers["ETag"] == '"2"'


def test_a_change_writes_one_audit_entry_with_field_names_only(clinic: Clinic) -> None:
    patient = clinic.patient()

    clinic.doctor.patch(history_path(patient), {"allergies": "Latex", "notes": "secret"})
    clinic.doctor.patch(history_path(patient), {"allergies": []})

    with clinic.inside() as session:
        entries = session.query(AuditLog).filter(AuditLog.entity == "medical_history").order_by(AuditLog.id)
        assert [(entry.action, entry.fields, entry.patient_ids) for entry in entries] == [
            ("update", ["allergies", "notes"], [patient["id"]]),
            ("update", ["allergies"], [patient["id"]]),
        ]


# --- No known allergies --------------------------------------------------------------------------------

NONE_KNOWN: list[Any] = [
    "NKDA",
    "nka",
    "N.K.D.A.",
    "None",
    "nil",
    " Nil known. ",
    "No known allergies",
    "no known drug allergies",
    "No Known Drug Allergy",
    "nil known drug allergies",
    "no drug allergies known",
    "Not allergic to any medicine",
    "denies",
    "hakuna",
    "Hana mzio wowote",
    "Pas d\u2019allergie connue",
    "Keine Allergien bekannt",
    "Sin alergias conocidas.",
    "Nega alergias",
    "لا توجد حساسية",
    ["NKDA"],
    [{"substance": "none"}],
    ["NKA", "NKDA"],
]


def statement(row: dict[str, Any]) -> tuple[Any, ...]:
    substances = [allergy["substance"] for allergy in row["allergies"]]
    return row["allergy_status"], row["no_known_allergies"], substances


def test_nobody_was_asked_about_the_allergies_of_a_new_patient(clinic: Clinic) -> None:
    row = clinic.doctor.get(history_path(clinic.patient())).get_json()

    assert statement(row) == ("not_asked", False, [])
    assert row["no_known_allergies_at"] is row["no_known_allergies_by"] is None


def test_a_text_that_means_no_known_allergies_is_no_allergen(clinic: Clinic) -> None:
    for text in NONE_KNOWN:
        row = clinic.doctor.patch(history_path(clinic.patient()), {"allergies": text}).get_json()

        assert statement(row) == ("none_known", True, []), text


def test_other_texts_stay_allergens(clinic: Clinic) -> None:
    for text in (
        "Nilotinib",
        "Nonoxynol",
        "No idea, ask the mother",
        "unknown",
        "No known food allergies",
        "No known allergies except latex",
        "Denies allergies other than aspirin",
        "Not allergic to penicillin but to sulfa",
        "Aucune allergie sauf la pénicilline",
        "Hakuna mzio isipokuwa penicillin",
        "No-Spa",
        "NKDA?",
        "N/A",
    ):
        row = clinic.doctor.patch(history_path(clinic.patient()), {"allergies": text}).get_json()

        assert statement(row) == ("recorded", False, [text])
    for details in ({"reaction": "hives"}, {"severity": "severe"}):
        entry = {"substance": "none"} | details
        row = clinic.doctor.patch(history_path(clinic.patient()), {"allergies": [entry]}).get_json()
        assert statement(row) == ("recorded", False, ["none"])


def test_the_statement_has_a_date_and_an_author(clinic: Clinic) -> None:
    path = history_path(clinic.patient())

    row = clinic.doctor.patch(path, {"no_known_allergies": True}).get_json()

    assert statement(row) == ("none_known", True, [])
    assert row["no_known_allergies_by"]["id"] == clinic.doctor.user_id
    age = datetime.now(UTC) - datetime.fromisoformat(row["no_known_allergies_at"])
    assert timedelta(0) <= age < timedelta(minutes=1)
    assert clinic.doctor.get(path).get_json() == row
    repeated = clinic.admin.patch(path, {"allergies": "NKDA", "notes": "asked again"}).get_json()
    assert repeated["no_known_allergies_by"] == row["no_known_allergies_by"]


# changes after each other -> status, statement, substances; None: 422 for `no_known_allergies`
STATEMENTS: list[list[tuple[dict[str, Any], tuple[Any, ...] | None]]] = [
    [({"no_known_allergies": True, "allergies": ["Latex"]}, None)],
    [({"allergies": ["NKDA", "Latex"]}, None)],
    [
        ({"allergies": ["Latex"]}, ("recorded", False, ["Latex"])),
        ({"no_known_allergies": True}, None),
        ({"no_known_allergies": True, "allergies": []}, ("none_known", True, [])),
        ({"allergies": ["Penicillin"]}, ("recorded", False, ["Penicillin"])),
        ({"allergies": ["NKDA"]}, ("none_known", True, [])),
        ({"no_known_allergies": False}, ("not_asked", False, [])),
        ({"allergies": "none"}, ("none_known", True, [])),
        ({"no_known_allergies": None}, ("not_asked", False, [])),
    ],
    [
        ({"allergies": ["Latex"]}, ("recorded", False, ["Latex"])),
        ({"allergies": []}, ("not_asked", False, [])),
        ({"notes": "x"}, ("not_asked", False, [])),
    ],
]


def test_the_statement_and_the_allergens_never_contradict_each_other(clinic: Clinic) -> None:
    for changes in STATEMENTS:
        path = history_path(clinic.patient())
        for change, expected in changes:
            answer = clinic.doctor.patch(path, change)

            if expected is None:
                assert answer.status_code == 422
                assert list(answer.get_json()["errors"]) == ["no_known_allergies"]
            else:
                assert statement(answer.get_json()) == expected, change


def test_a_row_with_a_new_allergen_can_be_sent_back(clinic: Clinic) -> None:
    path = history_path(clinic.patient())
    row = clinic.doctor.patch(path, {"no_known_allergies": True}).get_json()

    changed = clinic.doctor.put(path, row | {"allergies": [{"substance": "Latex"}]})

    assert statement(changed.get_json()) == ("recorded", False, ["Latex"])
    assert changed.get_json()["no_known_allergies_by"] is None
