"""Users: creation, changes, deactivation, and the last active admin."""

from __future__ import annotations

import threading
from functools import partial
from typing import Any

import pytest
from sqlalchemy import select

from extensions import db
from models import AuditLog, User
from security import passwords
from tests.support.clinic import PASSWORD, Caller, Clinic
from tests.support.queries import count

RITA = {
    "name": "Rita Okoye",
    "email": "rita@clinic.example",
    "password": PASSWORD,
    "role": "receptionist",
    "phone": "+1 (555) 123-4567",
}


def audit_entries(clinic: Clinic, user_id: int) -> list[tuple[str, list[str], str]]:
    """Return the audit entries of a user: action, fields, outcome."""
    statement = (
        select(AuditLog)
        .where(AuditLog.entity == "user", AuditLog.entity_id == user_id)
        .order_by(AuditLog.at, AuditLog.id)
    )
    with clinic.inside() as session:
        return [
            (entry.action, entry.fields, entry.outcome.value)
            for entry in session.execute(statement).scalars()
        ]


# --- Creation and lists --------------------------------------------------------------------------------


def test_an_admin_creates_a_user(clinic: Clinic) -> None:
    answer = clinic.admin.post("/users", RITA)

    row = answer.get_json()
    assert answer.status_code == 201
    assert answer.headers["Location"] == f"/users/{row['id']}"
    assert answer.headers["ETag"] == '"1"'
    assert {key: row[key] for key in ("name", "email", "role", "phone")} == {
        key: RITA[key] for key in ("name", "email", "role", "phone")
    }
    assert (row["is_active"], row["doctor_id"], row["last_login_at"]) == (True, None, None)
    assert set(row) == {
        *("id", "name", "email", "phone", "role", "is_active", "doctor_id", "created_at", "last_login_at"),
    }
    assert audit_entries(clinic, row["id"]) == [
        ("create", ["email", "is_active", "name", "password", "phone", "role"], "success")
    ]


def test_a_user_with_the_role_doctor_shows_the_doctor_id(clinic: Clinic) -> None:
    assert clinic.doctor.get("/auth/me").get_json()["doctor_id"] == clinic.doctor.doctor_id


def test_a_user_needs_a_name_an_email_a_password_and_a_role(clinic: Clinic) -> None:
    empty = clinic.admin.post("/users", {})
    invalid = clinic.admin.post("/users", {**RITA, "role": "boss", "email": "x", "colour": "red"})

    assert set(empty.get_json()["errors"]) == {"name", "email", "password", "role"}
    assert set(invalid.get_json()["errors"]) == {"role", "email", "colour"}
    assert (empty.status_code, invalid.status_code) == (422, 422)


def test_an_email_of_another_user_is_a_conflict(clinic: Clinic) -> None:
    clinic.admin.make("/users", **RITA)
    other = clinic.admin.make("/users", **{**RITA, "email": "other@clinic.example"})

    again = clinic.admin.post("/users", {**RITA, "email": "RITA@clinic.example"})
    moved = clinic.admin.patch(f"/users/{other['id']}", {"email": "Rita@clinic.example"})

    for answer in (again, moved):
        assert (answer.status_code, answer.get_json()["error"]) == (409, "already_exists")
        assert "email" in answer.get_json()["errors"]


def test_the_list_of_users_can_be_filtered_searched_and_sorted(clinic: Clinic) -> None:
    rita = clinic.admin.make("/users", **RITA)
    inactive = clinic.admin.make(
        "/users", **{**RITA, "name": "Zoë Quist", "email": "zoe@clinic.example", "is_active": False}
    )

    def listed_ids(query: str) -> list[int]:
        answer = clinic.admin.get(f"/users?{query}")
        assert answer.status_code == 200, answer.get_data(as_text=True)
        return [row["id"] for row in answer.get_json()]

    assert listed_ids("role=receptionist") == [rita["id"], inactive["id"]]
    assert listed_ids("is_active=false") == [inactive["id"]]
    assert listed_ids("q=zoe") == [inactive["id"]]
    assert listed_ids("q=okoye rit") == [rita["id"]]
    assert listed_ids("q=RITA@clinic") == [rita["id"]]
    assert listed_ids("role=receptionist&sort_by=name&sort_order=desc") == [inactive["id"], rita["id"]]
    all_users = clinic.admin.get("/users")
    assert all_users.headers["X-Total-Count"] == "3"
    assert "password" not in all_users.get_data(as_text=True)
    assert clinic.admin.get("/users?password_hash=x").status_code == 422
    assert clinic.admin.get("/users?role=boss").status_code == 422


