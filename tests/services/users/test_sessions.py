"""Tokens and sessions: forged ones, cookies, rotation, ending, and Redis that comes and goes."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
import pytest
import redis
import time_machine
from sqlalchemy import select
from werkzeug.test import TestResponse

from cache.redis import RedisStore, redis_store
from enums import AuditOutcome
from models import AuditLog, UserSession
from security import tokens
from security.key_rings import Key
from services import remembered
from tests.support.clinic import PASSWORD, Caller, Clinic
from tests.support.servers import RedisServer

MakeClinic = Callable[..., Clinic]
ORIGIN = "https://front.example"
RITA = "rita@clinic.example"


def sign_in(clinic: Clinic, **options: Any) -> dict[str, Any]:
    """Rita's tokens on one more device."""
    with clinic.inside() as session:
        known = session.connection().exec_driver_sql(f"SELECT 1 FROM users WHERE email = '{RITA}'").all()
    if not known:
        clinic.admin.make("/users", name="Rita", email=RITA, password=PASSWORD, role="receptionist")
    answer = clinic.nobody.post("/auth/login", {"email": RITA, "password": PASSWORD}, **options)
    assert answer.status_code == 200
    told: dict[str, Any] = answer.get_json()
    return told


def me(clinic: Clinic, token: str) -> TestResponse:
    return Caller(clinic, token).get("/auth/me")


def refresh(clinic: Clinic, token: str) -> TestResponse:
    return clinic.nobody.post("/auth/refresh-token", {"refresh_token": token})


def by_cookie(pair: dict[str, Any], origin: str | None = None) -> dict[str, Any]:
    """Return the options of a request with cookies instead of a header."""
    cookies = "; ".join(
        f"{name}_cookie={pair[name]}" for name in ("access_token", "refresh_token") if name in pair
    )
    return {"headers": {"Cookie": cookies} | ({"Origin": origin} if origin else {})}


def refused(clinic: Clinic) -> list[tuple[str, str | None]]:
    statement = select(AuditLog).where(AuditLog.outcome == AuditOutcome.REFUSED).order_by(AuditLog.id)
    with clinic.inside() as session:
        return [(entry.action, entry.detail) for entry in session.execute(statement).scalars()]


# --- Tokens --------------------------------------------------------------------------------------------


def forged(clinic: Clinic, genuine: str) -> dict[str, str]:
    """Name -> a token that looks like the genuine one and is not."""
    key = clinic.settings.jwt_secret_key
    claims = jwt.decode(genuine, key, ["HS256"], audience="clinic")
    header, _payload, signature = genuine.split(".")
    changed = base64.urlsafe_b64encode(json.dumps(claims | {"sub": "1"}).encode()).rstrip(b"=").decode()
    past = datetime.now(UTC) - timedelta(minutes=1)
    return {
        "alg none": jwt.encode(claims, None, "none"),
        "another key": jwt.encode(claims, "x" * 48, "HS256"),
        "another algorithm": jwt.encode(claims, key, "HS384"),
        "another audience": jwt.encode(claims | {"aud": "elsewhere"}, key, "HS256"),
        "no audience": jwt.encode({k: v for k, v in claims.items() if k != "aud"}, key, "HS256"),
        "expired": jwt.encode(claims | {"exp": past}, key, "HS256"),
        "a refresh token": jwt.encode(claims | {"type": "refresh"}, key, "HS256"),
        "no session": jwt.encode({k: v for k, v in claims.items() if k != "sid"}, key, "HS256"),
        "a session that is none": jwt.encode(claims | {"sid": True}, key, "HS256"),
        "another user": jwt.encode(claims | {"sub": "987654"}, key, "HS256"),
        "tampered": f"{header}.{changed}.{signature}",
        "cut": genuine[:-4],
        "empty": "",
        "endless": "a" * 5000,
    }


