"""Access to rows of others: foreign ids in requests, claimed rights in bodies, hidden columns."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from werkzeug.test import TestResponse

from enums import Role
from models import User
from schemas.base import shown_members
from security.permissions import HIDDEN, Permission
from tests.robustness.abuse_targets import (
    Target,
    count_tables,
    sample,
    targets,
)
from tests.robustness.conftest import Figures
from tests.robustness.load_level import LoadLevel
from tests.support import pdf
from tests.support.clinic import Caller, Clinic, soon
from tests.support.furnished import Rows, furnish

REFUSED = (403, 404, 409, 412, 422, 428)
# Permissions for rows that belong to the whole clinic, such as patients and their histories.
SHARED = (
    Permission.PUBLIC,
    Permission.SIGNED_IN,
    Permission.PATIENTS_WRITE,
    Permission.HISTORY_WRITE,
    Permission.EMERGENCY_REQUEST,
)
# Bodies of other systems, which add members as they like.
OPEN_BODIES = ("/messages/callbacks/{provider}/{secret}",)
ONLY_FOR_DOCTORS = ("/visits/{visit_id}/letters",)
OTHER_ROLES = ("doctor", "receptionist", "technician")


class Practice:
    """The rows of doctor `a`, from `furnish`, and some rows of doctor `b`, the attacker."""

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
        """Return the first id of a kind that belongs to doctor `a`."""
        return self.rows[(name,)][0][-1]


def readable(response: TestResponse) -> str:
    """Return the text of a response, also of a PDF document. Other binary content has no text."""
    content = response.get_data()
    return (
        pdf.text_of(content) if response.mimetype == "application/pdf" else content.decode(errors="replace")
    )


def is_refused(method: str, response: TestResponse) -> bool:
    """Return True for a refusal, and for a PATCH that has only read-only and unchanged members."""
    return response.status_code in REFUSED or (method == "PATCH" and response.status_code == 200)


@pytest.fixture
def practice(clinic: Clinic) -> Practice:
    return Practice(clinic)


def test_a_doctor_cannot_change_rows_of_another_doctor(practice: Practice, figures: Figures) -> None:
    unsafe = [
        target
        for target in targets(practice.clinic, practice.rows)
        if target.entry.unsafe and target.entry.spec.permission not in SHARED
    ]
    wrong = []

    with count_tables(practice.clinic.settings.database_url) as stored:
        before = stored()
        for target in unsafe:
            for headers in ({}, {"If-Match": "*"}):
                response = practice.b.send(target.entry.method, target.path, target.body, headers=headers)
                if not is_refused(target.entry.method, response) or stored() != before:
                    wrong.append((str(target), response.status_code, response.get_data(as_text=True)[:200]))

    figures["requests"] = 2 * len(unsafe)
    assert wrong == []
    assert len(unsafe) > 30


def foreign_ids(practice: Practice) -> list[tuple[Caller, str, str, dict[str, Any] | None]]:
    """Return requests with ids of others: in the body, below a parent, and in the path."""
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


def test_foreign_ids_in_a_request_change_nothing(practice: Practice) -> None:
    requests = foreign_ids(practice)

    with count_tables(practice.clinic.settings.database_url) as stored:
        before = stored()
        for caller, method, path, body in requests:
            response = caller.send(method, path, body)
            assert is_refused(method, response), (method, path, body, response.get_data(as_text=True)[:300])
            assert stored() == before, (method, path, body)


@pytest.mark.parametrize("nested", ["treatments", "prescriptions"])
def test_a_nested_row_belongs_to_the_new_visit_and_to_no_other(practice: Practice, nested: str) -> None:
    other = practice.of_a("visit_id")
    order = {"treatments": {"name": "Dressing", "cost": "1.00"}, "prescriptions": {"details": "rest"}}[nested]
    body = {"patient_id": practice.patient, nested: [order | {"visit_id": other}]}

    response = practice.b.post("/visits", body)

    assert response.status_code == 201
    assert response.headers["X-Ignored-Members"] == f"{nested}.0.visit_id"
    assert response.get_json()[nested][0]["visit_id"] == response.get_json()["id"] != other


def bill_queries(practice: Practice) -> Iterator[str]:
    """Yield query strings that select rows of another doctor."""
    doctor, bill = practice.a.doctor_id, practice.of_a("billing_id")
    filters = [{"doctor_id": doctor}, {"id": [bill, bill + 1]}, {"patient_id": practice.of_a("patient_id")}]
    yield ""
    yield from (f"?{name}={value}" for members in filters for name, value in members.items() if name != "id")
    yield from (f"?filter={json.dumps(members)}" for members in filters)
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


def get_targets(clinic: Clinic, rows: Rows) -> list[Target]:
    """Return every GET endpoint, except those of the service itself."""
    return [
        target
        for target in targets(clinic, rows)
        if target.entry.method == "GET" and target.entry.domain != "service"
    ]


def test_a_doctor_cannot_read_bills_of_others_by_any_query(
    practice: Practice, level: LoadLevel, figures: Figures
) -> None:
    clinic = practice.clinic
    bills = clinic.admin.get("/billings").get_json()
    secrets = {bill["invoice_number"] for bill in bills}
    requests = sample(
        level,
        [
            (target, query)
            for target in get_targets(clinic, practice.rows)
            for query in bill_queries(practice)
        ],
    )
    shown = []

    for target, query in requests:
        response = practice.b.get(target.path + query)
        assert response.status_code < 500, (str(target), query)
        if any(secret in response.get_data(as_text=True) for secret in secrets):
            shown.append((str(target), query))

    figures["requests"] = len(requests)
    assert shown == []
    assert len(bills) == 3
    assert practice.b.get(f"/billings/{bills[0]['id']}").status_code == 404
    assert practice.b.get("/billings").headers["X-Total-Count"] == "0"


# --- Hidden columns ------------------------------------------------------------------------------------

SECRETS = {
    "receptionist": (
        *("zqsummary", "zqprocedure", "zqcomplaint", "zqnotes", "zqdiagnosis", "zqtreatment", "zqaddendum"),
        *("77.125", "zqmedication", "zqdosage", "zqallergy", "zqreaction", "zqcondition", "zqhome"),
        *("zqsurgery", "zqfamily", "zqhistory"),
    ),
    "technician": (
        "7754.32",
        "1234.56",
        "6519.76",
        "zqreference",
        '"account_balance"',
        '"billing_id"',
        "INV-",
    ),
    "doctor": ("7754.32", "1234.56", "6519.76", "zqreference"),
}
CLINICAL_NOTES = {
    "summary": "zqsummary",
    "procedure_details": "zqprocedure",
    "chief_complaint": "zqcomplaint",
    "notes": "zqnotes",
    "diagnoses": [{"description": "zqdiagnosis"}],
    "vitals": {"weight_kg": 77.125},
}
HISTORY = {
    "allergies": [{"substance": "zqallergy", "reaction": "zqreaction"}],
    "conditions": ["zqcondition"],
    "medications": ["zqhome"],
    "surgical_history": "zqsurgery",
    "family_history": "zqfamily",
    "notes": "zqhistory",
}


def with_secrets(clinic: Clinic) -> Rows:
    """Create rows with unique words in the hidden columns. All visits belong to the clinic's first doctor."""
    rows = furnish(clinic)
    patient, visit = rows[("patient_id",)][0][0], rows[("visit_id",)][0][0]
    assert clinic.admin.patch(f"/visits/{visit}", CLINICAL_NOTES).status_code == 200
    assert clinic.admin.patch(f"/patients/{patient}/medical-history", HISTORY).status_code == 200
    clinic.treatment(visit_id=visit, notes="zqtreatment", cost="7654.32")
    clinic.doctor.make(
        "/prescriptions", visit_id=visit, medications=[{"name": "zqmedication", "dosage": "zqdosage"}]
    )
    bill = clinic.admin.make("/billings", visit_id=visit)["id"]  # the other treatment costs 100.00
    payment = {"amount": "1234.56", "method": "card", "reference": "zqreference"}
    clinic.admin.make(f"/billings/{bill}/payments", **payment)
    assert clinic.doctor.post(f"/visits/{visit}/sign").status_code == 200
    clinic.doctor.make(f"/visits/{visit}/addenda", text="zqaddendum")
    return rows


