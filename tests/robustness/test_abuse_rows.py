"""What belongs to others: their ids anywhere in a request, rights claimed in a body, hidden columns."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from werkzeug.test import TestResponse

from enums import Role
from models import User
from security.permissions import HIDDEN, Permission
from tests.robustness.abuse_targets import (
    Target,
    few,
    targets,
    witness,
)
from tests.robustness.conftest import Figures
from tests.robustness.scale import Scale
from tests.support.clinic import Caller, Clinic, soon
from tests.support.furnished import Rows, furnish

REFUSED = (403, 404, 409, 412, 422, 428)
# A doctor's own business, or every doctor's: patients and their histories belong to the whole clinic.
SHARED = (
    Permission.PUBLIC,
    Permission.SIGNED_IN,
    Permission.PATIENTS_WRITE,
    Permission.HISTORY_WRITE,
)
OTHER_ROLES = ("doctor", "receptionist", "technician")


class Practice:
    """Rows of one doctor, `A`, as `furnish` makes them, and some of another, `B`, who attacks."""

    def __init__(self, clinic: Clinic) -> None:
        self.clinic, self.rows = clinic, furnish(clinic)
        self.a, self.b = clinic.doctor, clinic.sign_in("doctor")
        self.patient = clinic.patient(name="Bela Own")["id"]
        mine = {"patient_id": self.patient, "doctor_id": self.b.doctor_id}
        self.appointment = clinic.appointment(**mine, date=soon(days=20))["id"]
        self.visit = clinic.visit(**mine)["id"]
        self.treatment = clinic.treatment(visit_id=self.visit)["id"]
        self.prescription = self.b.make(
            "/prescriptions", visit_id=self.visit, medications=[{"name": "Metformin", "quantity": 30}]
        )["id"]

    def of_a(self, name: str) -> int:
        """The id of A's first row of a kind."""
        return self.rows[(name,)][0][-1]


def refused(method: str, answer: TestResponse) -> bool:
    """Whether it was refused, or is a merge patch of nothing but read-only and unchanged members."""
    return answer.status_code in REFUSED or (method == "PATCH" and answer.status_code == 200)


@pytest.fixture
def practice(clinic: Clinic) -> Practice:
    return Practice(clinic)


def test_another_doctors_rows_are_not_changed(practice: Practice, figures: Figures) -> None:
    unsafe = [
        one
        for one in targets(practice.clinic, practice.rows)
        if one.entry.unsafe and one.entry.spec.permission not in SHARED
    ]
    wrong = []

    with witness(practice.clinic.settings.database_url) as stored:
        before = stored()
        for one in unsafe:
            for headers in ({}, {"If-Match": "*"}):
                answer = practice.b.send(one.entry.method, one.path, one.body, headers=headers)
                if not refused(one.entry.method, answer) or stored() != before:
                    wrong.append((str(one), answer.status_code, answer.get_data(as_text=True)[:200]))

    figures["requests"] = 2 * len(unsafe)
    assert wrong == []
    assert len(unsafe) > 30


