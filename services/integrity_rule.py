"""The declaration of an integrity check. The checks of a domain may be in its folder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select, func, select


@dataclass(frozen=True)
class IntegrityCheck:
    """A rule, and the query for the ids of the rows that violate it."""

    rule: str
    query: Select[Any]


def sum_of(column: Any, *conditions: Any) -> Any:
    """Return the sum of a column over rows with the conditions, 0 without rows, as a subquery."""
    return select(func.coalesce(func.sum(column), 0)).where(*conditions).scalar_subquery()
