"""What the commands share: a transaction that is audited, passwords that no list of processes shows."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
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


class Clash(click.ClickException):
    """What is stored already stands in the way."""


@contextmanager
def acting(operation: str) -> Iterator[Actor]:
    """Act for the clinic in one transaction, audited under the command's name.

    A refusal ends the command with its sentence on standard error and exit code 1, and nothing is changed.
    Raises `Clash` where it is a conflict.
    """
    actor = Actor(None, "command line", Role.ADMIN)
    try:
        yield actor
        audit_log.append_pending(actor, operation)
        db.session.commit()
    except ClinicError as refusal:
        kind = Clash if refusal.status == 409 else click.ClickException
        raise kind(refusal.message) from None
    except IntegrityError:
        raise Clash("Somebody stored the same at this moment; nothing was changed.") from None
    except (OperationalError, ProgrammingError) as failure:
        text = str(failure.orig).lower()
        if "no such table" in text or "does not exist" in text:
            raise click.ClickException(
                "The database has no tables yet: run flask db upgrade first."
            ) from None
        raise click.ClickException("The database does not answer.") from None
    finally:
        db.session.remove()


def ask_password(from_stdin: bool) -> str:
    """The password: asked for twice without echo, or the first line of standard input."""
    if from_stdin:
        return sys.stdin.readline().rstrip("\r\n")
    secretly = sys.stdin.isatty()
    answer: str = click.prompt("Password", hide_input=secretly, confirmation_prompt=secretly)
    return answer


def checked(model: type[Model], **members: object) -> Model:
    """The members through the schema of the API, or the end of the command naming what is wrong."""
    try:
        return model.model_validate(members)
    except ValidationError as failure:
        lines = []
        for error in failure.errors(include_input=False, include_url=False, include_context=False):
            where = ".".join(str(part) for part in error["loc"])
            lines.append(f"{where}: {error['msg'].removeprefix('Value error, ')}")
        raise click.ClickException("\n".join(lines)) from None
