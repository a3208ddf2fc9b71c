"""Batches of imports: their size, the pause after them, and the counts of the import."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TypeVar

from sqlalchemy import update

from enums import ImportRowState
from models import Import
from services.jobs.transactions import with_retries
from services.rows import execute_core

Result = TypeVar("Result")

BATCH = 200  # rows of one transaction
BATCH_SECONDS = 0.25  # a slower transaction ends earlier: it holds locks that users wait for
# Seconds after a batch. Processes poll for the write lock of SQLite: the next batch must not overtake them.
PAUSE = 0.02


def run_batch(call: Callable[[], Result]) -> Result:
    """Call a function that runs a long transaction, with retries. Then let users write."""
    result = with_retries(call)
    time.sleep(PAUSE)
    return result


def save_counts(import_id: int, changes: Mapping[ImportRowState, int]) -> None:
    """Add to the counts of an import. The audit log names the rows, not the counts."""
    values = {state.value: getattr(Import, state.value) + number for state, number in changes.items()}
    execute_core(update(Import).where(Import.id == import_id).values(**values))
