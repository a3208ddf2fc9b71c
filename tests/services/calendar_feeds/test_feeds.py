"""Calendar feeds: who may create, list and end them, and what is stored."""

from __future__ import annotations

import secrets
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import text

from models import AuditLog, Doctor, User
from services import remembered
from services.calendar_feeds.feeds import MAX_FEEDS, token_hash
from tests.support.calendars import calendar_token, fetch
from tests.support.clinic import Caller, Clinic
from tests.support.concurrency import run_concurrently

MakeClinic = Callable[..., Clinic]


def feeds_of(doctor_id: int) -> str:
    return f"/doctors/{doctor_id}/calendar-feeds"


def audited(clinic: Clinic) -> list[tuple[str, str, int | None]]:
    """Return action, outcome and id of the entries about feeds."""
    with clinic.inside() as session:
        rows = session.query(AuditLog).filter(AuditLog.entity == "calendar_feed").order_by(AuditLog.id)
        return [(row.action, row.outcome.value, row.entity_id) for row in rows]


def test_only_the_creation_shows_the_address(clinic: Clinic) -> None:
    path = feeds_of(clinic.doctor.doctor_id)

    response = clinic.doctor.post(path)

    feed = response.get_json()
    assert response.status_code == 201
    assert response.headers["Location"] == f"{path}/{feed['id']}"
    assert {name: feed[name] for name in ("detail", "days_back", "days_ahead", "ended_at", "user_agent")} == {
        "detail": "busy",
        "days_back": 30,
        "days_ahead": 180,
        "ended_at": None,
        "user_agent": None,
    }
    assert feed["url"].startswith("http://localhost/calendar/")
    assert len(calendar_token(feed)) == 43
    shown = {name: value for name, value in feed.items() if name != "url"}
    assert clinic.doctor.get(path).get_json() == [shown]
    assert clinic.admin.get(f"{path}/{feed['id']}").get_json() == shown


def test_the_database_never_holds_the_token(clinic: Clinic) -> None:
    path, key = feeds_of(clinic.doctor.doctor_id), {"Idempotency-Key": "feed-1"}

    feed = clinic.doctor.post(path, headers=_signed(clinic.doctor, key)).get_json()
    repeated = clinic.doctor.post(path, headers=_signed(clinic.doctor, key))
    fetch(clinic, feed)

    token = calendar_token(feed)
    assert (repeated.status_code, repeated.get_json()["error"]) == (409, "already_done")
    assert repeated.get_json()["id"] == feed["id"]
    assert token not in repeated.get_data(as_text=True)
    with clinic.inside() as session:
        tables = ("calendar_feeds", "idempotency_keys", "audit_logs")
        stored = [str(row) for table in tables for row in session.execute(text(f"SELECT * FROM {table}"))]
    assert sum(token_hash(token) in row for row in stored) == 1
    assert not any(token in row for row in stored)


def _signed(caller: Caller, headers: dict[str, str]) -> dict[str, str]:
    return {"Authorization": f"Bearer {caller.token}"} | headers


@pytest.mark.parametrize("role", ["other doctor", "receptionist", "technician"])
def test_feeds_are_for_the_doctor_and_administrators(clinic: Clinic, role: str) -> None:
    path = feeds_of(clinic.doctor.doctor_id)
    feed = clinic.admin.make(path)
    caller = clinic.sign_in("doctor") if role == "other doctor" else clinic.caller(role)

    requests = [("GET", path), ("POST", path), ("GET", f"{path}/{feed['id']}")]
    requests.append(("DELETE", f"{path}/{feed['id']}"))
    answers = [caller.send(method, target) for method, target in requests]

    assert [answer.status_code for answer in answers] == [403] * 4
    assert [answer.get_json()["error"] for answer in answers] == ["forbidden"] * 4
    assert len(clinic.doctor.get(path).get_json()) == 1


def test_a_feed_belongs_to_the_doctor_of_its_path(clinic: Clinic) -> None:
    feed = clinic.doctor.make(feeds_of(clinic.doctor.doctor_id))
    other = clinic.doctor_row()["id"]

    assert clinic.admin.delete(f"{feeds_of(other)}/{feed['id']}").status_code == 404
    assert clinic.admin.get(f"{feeds_of(other)}/{feed['id']}").status_code == 404
    assert clinic.admin.get(feeds_of(other)).get_json() == []
    assert fetch(clinic, feed).status_code == 200


def test_an_ended_feed_is_unknown_and_no_longer_listed(clinic: Clinic) -> None:
    path = feeds_of(clinic.doctor.doctor_id)
    feed, other = clinic.doctor.make(path), clinic.doctor.make(path)
    assert fetch(clinic, feed).status_code == 200

    ended = clinic.doctor.delete(f"{path}/{feed['id']}")
    repeated = clinic.admin.delete(f"{path}/{feed['id']}")

    assert (ended.status_code, repeated.status_code) == (200, 200)
    assert ended.get_json()["ended_at"] == repeated.get_json()["ended_at"] is not None
    assert fetch(clinic, feed).status_code == 404
    assert fetch(clinic, other).status_code == 200
    assert [row["id"] for row in clinic.doctor.get(path).get_json()] == [other["id"]]
    assert audited(clinic) == [
        ("create", "success", feed["id"]),
        ("create", "success", other["id"]),
        ("end", "success", feed["id"]),
        ("refused", "refused", feed["id"]),  # the 404 of an existing row
    ]