def test_a_longer_list_needs_no_more_queries(clinic: Clinic) -> None:
    clinic.sign_in("doctor")
    queries = count(clinic, clinic.admin, "/users")
    for _ in range(5):
        clinic.sign_in("doctor")

    assert count(clinic, clinic.admin, "/users") == queries


def test_only_admins_manage_users(clinic: Clinic) -> None:
    rita = clinic.admin.make("/users", **RITA)

    for caller in (clinic.doctor, clinic.receptionist, clinic.technician):
        assert caller.get("/users").status_code == 403
        assert caller.post("/users", RITA).status_code == 403
        assert caller.delete(f"/users/{caller.user_id}").status_code == 403
        assert caller.get(f"/users/{rita['id']}").status_code == 404
        assert caller.patch(f"/users/{rita['id']}", {"name": "x"}).status_code == 404
        assert caller.get("/users/987654").status_code == 404
    refusals = [entry for entry in audit_entries(clinic, rita["id"]) if entry[2] == "refused"]
    assert refusals == [("refused", [], "refused")] * 6


# --- Changes -------------------------------------------------------------------------------------------


def test_users_change_their_own_name_and_phone_only(clinic: Clinic) -> None:
    for path in ("/auth/me", f"/users/{clinic.technician.user_id}"):
        renamed = clinic.technician.patch(path, {"name": "Tove Ł.", "phone": None})
        assert (renamed.status_code, renamed.get_json()["name"]) == (200, "Tove Ł.")

        for change in ({"role": "admin"}, {"is_active": False}, {"email": "x@clinic.example"}):
            refusal = clinic.technician.patch(path, change)
            assert (refusal.status_code, refusal.get_json()["error"]) == (403, "forbidden")
            assert list(refusal.get_json()["errors"]) == list(change)
        assert clinic.technician.patch(path, {"password": "x"}).status_code == 422
        assert clinic.technician.patch(path, {"name": " "}).status_code == 422
    assert clinic.technician.get("/auth/me").get_json()["role"] == "technician"
    assert [row["name"] for row in clinic.admin.get("/users?q=tove l").get_json()] == ["Tove Ł."]


def test_a_complete_representation_changes_only_the_different_members(clinic: Clinic) -> None:
    user = clinic.technician.get("/auth/me").get_json()

    answer = clinic.technician.put(f"/users/{user['id']}", {**user, "phone": "555-767-7476"})

    assert answer.status_code == 200
    assert answer.get_json() == {**user, "phone": "555-767-7476"}
    assert audit_entries(clinic, user["id"]) == [("update", ["phone"], "success")]


def test_a_stale_version_changes_nothing(clinic: Clinic) -> None:
    rita = clinic.admin.make("/users", **RITA)
    path = f"/users/{rita['id']}"
    clinic.admin.patch(path, {"name": "Rita O."}, headers={"If-Match": '"1"'})

    stale = clinic.admin.patch(path, {"name": "Rita"}, headers={"If-Match": '"1"'})

    assert (stale.status_code, stale.get_json()["error"]) == (412, "stale_version")
    assert clinic.admin.get(path).get_json()["name"] == "Rita O."


def test_a_deactivated_user_has_no_sessions_until_reactivation(clinic: Clinic) -> None:
    rita = clinic.admin.make("/users", **RITA)
    path = f"/users/{rita['id']}"
    body = {"email": RITA["email"], "password": PASSWORD}
    caller = Caller(clinic, clinic.nobody.post("/auth/login", body).get_json()["access_token"])

    deactivated = clinic.admin.delete(path)
    repeated = clinic.admin.delete(path)

    assert (deactivated.status_code, deactivated.get_json()["is_active"]) == (200, False)
    assert repeated.status_code == 200
    assert caller.get("/auth/me").get_json()["error"] == "token_revoked"
    assert clinic.nobody.post("/auth/login", body).get_json()["error"] == "account_inactive"
    assert clinic.admin.patch(path, {"is_active": True}).status_code == 200
    assert clinic.nobody.post("/auth/login", body).status_code == 200
    activations = [entry for entry in audit_entries(clinic, rita["id"]) if entry[0].endswith("activate")]
    assert activations == [
        ("deactivate", ["is_active", "user_sessions"], "success"),
        ("activate", ["is_active"], "success"),
    ]


# --- The last admin ------------------------------------------------------------------------------------


