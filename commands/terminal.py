"""Helpers of the `flask` commands: an audited transaction, password input, validation of options."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import click
from pydantic import BaseModel, ValidationError
from sqlalchemy.exc import IntegrityError, OperationalError, ProgrammingError

from enums import Role
from errors import ClinicError
from extensions import db
from security.permissions import Actor
from services.audit import audit_log

Model = TypeVar("Model", bound=BaseModel)


class ConflictError(click.ClickException):
    """A conflict with stored data: the command has changed nothing."""


@contextmanager
def audited_transaction(operation: str) -> Iterator[Actor]:
    """Run one transaction as the system user "command line". The audit entries name `operation`.

    On an error it rolls back and ends the command: message on standard error, exit code 1.
    Raises `ConflictError` for a conflict (409 in the API) and for a violated constraint.
    """
    actor = Actor(None, "command line", Role.ADMIN)
    try:
        yield actor
        audit_log.append_pending(actor, operation)
        db.session.commit()
    except ClinicError as error:
        exception = ConflictError if error.status == 409 else click.ClickException
        raise exception(error.message) from None
    except IntegrityError:
        raise ConflictError(
            "Another process stored the same data at the same time. Nothing was changed."
        ) from None
    except (OperationalError, ProgrammingError) as error:
        text = str(error.orig).lower()
        if "no such table" in text or "does not exist" in text:
            raise click.ClickException("The database has no tables. Run first: flask db upgrade") from None
        raise click.ClickException("The database does not answer.") from None
    finally:
        db.session.remove()


def record_time(file: Path) -> None:
    """Set the time of a file to now: `GET /metrics` shows when the command last succeeded."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch(mode=0o600)
    except OSError as error:
        click.echo(f"{file}: {error.strerror}. The metrics do not show this run.", err=True)


def read_password(from_stdin: bool) -> str:
    """Return a password: the first line of standard input, or the answer to a prompt.

    On a terminal the prompt does not show the input and asks twice.
    A password is never an option: the process list would show it.
    """
    if from_stdin:
        return sys.stdin.readline().rstrip("\r\n")
    is_terminal = sys.stdin.isatty()
    password: str = click.prompt("Password", hide_input=is_terminal, confirmation_prompt=is_terminal)
    return password


def validate(model: type[Model], **members: object) -> Model:
    """Validate the members with a request model of the API.

    If they are invalid, end the command with one line per error: the member and the reason.
    """
    try:
        return model.model_validate(members)
    except ValidationError as error:
        lines = []
        for detail in error.errors(include_input=False, include_url=False, include_context=False):
            member = ".".join(str(part) for part in detail["loc"])
            lines.append(f"{member}: {detail['msg'].removeprefix('Value error, ')}")
        raise click.ClickException("\n".join(lines)) from None
