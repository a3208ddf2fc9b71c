"""Key rings: ids of keys, the choice of a key, and derived keys."""

from __future__ import annotations

import pytest

import config
from security.key_rings import RING_NAMES, Key, ring
from tests.conftest import settings_for

NEW, OLD = "n3W5k8Xq" * 5, "o1D7m4Rz" * 5


@pytest.fixture(autouse=True)
def two_keys() -> None:
    config.use(settings_for("sqlite:////nowhere", audit_key=NEW, audit_keys_previous=[OLD]))


def test_the_id_depends_only_on_the_key_and_does_not_show_it() -> None:
    new = ring("AUDIT_KEY").current

    assert new.id == Key.of(NEW).id != Key.of(OLD).id
    assert len(new.id) == 16
    assert new.id not in NEW
    assert NEW not in repr(ring("AUDIT_KEY"))
    assert bytes.fromhex(new.id) != new.derive("key id")[:8]


@pytest.mark.parametrize(
    ("key_id", "keys"),
    [
        (None, [NEW, OLD]),
        (Key.of(NEW).id, [NEW]),
        (Key.of(OLD).id, [OLD]),
        (Key.of("unknown").id, []),
        ("", []),
    ],
)
def test_a_key_is_chosen_by_its_id(key_id: str | None, keys: list[str]) -> None:
    assert [key.secret for key in ring("AUDIT_KEY").candidates(key_id)] == [key.encode() for key in keys]


def test_the_rings_have_the_keys_of_their_settings() -> None:
    assert len({ring(name).current.id for name in RING_NAMES}) == len(RING_NAMES)
    assert [len(ring(name).keys) for name in RING_NAMES] == [1, 2, 1, 1]


def test_each_purpose_and_each_salt_has_its_own_key() -> None:
    key = ring("AUDIT_KEY").current

    derived = {key.derive("a"), key.derive("b"), key.derive("a", salt=b"1" * 32), key.secret}

    assert len(derived) == 4
    assert key.derive("a") == Key.of(NEW).derive("a")
