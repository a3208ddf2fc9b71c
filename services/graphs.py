"""The status graphs, gathered from the services that enforce them, for the documents."""

from __future__ import annotations

GRAPHS: dict[str, dict[str, list[str]]] = {}
