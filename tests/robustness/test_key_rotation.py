"""A rotation of keys while clients write: no failed request, and a chain that three keys verify."""

from __future__ import annotations

import itertools
import json
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import requests
from sqlalchemy import func, select

from config import SECRETS
from models import AuditLog
from tests.conftest import NewDatabase, settings_for
from tests.robustness.conftest import Figures
from tests.support.clinic import PASSWORD, Clinic
from tests.support.servers import AppServer, start_app

WRITERS = 20
EARLIEST, OLD, NEW = (
    {name: f"{word} {name} " + "k7Q2x9Zr" * 4 for name in SECRETS} for word in ("earliest", "old", "new")
)
Ring = list[dict[str, str]]  # the current keys, then the earlier ones


def ring_settings(keys: Ring) -> dict[str, str]:
    """Return the variables of all rings."""
    current, *previous = keys
    arrays = {f"{name}S_PREVIOUS": json.dumps([key[name] for key in previous]) for name in SECRETS}
    return current | arrays


def write(name: str, one: AppServer, other: AppServer, email: str) -> list[int]:
    """Sign in at one server, write at the other one, and repeat the request at the first one."""
    with requests.Session() as session:
        credentials = {"email": email, "password": PASSWORD}
        signed_in = session.post(one.url + "/auth/login", json=credentials, timeout=60)
        session.cookies.clear()
        token = signed_in.json()["access_token"]
        headers = {"Authorization": f"Bearer {token}", "Idempotency-Key": name}
        answers = [
            session.post(f"{server.url}/patients", json={"name": name}, headers=headers, timeout=60)
            for server in (other, one)
        ]
    assert answers[1].json() == answers[0].json(), answers[1].text
    assert answers[1].headers["Idempotency-Replayed"] == "true"
    return [signed_in.status_code, *(answer.status_code for answer in answers)]


def test_clients_that_write_notice_no_rotation(
    engine_name: str, new_database: NewDatabase, figures: Figures
) -> None:
    url = new_database(engine_name)
    clinic = Clinic(settings_for(url, **lower(ring_settings([EARLIEST]))))
    email = "rita@clinic.example"
    clinic.admin.make("/users", name="Rita", email=email, password=PASSWORD, role="receptionist")
    before, first_step, second_step = [OLD, EARLIEST], [OLD, NEW, EARLIEST], [NEW, OLD, EARLIEST]

    def start(keys: Ring) -> AppServer:
        heads = {"AUDIT_HEADS_FILE": str(clinic.settings.heads_file)}
        return start_app(url, workers=1, env=ring_settings(keys) | heads)

    statuses: list[int] = []
    with ExitStack() as stack, ThreadPoolExecutor(WRITERS) as pool:
        servers = list(pool.map(start, (before, first_step, second_step)))
        for server in servers:
            stack.callback(server.stop)
        # during a reload, processes of two steps that follow each other serve side by side
        for step, (one, other) in enumerate(itertools.pairwise(servers)):
            for result in pool.map(
                lambda number, pair: write(f"Patient {number}", *pair, email),
                range(step * WRITERS, (step + 1) * WRITERS),
                itertools.cycle([(one, other), (other, one)]),
            ):
                statuses += result

    clinic.close()
    clinic = Clinic(settings_for(url, **lower(ring_settings(second_step))))
    verified = [clinic.app.test_cli_runner().invoke(args=args) for args in (["audit", "verify"], ["verify"])]
    with clinic.inside() as session:
        used = session.execute(select(func.count(AuditLog.key_id.distinct()))).scalar_one()
    clinic.close()
    figures["requests during the rotation"] = len(statuses)
    assert set(statuses) == {200, 201}
    assert len(statuses) == 2 * WRITERS * 3
    assert [result.exit_code for result in verified] == [0, 0], [result.output for result in verified]
    assert used == 3


def lower(variables: dict[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in variables.items()}
