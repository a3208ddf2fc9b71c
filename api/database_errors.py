"""What the stores raise, as refusals a caller can read, or as a word to the retry loop."""

from __future__ import annotations

import sqlite3

import structlog
from pydantic import ValidationError
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, OperationalError, StatementError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm.exc import StaleDataError

from errors import CONSTRAINTS, ClinicError
from extensions import db
from services import schema_version

log = structlog.get_logger()

SERIALIZATION_FAILURE, DEADLOCK, LOCK_NOT_AVAILABLE, CANCELLED = "40001", "40P01", "55P03", "57014"
RETRY_AFTER = 2  # seconds
LOST = {"OperationalError", "InterfaceError", "PendingRollbackError"}  # SQLAlchemy's names


class Retry(Exception):
    """The whole request may run again from the start: nothing of it happened."""


def unavailable() -> ClinicError:
    """503: a store is away or too slow."""
    return ClinicError(
        "unavailable", "The clinic's database is not available; try again soon.", retry_after=RETRY_AFTER
    )


def translate(failure: Exception, *, committing: bool) -> Exception:
    """What to raise instead: a `ClinicError`, `Retry`, or the failure itself where it is a bug of ours.

    A connection lost while committing is never retried: the commit may have happened.
    """
    if isinstance(failure, StaleDataError):
        return Retry()
    if isinstance(failure, PoolTimeout):
        return unavailable()
    if isinstance(failure, IntegrityError):
        return _integrity(failure)
    if isinstance(failure, DataError):
        return ClinicError("validation_failed", "A value is out of the range that can be stored.")
    if isinstance(failure, StatementError) and isinstance(failure.orig, (OverflowError, ValueError)):
        return ClinicError("validation_failed", "A value is out of the range that can be stored.")
    if isinstance(failure, DBAPIError):
        return _operational(failure, committing=committing)
    if isinstance(failure, ValidationError):
        return _shaping(failure)
    return failure


def _pgcode(failure: Exception) -> str | None:
    code: str | None = getattr(getattr(failure, "orig", None), "pgcode", None)
    return code


def _shaping(failure: ValidationError) -> Exception:
    """What a row loaded while it was shaped for the answer: pydantic keeps no more of it than its text."""
    told = {
        str(problem["ctx"]["error"]).partition(":")[0]
        for problem in failure.errors(include_url=False, include_input=False)
        if problem["type"] == "get_attribute_error"
    }
    if told & LOST:
        return unavailable()
    return _unforeseen(failure) if told else failure


def _operational(failure: DBAPIError, *, committing: bool) -> Exception:
    state = _pgcode(failure)
    if state in (SERIALIZATION_FAILURE, DEADLOCK):
        return Retry()
    if state in (LOCK_NOT_AVAILABLE, CANCELLED):
        return unavailable()
    if isinstance(failure.orig, sqlite3.OperationalError):
        text = str(failure.orig)
        busy = any(word in text for word in ("locked", "busy", "full", "disk I/O", "unable to open"))
        return unavailable() if busy else _unforeseen(failure)
    if failure.connection_invalidated and not committing:
        return Retry()
    if isinstance(failure, OperationalError) or failure.connection_invalidated or state is None:
        return unavailable()
    return _unforeseen(failure)


def _unforeseen(failure: Exception) -> Exception:
    """A bug of ours, unless the schema is another version's: while one is upgraded before the other."""
    try:
        ours = schema_version.stored_revision() == schema_version.expected_revision()
    except DBAPIError:
        return unavailable()
    finally:
        db.session.rollback()
    if ours:
        return failure
    log.error("schema_of_another_version", failure=type(failure).__name__)
    return unavailable()


def constraint_of(failure: IntegrityError) -> str | None:
    """The violated constraint's name on either engine."""
    diagnostics = getattr(failure.orig, "diag", None)
    if diagnostics is not None:
        name: str | None = diagnostics.constraint_name
        return name
    text = str(failure.orig)
    if text.startswith("UNIQUE constraint failed: "):
        columns = text.removeprefix("UNIQUE constraint failed: ").split(", ")
        table = columns[0].split(".")[0]
        return f"uq_{table}_" + "_".join(column.split(".")[1] for column in columns)
    if text.startswith("CHECK constraint failed: "):
        return text.removeprefix("CHECK constraint failed: ")
    return text  # a trigger's message is the constraint's name


def _integrity(failure: IntegrityError) -> Exception:
    name = constraint_of(failure) or ""
    if name in CONSTRAINTS:
        code, field, message = CONSTRAINTS[name]
        return ClinicError(code, message, errors={field: message} if field else None)
    if name == "uq_idempotency_keys_user_id_key":
        return Retry()
    foreseen = _unforeseen(failure)
    if foreseen is not failure:
        return foreseen
    log.warning("constraint_without_message", constraint=name)
    return ClinicError("conflict", "This conflicts with what is stored; read it again and retry.")
