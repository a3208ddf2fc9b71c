"""Libraries that few requests need. A process imports them with their first use.

Imported at the start, the libraries that use this module take 32 of 170 MB in each server process.
"""

from __future__ import annotations

from importlib import import_module
from threading import RLock
from typing import Any

# Python raises an error if a thread imports a package while another one imports a module of it.
_LOCK = RLock()


class LazyModule:
    """A module that is imported when one of its attributes is read for the first time.

    The standard library has `LazyLoader`. With Python 3.11 it is not safe in threads.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        """Return an attribute of the module."""
        with _LOCK:
            module = import_module(self._name)
        return getattr(module, attribute)
