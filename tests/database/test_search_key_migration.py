"""Migration 0014: stored search keys become equal to the keys of searches."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from services.search_key import search_key
from tests.conftest import NewDatabase
from tests.support.database import connected, migrate

AT = "'2024-05-06 07:08:09.000000'"
ROWS = [
    "INSERT INTO patients (id, file_number, name, name_fold, search_fold, email, needs_review, is_active, "
    "version, created_at, updated_at) VALUES (1, 'P-1', 'Ann O’Connor–Li', 'ann o’connor–li', "
    f"'ann o’connor–li | a@b.c | p-1 |  | ', 'a@b.c', false, true, 1, {AT}, {AT})",
    "INSERT INTO medical_histories (id, patient_id, version, created_at, updated_at) "
    f"VALUES (1, 1, 1, {AT}, {AT})",
    "INSERT INTO allergies (id, medical_history_id, substance, substance_fold, severity) VALUES "
    "(1, 1, 'Beta-lactams', 'beta-lactams', 'unknown'), (2, 1, 'beta lactams', 'beta lactams', 'unknown'), "
    "(3, 1, 'Bee’s wax', 'bee’s wax', 'unknown')",
    "INSERT INTO conditions (medical_history_id, name, name_fold, status) "
    "VALUES (1, 'Crohn’s disease', 'crohn’s disease', 'active')",
]


@pytest.fixture
def url(database_at: NewDatabase) -> str:
    """Return the URL of a database before the migration, with rows."""
    url = database_at("0013")
    with connected(url) as engine, engine.begin() as connection:
        for statement in ROWS:
            connection.execute(text(statement))
    return url


def test_stored_keys_equal_the_keys_of_searches(url: str) -> None:
    migrate(url, "0014")

    with connected(url) as engine, engine.connect() as connection:
        patient = connection.execute(text("SELECT name, name_fold, search_fold FROM patients")).one()
        condition = connection.execute(text("SELECT name, name_fold FROM conditions")).one()
        allergies = connection.execute(text("SELECT id, substance_fold FROM allergies ORDER BY id")).all()
    assert patient[1:] == ("ann oconnor li", "ann oconnor li | a@b.c | p-1 |  | ")
    assert patient[1] == search_key(patient[0])
    assert tuple(condition) == ("Crohn’s disease", "crohns disease")
    # two allergens of one history may not share a key: one keeps its older key
    assert list(map(tuple, allergies)) == [(1, "beta-lactams"), (2, "beta lactams"), (3, "bees wax")]
