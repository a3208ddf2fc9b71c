"""Forged tokens on every kind of route: none is taken for a genuine one, and none does anything."""

from __future__ import annotations

import random
from typing import Any

import pytest

from api.docs.registry import RegisteredEndpoint
from tests.robustness.abuse_targets import Target, targets, witness
from tests.robustness.abuse_tokens import forged
from tests.robustness.conftest import Figures
from tests.robustness.scale import Scale
from tests.support.clinic import Caller, Clinic
from tests.support.furnished import furnish

pytestmark = pytest.mark.filterwarnings("ignore::jwt.warnings.InsecureKeyLengthWarning")
REFUSALS = ("token_invalid", "token_expired", "token_revoked")


def kind(entry: RegisteredEndpoint) -> tuple[Any, ...]:
    """What routes have in common that a token is read for."""
    operation = entry.spec
    return (
        entry.method,
        bool(entry.path_ids),
        operation.body is not None,
        operation.list_spec is not None,
        entry.idempotent,
    )


def one_of_each_kind(found: list[Target]) -> list[Target]:
    """A route of every kind."""
    return list({kind(one.entry): one for one in found}.values())


def test_no_forged_token_opens_anything(clinic: Clinic, scale: Scale, figures: Figures) -> None:
    rows, victim = furnish(clinic), clinic.sign_in("admin")
    forgeries = forged(clinic, victim)
    closed = [one for one in targets(clinic, rows) if not one.entry.public]
    pairs = [(one, name) for one in closed for name in forgeries]
    if not scale.long:  # every kind of route by a few forgeries, every route by one, every forgery
        few, names = random.Random(3), list(forgeries)
        pairs = [(one, name) for one in one_of_each_kind(closed) for name in few.sample(names, 8)]
        pairs += [(one, names[number % len(names)]) for number, one in enumerate(closed)]

    accepted = []
    with witness(clinic.settings.database_url) as stored:
        before = stored()
        for one, name in pairs:
            answer = Caller(clinic, forgeries[name]).send(one.entry.method, one.path, one.body)
            if answer.status_code != 401 or answer.get_json()["error"] not in REFUSALS:
                accepted.append((str(one), name, answer.status_code))
        assert stored() == before

    figures["forged tokens tried"] = len(pairs)
    assert accepted == []
    assert {name for _, name in pairs} == set(forgeries)
    assert len(forgeries) >= 20
    assert victim.get("/auth/me").status_code == 200


def test_no_forged_token_passes_as_cookie_or_for_refreshing(clinic: Clinic) -> None:
    victim = clinic.sign_in("admin")

    for name, token in forged(clinic, victim).items():
        cookie = {"Cookie": f"access_token_cookie={token}", "Origin": "http://localhost"}
        asked = [
            clinic.nobody.get("/auth/me", headers=cookie),
            clinic.nobody.post("/patients", {"name": "Ada Quill"}, headers=cookie),
            Caller(clinic, token).post("/auth/register", {"name": "A", "email": "a@b.example"}),
        ]
        if name != "a refresh token":
            asked.append(clinic.nobody.post("/auth/refresh-token", {"refresh_token": token}))
        assert {answer.status_code for answer in asked} <= {401, 422}, name
        assert asked[0].status_code == asked[1].status_code == 401, name

    assert clinic.admin.get("/patients").get_json() == []


def test_signing_out_with_a_forged_token_ends_nobodys_session(clinic: Clinic) -> None:
    victim = clinic.sign_in("admin")
    genuine = {"expired", "a refresh token", "an ended session", "somebody deactivated"}

    for name, token in forged(clinic, victim).items():
        if name not in genuine:
            assert Caller(clinic, token).post("/auth/logout").status_code == 200, name

    assert victim.get("/auth/me").status_code == 200
