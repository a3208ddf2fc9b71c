"""People who leave while others act on them, and one session used by many at once."""

from __future__ import annotations

from enums import Role
from models import User
from tests.robustness.fleet import Call, Fleet, slot
from tests.robustness.scale import Scale
from tests.support.clinic import Caller

CLIENTS = 64


# --- Leaving -------------------------------------------------------------------------------------------


def test_a_doctor_who_leaves_keeps_no_appointment_that_nobody_knows_of(fleet: Fleet, scale: Scale) -> None:
    patients = [fleet.clinic.patient()["id"] for _ in range(12)]

    for turn in range(scale.rounds):
        doctor = fleet.clinic.doctor_row()["id"]
        bookings = [
            {"patient_id": patient, "doctor_id": doctor, "date": slot(turn * 12 + number)}
            for number, patient in enumerate(patients)
        ]

        answers = fleet.at_once(
            [fleet.later("POST", "/appointments", body) for body in bookings]
            + [fleet.later("DELETE", f"/doctors/{doctor}")] * 2
        )

        left = any(answer.status_code == 200 for answer in answers[12:])
        booked = sum(answer.status_code == 201 for answer in answers[:12])
        assert {answer.status_code for answer in answers} <= {200, 201, 409}
        assert booked == (0 if left else 12)
        assert fleet.get(f"/doctors/{doctor}")["is_active"] is not left


def test_a_patient_who_is_archived_has_nothing_booked_or_owed(fleet: Fleet, scale: Scale) -> None:
    doctor = fleet.clinic.doctor_row()["id"]
    item = {"description": "Consultation", "quantity": 1, "unit_price": "5.00"}

    for turn in range(scale.rounds):
        patient = fleet.clinic.patient()["id"]
        booking = {"patient_id": patient, "doctor_id": doctor, "date": slot(turn)}

        booked, billed, *archived = fleet.at_once(
            [
                fleet.later("POST", "/appointments", booking),
                fleet.later("POST", "/billings", {"patient_id": patient, "items": [item]}),
                *[fleet.later("DELETE", f"/patients/{patient}")] * 2,
            ]
        )

        row = fleet.get(f"/patients/{patient}")
        gone = any(answer.status_code == 200 for answer in archived)
        assert {answer.status_code for answer in archived} <= {200, 409}
        assert row["is_active"] is not gone
        assert booked.status_code == (409 if gone else 201)
        # a bill may come in after the patient has left, and is owed all the same
        assert billed.status_code == 201


def test_the_last_admin_stays(fleet: Fleet, scale: Scale) -> None:
    admins = [fleet.clinic.admin, *(fleet.clinic.sign_in("admin") for _ in range(3))]

    for _ in range(scale.rounds):
        fleet.at_once(
            [demoting(fleet, target, by) for target, by in zip(admins, admins[1:] + admins[:1], strict=True)]
        )

        with fleet.clinic.inside() as session:
            left = session.query(User).filter_by(role=Role.ADMIN, is_active=True).count()
            for admin in admins:
                session.get(User, admin.user_id).role = Role.ADMIN
        assert left >= 1


def demoting(fleet: Fleet, target: Caller, by: Caller) -> Call:
    return fleet.later("PATCH", f"/users/{target.user_id}", {"role": "receptionist"}, by=by)


def test_a_user_who_is_deactivated_is_nobody_from_then_on(fleet: Fleet, scale: Scale) -> None:
    for _ in range(scale.rounds):
        caller = fleet.clinic.sign_in("receptionist")

        answers = fleet.at_once(
            [fleet.later("GET", "/auth/me", by=caller)] * 16
            + [fleet.later("DELETE", f"/users/{caller.user_id}")]
        )

        assert answers[-1].status_code == 200
        assert {answer.status_code for answer in answers[:-1]} <= {200, 401}
        assert fleet.count([fleet.later("GET", "/auth/me", by=caller)] * 16) == {401: 16}


# --- Sessions ------------------------------------------------------------------------------------------


def refreshing(fleet: Fleet, token: str | None) -> Call:
    return fleet.later("POST", "/auth/refresh-token", Authorization=f"Bearer {token}")


def test_a_session_refreshed_many_times_at_once_survives(fleet: Fleet, scale: Scale) -> None:
    caller = fleet.clinic.sign_in("receptionist")
    token = caller.refresh_token

    for _ in range(scale.rounds):
        answers = fleet.at_once([refreshing(fleet, token)] * CLIENTS)

        assert {answer.status_code for answer in answers} == {200}
        for answer in answers[:4]:
            access = Caller(fleet.clinic, answer.json()["access_token"])
            assert fleet.send("GET", "/auth/me", by=access).status_code == 200
        token = answers[-1].json()["refresh_token"]


def test_a_stolen_older_token_ends_the_session_for_thief_and_owner(fleet: Fleet, scale: Scale) -> None:
    for _ in range(scale.rounds):
        caller = fleet.clinic.sign_in("receptionist")
        stolen = current = caller.refresh_token
        for _ in range(2):
            current = refreshing(fleet, current)().json()["refresh_token"]

        answers = fleet.at_once([refreshing(fleet, stolen)] * 8 + [refreshing(fleet, current)] * 8)

        assert {answer.status_code for answer in answers[:8]} == {401}
        assert {answer.status_code for answer in answers[8:]} <= {200, 401}
        assert refreshing(fleet, current)().status_code == 401
        assert fleet.send("GET", "/auth/me", by=caller).status_code == 401