def foreign_ids(practice: Practice) -> list[tuple[Caller, str, str, dict[str, Any] | None]]:
    """Requests on one's own rows that name somebody else's in the body or behind a parent, and on theirs."""
    p, of_a, clinic = practice, practice.of_a, practice.clinic
    own = {"visit_id": p.visit, "name": "Dressing", "cost": "1.00"}
    visit = {"patient_id": p.patient}
    bills = [ids[0] for ids in p.rows[("billing_id",)]]
    refund, claim = p.rows[("billing_id", "refund_id")][0][1], p.rows[("billing_id", "claim_id")][0][1]
    payment = clinic.admin.get(f"/billings/{bills[0]}").get_json()["payments"][0]["id"]
    other = clinic.sign_in("receptionist")
    admin_session = clinic.admin.get("/auth/sessions").get_json()[0]["id"]
    booking = {"patient_id": p.patient, "doctor_id": p.a.doctor_id, "date": soon(days=21)}
    medications = [{"name": "Metformin", "quantity": 1}]
    return [
        (p.b, "POST", "/appointments", booking),
        (p.b, "POST", "/appointments?dry_run=true", booking),
        (p.b, "PATCH", f"/appointments/{p.appointment}", {"doctor_id": p.a.doctor_id}),
        (p.b, "POST", "/visits", visit | {"doctor_id": p.a.doctor_id}),
        (p.b, "POST", "/visits", visit | {"appointment_id": of_a("appointment_id")}),
        (
            p.b,
            "POST",
            "/visits",
            visit | {"treatments": [{"name": "x", "cost": "1.00", "doctor_id": p.a.doctor_id}]},
        ),
        (p.b, "POST", "/visits", visit | {"treatments": [own | {"visit_id": of_a("visit_id")}]}),
        (p.b, "POST", "/visits", visit | {"prescriptions": [{"visit_id": of_a("visit_id"), "details": "x"}]}),
        (p.b, "PATCH", f"/visits/{of_a('visit_id')}", {"notes": "not mine"}),
        (p.b, "PATCH", f"/appointments/{of_a('appointment_id')}", {"notes": "not mine"}),
        (p.b, "PATCH", f"/treatments/{of_a('treatment_id')}", {"notes": "not mine"}),
        (p.b, "PATCH", f"/prescriptions/{of_a('prescription_id')}", {"details": "not mine"}),
        (p.b, "PATCH", f"/doctors/{p.a.doctor_id}", {"phone": "555-767-7476"}),
        (p.b, "PATCH", f"/visits/{p.visit}", {"doctor_id": p.a.doctor_id}),
        (p.b, "PATCH", f"/visits/{p.visit}", {"appointment_id": of_a("appointment_id")}),
        (p.b, "POST", "/treatments", own | {"visit_id": of_a("visit_id")}),
        (p.b, "POST", "/treatments", own | {"doctor_id": p.a.doctor_id}),
        (p.b, "POST", "/treatments", own | {"inventory_items": [{"item_id": 987654, "quantity": 1}]}),
        (p.b, "PATCH", f"/treatments/{p.treatment}", {"visit_id": of_a("visit_id")}),
        (p.b, "PATCH", f"/treatments/{p.treatment}", {"doctor_id": p.a.doctor_id}),
        (p.b, "POST", "/prescriptions", {"visit_id": of_a("visit_id"), "medications": medications}),
        (p.b, "PATCH", f"/prescriptions/{p.prescription}", {"visit_id": of_a("visit_id")}),
        (
            p.b,
            "DELETE",
            f"/doctors/{p.b.doctor_id}/time-off/{p.rows[('doctor_id', 'time_off_id')][0][1]}",
            None,
        ),
        (p.b, "PATCH", f"/users/{p.a.user_id}", {"name": "Not Mine"}),
        (p.b, "DELETE", f"/auth/sessions/{admin_session}", None),
        (other, "PATCH", f"/users/{p.a.user_id}", {"phone": "+1 555 767 7476"}),
        (other, "DELETE", f"/users/{p.a.user_id}", None),
        (other, "POST", f"/users/{p.a.user_id}/password-reset", {}),
        (
            clinic.admin,
            "POST",
            f"/billings/{bills[1]}/refunds",
            {"amount": "1.00", "reason": "x", "payment_id": payment},
        ),
        (clinic.sign_in("admin"), "PATCH", f"/billings/{bills[1]}/refunds/{refund}", {"status": "approved"}),
        (clinic.admin, "PATCH", f"/billings/{bills[1]}/claims/{claim}", {"status": "submitted"}),
        (
            clinic.admin,
            "DELETE",
            f"/doctors/{p.b.doctor_id}/time-off/{p.rows[('doctor_id', 'time_off_id')][0][1]}",
            None,
        ),
        (clinic.admin, "DELETE", f"/auth/sessions/{admin_session + 1}", None),
    ]


def test_ids_of_others_inside_a_request_change_nothing(practice: Practice) -> None:
    asked = foreign_ids(practice)

    with witness(practice.clinic.settings.database_url) as stored:
        before = stored()
        for caller, method, path, body in asked:
            answer = caller.send(method, path, body)
            assert refused(method, answer), (method, path, body, answer.get_data(as_text=True)[:300])
            assert stored() == before, (method, path, body)


