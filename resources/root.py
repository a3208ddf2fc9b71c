"""Endpoints of the service itself: API documentation, health and metrics."""

from __future__ import annotations

import json
from functools import lru_cache

from flask import Flask, Response, current_app, request
from sqlalchemy import text

from api import metrics
from api.docs import html
from api.docs.index import index_document
from api.docs.openapi import openapi_document
from api.endpoint import endpoint
from api.resource import ApiResource
from api.serialization import json_response
from cache.redis import redis_store
from errors import ClinicError
from extensions import db
from schemas.service import LiveOut, ReadyOut
from security.permissions import Permission
from services.billing import currency
from services.schema_version import expected_revision, stored_revision


@lru_cache(maxsize=4)
def _openapi_json(app: Flask) -> bytes:
    return json.dumps(openapi_document(app)).encode()


@lru_cache(maxsize=4)
def _index(app: Flask) -> tuple[bytes, str]:
    """Return the document of `GET /` as JSON and as an HTML page."""
    document = index_document(app)
    return json.dumps(document).encode(), html.render(document)


def _app() -> Flask:
    app: Flask = current_app._get_current_object()  # type: ignore[attr-defined]
    return app


class Root(ApiResource):
    """Route `/`."""

    @endpoint(Permission.PUBLIC, media_types=("application/json", "text/html"))
    def get(self) -> Response:
        """Describe the API, as JSON or as an HTML page for browsers."""
        document, page = _index(_app())
        if request.accept_mimetypes.best_match(("application/json", "text/html")) == "text/html":
            headers = {"Vary": "Accept", "Content-Security-Policy": html.CSP}
            return Response(page, headers=headers, mimetype="text/html")
        return json_response(document, headers={"Vary": "Accept"})


class OpenApiDocument(ApiResource):
    """Route `/openapi.json`."""

    @endpoint(Permission.PUBLIC)
    def get(self) -> Response:
        """Describe the API as an OpenAPI 3.1 document."""
        return json_response(_openapi_json(_app()))


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
        has_redis = redis_store.call(lambda client: bool(client.ping()), False)
        return {"status": "ok", "database": "ok", "redis": "ok" if has_redis else "degraded"}


class Metrics(ApiResource):
    """Route `/metrics`."""

    @endpoint(Permission.METRICS_READ, media_types=("text/plain",))
    def get(self) -> Response:
        """Export metrics for Prometheus.

        Prometheus sends `METRICS_TOKEN` as bearer token.
        """
        return Response(metrics.exposition(), content_type=metrics.CONTENT_TYPE)
