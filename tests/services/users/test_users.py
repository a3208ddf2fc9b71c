"""Users: adding, changing, deactivating, and the last admin who stays."""

from __future__ import annotations

import threading
from functools import partial
from typing import Any

from sqlalchemy import select

from models import AuditLog, User
from tests.support.clinic import PASSWORD, Caller, Clinic
from tests.support.queries import count

RITA = {
    "name": "Rita Okoye",
    "email": "rita@clinic.example",
    "password": PASSWORD,
    "role": "receptionist",
    "phone": "+1 (555) 123-4567",
}


def audited(clinic: Clinic, user_id: int) -> list[tuple[str, list[str], str]]:
    """The entries about a user: action, fields, outcome."""
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


# --- Adding and looking --------------------------------------------------------------------------------


def test_an_admin_adds_a_user(clinic: Clinic) -> None:
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
    assert audited(clinic, row["id"]) == [
        ("create", ["email", "is_active", "name", "password", "phone", "role"], "success")
    ]


def test_a_user_of_role_doctor_shows_which_doctor(clinic: Clinic) -> None:
    assert clinic.doctor.get("/auth/me").get_json()["doctor_id"] == clinic.doctor.doctor_id


def test_a_user_needs_name_address_password_and_role(clinic: Clinic) -> None:
    empty = clinic.admin.post("/users", {})
    odd = clinic.admin.post("/users", {**RITA, "role": "boss", "email": "x", "colour": "red"})

    assert set(empty.get_json()["errors"]) == {"name", "email", "password", "role"}
    assert set(odd.get_json()["errors"]) == {"role", "email", "colour"}
    assert (empty.status_code, odd.status_code) == (422, 422)


def test_the_same_address_twice_is_a_conflict(clinic: Clinic) -> None:
    clinic.admin.make("/users", **RITA)
    other = clinic.admin.make("/users", **{**RITA, "email": "other@clinic.example"})

    again = clinic.admin.post("/users", {**RITA, "email": "RITA@clinic.example"})
    moved = clinic.admin.patch(f"/users/{other['id']}", {"email": "Rita@clinic.example"})

    for answer in (again, moved):
        assert (answer.status_code, answer.get_json()["error"]) == (409, "already_exists")
        assert "email" in answer.get_json()["errors"]


def test_the_list_filters_and_searches(clinic: Clinic) -> None:
    rita = clinic.admin.make("/users", **RITA)
    gone = clinic.admin.make(
        "/users", **{**RITA, "name": "Zoë Quist", "email": "zoe@clinic.example", "is_active": False}
    )

    def found(query: str) -> list[int]:
        answer = clinic.admin.get(f"/users?{query}")
        assert answer.status_code == 200, answer.get_data(as_text=True)
        return [row["id"] for row in answer.get_json()]

    assert found("role=receptionist") == [rita["id"], gone["id"]]
    assert found("is_active=false") == [gone["id"]]
    assert found("q=zoe") == [gone["id"]]
    assert found("q=okoye rit") == [rita["id"]]
    assert found("q=RITA@clinic") == [rita["id"]]
    assert found("role=receptionist&sort_by=name&sort_order=desc") == [gone["id"], rita["id"]]
    everybody = clinic.admin.get("/users")
    assert everybody.headers["X-Total-Count"] == "3"
    assert "password" not in everybody.get_data(as_text=True)
    assert clinic.admin.get("/users?password_hash=x").status_code == 422
    assert clinic.admin.get("/users?role=boss").status_code == 422


def test_a_longer_list_asks_no_more_of_the_database(clinic: Clinic) -> None:
    clinic.sign_in("doctor")
    few = count(clinic, clinic.admin, "/users")
    for _ in range(5):
        clinic.sign_in("doctor")

    assert count(clinic, clinic.admin, "/users") == few


def test_users_are_the_admins_business(clinic: Clinic) -> None:
    rita = clinic.admin.make("/users", **RITA)

    for caller in (clinic.doctor, clinic.receptionist, clinic.technician):
        assert caller.get("/users").status_code == 403
        assert caller.post("/users", RITA).status_code == 403
        assert caller.delete(f"/users/{caller.user_id}").status_code == 403
        assert caller.get(f"/users/{rita['id']}").status_code == 404
        assert caller.patch(f"/users/{rita['id']}", {"name": "x"}).status_code == 404
        assert caller.get("/users/987654").status_code == 404
    told = [entry for entry in audited(clinic, rita["id"]) if entry[2] == "refused"]
    assert told == [("refused", [], "refused")] * 6  # and nothing of the row that does not exist