def questions(one: Target, practice: Practice) -> Iterator[str]:
    """Ways of asking a list or report for another doctor's rows."""
    doctor, bill = practice.a.doctor_id, practice.of_a("billing_id")
    filters = [{"doctor_id": doctor}, {"id": [bill, bill + 1]}, {"patient_id": practice.of_a("patient_id")}]
    yield ""
    yield from (f"?{name}={value}" for told in filters for name, value in told.items() if name != "id")
    yield from (f"?filter={json.dumps(told)}" for told in filters)
    yield from (
        f"?id={bill}&id={bill + 1}",
        f"?after={bill - 1}",
        "?per_page=1000&sort_by=id&sort_order=desc",
    )
    yield from (
        "?q=INV",
        "?status=partial",
        "?refund_status=requested",
        f"?visit_id={practice.of_a('visit_id')}",
    )
    yield from (
        f"?doctor_id_ne={practice.b.doctor_id}",
        "?id_gte=1",
        "?format=csv",
        f"?format=csv&doctor_id={doctor}",
    )


def readable(clinic: Clinic, rows: Rows) -> list[Target]:
    """Every GET about the clinic."""
    return [
        one for one in targets(clinic, rows) if one.entry.method == "GET" and one.entry.domain != "service"
    ]


def test_a_doctor_reads_nobody_elses_bills_however_asked(
    practice: Practice, scale: Scale, figures: Figures
) -> None:
    clinic = practice.clinic
    bills = clinic.admin.get("/billings").get_json()
    secrets = {bill["invoice_number"] for bill in bills}
    asked = few(
        scale,
        [(one, question) for one in readable(clinic, practice.rows) for question in questions(one, practice)],
    )
    shown = []

    for one, question in asked:
        answer = practice.b.get(one.path + question)
        assert answer.status_code < 500, (str(one), question)
        if any(secret in answer.get_data(as_text=True) for secret in secrets):
            shown.append((str(one), question))

    figures["questions"] = len(asked)
    assert shown == []
    assert len(bills) == 3
    assert practice.b.get(f"/billings/{bills[0]['id']}").status_code == 404
    assert practice.b.get("/billings").headers["X-Total-Count"] == "0"


# --- What a role may not see ---------------------------------------------------------------------------

SECRETS = {
    "receptionist": (
        "zqsummary",
        "zqprocedure",
        "zqcomplaint",
        "zqnotes",
        "zqdiagnosis",
        "zqtreatment",
        "zqallergy",
    ),
    "technician": ("7654.32", "account_balance"),
}


def with_secrets(clinic: Clinic) -> Rows:
    """Rows whose hidden fields hold words that are found wherever they turn up."""
    rows = furnish(clinic)
    patient, visit = rows[("patient_id",)][0][0], rows[("visit_id",)][0][0]
    told = {"summary": "zqsummary", "procedure_details": "zqprocedure", "chief_complaint": "zqcomplaint"}
    told |= {"notes": "zqnotes", "diagnoses": [{"description": "zqdiagnosis"}]}
    assert clinic.admin.patch(f"/visits/{visit}", told).status_code == 200
    history = {"allergies": [{"substance": "zqallergy"}], "notes": "zqnotes"}
    assert clinic.admin.patch(f"/patients/{patient}/medical-history", history).status_code == 200
    clinic.treatment(visit_id=visit, notes="zqtreatment", status="planned")
    clinic.bill("7654.32", patient_id=patient)
    return rows


@pytest.mark.parametrize("role", SECRETS)
def test_what_a_role_may_not_see_is_nowhere(
    clinic: Clinic, role: str, scale: Scale, figures: Figures
) -> None:
    rows, caller = with_secrets(clinic), clinic.caller(role)
    ways = ("", "?per_page=1000", "?q=zq", "?format=csv", "?name=Zo%C3%AB", "?patient_name=Zo")
    asked = few(scale, [(one, way) for one in readable(clinic, rows) for way in ways])
    shown = []

    for one, way in asked:
        text = caller.get(one.path + way).get_data(as_text=True).replace('"q":"zq"', "")
        shown += [(str(one), way, word) for word in SECRETS[role] if word in text]

    figures["questions"] = len(asked)
    assert shown == []
    known = "".join(clinic.admin.get(one.path).get_data(as_text=True) for one in readable(clinic, rows))
    assert [word for word in SECRETS[role] if word not in known] == []


def hidden_names(one: Target, role: Role) -> set[str]:
    """What a list does not show to the role: columns without a parameter, and the table's hidden ones."""
    listing = one.entry.spec.list_spec
    assert listing is not None
    stored = {column.key for column in listing.model.__mapper__.attrs} - set(one.params)
    return stored | HIDDEN.get((listing.area, role), frozenset()) | {"__class__", "metadata", "patient.name"}


