"""Paging headers of a list, and the envelope of a search."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlencode

from flask import request

from services.listing.spec import Page


def list_headers(page: Page[Any], name: str) -> dict[str, str]:
    """Paging in headers: the body of a list is a bare array."""
    query = page.query
    first = query.offset
    last = first + len(page.rows) - 1
    span = f"{first}-{last}" if page.rows else "*"
    headers = {
        "X-Total-Count": str(page.total),
        "Content-Range": f"{name} {span}/{page.total}",
    }
    if page.capped:
        headers["X-Total-Count-Capped"] = "true"
    links = _links(page)
    if links:
        headers["Link"] = ", ".join(f'<{target}>; rel="{relation}"' for relation, target in links.items())
    return headers


def _links(page: Page[Any]) -> dict[str, str]:
    query = page.query
    kept = [
        (name, text)
        for name, text in request.args.items(multi=True)
        if name not in ("page", "per_page", "_start", "_end", "range", "after", "_page", "_per_page")
    ]

    same = f"{request.path}?{urlencode([*kept, ('per_page', query.limit)])}"
    if query.after is not None:
        return {"next": f"{same}&after={page.rows[-1].id}"} if len(page.rows) == query.limit else {}
    number = query.offset // query.limit + 1
    last = max(1, -(-page.total // query.limit))
    links = {"first": f"{same}&page=1"}
    if number > 1:
        links["prev"] = f"{same}&page={min(number - 1, last)}"
    if number < last or (page.capped and len(page.rows) == query.limit):
        links["next"] = f"{same}&page={number + 1}"
    if not page.capped:
        links["last"] = f"{same}&page={last}"
    return links


def search_body(page: Page[Any], name: str, rows: bytes) -> bytes:
    """The envelope of a search."""
    query = page.query
    rest = {
        "pagination": {
            "page": query.offset // query.limit + 1,
            "per_page": query.limit,
            "total_count": page.total,
            "total_pages": -(-page.total // query.limit),
        },
        "search_params": query.params,
    }
    return b'{"' + name.encode() + b'":' + rows + b"," + json.dumps(rest).encode()[1:]
