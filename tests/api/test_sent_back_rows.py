"""Rows as front ends send them: whole rows, cloned rows, and forms with blank fields."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import pytest
from pydantic import BaseModel

from api.body_members import refuse_hidden
from api.docs.registry import registered_endpoints
from enums import Role
from errors import ClinicError
from schemas.base import In, Out, nullable_members
from security import permissions
from security.permissions import Actor
from tests.support.clinic import Caller, Clinic, soon
from tests.support.furnished import furnish

Row = dict[str, Any]


class Paths:
    """The paths of one row of every resource that a client can change."""

    def __init__(self, clinic: Clinic) -> None:
        ids = {names: rows[0] for names, rows in furnish(clinic, copies=1).items()}
        patient, doctor, bill = ids[("patient_id",)][0], ids[("doctor_id",)][0], ids[("billing_id",)][0]
        self.patient, self.doctor, self.bill = (
            f"/patients/{patient}",
            f"/doctors/{doctor}",
            f"/billings/{bill}",
        )
        self.user = f"/users/{ids[('user_id',)][0]}"
        self.history, self.schedule = f"{self.patient}/medical-history", f"{self.doctor}/schedule"
        self.appointment = f"/appointments/{ids[('appointment_id',)][0]}"
        self.visit, self.treatment = (
            f"/visits/{ids[('visit_id',)][0]}",
            f"/treatments/{ids[('treatment_id',)][0]}",
        )
        self.prescription = f"/prescriptions/{ids[('prescription_id',)][0]}"
        self.item = f"/inventory/{ids[('item_id',)][0]}"
        self.claim = f"{self.bill}/claims/{ids[('billing_id', 'claim_id')][1]}"
        self.refund = f"{self.bill}/refunds/{ids[('billing_id', 'refund_id')][1]}"
        self.items = (self.user, self.patient, self.history, self.doctor, self.appointment, self.visit)
        self.items += (self.treatment, self.prescription, self.bill, self.claim, self.item, "/auth/me")
        self.items += ("/clinic", "/messages/settings", "/messages/templates/booked/sms/en")
        self.items += ("/messages/templates/reminder/email/ar",)


def read(caller: Caller, path: str) -> Row:
    response = caller.get(path)
    assert response.status_code == 200, (path, response.get_data(as_text=True))
    row: Row = response.get_json()
    return row


def changes(clinic: Clinic) -> int:
    """Return the number of audited changes."""
    entries = clinic.admin.get("/audit-logs?action_ne=read&action_ne=list&per_page=1")
    return int(entries.headers["X-Total-Count"])


def test_a_whole_row_that_is_sent_back_changes_nothing(clinic: Clinic) -> None:
    paths = Paths(clinic)
    before = changes(clinic)

    for path in paths.items:
        row, etag = read(clinic.admin, path), clinic.admin.get(path).headers.get("ETag")
        for method in ("PATCH", "PUT"):
            response = clinic.admin.send(method, path, row)
            assert response.status_code == 200, (path, response.get_data(as_text=True))
            assert response.get_json() == row, path
            assert response.headers.get("ETag") == etag, path
            assert "X-Ignored-Members" not in response.headers, (path, response.headers)
    refund = read(clinic.admin, paths.bill)["refunds"][0]
    assert clinic.admin.patch(paths.refund, refund).get_json() == refund
    assert changes(clinic) == before


def test_a_schedule_is_sent_back(clinic: Clinic) -> None:
    path = Paths(clinic).schedule
    window = {"weekday": 0, "start": "09:00", "end": "13:00"}
    assert clinic.admin.put(path, {"windows": [window], "on_conflict": "keep"}).status_code == 200
    row = read(clinic.admin, path)

    response = clinic.admin.put(path, row | {"on_conflict": "keep"})

    assert (response.status_code, response.get_json()) == (200, row)
    assert "X-Ignored-Members" not in response.headers


def test_each_role_sends_its_rows_back(clinic: Clinic) -> None:
    paths = Paths(clinic)
    for role, paths_of_role in (
        ("doctor", (paths.patient, paths.history, paths.doctor, paths.appointment, paths.visit)),
        ("doctor", (paths.treatment, paths.prescription)),
        ("receptionist", (paths.patient, paths.appointment, paths.bill, paths.claim)),
        ("technician", (paths.visit, paths.treatment, paths.item)),
    ):
        caller = clinic.caller(role)
        for path in paths_of_role:
            row = read(caller, path)
            response = caller.put(path, row)
            assert (response.status_code, response.get_json()) == (200, row), (role, path)


def test_read_only_members_are_ignored_and_named_if_they_differ(clinic: Clinic) -> None:
    paths = Paths(clinic)
    ignored: dict[str, Row] = {
        paths.patient: {"id": 99, "account_balance": None, "age": "", "last_visit": None},
        paths.visit: {"patient_name": "X", "doctor": None, "balance": None, "treatments": []},
        paths.appointment: {"title": "X", "created_by": {"id": 1, "name": "X"}},
        paths.doctor: {"next_available": None, "patient_count": 5, "created_at": "x"},
        paths.treatment: {"patient": {"id": 9}, "inventory_used": []},
        paths.prescription: {"warnings": [1], "visit_id": 9, "patient_id": 9},
        paths.bill: {"balance": "1.00", "status": "paid", "items": []},
        paths.item: {"lots": None, "available": 9, "low_stock": 1},
        paths.user: {"doctor_id": 1, "last_login_at": "x"},
        paths.history: {"patient_name": "X", "allergy_status": "x"},
        paths.claim: {"billing_id": 9, "allowed_transitions": []},
    }
    for path, sent in ignored.items():
        row = read(clinic.admin, path)
        response = clinic.admin.patch(path, sent)
        assert response.status_code == 200, (path, response.get_data(as_text=True))
        assert set(response.headers["X-Ignored-Members"].split(", ")) == set(sent), path
        for name in sent:
            assert response.get_json()[name] == row[name], (path, name)


def test_a_nested_read_only_member_is_named_with_its_path(clinic: Clinic) -> None:
    paths = Paths(clinic)
    medication = read(clinic.admin, paths.prescription)["medications"][0]

    vitals = clinic.admin.patch(paths.visit, {"vitals": {"bmi": 5, "heart_rate": 70}})
    medications = clinic.admin.patch(
        paths.prescription, {"medications": [medication | {"dosage": "1 g", "dispensed": 7}]}
    )

    assert (vitals.status_code, vitals.headers["X-Ignored-Members"]) == (200, "vitals.bmi")
    assert medications.headers["X-Ignored-Members"] == "medications.0.dispensed"
    assert medications.get_json()["medications"][0]["dosage"] == "1 g"


def test_a_hidden_read_only_member_is_always_named(clinic: Clinic) -> None:
    paths = Paths(clinic)
    visit, treatment = read(clinic.admin, paths.visit), read(clinic.admin, paths.treatment)

    for path, sent in (
        (paths.visit, {"balance": visit["balance"], "amount_paid": "7.00"}),
        (paths.treatment, {"billing_id": treatment["billing_id"]}),
    ):
        response = clinic.technician.patch(path, sent)
        assert response.status_code == 200
        assert set(response.headers["X-Ignored-Members"].split(", ")) == set(sent)
        assert response.get_json().keys().isdisjoint(sent)


def test_a_hidden_writable_member_is_403_whatever_its_value(monkeypatch: pytest.MonkeyPatch) -> None:
    class Body(In):
        price: int

    class Shown(Out):
        area: ClassVar[str] = "thing"
        price: int

    monkeypatch.setitem(permissions.HIDDEN, ("thing", Role.TECHNICIAN), frozenset({"price", "secret"}))
    monkeypatch.setitem(permissions.HIDDEN_OF_OTHERS, "thing", frozenset({"price"}))

    for role, own in ((Role.TECHNICIAN, True), (Role.DOCTOR, False)):
        with pytest.raises(ClinicError) as refusal:
            refuse_hidden(Body, Shown, {"price": None}, Actor(1, "", role), own=own)
        assert (refusal.value.code, list(refusal.value.errors)) == ("forbidden", ["price"])
    for role, member in ((Role.DOCTOR, "price"), (Role.ADMIN, "price"), (Role.TECHNICIAN, "secret")):
        refuse_hidden(Body, Shown, {member: 1}, Actor(1, "", role), own=True)  # visible, or not writable


def test_a_row_of_another_doctor_is_403_even_unchanged(clinic: Clinic) -> None:
    paths = Paths(clinic)
    other = clinic.sign_in("doctor")

    for path in (paths.visit, paths.treatment, paths.appointment, paths.prescription, paths.doctor):
        row = read(other, path)
        assert other.patch(path, row).status_code == 403, path
        assert other.patch(path, {}).status_code == 403, path


def test_an_equal_value_in_another_notation_counts_as_absent(clinic: Clinic) -> None:
    bill = clinic.bill("500.00")
    path = f"/billings/{bill['id']}"
    clinic.admin.make(f"{path}/payments", amount="150.00", method="cash")

    # without `If-Match`, `amount_paid` with other changes would be 428
    response = clinic.receptionist.patch(
        path, {"amount_paid": 150, "discount": 0, "notes": "x", "due_date": ""}
    )

    assert response.status_code == 200, response.get_data(as_text=True)
    assert (response.get_json()["amount_paid"], response.get_json()["notes"]) == ("150.00", "x")


CLONES: dict[str, tuple[str, Callable[[], Row]]] = {
    "user": ("/users", lambda: {"email": "clone@example.com", "password": "a quiet harbour at dawn"}),
    "patient": ("/patients", lambda: {"file_number": None, "allow_duplicate": True}),
    "doctor": ("/doctors", lambda: {"license_number": "CLONE-1", "user_id": None}),
    "appointment": ("/appointments", lambda: {"date": soon(days=50), "start": None, "end": None}),
    "visit": ("/visits", dict),
    "treatment": ("/treatments", dict),
    "prescription": ("/prescriptions", lambda: {"override_reason": "A clone, checked by hand"}),
    "bill": ("/billings", lambda: {"amount_paid": None}),
    "item": ("/inventory", lambda: {"sku": "CLONE-1"}),
}


def test_a_cloned_row_of_every_resource_is_created(clinic: Clinic) -> None:
    paths = Paths(clinic)
    for name, (collection, unique) in CLONES.items():
        row = read(clinic.admin, getattr(paths, name))
        if name == "visit":
            row |= {"treatments": [], "prescriptions": []}  # their stock and safety have tests of their own
        response = clinic.admin.post(collection, row | unique())
        assert response.status_code == 201, (name, response.get_data(as_text=True))
        created = response.get_json()
        assert created["id"] != row["id"]
        assert "id" in response.headers["X-Ignored-Members"].split(", "), name
    for path, row in (
        (f"{paths.bill}/payments", read(clinic.admin, paths.bill)["payments"][0]),
        (f"{paths.bill}/refunds", read(clinic.admin, paths.bill)["refunds"][0] | {"payment_id": None}),
        (f"{paths.bill}/claims", read(clinic.admin, paths.claim)),
        (f"{paths.item}/movements", read(clinic.admin, f"{paths.item}/movements")[-1]),
        (f"{paths.doctor}/time-off", read(clinic.admin, f"{paths.doctor}/time-off")[0]),
    ):
        response = clinic.admin.post(path, row)
        assert response.status_code == 201, (path, response.get_data(as_text=True))
        assert "created_at" in response.headers["X-Ignored-Members"].split(", "), path


def test_nested_rows_of_a_cloned_visit_are_created(clinic: Clinic) -> None:
    row = read(clinic.admin, Paths(clinic).visit)
    clone = row | {
        "patient_id": clinic.patient()["id"],
        "diagnoses": [{"icd10": "J02.9", "description": " "}],
    }

    created = clinic.doctor.post("/visits", clone)

    assert created.status_code == 201, created.get_data(as_text=True)
    visit = created.get_json()
    assert [entry["name"] for entry in visit["treatments"]] == ["Wound dressing"]
    assert [entry["medications"][0]["name"] for entry in visit["prescriptions"]] == ["Metformin"]
    named = created.headers["X-Ignored-Members"].split(", ")
    assert {"id", "treatments.0.id", "prescriptions.0.medications.0.id"} <= set(named)
    assert "vitals.bmi" not in named  # equal


def test_a_replay_names_the_ignored_members(clinic: Clinic) -> None:
    body, headers = {"name": "Ada", "id": 7_000, "age": None}, {"Idempotency-Key": "k"}

    answers = [clinic.admin.post("/patients", body, headers=headers) for _ in range(2)]

    assert [answer.headers["X-Ignored-Members"] for answer in answers] == ["id", "id"]


def test_an_unknown_member_names_the_nearest_or_all_members(clinic: Clinic) -> None:
    paths = Paths(clinic)
    visit, medication = {"vitals": {"sistolic": 1}}, {"name": "A", "dose": "1"}
    for path, body, field, expected in (
        ("/patients", {"name": "A", "fone": "1"}, "fone", "nearest are: phone"),
        ("/patients", {"name": "A", "shoe_size": "1"}, "shoe_size", "there are: address, allow_duplicate"),
        ("/visits", {"patient_id": 1} | visit, "vitals.sistolic", "nearest are: systolic"),
        (paths.prescription, {"medications": [medication]}, "medications.0.dose", "nearest are: dosage"),
        (paths.doctor, {"on_conflict": {"reassign": 1}}, "on_conflict.reassign", "nearest are: reassign_to"),
    ):
        response = clinic.admin.send("PATCH" if path[-1].isdigit() else "POST", path, body)
        assert response.status_code == 422, path
        assert expected in response.get_json()["errors"][field], response.get_json()


# --- Blank texts ---------------------------------------------------------------------------------------


def test_a_blank_text_in_an_optional_member_means_null(clinic: Clinic) -> None:
    paths = Paths(clinic)
    endpoints = {(each.method, each.path): each.spec.body for each in registered_endpoints(clinic.app)}
    for path, template in (
        (paths.patient, "/patients/{patient_id}"),
        (paths.history, "/patients/{patient_id}/medical-history"),
        (paths.doctor, "/doctors/{doctor_id}"),
        (paths.appointment, "/appointments/{appointment_id}"),
        (paths.treatment, "/treatments/{treatment_id}"),
        (paths.bill, "/billings/{billing_id}"),
        (paths.item, "/inventory/{item_id}"),
        (paths.user, "/users/{user_id}"),
    ):
        model = endpoints[("PATCH", template)]
        assert model is not None
        nullable = nullable_members(model)
        blanks = dict.fromkeys(nullable - {"date", "start", "end", "duration", "doctor_id"}, "  ")
        response = clinic.admin.patch(path, blanks)
        assert response.status_code == 200, (path, response.get_data(as_text=True))
        shown = {name: response.get_json()[name] for name in blanks if name in response.get_json()}
        assert all(not value for value in shown.values()), (path, shown)


def test_blank_texts_in_nested_members_mean_null(clinic: Clinic) -> None:
    patient, doctor = clinic.patient()["id"], clinic.doctor
    visit = doctor.make(
        "/visits",
        patient_id=patient,
        date="",
        appointment_id=" ",
        vitals={"systolic": "", "weight_kg": " ", "heart_rate": 70},
        diagnoses=[{"icd10": "", "description": "Cough"}],
        follow_up_date="",
        amount_paid="",
        payment_method="",
        treatments=[
            {"name": "Dressing", "cost": 5, "status": "", "procedure_code": "", "inventory_items": ""}
        ],
        prescriptions=[{"details": "Rest", "expires_on": "", "status": "", "medications": ""}],
    )
    history = clinic.doctor.patch(
        f"/patients/{patient}/medical-history",
        {
            "allergies": [{"substance": "Latex", "severity": "", "reaction": " "}],
            "conditions": [{"name": "Asthma", "icd10": "", "since": "", "status": ""}],
            "medications": "",
        },
    ).get_json()

    assert {name: value for name, value in visit["vitals"].items() if value is not None} == {"heart_rate": 70}
    assert visit["diagnoses"] == [{"icd10": None, "description": "Cough"}]
    assert visit["treatments"][0]["status"] == "completed"
    assert visit["prescriptions"][0]["status"] == "active"
    assert history["allergies"] == [{"substance": "Latex", "severity": "unknown", "reaction": None}]
    assert history["conditions"] == [{"name": "Asthma", "icd10": None, "since": None, "status": "active"}]


def test_a_new_row_has_defaults_for_blank_members(clinic: Clinic) -> None:
    item = clinic.admin.make(
        "/inventory", name="Gauze", quantity="", min_quantity=None, unit_cost=" ", packages=""
    )
    doctor = clinic.doctor_row(slot_minutes="", consultation_fee=None, is_active="", specialties="")

    assert (item["quantity"], item["min_quantity"], item["unit_cost"]) == (0, 5, "0.00")
    assert (doctor["slot_minutes"], doctor["consultation_fee"], doctor["is_active"]) == (30, "0.00", True)


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/patients", {"name": " "}, "name"),
        ("/patients", {"name": "\u200b\u2060"}, "name"),
        ("/price-list", {"code": "\u00ad", "name": "A", "unit_price": 1}, "code"),
        ("/inventory", {"name": "A", "packages": [{"name": " ", "quantity": 5}]}, "packages.0.name"),
        ("/doctors", {"name": "A B", "specialty": "", "license_number": "X-1"}, "specialty"),
        ("/doctors", {"name": "A B", "specialty": "x", "license_number": " "}, "license_number"),
        (
            "/users",
            {"name": "A", "email": "", "password": "a quiet harbour at dawn", "role": "admin"},
            "email",
        ),
        ("/users", {"name": "A", "email": "a@b.org", "password": "  ", "role": "admin"}, "password"),
        ("/users", {"name": "A", "email": "a@b.org", "password": "a quiet harbour", "role": ""}, "role"),
        ("/appointments", {"patient_id": "", "doctor_id": 1, "date": "2030-01-01"}, "patient_id"),
        ("/treatments", {"visit_id": "", "name": "A", "cost": 5}, "visit_id"),
        ("/inventory", {"name": "A", "packages": [{"name": "box", "quantity": ""}]}, "packages.0.quantity"),
        ("/prescriptions", {"visit_id": 1, "medications": [{"name": " "}]}, "medications.0.name"),
        ("/auth/login", {"email": "a@b.org", "password": ""}, "password"),
    ],
)
def test_a_blank_text_in_a_required_member_is_refused(
    clinic: Clinic, path: str, body: Row, field: str
) -> None:
    response = clinic.admin.post(path, body)

    assert response.status_code == 422
    assert response.get_json()["errors"] == {field: "must not be blank"}


def test_a_blank_text_in_a_member_that_cannot_be_null_is_refused(clinic: Clinic) -> None:
    path = f"/patients/{clinic.patient()['id']}"

    for value, problem in (("", "must not be blank"), (None, "must not be null")):
        response = clinic.admin.patch(path, {"is_active": value, "name": value})
        assert response.get_json()["errors"] == {"is_active": problem, "name": problem}


def test_null_empties_a_list(clinic: Clinic) -> None:
    doctor = clinic.doctor_row(specialties=["surgery"])

    response = clinic.admin.patch(f"/doctors/{doctor['id']}", {"specialties": None})

    assert (response.status_code, response.get_json()["specialties"]) == (200, [])


def test_every_body_describes_a_resource_or_an_action(clinic: Clinic) -> None:
    """A creation or an update must know its resource: its read-only members are derived from it."""
    missing = [
        each.operation_id
        for each in registered_endpoints(clinic.app)
        if each.spec.body is not None
        and (each.method in ("PUT", "PATCH") or each.spec.status == 201)
        and not (isinstance(each.spec.body_resource, type) and issubclass(each.spec.body_resource, BaseModel))
    ]

    assert missing == []