def test_forged_tokens_are_401(clinic: Clinic) -> None:
    pair = sign_in(clinic)
    assert me(clinic, pair["access_token"]).status_code == 200

    for name, token in forged(clinic, pair["access_token"]).items():
        answer = me(clinic, token)

        assert answer.status_code == 401, name
        assert answer.headers["WWW-Authenticate"] == "Bearer"
        expected = {"expired": "token_expired", "another user": "token_revoked"}.get(name, "token_invalid")
        assert answer.get_json()["error"] == expected, name
    told = [detail for _action, detail in refused(clinic)]
    assert len(told) == len(forged(clinic, pair["access_token"]))


NEW, OLD, UNKNOWN = (f"{word}-key-" * 6 for word in ("new", "old", "unknown"))


def test_a_token_is_verified_with_the_key_that_it_names(make_clinic: MakeClinic) -> None:
    clinic = make_clinic(jwt_secret_key=NEW, jwt_secret_keys_previous=[OLD])
    genuine = sign_in(clinic)["access_token"]
    claims = jwt.decode(genuine, NEW, ["HS256"], audience="clinic")
    ids = {key: Key.of(key).id for key in (NEW, OLD, UNKNOWN)}

    def status(signed_with: str, kid: object) -> int:
        headers = {} if kid is None else {"kid": kid}
        return me(clinic, jwt.encode(claims, signed_with, "HS256", headers)).status_code

    assert jwt.get_unverified_header(genuine)["kid"] == ids[NEW]
    assert [status(key, ids[key]) for key in (NEW, OLD, UNKNOWN)] == [200, 200, 401]
    assert [status(key, None) for key in (NEW, OLD, UNKNOWN)] == [200, 200, 401]
    assert [status(NEW, ids[OLD]), status(OLD, ids[NEW]), status(NEW, ids[UNKNOWN])] == [401, 401, 401]
    assert [status(NEW, kid) for kid in ("", "../../dev/null")] == [401, 401]


def test_sessions_and_known_devices_survive_a_new_key(make_clinic: MakeClinic) -> None:
    before = make_clinic(jwt_secret_key=OLD)
    pair = sign_in(before)
    device = tokens.issue_device(1, "$2b$04$hash")

    after = make_clinic(jwt_secret_key=NEW, jwt_secret_keys_previous=[OLD])
    known = tokens.read_device(device)
    refreshed = refresh(after, pair["refresh_token"])

    assert me(after, pair["access_token"]).status_code == refreshed.status_code == 200
    assert jwt.get_unverified_header(refreshed.get_json()["access_token"])["kid"] == Key.of(NEW).id
    assert known is not None
    assert known.belongs_to(1, "$2b$04$hash")
    assert not known.belongs_to(1, "$2b$04$other")

    last = make_clinic(jwt_secret_key=NEW)
    assert me(last, pair["access_token"]).status_code == 401
    assert tokens.read_device(device) is None


def test_without_token_nobody_is_audited_for_trying(clinic: Clinic) -> None:
    assert clinic.nobody.get("/auth/me").get_json()["error"] == "unauthorized"
    assert clinic.nobody.post("/auth/refresh-token").get_json()["error"] == "unauthorized"
    assert refused(clinic) == []


def test_each_kind_of_token_opens_its_own_door_only(clinic: Clinic) -> None:
    pair = sign_in(clinic)

    assert me(clinic, pair["refresh_token"]).get_json()["error"] == "token_invalid"
    assert refresh(clinic, pair["access_token"]).get_json()["error"] == "token_invalid"


def test_an_access_token_lives_for_minutes_and_a_refresh_token_for_days(clinic: Clinic) -> None:
    pair = sign_in(clinic)

    with time_machine.travel(datetime.now(UTC) + timedelta(minutes=16)):
        late = me(clinic, pair["access_token"])
        renewed = refresh(clinic, pair["refresh_token"])
    with time_machine.travel(datetime.now(UTC) + timedelta(days=31)):
        much_later = refresh(clinic, renewed.get_json()["refresh_token"])

    assert (late.status_code, late.get_json()["error"]) == (401, "token_expired")
    assert renewed.status_code == 200
    assert (much_later.status_code, much_later.get_json()["error"]) == (401, "token_expired")


