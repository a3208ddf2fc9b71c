"""Endpoints of the service itself: API documentation, health and metrics."""

from __future__ import annotations

import json
from functools import lru_cache

from flask import Flask, Response, current_app, request
from sqlalchemy import text

from api import metrics
from api.cached_document import PublicDocument
from api.docs import console, html
from api.docs.examples import base_url
from api.docs.index import index_document
from api.docs.openapi import openapi_document
from api.endpoint import endpoint
from api.resource import ApiResource
from api.server_url import server_url
from cache.redis import redis_store
from errors import ClinicError
from extensions import db
from schemas.service import LiveOut, ReadyOut
from security.permissions import Permission
from services.billing import currency
from services.schema_version import expected_revision, stored_revision


@lru_cache(maxsize=4)
def _sources(app: Flask) -> tuple[str, str, str]:
    """Return the documents with the URL of a local server: OpenAPI, index, and the page of the index."""
    index = index_document(app)
    return json.dumps(openapi_document(app)), json.dumps(index), html.render(index)


@lru_cache(maxsize=16)
def _documents(app: Flask, url: str) -> tuple[PublicDocument, PublicDocument, PublicDocument]:
    """Return the documents with the URL of this server, in the order of `_sources`."""
    openapi, index, page = (source.replace(base_url(), url) for source in _sources(app))
    # Linters refuse a server at `localhost` (Redocly: no-server-example.com). The address is the same.
    openapi = openapi.replace("://localhost", "://127.0.0.1")
    return (
        PublicDocument(openapi.encode(), "application/json"),
        PublicDocument(index.encode(), "application/json", vary=("Accept",)),
        PublicDocument(page.encode(), "text/html", vary=("Accept",), csp=html.CSP),
    )


@lru_cache(maxsize=1)
def _console() -> PublicDocument:
    return PublicDocument(console.render().encode(), "text/html", csp=console.CSP)


@lru_cache(maxsize=2)
def _console_file(name: str, mimetype: str) -> PublicDocument:
    return PublicDocument((console.ASSETS / name).read_bytes(), mimetype)


def _app() -> Flask:
    app: Flask = current_app._get_current_object()  # type: ignore[attr-defined]
    return app


class Root(ApiResource):
    """Route `/`."""

    @endpoint(Permission.PUBLIC, media_types=("application/json", "text/html"), etag=True)
    def get(self) -> Response:
        """Describe the API, as JSON or as an HTML page for browsers."""
        _openapi, document, page = _documents(_app(), server_url())
        if request.accept_mimetypes.best_match(("application/json", "text/html")) == "text/html":
            return page.response()
        return document.response()


class OpenApiDocument(ApiResource):
    """Route `/openapi.json`."""

    @endpoint(Permission.PUBLIC, etag=True)
    def get(self) -> Response:
        """Describe the API as an OpenAPI 3.1 document."""
        return _documents(_app(), server_url())[0].response()


class Console(ApiResource):
    """Route `/docs`."""

    @endpoint(Permission.PUBLIC, media_types=("text/html",), etag=True)
    def get(self) -> Response:
        """Show the interactive console, for browsers."""
        return _console().response()


class ConsoleScript(ApiResource):
    """Route `/docs/swagger-ui-bundle.js`."""

    @endpoint(Permission.PUBLIC, media_types=("text/javascript",), etag=True)
    def get(self) -> Response:
        """Load the script of the console."""
        return _console_file(console.SCRIPT, "text/javascript").response()


class ConsoleStyle(ApiResource):
    """Route `/docs/swagger-ui.css`."""

    @endpoint(Permission.PUBLIC, media_types=("text/css",), etag=True)
    def get(self) -> Response:
        """Load the style of the console."""
        return _console_file(console.STYLE, "text/css").response()


class HealthLive(ApiResource):
    """Route `/health/live`."""

    @endpoint(Permission.PUBLIC, returns=LiveOut)
    def get(self) -> dict[str, str]:
        """Report that the process answers."""
        return {"status": "ok"}


class HealthReady(ApiResource):
    """Route `/health/ready`."""

    @endpoint(Permission.PUBLIC, returns=ReadyOut)
    def get(self) -> dict[str, str]:
        """Report that requests can be served.

        503 without a database, with migrations of another version, or with another currency than the ledger.
        """
        db.session.execute(text("SELECT 1"))
        if stored_revision() != expected_revision():
            raise ClinicError(
                "unavailable",
                "The database schema belongs to another version: run the migrations.",
                retry_after=5,
            )
        currency.check()
        return {"status": "ok", "database": "ok", "redis": _redis_status()}


def _redis_status() -> str:
    if redis_store.url is None:
        return "not_configured"
    return "ok" if redis_store.call(lambda client: bool(client.ping()), False) else "degraded"


class Metrics(ApiResource):
    """Route `/metrics`."""

    @endpoint(Permission.METRICS_READ, media_types=("text/plain",))
    def get(self) -> Response:
        """Export metrics for Prometheus.

        Prometheus sends `METRICS_TOKEN` as bearer token.
        """
        return Response(metrics.exposition(), content_type=metrics.CONTENT_TYPE)