def test_hidden_columns_neither_filter_nor_sort(clinic: Clinic, scale: Scale, figures: Figures) -> None:
    rows = furnish(clinic)
    lists = [one for one in targets(clinic, rows) if one.entry.spec.list_spec is not None]
    asked = few(
        scale,
        [
            (role, one, question)
            for one in lists
            for role in one.entry.roles
            for name in sorted(hidden_names(one, Role(role)))
            for question in (
                *(f"{name}=1", f"sort_by={name}", f"filter={json.dumps({name: '1'})}", f"_sort={name}"),
                *(f"{name}_like=a", f"{name}_gte=1", f"{name}_ne=1", f"sort={json.dumps([name, 'ASC'])}"),
            )
        ],
    )
    answered = [
        (role, str(one), question, clinic.caller(role).get(f"{one.path}?{question}").status_code)
        for role, one, question in asked
    ]

    figures["questions"] = len(asked)
    assert [told for told in answered if told[-1] not in (403, 422)] == []
    assert len(lists) > 15


# --- What a body may not claim -------------------------------------------------------------------------

LONG_AGO = "2020-01-01T00:00:00Z"
CLAIMED: dict[str, Any] = {
    name: value
    for value, names in {
        1: "created_by created_by_id user_id doctor_id billing_id visit_id author_id approved_by_id",
        7: "id version session_id patient_id requested_by",
        "true": "is_admin is_active is_paid permissions",
        LONG_AGO: "created_at updated_at signed_at checked_in_at voided_at",
        "0.00": "amount_paid balance account_balance",
        "admin": "role status password_hash invoice_number name_fold",
    }.items()
    for name in names.split()
}


def test_no_creation_takes_members_that_are_not_its_own(
    clinic: Clinic, scale: Scale, figures: Figures
) -> None:
    rows = furnish(clinic)
    creations = [one for one in targets(clinic, rows) if one.entry.method == "POST" and one.body is not None]
    asked = few(
        scale,
        [
            (one, name)
            for one in creations
            for name in sorted(CLAIMED.keys() - {place[0] for place in one.places})
        ],
    )
    wrong = []

    with witness(clinic.settings.database_url) as stored:
        before = stored()
        for one, name in asked:
            answer = clinic.admin.post(one.path, (one.body or {}) | {name: CLAIMED[name]})
            errors = answer.get_json().get("errors", {})
            if answer.status_code != 422 or errors.get(name) != "there is no such member":
                wrong.append((str(one), name, answer.status_code))
        assert stored() == before

    figures["requests"] = len(asked)
    assert wrong == []
    assert len(creations) > 20


def test_nobody_makes_themselves_more_than_they_are(clinic: Clinic) -> None:
    password = "a lighthouse in the fog"

    for role in OTHER_ROLES:
        caller = clinic.sign_in(role)
        claims: list[dict[str, Any]] = [
            {"role": "admin"},
            {"is_active": False, "role": "admin"},
            {"name": "New Name", "role": "admin"},
            {"doctor_id": 1},
        ]
        for claim in claims:
            for path in ("/auth/me", f"/users/{caller.user_id}"):
                caller.patch(path, claim)
                caller.put(path, claim)
        caller.post(
            "/users", {"name": "E", "email": f"{role}@e.example", "password": password, "role": "admin"}
        )
        caller.post(
            "/auth/register",
            {"name": "E", "email": f"{role}2@e.example", "password": password, "role": "admin"},
        )
        caller.post(
            "/auth/register",
            {"name": "E", "email": f"{role}3@e.example", "password": password, "is_active": True},
        )
        with clinic.inside() as session:
            assert session.get(User, caller.user_id).role is Role(role)
            made = session.query(User).filter(User.email.like("%@e.example")).all()
            assert [user.email for user in made if user.role is Role.ADMIN or user.is_active] == []


def test_a_doctor_changes_neither_licence_fee_user_nor_state(clinic: Clinic) -> None:
    doctor = clinic.sign_in("doctor")
    path = f"/doctors/{doctor.doctor_id}"

    for claim in (
        {"license_number": "MINE-1"},
        {"license_expires_on": "2099-01-01"},
        {"consultation_fee": "999.00"},
        {"user_id": clinic.technician.user_id},
        {"is_active": False},
    ):
        before = clinic.admin.get(path).get_json()
        assert doctor.patch(path, claim).status_code == 403, claim
        assert clinic.admin.get(path).get_json() == before