# --- Changing ------------------------------------------------------------------------------------------


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


def test_a_row_sent_back_whole_changes_what_differs(clinic: Clinic) -> None:
    whole = clinic.technician.get("/auth/me").get_json()

    answer = clinic.technician.put(f"/users/{whole['id']}", {**whole, "phone": "555-767-7476"})

    assert answer.status_code == 200
    assert answer.get_json() == {**whole, "phone": "555-767-7476"}
    assert audited(clinic, whole["id"]) == [("update", ["phone"], "success")]


def test_a_stale_version_changes_nothing(clinic: Clinic) -> None:
    rita = clinic.admin.make("/users", **RITA)
    path = f"/users/{rita['id']}"
    clinic.admin.patch(path, {"name": "Rita O."}, headers={"If-Match": '"1"'})

    stale = clinic.admin.patch(path, {"name": "Rita"}, headers={"If-Match": '"1"'})

    assert (stale.status_code, stale.get_json()["error"]) == (412, "stale_version")
    assert clinic.admin.get(path).get_json()["name"] == "Rita O."


def test_deactivating_ends_the_sessions_and_bringing_back_lets_in_again(clinic: Clinic) -> None:
    rita = clinic.admin.make("/users", **RITA)
    path = f"/users/{rita['id']}"
    body = {"email": RITA["email"], "password": PASSWORD}
    caller = Caller(clinic, clinic.nobody.post("/auth/login", body).get_json()["access_token"])

    gone = clinic.admin.delete(path)
    again = clinic.admin.delete(path)

    assert (gone.status_code, gone.get_json()["is_active"]) == (200, False)
    assert again.status_code == 200
    assert caller.get("/auth/me").get_json()["error"] == "token_revoked"
    assert clinic.nobody.post("/auth/login", body).get_json()["error"] == "account_inactive"
    assert clinic.admin.patch(path, {"is_active": True}).status_code == 200
    assert clinic.nobody.post("/auth/login", body).status_code == 200
    told = [entry for entry in audited(clinic, rita["id"]) if entry[0].endswith("activate")]
    assert told == [
        ("deactivate", ["is_active", "user_sessions"], "success"),
        ("activate", ["is_active"], "success"),
    ]


# --- The last admin ------------------------------------------------------------------------------------


def test_the_last_active_admin_stays(clinic: Clinic) -> None:
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


def at_once(*calls: Any) -> list[int]:
    """The status of each call, all begun at one moment."""
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


def test_admins_who_deactivate_each_other_at_once_leave_one(clinic: Clinic) -> None:
    one = clinic.admin
    for _round in range(6):
        two = clinic.sign_in("admin")

        answers = at_once(
            partial(one.delete, f"/users/{two.user_id}"),
            partial(two.patch, f"/users/{one.user_id}", {"role": "technician"}),
        )

        with clinic.inside() as session:
            statement = select(User.id).where(User.role == "admin", User.is_active)
            left = session.execute(statement).scalars().all()
        assert (len(left), answers.count(200)) == (1, 1), answers
        one = one if left[0] == one.user_id else two


def test_one_address_asked_for_many_times_at_once_becomes_one_account(clinic: Clinic) -> None:
    asked = at_once(*([lambda: clinic.nobody.post("/auth/register", {**RITA})] * 6))

    assert sorted(asked) == [201, 409, 409, 409, 409, 409]


def test_a_reset_token_used_twice_at_once_works_once(clinic: Clinic) -> None:
    rita = clinic.admin.make("/users", **RITA)
    token = clinic.admin.post(f"/users/{rita['id']}/password-reset").get_json()["token"]

    def use() -> Any:
        return clinic.nobody.post(
            "/auth/reset-password", {"token": token, "new_password": "another fine morning"}
        )

    assert sorted(at_once(use, use, use)) == [200, 401, 401]