def test_hidden_columns_are_in_no_response(clinic: Clinic, figures: Figures) -> None:
    rows = with_secrets(clinic)
    queries = ("", "?per_page=1000", "?q=zq", "?format=csv", "?name=Zo%C3%AB", "?patient_name=Zo")
    requests = [(target, query) for target in get_targets(clinic, rows) for query in queries]
    shown = []

    for role, words in SECRETS.items():
        caller = clinic.sign_in(role)  # not the doctor of the rows
        for target, query in requests:
            response = caller.get(target.path + query)
            text = readable(response).replace('"q":"zq"', "") + str(response.headers)
            shown += [(role, str(target), query, word) for word in words if word in text]

    figures["requests"] = len(requests) * len(SECRETS)
    assert shown == []
    known = "".join(
        readable(clinic.admin.get(target.path + "?per_page=1000")) + readable(clinic.admin.get(target.path))
        for target in get_targets(clinic, rows)
    )
    assert [word for words in SECRETS.values() for word in words if word not in known] == []


def test_hidden_words_find_nothing(clinic: Clinic) -> None:
    rows = with_secrets(clinic)
    found = []

    for role, words in SECRETS.items():
        caller = clinic.sign_in(role)
        searches = {
            target.path
            for target in get_targets(clinic, rows)
            if "q" in target.params and role in target.entry.roles
        }
        found += [
            (role, path, word)
            for path in searches
            for word in words
            if word.startswith("zq")
            and caller.get(f"{path}?q={word}").headers.get("X-Total-Count", "0") != "0"
        ]
        assert len(searches) > 8, role

    assert found == []


