"""Statements that modules build once and threads share."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from sqlalchemy import CTE, Subquery, inspect
from sqlalchemy.orm.util import AliasedClass

import app

PACKAGES = ("api", "commands", "database", "resources", "services")


def entities_of_queries() -> Iterator[tuple[str, CTE | Subquery]]:
    """Yield the queries that a module selects as entities, with the names of the variables."""
    assert app.ROUTES  # all modules are loaded
    for name, module in sorted(sys.modules.items()):
        if name.partition(".")[0] in PACKAGES:
            for variable, value in vars(module).items():
                if isinstance(value, AliasedClass):
                    selectable = inspect(value).selectable
                    if isinstance(selectable, CTE | Subquery):
                        yield f"{name}.{variable}", selectable


def test_the_columns_of_queries_that_threads_share_exist_before_their_first_use() -> None:
    queries = list(entities_of_queries())

    # The threads of a new worker that create them at the same time may each get other ones. Then the rows of
    # a query lack the columns of its entity, and the request is a 500.
    assert queries
    assert [name for name, query in queries if "_columns" not in vars(query)] == []
