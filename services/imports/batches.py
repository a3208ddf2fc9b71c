"""Batches of imports: their size, their retries, and the counts of the import."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from typing import TypeVar

from sqlalchemy import update

from database.failures import is_transient
from enums import ImportRowState
from models import Import
from services.rows import execute_core

Result = TypeVar("Result")

BATCH = 200  # rows of one transaction
BATCH_SECONDS = 0.25  # a slower transaction ends earlier: it holds locks that users wait for
# Seconds after a batch. Processes poll for the write lock of SQLite: the next batch must not overtake them.
PAUSE = 0.02
ATTEMPTS = 8
LONGEST_WAIT = 2.0  # seconds between two attempts


def with_retries(call: Callable[[], Result]) -> Result:
    """Call a function that runs one transaction, and again after an error that another one caused."""
    for attempt in range(ATTEMPTS - 1):
        try:
            return call()
        except Exception as error:
            if not is_transient(error):
                raise
            time.sleep(random.uniform(0.5, 1.0) * min(0.05 * 2**attempt, LONGEST_WAIT))  # noqa: S311 - no secret
    return call()


def run_batch(call: Callable[[], Result]) -> Result:
    """Call a function that runs a long transaction, with retries. Then let users write."""
    result = with_retries(call)
    time.sleep(PAUSE)
    return result


def save_counts(import_id: int, changes: Mapping[ImportRowState, int]) -> None:
    """Add to the counts of an import. The audit log names the rows, not the counts."""
    values = {state.value: getattr(Import, state.value) + number for state, number in changes.items()}
    execute_core(update(Import).where(Import.id == import_id).values(**values))
