"""Encrypted values: readable only under their key, for their purpose and in their place."""

from __future__ import annotations

import pytest

import config
from security.encryption import DecryptionError, decrypt, encrypt, is_current
from tests.conftest import settings_for

NEW, OLD = "n3W5k8Xq" * 5, "o1D7m4Rz" * 5
TEXT = "Zażółć Kowalska".encode()


def use_keys(current: str, *previous: str) -> None:
    config.use(settings_for("sqlite:////nowhere", data_key=current, data_keys_previous=previous))


def test_a_value_is_decrypted_in_its_place_only() -> None:
    use_keys(OLD)
    token = encrypt("factor", TEXT, context=b"user 1")

    assert decrypt("factor", token, context=b"user 1") == TEXT
    assert TEXT not in token
    assert encrypt("factor", TEXT, context=b"user 1") != token
    for purpose, context in (("response", b"user 1"), ("factor", b"user 2"), ("factor", b"")):
        with pytest.raises(DecryptionError):
            decrypt(purpose, token, context=context)


def test_a_changed_or_cut_value_is_refused() -> None:
    use_keys(OLD)
    token = encrypt("factor", TEXT)

    for position in range(len(token)):
        changed = bytearray(token)
        changed[position] ^= 1
        for wrong in (bytes(changed), token[:position]):
            with pytest.raises(DecryptionError):
                decrypt("factor", wrong)


def test_an_earlier_key_decrypts_and_the_current_key_encrypts() -> None:
    use_keys(OLD)
    before = encrypt("factor", TEXT)

    use_keys(NEW, OLD)
    after = encrypt("factor", TEXT)

    assert (decrypt("factor", before), decrypt("factor", after)) == (TEXT, TEXT)
    assert (is_current(before), is_current(after)) == (False, True)
    use_keys(NEW)
    assert decrypt("factor", after) == TEXT
    with pytest.raises(DecryptionError, match="is not in DATA_KEY or its earlier keys"):
        decrypt("factor", before)