# --- Cookies -------------------------------------------------------------------------------------------


def test_cookies_sign_reads_from_anywhere_and_writes_from_allowed_origins(make_clinic: MakeClinic) -> None:
    clinic = make_clinic(allowed_origins=f" {ORIGIN}/ ")
    pair = sign_in(clinic)

    def rename(origin: str | None) -> TestResponse:
        return clinic.nobody.patch("/auth/me", {"name": "Rita O."}, **by_cookie(pair, origin))

    assert clinic.nobody.get("/auth/me", **by_cookie(pair)).status_code == 200
    assert rename(ORIGIN).status_code == 200
    assert rename("http://localhost").status_code == 200  # its own
    for origin in ("https://evil.example", "https://front.example.evil.example", "null", None):
        answer = rename(origin)
        assert (answer.status_code, answer.get_json()["error"]) == (403, "origin_not_allowed"), origin


def test_a_bearer_token_needs_no_origin(clinic: Clinic) -> None:
    pair = sign_in(clinic)

    renamed = Caller(clinic, pair["access_token"]).patch(
        "/auth/me", {"name": "Rita O."}, headers={"Origin": "https://evil.example"}
    )

    assert renamed.status_code == 200


def test_an_admins_cookie_adds_no_account_for_a_foreign_page(clinic: Clinic) -> None:
    cookies = by_cookie({"access_token": clinic.admin.token}, "https://evil.example")
    body = {"name": "Eve", "email": "eve@evil.example", "password": PASSWORD, "role": "admin"}

    answer = clinic.nobody.post("/auth/register", body, **cookies)

    assert (answer.status_code, answer.get_json()["error"]) == (403, "origin_not_allowed")


# --- Refreshing ----------------------------------------------------------------------------------------


def test_a_bad_token_is_refused_before_the_members_of_a_registration(clinic: Clinic) -> None:
    ended = clinic.sign_in("admin")
    assert ended.post("/auth/logout").status_code == 200
    inactive = clinic.sign_in("admin")
    clinic.admin.delete(f"/users/{inactive.user_id}")

    answers = [caller.post("/auth/register", {"x": 1}) for caller in (Caller(clinic, "x"), ended, inactive)]

    assert [(answer.status_code, answer.get_json()["error"]) for answer in answers] == [
        (401, "token_invalid"),
        (401, "token_revoked"),
        (401, "token_revoked"),
    ]
    assert clinic.nobody.post("/auth/register", {"x": 1}).status_code == 422
    assert clinic.receptionist.post("/auth/register", {"x": 1}).status_code == 422


def test_a_refresh_token_is_taken_from_body_header_and_cookie(make_clinic: MakeClinic) -> None:
    clinic = make_clinic(allowed_origins=ORIGIN)
    path = "/auth/refresh-token"

    body = refresh(clinic, sign_in(clinic)["refresh_token"])
    header = Caller(clinic, sign_in(clinic)["refresh_token"]).post(path)
    cookie = clinic.nobody.post(path, **by_cookie(sign_in(clinic), ORIGIN))
    third = sign_in(clinic)
    both = Caller(clinic, third["access_token"]).post(path, **by_cookie(third, ORIGIN))

    for answer in (body, header, cookie, both):
        assert answer.status_code == 200
        pair = answer.get_json()
        assert {"message", "access_token", "refresh_token", "token_type", "expires_in"} <= set(pair)
        assert len(answer.headers.getlist("Set-Cookie")) == 2
        assert me(clinic, pair["access_token"]).status_code == 200


