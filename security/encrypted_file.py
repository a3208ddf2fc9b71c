"""Encrypted files: AES-256-GCM in chunks, for any size with little memory.

A file has a header line and chunks of 64 KiB. The header names the key of `BACKUP_KEY` and a random salt.
Each file has a key of its own, derived from both. The nonce of a chunk is its number and a mark of the last
chunk. Its associated data is the header. So a file is refused if it is changed, cut, extended, reordered, or
mixed with another one. This is the construction STREAM (Hoang, Reyhanitabar, Rogaway, Vizár, CRYPTO 2015).
"""

from __future__ import annotations

import io
import json
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from security.key_rings import Key, RingName, ring

RING: RingName = "BACKUP_KEY"
VERSION = 2  # 1 had no encryption
CHUNK_SIZE = 1 << 16  # bytes of plaintext
TAG_SIZE = 16
SALT_SIZE = 32


class EncryptedFileError(Exception):
    """An encrypted file that is damaged, or whose key is not in the ring."""


class _Chunks:
    """The cipher of one file, with the number of the next chunk."""

    def __init__(self, key: Key, salt: bytes, header_line: bytes) -> None:
        self.cipher, self.header_line = AESGCM(key.derive("backup", salt=salt)), header_line
        self.number = 0

    def next_nonce(self, *, is_last: bool) -> bytes:
        """Return the nonce of the next chunk."""
        self.number += 1
        return self.number.to_bytes(11, "big") + bytes([is_last])


class _Writer(io.RawIOBase):
    """A stream that encrypts. It keeps the last chunk until `finish`, because only that one has the mark."""

    def __init__(self, target: IO[bytes]) -> None:
        key, salt = ring(RING).current, secrets.token_bytes(SALT_SIZE)
        header = {"encryption": "AES-256-GCM", "version": VERSION, "key_id": key.id, "salt": salt.hex()}
        header_line = json.dumps(header).encode() + b"\n"
        self.target, self.chunks, self.rest = target, _Chunks(key, salt, header_line), bytearray()
        target.write(header_line)

    def writable(self) -> bool:
        """Return True."""
        return True

    def write(self, data: Any) -> int:
        """Encrypt all chunks that are complete and not the last one."""
        self.rest += data
        start = 0
        while len(self.rest) - start > CHUNK_SIZE:
            self._write_chunk(self.rest[start : start + CHUNK_SIZE], is_last=False)
            start += CHUNK_SIZE
        del self.rest[:start]
        return len(data)

    def finish(self) -> None:
        """Write the last chunk."""
        self._write_chunk(self.rest, is_last=True)

    def _write_chunk(self, plaintext: bytearray, *, is_last: bool) -> None:
        nonce = self.chunks.next_nonce(is_last=is_last)
        self.target.write(self.chunks.cipher.encrypt(nonce, bytes(plaintext), self.chunks.header_line))


@contextmanager
def writer(target: IO[bytes]) -> Iterator[IO[bytes]]:
    """Yield a stream that writes an encrypted file to `target`. After an error the file has no last chunk."""
    raw = _Writer(target)
    with io.BufferedWriter(raw, CHUNK_SIZE) as stream:
        yield stream
        stream.flush()
        raw.finish()


class _Reader(io.RawIOBase):
    """A stream that decrypts."""

    def __init__(self, chunks: _Chunks, source: IO[bytes]) -> None:
        self.chunks, self.source = chunks, source
        self.following = source.read(CHUNK_SIZE + TAG_SIZE)
        self.plaintext = memoryview(b"")
        self.at_end = False

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read decrypted bytes. Raise `EncryptedFileError` for a chunk that is not valid."""
        while not self.plaintext and not self.at_end:
            self._read_chunk()
        size = min(len(buffer), len(self.plaintext))
        buffer[:size], self.plaintext = self.plaintext[:size], self.plaintext[size:]
        return size

    def _read_chunk(self) -> None:
        chunk, self.following = self.following, self.source.read(CHUNK_SIZE + TAG_SIZE)
        self.at_end = not self.following
        nonce = self.chunks.next_nonce(is_last=self.at_end)
        try:
            plaintext = self.chunks.cipher.decrypt(nonce, chunk, self.chunks.header_line)
        except InvalidTag:
            raise EncryptedFileError("damaged or truncated") from None
        self.plaintext = memoryview(plaintext)


def key_id(header_line: bytes) -> str | None:
    """Return the key id of an encrypted file, None for a file of another kind."""
    try:
        header = json.loads(header_line)
    except (ValueError, RecursionError):  # a deeply nested line
        return None
    found = header.get("key_id") if isinstance(header, dict) else None
    return found if isinstance(found, str) else None


def reader(header_line: bytes, source: IO[bytes]) -> IO[bytes]:
    """Return a stream of the decrypted file, which continues after its header line in `source`.

    Raise `EncryptedFileError` if the ring lacks the key. Reading raises it for damage.
    """
    name = key_id(header_line) or ""
    key = ring(RING).find(name)
    if key is None:
        problem = f"encrypted under the key {name!r:.20}, which is not in {RING} or its earlier keys"
        raise EncryptedFileError(problem)
    try:
        salt = bytes.fromhex(json.loads(header_line)["salt"])
    except (LookupError, ValueError, TypeError):
        raise EncryptedFileError("damaged") from None
    return io.BufferedReader(_Reader(_Chunks(key, salt, header_line), source), CHUNK_SIZE)