def test_the_last_active_admin_cannot_be_deactivated_or_change_role(clinic: Clinic) -> None:
    path = f"/users/{clinic.admin.user_id}"
    clinic.sign_in("admin", active=False)

    for refusal in (
        clinic.admin.delete(path),
        clinic.admin.patch(path, {"is_active": False}),
        clinic.admin.patch(path, {"role": "doctor"}),
    ):
        assert (refusal.status_code, refusal.get_json()["error"]) == (409, "last_admin")
    assert clinic.admin.patch(path, {"name": "Still here"}).status_code == 200

    other = clinic.sign_in("admin")
    assert other.patch(path, {"role": "receptionist"}).status_code == 200
    assert other.delete(f"/users/{other.user_id}").status_code == 409


def run_concurrently(*calls: Any) -> list[int]:
    """Start all calls at the same time and return their statuses."""
    barrier, answers = threading.Barrier(len(calls)), [0] * len(calls)

    def run(number: int) -> None:
        barrier.wait()
        answers[number] = calls[number]().status_code

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def test_admins_who_deactivate_each_other_at_the_same_time_leave_one_admin(clinic: Clinic) -> None:
    first = clinic.admin
    for _round in range(6):
        second = clinic.sign_in("admin")

        answers = run_concurrently(
            partial(first.delete, f"/users/{second.user_id}"),
            partial(second.patch, f"/users/{first.user_id}", {"role": "technician"}),
        )

        with clinic.inside() as session:
            statement = select(User.id).where(User.role == "admin", User.is_active)
            active_admins = session.execute(statement).scalars().all()
        assert (len(active_admins), answers.count(200)) == (1, 1), answers
        first = first if active_admins[0] == first.user_id else second


def test_concurrent_registrations_of_an_email_create_one_account(clinic: Clinic) -> None:
    statuses = run_concurrently(*([lambda: clinic.nobody.post("/auth/register", {**RITA})] * 6))

    assert sorted(statuses) == [201, 409, 409, 409, 409, 409]


def test_concurrent_uses_of_a_reset_token_succeed_once(clinic: Clinic) -> None:
    rita = clinic.admin.make("/users", **RITA)
    token = clinic.admin.post(f"/users/{rita['id']}/password-reset").get_json()["token"]

    def use() -> Any:
        return clinic.nobody.post(
            "/auth/reset-password", {"token": token, "new_password": "another fine morning"}
        )

    assert sorted(run_concurrently(use, use, use)) == [200, 401, 401]


# --- Hashing -------------------------------------------------------------------------------------------

NEW_ACCOUNT = {"email": "zoe@clinic.example", "password": "a quiet harbour at dawn"}
NEW_DOCTOR = {"name": "Zoe", "specialty": "surgery", "license_number": "L-77", "user": NEW_ACCOUNT}


@pytest.mark.parametrize("change", ["users", "new doctor", "doctor"])
def test_a_password_is_hashed_once_and_without_a_transaction(
    clinic: Clinic, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    doctor = clinic.doctor_row()["id"]
    in_transaction: list[bool] = []
    hash_password = passwords.hash_password

    def record(password: str) -> str:
        in_transaction.append(db.session().in_transaction())
        return hash_password(password)

    monkeypatch.setattr(passwords, "hash_password", record)

    if change == "users":
        response = clinic.admin.post("/users", {"name": "Zoe", "role": "doctor", **NEW_ACCOUNT})
    elif change == "new doctor":
        response = clinic.admin.post("/doctors", NEW_DOCTOR)
    else:
        response = clinic.admin.patch(f"/doctors/{doctor}", {"user": NEW_ACCOUNT})

    assert response.status_code in (200, 201), response.get_data(as_text=True)
    assert in_transaction == [False]
    assert clinic.nobody.post("/auth/login", NEW_ACCOUNT).status_code == 200


@pytest.mark.parametrize("engine_name", ["sqlite"])
def test_a_refused_account_is_not_hashed(clinic: Clinic, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[str] = []
    monkeypatch.setattr(passwords, "hash_password", hashed.append)
    account = {"name": "Zoe", "role": "doctor", **NEW_ACCOUNT}
    own = f"/doctors/{clinic.doctor.doctor_id}"

    responses = [
        clinic.receptionist.post("/users", account),
        clinic.nobody.post("/users", account),
        clinic.receptionist.post("/doctors", NEW_DOCTOR),
        clinic.doctor.patch(own, {"user": NEW_ACCOUNT}),
        clinic.admin.post("/users", account | {"password": "password1234"}),
        clinic.admin.post("/users", account | {"password": 7}),
        clinic.admin.post("/users", account | {"password": "a\u0000 quiet harbour at dawn"}),
        clinic.admin.post("/doctors", NEW_DOCTOR | {"user": "zoe"}),
    ]

    assert [response.status_code for response in responses] == [403, 401, 403, 403, 422, 422, 422, 422]
    assert hashed == []