def test_a_foreign_page_cannot_refresh_by_cookie(make_clinic: MakeClinic) -> None:
    clinic = make_clinic(allowed_origins=ORIGIN)
    pair = sign_in(clinic)

    for origin in ("https://evil.example", None):
        answer = clinic.nobody.post("/auth/refresh-token", **by_cookie(pair, origin))
        assert (answer.status_code, answer.get_json()["error"]) == (403, "origin_not_allowed")
    assert refresh(clinic, pair["refresh_token"]).status_code == 200


def test_refreshing_leaves_the_old_access_token_to_run_out(clinic: Clinic) -> None:
    old = sign_in(clinic)

    new = refresh(clinic, old["refresh_token"]).get_json()

    assert new["refresh_token"] != old["refresh_token"]
    assert me(clinic, old["access_token"]).status_code == 200
    assert me(clinic, new["access_token"]).status_code == 200


def test_two_tabs_that_refresh_at_once_both_go_on(clinic: Clinic) -> None:
    first = sign_in(clinic)

    one, two = refresh(clinic, first["refresh_token"]), refresh(clinic, first["refresh_token"])

    assert (one.status_code, two.status_code) == (200, 200)
    for answer in (one, two):
        assert me(clinic, answer.get_json()["access_token"]).status_code == 200
    assert refresh(clinic, two.get_json()["refresh_token"]).status_code == 200


def test_refreshing_many_times_at_once_keeps_the_session(clinic: Clinic) -> None:
    first = sign_in(clinic)

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: refresh(clinic, first["refresh_token"]), range(8)))

    assert [answer.status_code for answer in answers] == [200] * 8
    assert refresh(clinic, answers[-1].get_json()["refresh_token"]).status_code == 200


def test_a_retired_token_after_the_grace_ends_the_whole_session(clinic: Clinic) -> None:
    stolen = sign_in(clinic)
    other = sign_in(clinic)
    current = refresh(clinic, stolen["refresh_token"]).get_json()

    with time_machine.travel(datetime.now(UTC) + timedelta(seconds=11)):
        reused = refresh(clinic, stolen["refresh_token"])
        after = [me(clinic, current["access_token"]), refresh(clinic, current["refresh_token"])]
        elsewhere = me(clinic, other["access_token"])

    assert (reused.status_code, reused.get_json()["error"]) == (401, "token_revoked")
    assert [answer.get_json()["error"] for answer in after] == ["token_revoked", "token_revoked"]
    assert elsewhere.status_code == 200
    assert refused(clinic)[0] == ("refresh", "token_revoked")


def test_a_token_older_than_the_parent_ends_the_session_at_once(clinic: Clinic) -> None:
    first = sign_in(clinic)
    second = refresh(clinic, first["refresh_token"]).get_json()
    third = refresh(clinic, second["refresh_token"]).get_json()

    assert refresh(clinic, first["refresh_token"]).status_code == 401
    assert me(clinic, third["access_token"]).status_code == 401


# --- Ending --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["access_token", "refresh_token"])
def test_logout_with_either_token_ends_the_session(clinic: Clinic, kind: str) -> None:
    pair, other = sign_in(clinic), sign_in(clinic)

    answer = Caller(clinic, pair[kind]).post("/auth/logout")

    assert answer.status_code == 200
    cleared = answer.headers.getlist("Set-Cookie")
    assert len(cleared) == 2
    assert all("=;" in line and "1970" in line for line in cleared)
    assert me(clinic, pair["access_token"]).get_json()["error"] == "token_revoked"
    assert refresh(clinic, pair["refresh_token"]).get_json()["error"] == "token_revoked"
    assert me(clinic, other["access_token"]).status_code == 200
    with clinic.inside() as session:
        told = session.execute(select(AuditLog).where(AuditLog.action == "logout")).scalars().all()
        assert [(entry.entity_id, entry.user_name) for entry in told] == [(pair["user"]["id"], "Rita")]


