"""Races: deactivation of doctors, patients and users, and concurrent use of one session."""

from __future__ import annotations

from enums import Role
from models import User
from tests.robustness.cluster import Cluster, PreparedRequest, slot
from tests.robustness.load_level import LoadLevel
from tests.support.clinic import Caller

CLIENTS = 64


# --- Deactivation----------------------------------------------------------------------------------------


def test_a_deactivated_doctor_has_no_open_appointments(cluster: Cluster, level: LoadLevel) -> None:
    patients = [cluster.clinic.patient()["id"] for _ in range(12)]

    for turn in range(level.rounds):
        doctor = cluster.clinic.doctor_row()["id"]
        bookings = [
            {"patient_id": patient, "doctor_id": doctor, "date": slot(turn * 12 + number)}
            for number, patient in enumerate(patients)
        ]

        responses = cluster.send_concurrently(
            [cluster.prepare("POST", "/appointments", body) for body in bookings]
            + [cluster.prepare("DELETE", f"/doctors/{doctor}")] * 2
        )

        deactivated = any(response.status_code == 200 for response in responses[12:])
        booked = sum(response.status_code == 201 for response in responses[:12])
        assert {response.status_code for response in responses} <= {200, 201, 409}
        assert booked == (0 if deactivated else 12)
        assert cluster.get(f"/doctors/{doctor}")["is_active"] is not deactivated


def test_an_archived_patient_has_no_open_appointments(cluster: Cluster, level: LoadLevel) -> None:
    doctor = cluster.clinic.doctor_row()["id"]
    item = {"description": "Consultation", "quantity": 1, "unit_price": "5.00"}

    for turn in range(level.rounds):
        patient = cluster.clinic.patient()["id"]
        booking = {"patient_id": patient, "doctor_id": doctor, "date": slot(turn)}

        booked, billed, *archived = cluster.send_concurrently(
            [
                cluster.prepare("POST", "/appointments", booking),
                cluster.prepare("POST", "/billings", {"patient_id": patient, "items": [item]}),
                *[cluster.prepare("DELETE", f"/patients/{patient}")] * 2,
            ]
        )

        row = cluster.get(f"/patients/{patient}")
        is_archived = any(response.status_code == 200 for response in archived)
        assert {response.status_code for response in archived} <= {200, 409}
        assert row["is_active"] is not is_archived
        assert booked.status_code == (409 if is_archived else 201)
        assert billed.status_code == (409 if is_archived else 201)


def test_the_last_admin_keeps_the_role(cluster: Cluster, level: LoadLevel) -> None:
    admins = [cluster.clinic.admin, *(cluster.clinic.sign_in("admin") for _ in range(3))]

    for _ in range(level.rounds):
        cluster.send_concurrently(
            [demote(cluster, target, by) for target, by in zip(admins, admins[1:] + admins[:1], strict=True)]
        )

        with cluster.clinic.inside() as session:
            admin_count = session.query(User).filter_by(role=Role.ADMIN, is_active=True).count()
            for admin in admins:
                session.get(User, admin.user_id).role = Role.ADMIN
        assert admin_count >= 1


def demote(cluster: Cluster, target: Caller, by: Caller) -> PreparedRequest:
    return cluster.prepare("PATCH", f"/users/{target.user_id}", {"role": "receptionist"}, by=by)


def test_a_deactivated_user_is_refused_at_once(cluster: Cluster, level: LoadLevel) -> None:
    for _ in range(level.rounds):
        caller = cluster.clinic.sign_in("receptionist")

        responses = cluster.send_concurrently(
            [cluster.prepare("GET", "/auth/me", by=caller)] * 16
            + [cluster.prepare("DELETE", f"/users/{caller.user_id}")]
        )

        assert responses[-1].status_code == 200
        assert {response.status_code for response in responses[:-1]} <= {200, 401}
        assert cluster.count_statuses([cluster.prepare("GET", "/auth/me", by=caller)] * 16) == {401: 16}


# --- Sessions ------------------------------------------------------------------------------------------


def refresh(cluster: Cluster, token: str | None) -> PreparedRequest:
    return cluster.prepare("POST", "/auth/refresh-token", Authorization=f"Bearer {token}")


def test_a_session_survives_concurrent_refreshes(cluster: Cluster, level: LoadLevel) -> None:
    caller = cluster.clinic.sign_in("receptionist")
    token = caller.refresh_token

    for _ in range(level.rounds):
        responses = cluster.send_concurrently([refresh(cluster, token)] * CLIENTS)

        assert {response.status_code for response in responses} == {200}
        for response in responses[:4]:
            access = Caller(cluster.clinic, response.json()["access_token"])
            assert cluster.send("GET", "/auth/me", by=access).status_code == 200
        token = responses[-1].json()["refresh_token"]


def test_reuse_of_an_older_refresh_token_ends_the_session(cluster: Cluster, level: LoadLevel) -> None:
    for _ in range(level.rounds):
        caller = cluster.clinic.sign_in("receptionist")
        stolen = current = caller.refresh_token
        for _ in range(2):
            current = refresh(cluster, current)().json()["refresh_token"]

        responses = cluster.send_concurrently(
            [refresh(cluster, stolen)] * 8 + [refresh(cluster, current)] * 8
        )

        assert {response.status_code for response in responses[:8]} == {401}
        assert {response.status_code for response in responses[8:]} <= {200, 401}
        assert refresh(cluster, current)().status_code == 401
        assert cluster.send("GET", "/auth/me", by=caller).status_code == 401
