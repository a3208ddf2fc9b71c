"""Many at once, on several worker processes: exactly one winner, no false refusal, nothing lost.

The application runs as in production, under gunicorn with four workers, on PostgreSQL and on SQLite.
"""

from __future__ import annotations

import collections
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import requests

from models import Role, User
from tests.clinic import Clinic
from tests.conftest import ENGINES, settings_for
from tests.servers import ROOT, AppServer, PostgresServer, start_app

CLIENTS = 64


class Fleet:
    """The application on four workers, and as many clients as a race needs."""

    def __init__(self, server: AppServer, clinic: Clinic) -> None:
        self.server, self.clinic = server, clinic
        self.token = clinic.admin.token
        self.local = threading.local()

    def send(self, method: str, path: str, body: Any = None, **headers: str) -> requests.Response:
        """One request of the admin, on this thread's own connection."""
        if not hasattr(self.local, "session"):
            self.local.session = requests.Session()
        headers.setdefault("Authorization", f"Bearer {self.token}")
        found: requests.Response = self.local.session.request(
            method, self.server.url + path, json=body, headers=headers, timeout=60
        )
        return found

    def at_once(self, calls: list[Callable[[], requests.Response]]) -> list[requests.Response]:
        """All calls started together; their answers."""
        barrier = threading.Barrier(len(calls))

        def run(call: Callable[[], requests.Response]) -> requests.Response:
            barrier.wait()
            return call()

        with ThreadPoolExecutor(len(calls)) as pool:
            return list(pool.map(run, calls))

    def count(self, calls: list[Callable[[], requests.Response]]) -> dict[int, int]:
        """How often each status was answered."""
        return dict(collections.Counter(answer.status_code for answer in self.at_once(calls)))


