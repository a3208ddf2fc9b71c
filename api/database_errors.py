"""Database errors as refusals, as a retry, or as unexpected errors."""

from __future__ import annotations

import sqlite3

import structlog
from pydantic import ValidationError
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, OperationalError, StatementError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm.exc import StaleDataError

from database.failures import DEADLOCK, LOCK_NOT_AVAILABLE, SERIALIZATION_FAILURE, constraint_name
from errors import CONSTRAINTS, ClinicError
from extensions import db
from services import schema_version

log = structlog.get_logger()

# SQLSTATE, https://www.postgresql.org/docs/current/errcodes-appendix.html
CANCELLED = "57014"
# A value of the caller does not fit. Other data errors, such as a division by zero, are faults of a query.
VALUE_ERRORS = {
    "22001": "string too long",
    "22003": "number out of range",
    "22007": "invalid date or time",
    "22008": "date or time out of range",
    "22021": "character that cannot be stored",
    "22P02": "invalid text representation",
    "22P05": "character that cannot be converted",
}
RETRY_AFTER = 2  # seconds
CONNECTION_ERRORS = {"OperationalError", "InterfaceError", "PendingRollbackError"}  # classes of SQLAlchemy


class Retry(Exception):  # noqa: N818 - a signal to run again, not an error
    """The request must run again from the start. None of its effects was committed."""


def unavailable() -> ClinicError:
    """Return the 503 for a database that is away or too slow."""
    return ClinicError(
        "unavailable", "The clinic's database is not available; try again soon.", retry_after=RETRY_AFTER
    )


def translate(error: Exception, *, committing: bool) -> Exception:
    """Return the exception to raise instead: a `ClinicError`, a `Retry`, or the error itself if unexpected.

    A connection that was lost during the commit is never retried: the commit may have happened.
    """
    if isinstance(error, StaleDataError):
        return Retry()
    if isinstance(error, PoolTimeout):
        return unavailable()
    if isinstance(error, IntegrityError):
        return _constraint_violation(error)
    if _is_value_error(error):
        return ClinicError("validation_failed", "A value is out of the range that can be stored.")
    if isinstance(error, DBAPIError):
        return _operational(error, committing=committing)
    if isinstance(error, ValidationError):
        return _serialization(error)
    return error


def _sqlstate(error: Exception) -> str | None:
    code: str | None = getattr(getattr(error, "orig", None), "pgcode", None)
    return code


def _is_value_error(error: Exception) -> bool:
    if isinstance(error, DataError):
        state = _sqlstate(error)
        return state is None or state in VALUE_ERRORS
    return isinstance(error, StatementError) and isinstance(error.orig, (OverflowError, ValueError))


def _serialization(error: ValidationError) -> Exception:
    """Translate a database error during serialization: pydantic keeps only the text of the original error."""
    classes = {
        str(problem["ctx"]["error"]).partition(":")[0]
        for problem in error.errors(include_url=False, include_input=False)
        if problem["type"] == "get_attribute_error"
    }
    if classes & CONNECTION_ERRORS:
        return unavailable()
    return _unexpected(error) if classes else error


def _operational(error: DBAPIError, *, committing: bool) -> Exception:
    state = _sqlstate(error)
    if state in (SERIALIZATION_FAILURE, DEADLOCK):
        return Retry()
    if state in (LOCK_NOT_AVAILABLE, CANCELLED):
        return unavailable()
    if isinstance(error.orig, sqlite3.OperationalError):
        text = str(error.orig)
        busy = any(word in text for word in ("locked", "busy", "full", "disk I/O", "unable to open"))
        return unavailable() if busy else _unexpected(error)
    if error.connection_invalidated and not committing:
        return Retry()
    if isinstance(error, OperationalError) or error.connection_invalidated or state is None:
        return unavailable()
    return _unexpected(error)


def _unexpected(error: Exception) -> Exception:
    """Return the error itself, or a 503 while the schema has another version than the application."""
    try:
        same_version = schema_version.stored_revision() == schema_version.expected_revision()
    except DBAPIError:
        return unavailable()
    finally:
        db.session.rollback()
    if same_version:
        return error
    log.error("schema_of_another_version", failure=type(error).__name__)
    return unavailable()


def _constraint_violation(error: IntegrityError) -> Exception:
    name = constraint_name(error) or ""
    if name == "uq_idempotency_keys_user_id_key":
        return Retry()
    if name in CONSTRAINTS:
        # the statement has placeholders only: `hide_parameters` keeps its values out
        log.info("constraint_violation", constraint=name, statement=error.statement)
        code, field, message = CONSTRAINTS[name]
        return ClinicError(code, message, errors={field: message} if field else None)
    unexpected = _unexpected(error)
    if unexpected is not error:
        return unexpected
    log.warning("constraint_without_message", constraint=name, statement=error.statement)
    return ClinicError("conflict", "The request conflicts with the stored data. Read it again and retry.")
