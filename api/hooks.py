"""Hooks around every request: request id, rate limit, security headers, CORS, and the log line."""

from __future__ import annotations

import re
import time
from random import getrandbits  # a request id is no secret: `secrets` would cost a system call

import structlog
from flask import Flask, Response, g, request
from werkzeug.exceptions import NotFound
from werkzeug.middleware.proxy_fix import ProxyFix
from werkzeug.routing import RequestRedirect

from api import metrics
from api.authentication import is_metrics_token, limit_key, read_token
from api.client_address import client_addresses
from api.problem_details import render_error
from api.request_context import RequestContext, current_context
from cache import quotas
from cache.rate_limits import limits, network_of
from config import settings
from database import deadline
from errors import ClinicError
from extensions import cors
from services.users.sessions import revoked_key

log = structlog.get_logger()

REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,100}")
PROBES = ("/health/live", "/health/ready")  # probes have no rate limit
EMERGENCY_ROUTE = "/patients/<int:patient_id>/emergency-access"
EXPOSED_HEADERS = (
    "X-Total-Count, X-Total-Count-Capped, Content-Range, Content-Disposition, Link, ETag, Location, "
    "Retry-After, Idempotency-Replayed, X-Request-ID, X-Ignored-Members, RateLimit, RateLimit-Policy"
).split(", ")
SECURITY_HEADERS = (
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    # Requests with CORS are not affected. Pages of other sites cannot embed a response without CORS.
    ("Cross-Origin-Resource-Policy", "same-site"),
)
SECURITY_HEADERS_OF_PRODUCTION = (
    *SECURITY_HEADERS,
    ("Strict-Transport-Security", "max-age=31536000; includeSubDomains"),
)
# Responses are data: a browser must not run, load or frame anything in them.
CSP = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"


def init_app(app: Flask) -> None:
    """Register the hooks and the error handler on the application."""
    if hops := settings().trusted_proxies:
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=0, x_proto=hops, x_host=0)  # type: ignore[method-assign]
    if origins := settings().allowed_origins:
        allow_origins(app, list(origins))
    app.before_request(begin_request)
    app.after_request(finish_request)
    app.teardown_request(end_request)
    app.register_error_handler(Exception, render_error)


def allow_origins(app: Flask, origins: list[str]) -> None:
    """Send CORS headers to exactly these origins, also on errors."""
    cors.init_app(
        app,
        # Flask-CORS reads text with brackets, as in the address of an IPv6 host, as a regular expression.
        origins=[re.compile(re.escape(origin) + r"\Z", re.I) for origin in origins],
        always_send=False,
        supports_credentials=True,
        expose_headers=EXPOSED_HEADERS,
        allow_headers="*",  # tracing libraries of front ends add headers of their own
        methods=["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD"],
        max_age=600,
    )


def begin_request() -> Response | None:
    """Create the request context and apply the rate limit, or raise 429 `too_many_requests`.

    `limit_key` names the user or the network for which the request counts. Probes and requests with
    `METRICS_TOKEN` have no limit: an attacker behind the same address must not blind the operators.
    A preflight of an unknown path succeeds, so that browsers send the request and show its 404. So does one
    of a path with a double slash: browsers follow the redirect of a request, but not of a preflight.
    """
    deadline.start()
    quotas.start()
    header = request.headers.get("X-Request-ID", "")
    request_id = header if REQUEST_ID.fullmatch(header) else f"{getrandbits(128):032x}"
    address, counted_address = client_addresses()
    context = g.context = RequestContext(
        request_id, started=time.perf_counter(), address=address, network=network_of(counted_address)
    )
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(request_id=request_id)
    read_token(context)
    if request.method == "OPTIONS":
        has_no_route = isinstance(request.routing_exception, (NotFound, RequestRedirect))
        return Response(status=204) if has_no_route and "Origin" in request.headers else None
    path = str(request.url_rule)
    if path in PROBES or (path == "/metrics" and is_metrics_token()):
        return None
    rate, key = settings().rate_limit_default, limit_key(context)
    if context.token is None:
        wait = limits.hit(rate, *key)
    else:
        session = revoked_key(context.token.session_id, context.token.started)
        wait, context.revoked = limits.hit_and_check(rate, key, session)
    if wait is not None:
        raise ClinicError("too_many_requests", "Too many requests; try again later.", retry_after=wait)
    if isinstance(request.routing_exception, RequestRedirect):
        # Flask would send a page of HTML, and never passes this exception to an error handler
        redirect = Response(status=308, headers={"Location": request.routing_exception.new_url})
        del redirect.headers["Content-Type"]
        return redirect
    return None


def finish_request(response: Response) -> Response:
    """Add the common headers to a response, count it, and log it."""
    headers, context = response.headers, current_context()
    common = SECURITY_HEADERS_OF_PRODUCTION if settings().production else SECURITY_HEADERS
    # added, not set: to set a header, werkzeug compares its name with all others
    headers.extend((("X-Request-ID", context.request_id), *common, *quotas.headers().items()))
    headers.setdefault("Content-Security-Policy", CSP)
    route = str(request.url_rule or "unmatched")
    if response.status_code >= 400 or route not in PROBES:
        headers.setdefault("Cache-Control", "no-store")  # public documents have set their own
    if headers.get("Cache-Control") != "no-store" and settings().allowed_origins:
        # also without CORS headers: a cache must not send this response to a front end
        response.vary.add("Origin")
    seconds = time.perf_counter() - context.started
    metrics.record_request(request.method, route, response.status_code, seconds)
    if route == EMERGENCY_ROUTE and response.status_code == 201 and "Idempotency-Replayed" not in headers:
        metrics.EMERGENCY_ACCESSES.inc()
    log.info(
        "request",
        method=request.method,
        route=route,
        status=response.status_code,
        ms=round(seconds * 1000, 1),
    )
    return response


def end_request(_error: BaseException | None) -> None:
    """Remove the state of the request from this thread."""
    deadline.clear()
    quotas.clear()