def test_logout_always_answers_200(clinic: Clinic) -> None:
    pair = sign_in(clinic)

    assert clinic.nobody.post("/auth/logout").status_code == 200
    assert Caller(clinic, "no token at all").post("/auth/logout").status_code == 200
    assert clinic.nobody.post("/auth/logout", {"anything": 1}).status_code == 200
    with time_machine.travel(datetime.now(UTC) + timedelta(hours=1)):
        assert me(clinic, pair["access_token"]).get_json()["error"] == "token_expired"
        assert Caller(clinic, pair["access_token"]).post("/auth/logout").status_code == 200
        assert refresh(clinic, pair["refresh_token"]).get_json()["error"] == "token_revoked"
    assert Caller(clinic, pair["access_token"]).post("/auth/logout").status_code == 200


def test_logout_accepts_the_refresh_token_in_the_body(clinic: Clinic) -> None:
    pair = sign_in(clinic)
    for body in ({"refresh_token": 7}, {"refresh_token": "x"}, {"refresh_token": "x" * 300_000}, {}):
        assert clinic.nobody.post("/auth/logout", body).status_code == 200
    malformed = clinic.nobody.post("/auth/logout", data="{", content_type="application/json")
    assert malformed.status_code == 200
    assert me(clinic, pair["access_token"]).status_code == 200

    assert clinic.nobody.post("/auth/logout", {"refresh_token": pair["refresh_token"]}).status_code == 200
    assert me(clinic, pair["access_token"]).status_code == 401
    assert refresh(clinic, pair["refresh_token"]).status_code == 401


def test_logout_by_cookie_is_not_for_foreign_pages(make_clinic: MakeClinic) -> None:
    clinic = make_clinic(allowed_origins=ORIGIN)
    pair = sign_in(clinic)

    foreign = clinic.nobody.post("/auth/logout", **by_cookie(pair, "https://evil.example"))
    still = me(clinic, pair["access_token"])
    own = clinic.nobody.post("/auth/logout", **by_cookie(pair, ORIGIN))

    assert foreign.status_code == 403
    assert still.status_code == 200
    assert own.status_code == 200
    assert me(clinic, pair["access_token"]).status_code == 401


def test_users_see_and_end_their_own_sessions(clinic: Clinic) -> None:
    here = sign_in(clinic, headers={"User-Agent": "Firefox on the front desk"})
    there = sign_in(clinic, environ_base={"REMOTE_ADDR": "192.0.2.7"})
    caller = Caller(clinic, here["access_token"])

    answer = caller.get("/auth/sessions")

    one, two = answer.get_json()
    assert answer.headers["X-Total-Count"] == "2"
    assert one["device"] == "Firefox on the front desk"
    assert (one["is_current"], two["is_current"]) == (True, False)
    assert two["address"] == "192.0.2.7"
    assert set(one) == {
        *("id", "device", "address", "created_at", "last_used_at", "expires_at", "ends_at", "ended_at"),
        "is_current",
    }

    ended = caller.delete(f"/auth/sessions/{two['id']}")

    assert ended.status_code == 200
    assert ended.get_json()["ended_at"] is not None
    assert me(clinic, there["access_token"]).status_code == 401
    assert [row["id"] for row in caller.get("/auth/sessions").get_json()] == [one["id"]]


def test_sessions_that_ran_out_are_removed_at_the_next_sign_in(clinic: Clinic) -> None:
    old = sign_in(clinic)

    with time_machine.travel(datetime.now(UTC) + timedelta(days=31)):
        new = sign_in(clinic)

    with clinic.inside() as session:
        left = session.execute(select(UserSession).where(UserSession.user_id == old["user"]["id"]))
        assert len(left.scalars().all()) == 1
    assert new["access_token"] != old["access_token"]


def test_nobody_sees_or_ends_sessions_of_others(clinic: Clinic) -> None:
    rita = Caller(clinic, sign_in(clinic)["access_token"])
    number = rita.get("/auth/sessions").get_json()[0]["id"]

    shown = clinic.admin.get("/auth/sessions").get_json()
    refusal = clinic.admin.delete(f"/auth/sessions/{number}")

    assert number not in [row["id"] for row in shown]
    assert (refusal.status_code, refusal.get_json()["error"]) == (404, "not_found")
    assert rita.get("/auth/me").status_code == 200
    assert refused(clinic) == [("refused", "not_found")]


