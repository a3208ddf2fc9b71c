"""Encrypted files: read back whole, and refused after every kind of damage."""

from __future__ import annotations

import io
import tracemalloc
from collections.abc import Callable
from contextlib import suppress

import pytest

import config
from security.encrypted_file import CHUNK_SIZE, TAG_SIZE, EncryptedFileError, key_id, reader, writer
from security.key_rings import Key
from tests.conftest import settings_for

KEY, OTHER = "n3W5k8Xq" * 5, "o1D7m4Rz" * 5
STORED = CHUNK_SIZE + TAG_SIZE


@pytest.fixture(autouse=True)
def one_key() -> None:
    config.use(settings_for("sqlite:////nowhere", backup_key=KEY))


def encrypted(content: bytes) -> bytes:
    target = io.BytesIO()
    with writer(target) as stream:
        stream.write(content)
    return target.getvalue()


def decrypted(file: bytes) -> bytes:
    source = io.BytesIO(file)
    return reader(source.readline(), source).read()


@pytest.mark.parametrize("size", [0, 1, CHUNK_SIZE - 1, CHUNK_SIZE, CHUNK_SIZE + 1, 3 * CHUNK_SIZE])
def test_a_file_of_any_size_is_read_back(size: int) -> None:
    content = bytes(range(251)) * (size // 251 + 1)

    file = encrypted(content[:size])

    assert decrypted(file) == content[:size]
    assert len(file.partition(b"\n")[2]) == size + TAG_SIZE * max(1, -(-size // CHUNK_SIZE))


def chunks(file: bytes) -> list[bytes]:
    """Return the header line and the chunks of a file."""
    header, _, rest = file.partition(b"\n")
    return [header + b"\n", *(rest[start : start + STORED] for start in range(0, len(rest), STORED))]


DAMAGES: dict[str, Callable[[list[bytes], list[bytes]], list[bytes]]] = {
    "without the last chunk": lambda file, _: file[:-1],
    "without the first chunk": lambda file, _: [file[0], *file[2:]],
    "without any chunk": lambda file, _: file[:1],
    "without a chunk in the middle": lambda file, _: [*file[:2], *file[3:]],
    "two chunks swapped": lambda file, _: [file[0], file[2], file[1], *file[3:]],
    "a chunk twice": lambda file, _: [*file[:2], file[1], *file[2:]],
    "the last chunk twice": lambda file, _: [*file, file[-1]],
    "bytes at the end": lambda file, _: [*file, b"x"],
    "a cut chunk": lambda file, _: [*file[:-1], file[-1][:-1]],
    "a chunk of another file": lambda file, other: [*file[:2], other[2], *file[3:]],
    "the chunks of another file": lambda file, other: [file[0], *other[1:]],
    "another salt": lambda file, _: [file[0].replace(b'"salt": "', b'"salt": "00'), *file[1:]],
    "a salt that is none": lambda file, _: [file[0].replace(b'"salt": "', b'"salt": "x'), *file[1:]],
    "no salt": lambda file, _: [file[0].replace(b"salt", b"malt"), *file[1:]],
    "a space in the header": lambda file, _: [file[0].replace(b", ", b",  "), *file[1:]],
    "an unknown key": lambda file, _: [file[0].replace(b'key_id": "', b'key_id": "0'), *file[1:]],
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_file_is_refused(name: str) -> None:
    content = b"content" * 30_000
    file, other = chunks(encrypted(content)), chunks(encrypted(content))
    assert len(file) == 5

    with pytest.raises(EncryptedFileError):
        decrypted(b"".join(DAMAGES[name](file, other)))


def test_a_change_of_any_byte_is_refused() -> None:
    file = encrypted(b"content")

    for position in range(len(file)):
        changed = bytearray(file)
        changed[position] ^= 1
        with pytest.raises(EncryptedFileError):
            decrypted(bytes(changed))


def test_an_unfinished_file_is_refused() -> None:
    target = io.BytesIO()
    with suppress(ZeroDivisionError), writer(target) as stream:
        stream.write(b"content" * 30_000)
        raise ZeroDivisionError

    with pytest.raises(EncryptedFileError):
        decrypted(target.getvalue())


def test_the_header_names_the_key() -> None:
    file = encrypted(b"content")
    assert key_id(file.partition(b"\n")[0]) == Key.of(KEY).id

    config.use(settings_for("sqlite:////nowhere", backup_key=OTHER))
    with pytest.raises(EncryptedFileError, match=f"'{Key.of(KEY).id}', which is not in BACKUP_KEY"):
        decrypted(file)
    config.use(settings_for("sqlite:////nowhere", backup_key=OTHER, backup_keys_previous=[KEY]))
    assert decrypted(file) == b"content"


@pytest.mark.parametrize("line", [b"", b"\xff", b"[]", b"{}", b'"key_id"', b'{"key_id": 7}', b"[" * 1000])
def test_other_lines_name_no_key(line: bytes) -> None:
    assert key_id(line) is None


def test_memory_does_not_grow_with_the_file() -> None:
    class Sink(io.RawIOBase):
        def write(self, data: object) -> int:
            return len(data)  # type: ignore[arg-type]

    part = bytes(1 << 20)
    tracemalloc.start()
    with writer(Sink()) as stream:  # type: ignore[arg-type]
        for _ in range(32):
            stream.write(part)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert peak < 8 << 20
