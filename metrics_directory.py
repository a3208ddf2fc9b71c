"""The directory in which the worker processes share their metrics (`PROMETHEUS_MULTIPROC_DIR`).

Imports no prometheus_client: that reads the variable when it is imported.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

VARIABLE = "PROMETHEUS_MULTIPROC_DIR"


def prepare() -> Callable[[], None]:
    """Empty the directory, or create a temporary one; call the result when the server ends."""
    if configured := os.environ.get(VARIABLE):
        directory = Path(configured)
        directory.mkdir(parents=True, exist_ok=True)
        for file in directory.glob("*.db"):
            file.unlink()
        return lambda: None
    temporary = os.environ[VARIABLE] = tempfile.mkdtemp(prefix="clinic-metrics-")
    return partial(shutil.rmtree, temporary, ignore_errors=True)
