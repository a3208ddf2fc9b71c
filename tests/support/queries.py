"""Number of SELECT statements of a request."""

from __future__ import annotations

from typing import Any

from sqlalchemy import event

from extensions import db
from services import remembered
from services.listing.totals import forget_totals
from tests.support.clinic import Caller, Clinic


def count(clinic: Clinic, caller: Caller, path: str) -> int:
    """Return the number of SELECT statements of a GET request."""
    statements: list[str] = []

    def record(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        if statement.lstrip("(").startswith("SELECT"):
            statements.append(statement)

    with clinic.inside():
        forget_totals()
        remembered.forget_all()  # the state of a new process
        event.listen(db.engine, "before_cursor_execute", record)
    try:
        assert caller.get(path).status_code == 200
    finally:
        with clinic.inside():
            event.remove(db.engine, "before_cursor_execute", record)
    return len(statements)
