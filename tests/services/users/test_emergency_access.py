"""Emergency access: clinical fields of one patient, for one user, for an hour, with a review."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from models import EmergencyAccess, Event
from services.messages.providers import OutgoingMessage, PermanentFailure, Receipt, TemporaryFailure
from services.users import emergency_alerts
from tests.support.clinic import Caller, Clinic
from tests.support.concurrency import run_concurrently
from tests.support.messages import Outbox, run_worker

CLINICAL = {"summary", "chief_complaint", "notes", "diagnoses", "vitals", "prescriptions", "addenda"}
REASON = {"reason": "Unconscious after a fall"}


class Ward:
    """Two patients with a visit, a treatment, a prescription and an allergy each; a caller who asks."""

    def __init__(self, clinic: Clinic) -> None:
        self.clinic = clinic
        self.visits: list[int] = []
        self.treatments: list[int] = []
        self.prescriptions: list[int] = []
        self.patients = [clinic.patient()["id"] for _number in range(2)]
        for patient in self.patients:
            visit = clinic.visit(patient_id=patient, chief_complaint="Chest pain", summary="Angina")["id"]
            history = {"allergies": ["Penicillin"]}
            assert clinic.doctor.patch(f"/patients/{patient}/medical-history", history).status_code == 200
            medications = [{"name": "Metformin", "quantity": 30}]
            row = clinic.doctor.make("/prescriptions", visit_id=visit, medications=medications)
            self.visits.append(visit)
            self.treatments.append(clinic.treatment(visit_id=visit, notes="Deep")["id"])
            self.prescriptions.append(row["id"])

    def ask(self, caller: Caller | None = None, number: int = 0) -> dict[str, Any]:
        caller = caller or self.clinic.receptionist
        return caller.make(f"/patients/{self.patients[number]}/emergency-access", **REASON)

    def expire(self) -> None:
        with self.clinic.inside() as session:
            for row in session.query(EmergencyAccess):
                row.created_at -= timedelta(minutes=60)
                row.expires_at -= timedelta(minutes=60)


@pytest.fixture
def ward(clinic: Clinic) -> Ward:
    return Ward(clinic)


def reads(ward: Ward, caller: Caller, number: int) -> dict[str, Any]:
    """Return the clinical data of a patient that the caller reads, or a status."""
    patient, visit = ward.patients[number], ward.visits[number]
    shown: dict[str, Any] = {}
    shown["visit"] = caller.get(f"/visits/{visit}").get_json().get("chief_complaint")
    rows = caller.get(f"/visits?patient_id={patient}").get_json()
    shown["list"] = [row.get("chief_complaint") for row in rows]
    shown["treatment"] = caller.get(f"/treatments/{ward.treatments[number]}").get_json().get("notes")
    nested = caller.get(f"/visits/{visit}").get_json()["treatments"]
    shown["nested"] = [row.get("notes") for row in nested]
    shown["history"] = caller.get(f"/patients/{patient}/medical-history").status_code
    shown["prescription"] = caller.get(f"/prescriptions/{ward.prescriptions[number]}").status_code
    events = caller.get(f"/patients/{patient}/timeline").get_json()
    shown["timeline"] = sorted(event["type"] for event in events)
    details = [event["details"] for event in events if event["type"] == "visit"]
    shown["details"] = [detail.get("chief_complaint") for detail in details]
    shown["filter"] = caller.get(f"/visits?patient_id={patient}&chief_complaint_like=chest").status_code
    return shown


FULL = {
    "visit": "Chest pain",
    "list": ["Chest pain"],
    "treatment": "Deep",
    "nested": ["Deep"],
    "history": 200,
    "prescription": 200,
    "timeline": ["prescription", "treatment", "visit"],
    "details": ["Chest pain"],
    "filter": 200,
}
NONE = {
    "visit": None,
    "list": [None],
    "treatment": None,
    "nested": [None],
    "history": 403,
    "prescription": 403,
    "timeline": ["treatment", "visit"],
    "details": [None],
    "filter": 403,
}


def test_emergency_access_shows_the_clinical_fields_of_one_patient_to_one_user(ward: Ward) -> None:
    clinic = ward.clinic
    colleague = clinic.sign_in("receptionist")
    assert reads(ward, clinic.receptionist, 0) == NONE

    row = ward.ask()

    assert row["is_active"] is True
    assert reads(ward, clinic.receptionist, 0) == FULL
    # a receptionist with emergency access reads no prescription of another patient: it is not visible
    assert reads(ward, clinic.receptionist, 1) == NONE | {"prescription": 404}
    assert reads(ward, colleague, 0) == NONE


def test_a_list_of_all_patients_shows_the_fields_of_one_patient_only(ward: Ward) -> None:
    caller = ward.clinic.receptionist
    ward.ask()

    visits = caller.get("/visits").get_json()
    prescriptions = caller.get("/prescriptions")

    shown = {row["patient_id"]: row.keys() >= CLINICAL for row in visits}
    assert shown == {ward.patients[0]: True, ward.patients[1]: False}
    assert [row["patient_id"] for row in prescriptions.get_json()] == [ward.patients[0]]
    assert prescriptions.headers["X-Total-Count"] == "1"
    for query in (
        "/visits?chief_complaint_like=chest",
        f"/visits?patient_id={ward.patients[0]}&patient_id={ward.patients[1]}&chief_complaint_like=chest",
        f"/visits?patient_id={ward.patients[1]}&sort_by=summary",
        f"/visits?patient_id_ne={ward.patients[1]}&chief_complaint_like=chest",
        "/patients/search?allergy=penicillin",
        f"/patients/search?allergy=penicillin&id={ward.patients[1]}",
    ):
        assert caller.get(query).status_code == 403, query
    assert caller.get(f"/patients?allergy=penicillin&id={ward.patients[0]}").status_code == 200


def test_emergency_access_changes_nothing(ward: Ward) -> None:
    caller, patient = ward.clinic.receptionist, ward.patients[0]
    ward.ask()

    refused = [
        caller.patch(f"/visits/{ward.visits[0]}", {"summary": "x"}),
        caller.patch(f"/patients/{patient}/medical-history", {"notes": "x"}),
        caller.post(f"/prescriptions/{ward.prescriptions[0]}/dispense", {}),
        caller.post(f"/prescriptions/{ward.prescriptions[0]}/stop", {"reason": "x"}),
        caller.patch(f"/treatments/{ward.treatments[0]}", {"notes": "x"}),
    ]

    assert [response.status_code for response in refused] == [403] * len(refused)


def test_emergency_access_ends_after_an_hour(ward: Ward) -> None:
    row = ward.ask()
    assert reads(ward, ward.clinic.receptionist, 0) == FULL

    ward.expire()

    assert reads(ward, ward.clinic.receptionist, 0) == NONE
    shown = ward.clinic.receptionist.get(f"/emergency-access/{row['id']}").get_json()
    assert shown["is_active"] is False


def test_an_archived_patient_can_be_read_in_an_emergency(ward: Ward) -> None:
    patient = ward.clinic.patient()["id"]
    assert ward.clinic.admin.delete(f"/patients/{patient}").status_code == 200

    response = ward.clinic.receptionist.post(f"/patients/{patient}/emergency-access", REASON)

    assert response.status_code == 201
    assert ward.clinic.receptionist.get(f"/patients/{patient}/medical-history").status_code == 200


def test_a_deactivated_user_has_no_access(ward: Ward) -> None:
    caller = ward.clinic.sign_in("receptionist")
    ward.ask(caller)
    ward.clinic.admin.delete(f"/users/{caller.user_id}")

    assert caller.get(f"/visits/{ward.visits[0]}").status_code == 401


@pytest.mark.parametrize(
    ("body", "field"), [({}, "reason"), ({"reason": " "}, "reason"), ({"reason": "x", "days": 1}, "days")]
)
def test_emergency_access_needs_a_reason(clinic: Clinic, body: dict[str, Any], field: str) -> None:
    response = clinic.receptionist.post(f"/patients/{clinic.patient()['id']}/emergency-access", body)

    assert response.status_code == 422
    assert list(response.get_json()["errors"]) == [field]


def test_every_role_may_ask_and_only_admins_see_the_list(clinic: Clinic) -> None:
    patient = clinic.patient()["id"]
    callers = [clinic.admin, clinic.doctor, clinic.receptionist, clinic.technician]

    rows = [caller.make(f"/patients/{patient}/emergency-access", **REASON) for caller in callers]

    listed = clinic.admin.get("/emergency-access").get_json()
    assert [row["id"] for row in listed] == [row["id"] for row in reversed(rows)]
    assert [caller.get("/emergency-access").status_code for caller in callers] == [200, 403, 403, 403]
    own, foreign = rows[2]["id"], rows[3]["id"]
    assert clinic.receptionist.get(f"/emergency-access/{own}").status_code == 200
    assert clinic.receptionist.get(f"/emergency-access/{foreign}").status_code == 404


def test_the_list_has_filters(ward: Ward) -> None:
    clinic = ward.clinic
    first = ward.ask()
    ward.expire()
    second = ward.ask(clinic.technician, 1)
    clinic.admin.post(f"/emergency-access/{first['id']}/review", {"outcome": "justified"})

    def ids(query: str) -> list[int]:
        return [row["id"] for row in clinic.admin.get(f"/emergency-access?{query}").get_json()]

    assert ids("is_active=true") == ids("is_reviewed=false") == [second["id"]]
    assert ids("is_active=false") == ids("is_reviewed=true") == ids("outcome=justified") == [first["id"]]
    assert ids(f"user_id={clinic.technician.user_id}") == ids(f"patient_id={ward.patients[1]}")
    assert ids("sort_by=is_active&sort_order=desc") == [second["id"], first["id"]]
    assert ids("q=fall") == [second["id"], first["id"]]


def test_another_admin_reviews_an_access_once(ward: Ward) -> None:
    clinic = ward.clinic
    row = ward.ask(clinic.admin)
    path, other = f"/emergency-access/{row['id']}", clinic.sign_in("admin")
    review = {"outcome": "justified", "note": "The patient was in danger."}

    own = clinic.admin.post(f"{path}/review", review)
    doctor = clinic.doctor.post(f"{path}/review", review)
    stale = other.post(f"{path}/review", review, headers={"If-Match": '"99"'})
    first = other.post(f"{path}/review", review)
    second = other.post(f"{path}/review", {"outcome": "unjustified"})

    assert [own.status_code, doctor.status_code, stale.status_code] == [403, 403, 412]
    assert first.status_code == 200
    assert first.get_json()["reviewed_by"]["id"] == other.user_id
    assert first.get_json()["outcome"] == "justified"
    assert (second.status_code, second.get_json()["error"]) == (409, "already_done")
    assert clinic.admin.get(path).headers["ETag"] == first.headers["ETag"]


def test_each_other_admin_gets_an_e_mail_at_once(ward: Ward, monkeypatch: pytest.MonkeyPatch) -> None:
    clinic, outbox = ward.clinic, Outbox()
    monkeypatch.setattr(emergency_alerts, "provider_of", lambda _channel: outbox)
    asking, other, inactive = (clinic.sign_in("admin") for _number in range(3))
    assert clinic.admin.delete(f"/users/{inactive.user_id}").status_code == 200
    emails = {row["id"]: row["email"] for row in clinic.admin.get("/users?role=admin").get_json()}
    row = ward.ask(asking)

    run_worker(clinic)

    assert outbox.recipients() == sorted([emails[clinic.admin.user_id], emails[other.user_id]])
    assert row["user_name"] in outbox.sent[0].text
    assert f"/emergency-access/{row['id']}\n" in outbox.sent[0].text
    assert REASON["reason"] not in outbox.sent[0].text
    assert row["patient_name"] not in outbox.sent[0].text


@pytest.mark.parametrize(
    ("failure", "state"), [(TemporaryFailure("451"), "queued"), (PermanentFailure("550"), "dead")]
)
def test_an_alert_that_was_not_accepted_stays_in_the_queue(
    ward: Ward, monkeypatch: pytest.MonkeyPatch, failure: Exception, state: str
) -> None:
    def refuse(_message: OutgoingMessage) -> Receipt:
        raise failure

    outbox = Outbox()
    outbox.answer = refuse
    monkeypatch.setattr(emergency_alerts, "provider_of", lambda _channel: outbox)
    ward.ask()

    run_worker(ward.clinic)

    jobs = ward.clinic.admin.get(f"/jobs?kind={emergency_alerts.ALERT}").get_json()
    assert [job["state"] for job in jobs] == [state]


def test_an_access_that_is_not_justified_ends(ward: Ward) -> None:
    row = ward.ask()

    review = {"outcome": "unjustified", "note": "No emergency"}
    answer = ward.clinic.admin.post(f"/emergency-access/{row['id']}/review", review)

    assert answer.get_json()["is_active"] is False
    assert reads(ward, ward.clinic.receptionist, 0) == NONE


def test_one_of_two_reviews_at_once_succeeds(ward: Ward) -> None:
    row = ward.ask()
    admins = [ward.clinic.admin, ward.clinic.sign_in("admin")]
    path = f"/emergency-access/{row['id']}/review"

    answers = run_concurrently(
        [lambda caller=caller: caller.post(path, {"outcome": "justified"}) for caller in admins]
    )

    assert sorted(answer.status_code for answer in answers) == [200, 409]


def test_grant_reads_and_review_are_in_the_audit_log(ward: Ward) -> None:
    clinic, patient = ward.clinic, ward.patients[0]
    clinic.receptionist.get(f"/visits/{ward.visits[0]}")
    row = ward.ask()
    for path in (f"/visits/{ward.visits[0]}", f"/patients/{patient}/medical-history", "/visits", "/patients"):
        clinic.receptionist.get(path)
    clinic.receptionist.get(f"/visits/{ward.visits[1]}")
    clinic.admin.post(f"/emergency-access/{row['id']}/review", {"outcome": "justified"})

    entries = clinic.admin.get("/audit-logs?entity=emergency_access&sort_order=asc").get_json()
    marked = clinic.admin.get("/audit-logs?detail=emergency_access&sort_order=asc").get_json()

    assert [entry["action"] for entry in entries] == ["grant", "review"]
    assert all(entry["patient_ids"] == [patient] for entry in entries)
    assert [(entry["action"], entry["entity"]) for entry in marked] == [
        ("read", "visit"),
        ("read", "medical_history"),
        ("list", "visit"),
        ("list", "patient"),
    ]
    assert {entry["user_id"] for entry in marked} == {clinic.receptionist.user_id}
    with clinic.inside() as session:
        events = session.query(Event).filter_by(entity="emergency_access").order_by(Event.id).all()
        assert [event.type for event in events] == ["emergency_access.granted", "emergency_access.reviewed"]


def test_a_replayed_response_needs_the_emergency_access_of_the_first_request(ward: Ward) -> None:
    clinic = ward.clinic
    ward.ask()
    path, key = f"/patients/{ward.patients[1]}/emergency-access", {"Idempotency-Key": "ward-0001"}

    def post() -> Any:
        headers = key | {"Authorization": f"Bearer {clinic.receptionist.token}"}
        return clinic.receptionist.post(path, REASON, headers=headers)

    assert post().status_code == 201
    assert post().headers["Idempotency-Replayed"] == "true"
    ward.expire()

    assert (post().status_code, post().get_json()["error"]) == (409, "already_done")
