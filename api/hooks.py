"""Hooks around every request: request id, rate limit, security headers, CORS, and the log line."""

from __future__ import annotations

import re
import time
from random import getrandbits  # a request id is no secret: `secrets` would cost a system call

import structlog
from flask import Flask, Response, g, request
from werkzeug.middleware.proxy_fix import ProxyFix

from api import metrics
from api.authentication import read_token
from api.problem_details import render_error
from api.request_context import RequestContext, current_context
from cache.rate_limits import limits, network_of
from config import settings
from database import deadline
from errors import ClinicError
from extensions import cors
from services.users.sessions import revoked_key

log = structlog.get_logger()

REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{8,100}")
UNLIMITED_PATHS = ("/health/live", "/health/ready", "/metrics")  # probes have no rate limit
CACHEABLE_PATHS = ("/", "/openapi.json", "/health/live", "/health/ready")
EXPOSED_HEADERS = (
    "X-Total-Count, X-Total-Count-Capped, Content-Range, Content-Disposition, Link, ETag, Location, "
    "Retry-After, Idempotency-Replayed, X-Request-ID"
).split(", ")
ALLOWED_HEADERS = "Authorization, Content-Type, Range, If-Match, Idempotency-Key, X-Request-ID".split(", ")
SECURITY_HEADERS = (("X-Content-Type-Options", "nosniff"), ("Referrer-Policy", "no-referrer"))
# Responses are data: a browser must not run, load or frame anything in them.
CSP = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"


def init_app(app: Flask) -> None:
    """Register the hooks and the error handler on the application."""
    if hops := settings().trusted_proxies:
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=hops, x_proto=hops, x_host=0)  # type: ignore[method-assign]
    if origins := settings().allowed_origins:
        allow_origins(app, list(origins))
    app.before_request(begin_request)
    app.after_request(finish_request)
    app.teardown_request(lambda _error: deadline.clear())
    app.register_error_handler(Exception, render_error)


def allow_origins(app: Flask, origins: list[str]) -> None:
    """Send CORS headers to exactly these origins, also on errors."""
    cors.init_app(
        app,
        origins=origins,
        always_send=False,
        supports_credentials=True,
        expose_headers=EXPOSED_HEADERS,
        allow_headers=ALLOWED_HEADERS,
        methods=["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD"],
        max_age=600,
    )


def begin_request() -> None:
    """Create the request context and apply the rate limit, or raise 429 `too_many_requests`.

    A request with a genuine token counts for its user, another one for its network.
    """
    deadline.start()
    header = request.headers.get("X-Request-ID", "")
    request_id = header if REQUEST_ID.fullmatch(header) else f"{getrandbits(128):032x}"
    context = g.context = RequestContext(request_id, started=time.perf_counter())
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(request_id=request_id)
    read_token(context)
    if request.path in UNLIMITED_PATHS or request.method == "OPTIONS":
        return
    rate = settings().rate_limit_default
    if context.token is None:
        wait = limits.hit(rate, "address", network_of(request.remote_addr))
    else:
        user, session = str(context.token.user_id), revoked_key(context.token.session_id)
        wait, context.revoked = limits.hit_and_check(rate, ("user", user), session)
    if wait is not None:
        raise ClinicError("too_many_requests", "Slow down; try again later.", retry_after=wait)


def finish_request(response: Response) -> Response:
    """Add the common headers to a response, count it, and log it."""
    headers, context = response.headers, current_context()
    headers.extend((("X-Request-ID", context.request_id), *SECURITY_HEADERS))
    headers.setdefault("Content-Security-Policy", CSP)
    if request.path not in CACHEABLE_PATHS or response.status_code >= 400:
        headers["Cache-Control"] = "no-store"
    if settings().production:
        headers["Strict-Transport-Security"] = "max-age=31536000; includeSubDomains"
    route = str(request.url_rule or "unmatched")
    seconds = time.perf_counter() - context.started
    metrics.record_request(request.method, route, response.status_code, seconds)
    log.info(
        "request",
        method=request.method,
        route=route,
        status=response.status_code,
        ms=round(seconds * 1000, 1),
    )
    return response
