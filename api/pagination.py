"""Pagination: the headers of a list, and the body of a search."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlencode

from flask import request

from services.listing.spec import Page

# Query parameters that select a page. The links replace them.
PAGE_PARAMETERS = ("page", "per_page", "_start", "_end", "range", "after", "_page", "_per_page")


def list_headers(page: Page[Any], name: str) -> dict[str, str]:
    """Return `X-Total-Count`, `Content-Range` and `Link`: the body of a list is a bare array."""
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
    """Return the absolute URLs of the first, previous, next and last page, by link relation."""
    query = page.query
    filters = [(name, text) for name, text in request.args.items(multi=True) if name not in PAGE_PARAMETERS]
    is_full = len(page.rows) == query.limit
    if query.after is None and query.offset % query.limit:
        return _range_links(page, filters, is_full=is_full)
    base = f"{request.base_url}?{urlencode([*filters, ('per_page', query.limit)])}"
    if query.after is not None:
        return {"next": f"{base}&after={page.rows[-1].id}"} if is_full else {}
    number = query.offset // query.limit + 1
    last = max(1, -(-page.total // query.limit))
    links = {"first": f"{base}&page=1"}
    if number > 1:
        links["prev"] = f"{base}&page={min(number - 1, last)}"
    if number < last or (page.capped and is_full):
        links["next"] = f"{base}&page={number + 1}"
    if not page.capped:
        links["last"] = f"{base}&page={last}"
    return links


def _range_links(page: Page[Any], filters: list[tuple[str, str]], *, is_full: bool) -> dict[str, str]:
    """Return the links of rows that begin inside a page: the links continue at these rows."""
    query = page.query
    start, end = query.offset, query.offset + query.limit

    def link(first: int, last: int) -> str:
        return f"{request.base_url}?{urlencode([*filters, ('_start', first), ('_end', last)])}"

    links = {"first": link(0, query.limit), "prev": link(max(0, start - query.limit), start)}
    if end < page.total or (page.capped and is_full):
        links["next"] = link(end, end + query.limit)
    if not page.capped:
        last = start + max(0, page.total - 1 - start) // query.limit * query.limit
        links["last"] = link(last, last + query.limit)
    return links


def search_body(page: Page[Any], name: str, rows: bytes) -> bytes:
    """Return the body of a search: the rows as the member `name`, `pagination` and `search_params`."""
    query = page.query
    members = {
        "pagination": {
            "page": query.offset // query.limit + 1,
            "per_page": query.limit,
            "total_count": page.total,
            "total_pages": -(-page.total // query.limit),
        },
        "search_params": query.params,
    }
    return b'{"' + name.encode() + b'":' + rows + b"," + json.dumps(members).encode()[1:]
