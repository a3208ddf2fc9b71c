"""The declaration of an integrity check. The checks of a domain may be in its folder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select


@dataclass(frozen=True)
class IntegrityCheck:
    """A rule, and the query for the ids of the rows that violate it."""

    rule: str
    query: Select[Any]
