"""What happens around every request: its id, the limits, the security headers, and the one error shape."""

from __future__ import annotations

import re
import time
from random import getrandbits  # names a request and keeps no secret: not worth a system call

import structlog
from flask import Flask, Response, g, request
from werkzeug.middleware.proxy_fix import ProxyFix

from api import metrics
from api.authentication import read_token
from api.problem_details import render_error
from api.request_context import RequestContext, current_context
from cache.rate_limits import limits
from config import settings
from database import deadline
from errors import ClinicError
from extensions import cors
from services.users.sessions import revoked_key

log = structlog.get_logger()

REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{8,100}")
OPEN_PATHS = ("/health/live", "/health/ready", "/metrics")  # probes are not limited
CACHEABLE = ("/", "/openapi.json", "/health/live", "/health/ready")
EXPOSED = (
    "X-Total-Count, X-Total-Count-Capped, Content-Range, Content-Disposition, Link, ETag, Location, "
    "Retry-After, Idempotency-Replayed, X-Request-ID"
).split(", ")
ALLOWED = "Authorization, Content-Type, Range, If-Match, Idempotency-Key, X-Request-ID".split(", ")
ALWAYS = (("X-Content-Type-Options", "nosniff"), ("Referrer-Policy", "no-referrer"))
# an API answers data; nothing in an answer may run, load or be framed
CSP = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"


def init_app(app: Flask) -> None:
    """Hang the hooks on the application."""
    chosen = settings()
    if chosen.trusted_proxies:
        hops = chosen.trusted_proxies
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=hops, x_proto=hops, x_host=0)  # type: ignore[method-assign]
    if chosen.allowed_origins:
        allow_origins(app, list(chosen.allowed_origins))
    app.before_request(begin)
    app.after_request(finish)
    app.teardown_request(lambda _error: deadline.clear())
    app.register_error_handler(Exception, render_error)


def allow_origins(app: Flask, origins: list[str]) -> None:
    """CORS for the exact origins, on errors too."""
    cors.init_app(
        app,
        origins=origins,
        always_send=False,
        supports_credentials=True,
        expose_headers=EXPOSED,
        allow_headers=ALLOWED,
        methods=["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD"],
        max_age=600,
    )


def begin() -> None:
    """Create the context of the request and count it: by user with a genuine token, otherwise by address."""
    deadline.start()
    header = request.headers.get("X-Request-ID", "")
    request_id = header if REQUEST_ID.fullmatch(header) else f"{getrandbits(128):032x}"
    context = g.context = RequestContext(request_id, started=time.perf_counter())
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(request_id=request_id)
    read_token(context)
    if request.path in OPEN_PATHS or request.method == "OPTIONS":
        return
    rate = settings().rate_limit_default
    if context.token is None:
        wait = limits.hit(rate, "address", request.remote_addr or "unknown")
    else:
        user, session = str(context.token.user_id), revoked_key(context.token.session_id)
        wait, context.revoked = limits.hit_and_check(rate, ("user", user), session)
    if wait is not None:
        raise ClinicError("too_many_requests", "Slow down; try again later.", retry_after=wait)


def finish(response: Response) -> Response:
    """The headers of every answer, and its line in the log."""
    headers, context = response.headers, current_context()
    headers.extend((("X-Request-ID", context.request_id), *ALWAYS))
    headers.setdefault("Content-Security-Policy", CSP)
    if request.path not in CACHEABLE or response.status_code >= 400:
        headers["Cache-Control"] = "no-store"
    if settings().production:
        headers["Strict-Transport-Security"] = "max-age=31536000; includeSubDomains"
    route = str(request.url_rule or "unmatched")
    seconds = time.perf_counter() - context.started
    metrics.observe(request.method, route, response.status_code, seconds)
    log.info(
        "request",
        method=request.method,
        route=route,
        status=response.status_code,
        ms=round(seconds * 1000, 1),
    )
    return response