def hidden_names(target: Target, role: Role) -> set[str]:
    """Return the columns without a query parameter and the columns that the role must not see."""
    listing = target.entry.spec.list_spec
    assert listing is not None
    stored = {column.key for column in listing.model.__mapper__.attrs} - set(target.params)
    return stored | HIDDEN.get((listing.area, role), frozenset()) | {"__class__", "metadata", "patient.name"}


def test_hidden_columns_cannot_filter_or_sort(clinic: Clinic, level: LoadLevel, figures: Figures) -> None:
    rows = furnish(clinic)
    lists = [target for target in targets(clinic, rows) if target.entry.spec.list_spec is not None]
    requests = sample(
        level,
        [
            (role, target, query)
            for target in lists
            for role in target.entry.roles
            for name in sorted(hidden_names(target, Role(role)))
            for query in (
                *(f"{name}=1", f"sort_by={name}", f"filter={json.dumps({name: '1'})}", f"_sort={name}"),
                *(f"{name}_like=a", f"{name}_gte=1", f"{name}_ne=1", f"sort={json.dumps([name, 'ASC'])}"),
            )
        ],
    )
    results = [
        (role, str(target), query, clinic.caller(role).get(f"{target.path}?{query}").status_code)
        for role, target, query in requests
    ]

    figures["requests"] = len(requests)
    assert [result for result in results if result[-1] not in (403, 422)] == []
    assert len(lists) > 15


# --- Unknown and forbidden members-----------------------------------------------------------------------

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


def known_members(target: Any) -> set[str]:
    """Return the members that the resource of a creation has. Its read-only members are ignored."""
    spec = target.entry.spec
    shown = shown_members(spec.body_resource) if spec.status == 201 else frozenset()
    return set(shown) | {body_path[0] for body_path in target.body_paths}


def test_unknown_members_of_a_creation_are_refused(
    clinic: Clinic, level: LoadLevel, figures: Figures
) -> None:
    rows = furnish(clinic)
    creations = [
        target
        for target in targets(clinic, rows)
        if target.entry.method == "POST" and target.body is not None and target.entry.path not in OPEN_BODIES
    ]
    requests = sample(
        level,
        [(target, name) for target in creations for name in sorted(CLAIMED.keys() - known_members(target))],
    )
    wrong = []

    with count_tables(clinic.settings.database_url) as stored:
        before = stored()
        for target, name in requests:
            caller = clinic.doctor if target.entry.path in ONLY_FOR_DOCTORS else clinic.admin
            response = caller.post(target.path, (target.body or {}) | {name: CLAIMED[name]})
            errors = response.get_json().get("errors", {})
            if response.status_code != 422 or "there is no such member" not in errors.get(name, ""):
                wrong.append((str(target), name, response.status_code))
        assert stored() == before

    figures["requests"] = len(requests)
    assert wrong == []
    assert len(creations) > 20


def test_no_user_can_raise_their_own_role(clinic: Clinic) -> None:
    password = "a lighthouse in the fog"

    for role in OTHER_ROLES:
        caller = clinic.sign_in(role)
        changes: list[dict[str, Any]] = [
            {"role": "admin"},
            {"is_active": False, "role": "admin"},
            {"name": "New Name", "role": "admin"},
            {"doctor_id": 1},
        ]
        for change in changes:
            for path in ("/auth/me", f"/users/{caller.user_id}"):
                caller.patch(path, change)
                caller.put(path, change)
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
            registered = session.query(User).filter(User.email.like("%@e.example")).all()
            assert [user.email for user in registered if user.role is Role.ADMIN or user.is_active] == []


def test_a_doctor_cannot_change_own_licence_fee_user_or_state(clinic: Clinic) -> None:
    doctor = clinic.sign_in("doctor")
    path = f"/doctors/{doctor.doctor_id}"

    for change in (
        {"license_number": "MINE-1"},
        {"license_expires_on": "2099-01-01"},
        {"consultation_fee": "999.00"},
        {"user_id": clinic.technician.user_id},
        {"is_active": False},
    ):
        before = clinic.admin.get(path).get_json()
        assert doctor.patch(path, change).status_code == 403, change
        assert clinic.admin.get(path).get_json() == before
