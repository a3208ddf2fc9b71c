"""Changes of `.env`: all at once, without a change of the other lines, its owner or its rights."""

from __future__ import annotations

import fcntl
import io
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import click
from dotenv import dotenv_values
from dotenv.parser import parse_stream

PRIVATE = 0o640  # the group may read: the service reads a file of root


def read(file: Path, names: Iterable[str]) -> dict[str, str]:
    """Return variables of the file. A variable that is absent is empty."""
    text = file.read_text(encoding="utf-8") if file.exists() else ""
    return _values(text, names)


def change(file: Path, before: Mapping[str, str], after: Mapping[str, str]) -> None:
    """Change variables of the file. End the command if they do not have the values `before` any more."""
    file = file.resolve()
    try:
        with _locked(file.parent):
            text = file.read_text(encoding="utf-8")
            if _values(text, before) != before:
                raise click.ClickException(f"{file} was changed meanwhile. Run the command again.")
            text = _replaced(text, after)
            if _values(text, after) != after:  # a key with a character that has a meaning in the file
                raise click.ClickException(f"A key cannot be written to {file}. Change it by hand.")
            _replace(file, text)
    except OSError as error:
        problem = f"{file}: {error.strerror}. Run the command as the owner of the file."
        raise click.ClickException(problem) from None


def _values(text: str, names: Iterable[str]) -> dict[str, str]:
    stored = dotenv_values(stream=io.StringIO(text))
    return {name: stored.get(name) or "" for name in names}


def _replaced(text: str, values: Mapping[str, str]) -> str:
    rest, parts = dict(values), []
    for binding in parse_stream(io.StringIO(text)):
        original = binding.original.string
        if binding.key not in values:
            parts.append(original)
        elif binding.key in rest:
            indent = original[: len(original) - len(original.lstrip())]
            parts.append(f"{indent}{binding.key}={rest.pop(binding.key)}\n")
    if parts and not parts[-1].endswith("\n"):
        parts.append("\n")
    return "".join(parts) + "".join(f"{name}={value}\n" for name, value in rest.items())


def _replace(file: Path, text: str) -> None:
    rights = file.stat()
    descriptor, name = tempfile.mkstemp(dir=file.parent, prefix=".env-")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as target:
            target.write(text)
            target.flush()
            os.fchown(target.fileno(), rights.st_uid, rights.st_gid)
            os.fchmod(target.fileno(), rights.st_mode & PRIVATE)
            os.fsync(target.fileno())
        os.replace(name, file)
    except BaseException:
        os.unlink(name)
        raise


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Lock the folder: the file is replaced, so that a lock on the file would stay with the old one."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
