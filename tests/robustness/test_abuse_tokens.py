"""Forged tokens on every kind of endpoint: all are refused and change nothing."""

from __future__ import annotations

import random
from typing import Any

import pytest

from api.docs.registry import RegisteredEndpoint
from tests.robustness.abuse_targets import Target, count_tables, targets
from tests.robustness.abuse_tokens import forge_tokens
from tests.robustness.conftest import Figures
from tests.robustness.load_level import LoadLevel
from tests.support.clinic import Caller, Clinic
from tests.support.furnished import furnish

pytestmark = pytest.mark.filterwarnings("ignore::jwt.warnings.InsecureKeyLengthWarning")
REFUSALS = ("token_invalid", "token_expired", "token_revoked")


def kind(entry: RegisteredEndpoint) -> tuple[Any, ...]:
    """Return the properties that decide how an endpoint reads a token."""
    spec = entry.spec
    return (
        entry.method,
        bool(entry.path_ids),
        spec.body is not None,
        spec.list_spec is not None,
        entry.idempotent,
    )


def one_of_each_kind(endpoints: list[Target]) -> list[Target]:
    """Return one endpoint of every kind."""
    return list({kind(target.entry): target for target in endpoints}.values())


def test_forged_tokens_are_refused_by_every_endpoint(
    clinic: Clinic, level: LoadLevel, figures: Figures
) -> None:
    rows, victim = furnish(clinic), clinic.sign_in("admin")
    forgeries = forge_tokens(clinic, victim)
    protected = [target for target in targets(clinic, rows) if not target.entry.public]
    pairs = [(target, name) for target in protected for name in forgeries]
    if not level.long:  # every kind of endpoint with eight tokens, every endpoint with one, every token once
        rng, names = random.Random(3), list(forgeries)
        pairs = [(target, name) for target in one_of_each_kind(protected) for name in rng.sample(names, 8)]
        pairs += [(target, names[number % len(names)]) for number, target in enumerate(protected)]

    accepted = []
    with count_tables(clinic.settings.database_url) as stored:
        before = stored()
        for target, name in pairs:
            response = Caller(clinic, forgeries[name]).send(target.entry.method, target.path, target.body)
            if response.status_code != 401 or response.get_json()["error"] not in REFUSALS:
                accepted.append((str(target), name, response.status_code))
        assert stored() == before

    figures["forged tokens tried"] = len(pairs)
    assert accepted == []
    assert {name for _, name in pairs} == set(forgeries)
    assert len(forgeries) >= 20
    assert victim.get("/auth/me").status_code == 200


def test_forged_tokens_are_refused_as_cookie_and_for_refresh(clinic: Clinic) -> None:
    victim = clinic.sign_in("admin")

    for name, token in forge_tokens(clinic, victim).items():
        cookie = {"Cookie": f"access_token_cookie={token}", "Origin": "http://localhost"}
        responses = [
            clinic.nobody.get("/auth/me", headers=cookie),
            clinic.nobody.post("/patients", {"name": "Ada Quill"}, headers=cookie),
            Caller(clinic, token).post("/auth/register", {"name": "A", "email": "a@b.example"}),
        ]
        if name != "a refresh token":
            responses.append(clinic.nobody.post("/auth/refresh-token", {"refresh_token": token}))
        assert {response.status_code for response in responses} <= {401, 422}, name
        assert responses[0].status_code == responses[1].status_code == 401, name

    assert clinic.admin.get("/patients").get_json() == []


def test_sign_out_with_a_forged_token_ends_no_session(clinic: Clinic) -> None:
    victim = clinic.sign_in("admin")
    signed_by_the_application = {"expired", "a refresh token", "an ended session", "somebody deactivated"}

    for name, token in forge_tokens(clinic, victim).items():
        if name not in signed_by_the_application:
            assert Caller(clinic, token).post("/auth/logout").status_code == 200, name

    assert victim.get("/auth/me").status_code == 200