@pytest.fixture(scope="module", params=ENGINES)
def workers(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Four workers on a database of each engine, for all races: starting them takes longer than a race."""
    if request.param == "sqlite":
        path = tmp_path_factory.mktemp("races") / "clinic.db"
        shutil.copy(request.getfixturevalue("sqlite_template"), path)
        url = f"sqlite:///{path}"
    else:
        postgres: PostgresServer = request.getfixturevalue("postgres")
        url = postgres.clone(request.getfixturevalue("postgres_template"))
    clinic = Clinic(settings_for(url))
    settings = clinic.settings
    server = start_app(
        url,
        workers=4,
        env={
            "JWT_SECRET_KEY": settings.jwt_secret_key,
            "AUDIT_KEY": settings.audit_key,
            "AUDIT_HEADS_FILE": str(settings.heads_file),
        },
    )
    yield Fleet(server, clinic)
    server.stop()
    clinic.close()


@pytest.fixture
def fleet(workers: Fleet) -> Iterator[Fleet]:
    """A race, after which everything that must be true still is."""
    yield workers
    assert_well(workers.clinic)


def assert_well(clinic: Clinic) -> None:
    """Afterwards every invariant holds, and the audit's chains are whole."""
    for command in (["verify"], ["audit", "verify"]):
        result = clinic.app.test_cli_runner().invoke(args=command)
        assert result.exit_code == 0, result.output


def slot(number: int) -> str:
    """The start of the n-th half hour from tomorrow midnight on."""
    midnight = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
    return (midnight + timedelta(minutes=30 * number)).isoformat()


def number_of(bill: dict[str, Any]) -> int:
    """The running number of an invoice within its year."""
    return int(bill["invoice_number"].rsplit("-", 1)[1])


def test_one_slot_is_booked_once(fleet: Fleet) -> None:
    doctor = fleet.clinic.doctor_row()["id"]
    patients = [fleet.clinic.patient()["id"] for _ in range(CLIENTS)]

    statuses = fleet.count(
        [
            lambda patient=patient: fleet.send(
                "POST", "/appointments", {"patient_id": patient, "doctor_id": doctor, "date": slot(20)}
            )
            for patient in patients
        ]
    )

    assert statuses == {201: 1, 409: CLIENTS - 1}


def test_different_free_times_are_all_booked(fleet: Fleet) -> None:
    doctor = fleet.clinic.doctor_row()["id"]
    patients = [fleet.clinic.patient()["id"] for _ in range(CLIENTS)]

    statuses = fleet.count(
        [
            lambda number=number, patient=patient: fleet.send(
                "POST", "/appointments", {"patient_id": patient, "doctor_id": doctor, "date": slot(number)}
            )
            for number, patient in enumerate(patients)
        ]
    )

    assert statuses == {201: CLIENTS}


def test_a_bill_is_not_paid_beyond_its_amount(fleet: Fleet) -> None:
    bill = fleet.clinic.bill("100.00")

    answers = fleet.at_once(
        [
            lambda: fleet.send(
                "POST", f"/billings/{bill['id']}/payments", {"amount": "40.00", "method": "cash"}
            )
        ]
        * CLIENTS
    )

    accepted = [answer for answer in answers if answer.status_code in (200, 201)]
    assert len(accepted) == 2
    assert {answer.status_code for answer in answers} - {200, 201} == {409}
    assert fleet.send("GET", f"/billings/{bill['id']}").json()["amount_paid"] == "80.00"


def test_stock_is_not_used_twice(fleet: Fleet) -> None:
    item = fleet.clinic.item(10)

    answers = fleet.at_once(
        [lambda: fleet.send("POST", f"/inventory/{item['id']}/movements", {"type": "usage", "quantity": 1})]
        * CLIENTS
    )

    assert collections.Counter(answer.status_code for answer in answers) == {201: 10, 409: CLIENTS - 10}
    assert fleet.send("GET", f"/inventory/{item['id']}").json()["quantity"] == 0


def test_treatments_that_name_items_in_opposite_order_do_not_deadlock(fleet: Fleet) -> None:
    visit = fleet.clinic.visit()
    one, two = fleet.clinic.item(16)["id"], fleet.clinic.item(16)["id"]

    def treat(first: int, second: int) -> requests.Response:
        items = [{"item_id": first, "quantity": 1}, {"item_id": second, "quantity": 1}]
        return fleet.send(
            "POST",
            "/treatments",
            {"visit_id": visit["id"], "name": "Dressing", "cost": "1.00", "inventory_items": items},
        )

    statuses = fleet.count([lambda: treat(one, two), lambda: treat(two, one)] * 16)

    assert statuses == {201: 16, 409: 16}


def test_one_idempotency_key_has_one_effect(fleet: Fleet) -> None:
    body = {"name": "Once Only"}

    answers = fleet.at_once(
        [lambda: fleet.send("POST", "/patients", body, **{"Idempotency-Key": "registration-1"})] * 32
    )

    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert sum("Idempotency-Replayed" not in answer.headers for answer in answers) == 1
    assert fleet.send("GET", "/patients?name=Once%20Only").headers["X-Total-Count"] == "1"


def test_one_version_is_changed_once(fleet: Fleet) -> None:
    patient = fleet.clinic.patient()

    statuses = fleet.count(
        [
            lambda number=number: fleet.send(
                "PATCH", f"/patients/{patient['id']}", {"address": f"Lane {number}"}, **{"If-Match": '"1"'}
            )
            for number in range(32)
        ]
    )

    assert statuses == {200: 1, 412: 31}


def test_changes_of_different_fields_are_both_kept(fleet: Fleet) -> None:
    patient = fleet.clinic.patient()
    path = f"/patients/{patient['id']}"

    fleet.at_once(
        [
            lambda: fleet.send("PATCH", path, {"address": "Harbour Lane 1"}),
            lambda: fleet.send("PATCH", path, {"insurance_provider": "Harbour Mutual"}),
        ]
    )

    row = fleet.send("GET", path).json()
    assert (row["address"], row["insurance_provider"]) == ("Harbour Lane 1", "Harbour Mutual")


def test_a_unique_value_is_taken_once(fleet: Fleet) -> None:
    body = {"name": "Ada Quill", "specialty": "surgery", "license_number": "LIC-RACE"}

    statuses = fleet.count([lambda: fleet.send("POST", "/doctors", body)] * 32)

    assert statuses == {201: 1, 409: 31}


def test_invoice_numbers_have_no_gap_and_no_twin(fleet: Fleet) -> None:
    patient = fleet.clinic.patient()["id"]
    items = [{"description": "Consultation", "quantity": 1, "unit_price": "10.00"}]
    first = number_of(fleet.clinic.bill("1.00"))

    answers = fleet.at_once(
        [lambda: fleet.send("POST", "/billings", {"patient_id": patient, "items": items})] * 32
    )

    assert sorted(number_of(answer.json()) for answer in answers) == list(range(first + 1, first + 33))


def test_the_last_admin_stays(fleet: Fleet) -> None:
    others = [fleet.clinic.sign_in("admin") for _ in range(3)]
    admins = [fleet.clinic.admin, *others]

    fleet.at_once(
        [
            lambda target=target, by=by: fleet.send(
                "PATCH",
                f"/users/{target.user_id}",
                {"role": "receptionist"},
                Authorization=f"Bearer {by.token}",
            )
            for target, by in zip(admins, admins[1:] + admins[:1], strict=True)
        ]
    )

    with fleet.clinic.inside() as session:
        left = session.query(User).filter_by(role=Role.ADMIN, is_active=True).count()
        for admin in admins:
            session.get(User, admin.user_id).role = Role.ADMIN
    assert left >= 1


def test_a_session_refreshed_many_times_at_once_survives(fleet: Fleet) -> None:
    caller = fleet.clinic.sign_in("receptionist")

    answers = fleet.at_once(
        [lambda: fleet.send("POST", "/auth/refresh-token", Authorization=f"Bearer {caller.refresh_token}")]
        * CLIENTS
    )

    assert {answer.status_code for answer in answers} == {200}
    for answer in answers[:4]:
        token = answer.json()["access_token"]
        assert fleet.send("GET", "/auth/me", Authorization=f"Bearer {token}").status_code == 200


def test_the_commands_agree_from_outside(fleet: Fleet) -> None:
    fleet.clinic.patient()

    environment = {
        "DATABASE_URI": fleet.clinic.settings.database_uri or "",
        "JWT_SECRET_KEY": fleet.clinic.settings.jwt_secret_key,
        "AUDIT_KEY": fleet.clinic.settings.audit_key,
        "AUDIT_HEADS_FILE": str(fleet.clinic.settings.heads_file),
    }
    result = subprocess.run(
        [sys.executable, "-m", "flask", "--app", "app", "verify"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert (result.returncode, result.stdout) == (0, "")
