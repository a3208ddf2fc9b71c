"""The way in: what the API offers, whether it is well, and its figures."""

from __future__ import annotations

import json
from functools import lru_cache

from flask import Flask, Response, current_app, request
from sqlalchemy import text

from api import metrics
from api.docs import html
from api.docs.index import guide
from api.docs.openapi import document
from api.endpoint import endpoint
from api.resource import ApiResource
from api.serialization import json_response
from cache.redis import redis_store
from errors import ClinicError
from extensions import db
from schemas.service import LiveOut, ReadyOut
from security.permissions import Permission
from services.schema_version import expected_revision, stored_revision


@lru_cache(maxsize=4)
def _openapi(app: Flask) -> bytes:
    return json.dumps(document(app)).encode()


@lru_cache(maxsize=4)
def _guide(app: Flask) -> tuple[bytes, str]:
    told = guide(app)
    return json.dumps(told).encode(), html.render(told)


def _app() -> Flask:
    found: Flask = current_app._get_current_object()  # type: ignore[attr-defined]
    return found


class Root(ApiResource):
    """/"""

    @endpoint(Permission.PUBLIC, media_types=("application/json", "text/html"))
    def get(self) -> Response:
        """Describe the whole API: JSON, or a page for browsers."""
        told, text = _guide(_app())
        if request.accept_mimetypes.best_match(("application/json", "text/html")) == "text/html":
            headers = {"Vary": "Accept", "Content-Security-Policy": html.CSP}
            return Response(text, headers=headers, mimetype="text/html")
        return json_response(told, headers={"Vary": "Accept"})


class OpenApiDocument(ApiResource):
    """/openapi.json"""

    @endpoint(Permission.PUBLIC)
    def get(self) -> Response:
        """The API as an OpenAPI 3.1 document."""
        return json_response(_openapi(_app()))


class HealthLive(ApiResource):
    """/health/live"""

    @endpoint(Permission.PUBLIC, returns=LiveOut)
    def get(self) -> dict[str, str]:
        """Whether the process answers."""
        return {"status": "ok"}


class HealthReady(ApiResource):
    """/health/ready"""

    @endpoint(Permission.PUBLIC, returns=ReadyOut)
    def get(self) -> dict[str, str]:
        """Whether requests can be served: 503 without database or with wrong migrations."""
        db.session.execute(text("SELECT 1"))
        if stored_revision() != expected_revision():
            raise ClinicError("unavailable", "The database's schema is not this version's.", retry_after=5)
        reached = redis_store.call(lambda client: bool(client.ping()), False)
        return {"status": "ok", "database": "ok", "redis": "ok" if reached else "degraded"}


class Metrics(ApiResource):
    """/metrics"""

    @endpoint(Permission.METRICS_READ, media_types=("text/plain",))
    def get(self) -> Response:
        """Figures for Prometheus: an admin's, or with `METRICS_TOKEN` as the bearer token."""
        return Response(metrics.exposition(), content_type=metrics.CONTENT_TYPE)