def test_a_doctor_has_at_most_five_feeds_also_under_concurrency(
    clinic: Clinic, monkeypatch: pytest.MonkeyPatch
) -> None:
    create_token = secrets.token_urlsafe

    def create_slowly(size: int) -> str:
        time.sleep(0.1)  # between the count of the feeds and the new row
        return create_token(size)

    monkeypatch.setattr(secrets, "token_urlsafe", create_slowly)
    path = feeds_of(clinic.doctor.doctor_id)
    callers = [clinic.sign_in("admin") for _number in range(8)]
    with clinic.inside():
        remembered.forget_all()  # as in other processes: a remembered audit head would order the requests

    statuses = Counter(
        response.status_code
        for response in run_concurrently([lambda caller=caller: caller.post(path) for caller in callers])  # type: ignore[misc]
    )
    first = clinic.doctor.get(path).get_json()[0]["id"]
    clinic.doctor.delete(f"{path}/{first}")

    assert statuses == {201: MAX_FEEDS, 409: 3}
    assert clinic.doctor.post(path).status_code == 201
    assert clinic.doctor.post(path).get_json()["error"] == "conflict"
    assert clinic.doctor_row()["id"] != clinic.doctor.doctor_id
    assert clinic.admin.post(feeds_of(clinic.doctor_row()["id"])).status_code == 201


@pytest.mark.parametrize(
    ("body", "member"),
    [
        ({"detail": "everything"}, "detail"),
        ({"detail": None}, "detail"),
        ({"days_back": -1}, "days_back"),
        ({"days_back": 367}, "days_back"),
        ({"days_ahead": 0}, "days_ahead"),
        ({"days_ahead": 367}, "days_ahead"),
        ({"days_ahead": "30"}, "days_ahead"),
        ({"range": 3}, "range"),
    ],
)
def test_wrong_members_are_refused(clinic: Clinic, body: dict[str, Any], member: str) -> None:
    response = clinic.doctor.post(feeds_of(clinic.doctor.doctor_id), body)

    if body == {"detail": None}:  # null means the default of a new row
        assert response.status_code == 201
    else:
        assert response.status_code == 422
        assert list(response.get_json()["errors"]) == [member]


def test_names_need_the_setting(make_clinic: MakeClinic) -> None:
    clinic = make_clinic()
    path = feeds_of(clinic.doctor.doctor_id)

    refused = clinic.admin.post(path, {"detail": "names"})

    assert (refused.status_code, refused.get_json()["error"]) == (403, "forbidden")
    assert "CALENDAR_FEED_NAMES" in refused.get_json()["message"]
    allowed = make_clinic(calendar_feed_names=True)
    assert allowed.admin.post(path, {"detail": "names"}).status_code == 201


def test_an_inactive_doctor_gets_no_feed(clinic: Clinic) -> None:
    doctor = clinic.doctor_row()["id"]
    clinic.admin.delete(f"/doctors/{doctor}")

    response = clinic.admin.post(feeds_of(doctor))

    assert (response.status_code, response.get_json()["error"]) == (409, "conflict")


def _end(clinic: Clinic, feed: dict[str, Any]) -> None:
    clinic.admin.delete(f"{feeds_of(feed['doctor_id'])}/{feed['id']}")


def _deactivate_doctor(clinic: Clinic, feed: dict[str, Any]) -> None:
    clinic.admin.delete(f"/doctors/{feed['doctor_id']}")


def _deactivate_user(clinic: Clinic, _feed: dict[str, Any]) -> None:
    assert clinic.admin.delete(f"/users/{clinic.doctor.user_id}").status_code == 200


def _change_role(clinic: Clinic, _feed: dict[str, Any]) -> None:
    with clinic.inside() as session:
        session.get(User, clinic.doctor.user_id).role = "receptionist"


def _replace_user(clinic: Clinic, feed: dict[str, Any]) -> None:
    other = clinic.sign_in("doctor")
    with clinic.inside() as session:
        session.get(Doctor, other.doctor_id).user_id = None
        session.flush()
        session.get(Doctor, feed["doctor_id"]).user_id = other.user_id


@pytest.mark.parametrize(
    "change", [_end, _deactivate_doctor, _deactivate_user, _change_role, _replace_user, None]
)
def test_every_unusable_address_has_the_same_response(
    clinic: Clinic, change: Callable[[Clinic, dict[str, Any]], None] | None
) -> None:
    feed = clinic.doctor.make(feeds_of(clinic.doctor.doctor_id))
    if change is not None:
        change(clinic, feed)
    else:
        feed["url"] = feed["url"].replace(calendar_token(feed), calendar_token(feed)[::-1])

    response, unknown = fetch(clinic, feed), fetch(clinic, {"url": f"/{'A' * 43}.ics"})

    assert response.status_code == 404
    ignored = {"request_id": ""}
    assert response.get_json() | ignored == unknown.get_json() | ignored
    headers = [dict(answer.headers) | {"X-Request-ID": ""} for answer in (response, unknown)]
    assert headers[0] == headers[1]


@pytest.mark.parametrize("token", ["", "x", "%00", "%ff", "..%2f..", "é", "'--", "A" * 5000])
def test_any_text_as_a_token_is_not_found(clinic: Clinic, token: str) -> None:
    assert clinic.nobody.get(f"/calendar/{token}.ics").status_code == 404


def test_a_feed_of_a_doctor_without_user_works(clinic: Clinic) -> None:
    feed = clinic.admin.make(feeds_of(clinic.doctor_row()["id"]))

    assert fetch(clinic, feed).status_code == 200
