"""Counting what a request asks of the database."""

from __future__ import annotations

from typing import Any

from sqlalchemy import event

from extensions import db
from services import remembered
from services.listing.totals import forget_totals
from tests.support.clinic import Caller, Clinic


def count(clinic: Clinic, caller: Caller, path: str) -> int:
    """How many statements that read the answer to a GET takes."""
    statements: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        if statement.lstrip("(").startswith("SELECT"):
            statements.append(statement)

    with clinic.inside():
        forget_totals()
        remembered.forget_all()  # as a process asks that has just begun
        event.listen(db.engine, "before_cursor_execute", note)
    try:
        assert caller.get(path).status_code == 200
    finally:
        with clinic.inside():
            event.remove(db.engine, "before_cursor_execute", note)
    return len(statements)