def test_what_happens_to_a_user_holds_from_the_next_request(clinic: Clinic) -> None:
    pair = sign_in(clinic)
    caller, path = Caller(clinic, pair["access_token"]), f"/users/{pair['user']['id']}"
    assert caller.get("/users").status_code == 403

    clinic.admin.patch(path, {"role": "admin"})
    promoted = caller.get("/users").status_code
    clinic.admin.patch(path, {"role": "technician"})
    demoted = caller.get("/users").status_code
    clinic.admin.patch(path, {"is_active": False})
    gone = caller.get("/auth/me").status_code
    clinic.admin.patch(path, {"is_active": True})

    assert (promoted, demoted, gone) == (200, 403, 401)
    assert caller.get("/auth/me").status_code == 401  # brought back is not signed in again
    assert refresh(clinic, pair["refresh_token"]).status_code == 401


def reuse_ids(clinic: Clinic) -> None:
    """Give the ids of the sessions again, as after the restore of an earlier backup and a new start."""
    remembered.forget_all()
    with clinic.inside() as session:
        connection = session.connection()
        connection.exec_driver_sql("DELETE FROM user_sessions")
        if connection.dialect.name == "postgresql":
            connection.exec_driver_sql("ALTER SEQUENCE user_sessions_id_seq RESTART")


def test_a_token_is_not_valid_for_a_later_session_with_the_same_id(
    make_clinic: MakeClinic, redis_server: RedisServer
) -> None:
    clinic = make_clinic(redis_url=redis_server.url)
    old = sign_in(clinic)
    reuse_ids(clinic)
    for _ in range(3):
        new = sign_in(clinic)  # one of them has the id of the old session
    assert me(clinic, old["access_token"]).status_code == 401
    assert refresh(clinic, old["refresh_token"]).status_code == 401
    Caller(clinic, old["access_token"]).post("/auth/logout")
    assert me(clinic, new["access_token"]).status_code == 200

    Caller(clinic, new["access_token"]).post("/auth/logout")
    reuse_ids(clinic)
    assert [me(clinic, sign_in(clinic)["access_token"]).status_code for _ in range(3)] == [200, 200, 200]


def test_tokens_of_earlier_versions_do_not_name_the_start_of_their_session(clinic: Clinic) -> None:
    pair, key = sign_in(clinic), clinic.settings.jwt_secret_key
    for name in ("access_token", "refresh_token"):
        claims = jwt.decode(pair[name], key, ["HS256"], audience="clinic")
        del claims["sst"]
        pair[name] = jwt.encode(claims, key, "HS256")

    assert me(clinic, pair["access_token"]).status_code == 200
    assert refresh(clinic, pair["refresh_token"]).status_code == 200
    Caller(clinic, pair["access_token"]).post("/auth/logout")
    assert me(clinic, pair["access_token"]).status_code == 401


# --- Redis ---------------------------------------------------------------------------------------------


def test_a_revoked_token_stays_revoked_whatever_redis_does(
    make_clinic: MakeClinic, redis_server: RedisServer
) -> None:
    clinic = make_clinic(redis_url=redis_server.url)
    ended, living = sign_in(clinic), sign_in(clinic)
    Caller(clinic, ended["access_token"]).post("/auth/logout")

    def judged() -> tuple[int, int, int]:
        return (
            me(clinic, ended["access_token"]).status_code,
            refresh(clinic, ended["refresh_token"]).status_code,
            me(clinic, living["access_token"]).status_code,
        )

    assert redis_store.status == "ok"
    assert judged() == (401, 401, 200)
    redis_server.flush()
    assert judged() == (401, 401, 200)
    redis_server.stop(keep=True)
    assert judged() == (401, 401, 200)
    assert redis_store.status == "degraded"
    redis_server.start()


def test_redis_alone_suffices_to_refuse(make_clinic: MakeClinic, redis_server: RedisServer) -> None:
    clinic = make_clinic(redis_url=redis_server.url)
    pair = sign_in(clinic)
    Caller(clinic, pair["access_token"]).post("/auth/logout")
    with clinic.inside() as session:
        session.connection().exec_driver_sql("UPDATE user_sessions SET ended_at = NULL")

    assert me(clinic, pair["access_token"]).status_code == 401


def test_a_frozen_redis_costs_one_short_wait_and_is_then_done_without(
    make_clinic: MakeClinic, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    clinic = make_clinic(redis_url=redis_server.url, rate_limit_enabled=True)
    ended, living = sign_in(clinic), sign_in(clinic)
    Caller(clinic, ended["access_token"]).post("/auth/logout")
    redis_server.freeze()
    try:
        first = me(clinic, living["access_token"])
        monkeypatch.setattr(redis_store, "_client", Untouchable())
        later = [me(clinic, pair["access_token"]).status_code for pair in (ended, living)]
        signed_in_meanwhile = sign_in(clinic)
    finally:
        monkeypatch.undo()
        redis_server.thaw()

    assert first.status_code == 200
    assert later == [401, 200]
    assert me(clinic, signed_in_meanwhile["access_token"]).status_code == 200


class Untouchable:
    """A Redis client that no request may use: only the probe looks whether it is back."""

    def ping(self) -> None:
        raise ConnectionError

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"Redis was asked to {name}")


def test_redis_is_used_again_when_it_is_back(make_clinic: MakeClinic, redis_server: RedisServer) -> None:
    clinic = make_clinic(redis_url=redis_server.url)
    pair = sign_in(clinic)
    redis_server.stop(keep=True)
    assert me(clinic, pair["access_token"]).status_code == 200
    assert redis_store.status == "degraded"

    redis_server.start()

    deadline = time.monotonic() + 120
    while redis_store.status != "ok" and time.monotonic() < deadline:
        time.sleep(0.1)
    assert redis_store.status == "ok"


def test_a_redis_that_does_not_answer_opens_the_circuit_breaker(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = RedisStore()
    store.init(redis_server.url)
    assert store.call(lambda client: client.set("name", "value"), False)
    calls: list[str] = []

    def get(client: redis.Redis) -> Any:
        calls.append("get")
        return client.get("name")

    # without its probe, which closes the breaker
    monkeypatch.setattr(RedisStore, "trip", lambda store: store._open.set())
    redis_server.freeze()
    try:
        replies = [store.call(get, None) for _ in range(3)]
    finally:
        redis_server.thaw()

    assert (replies, calls, store.status) == ([None] * 3, ["get"], "degraded")


def test_a_redis_that_forgot_its_scripts_still_counts(
    make_clinic: MakeClinic, redis_server: RedisServer
) -> None:
    clinic = make_clinic(
        redis_url=redis_server.url, rate_limit_enabled=True, rate_limit_default="3 per minute"
    )
    pair = sign_in(clinic)
    redis_server.flush()
    statuses = [me(clinic, pair["access_token"]).status_code for _ in range(2)]
    redis_server.forget_scripts()

    statuses += [me(clinic, pair["access_token"]).status_code for _ in range(2)]

    assert statuses == [200, 200, 200, 429]
    assert redis_store.status == "ok"


def test_the_breaker_asks_once_and_then_answers_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def broken(_client: Any) -> str:
        asked.append(1)
        raise ConnectionError

    monkeypatch.setattr("cache.redis.PROBE_INTERVAL", 60)
    store = RedisStore()
    store.init("redis://127.0.0.1:1/0")

    answers = [store.call(broken, "fallback") for _ in range(3)]

    assert answers == ["fallback"] * 3
    assert len(asked) == 1
    assert store.status == "degraded"
    store.init(None)
    assert store.status == "off"
