"""What happens around every request: its id, the limits, the security headers, and the one error shape."""

from __future__ import annotations

import json
import re
import time
from random import getrandbits  # names a request and keeps no secret: not worth a system call

import structlog
from flask import Flask, Response, g, request
from werkzeug.exceptions import HTTPException, MethodNotAllowed
from werkzeug.middleware.proxy_fix import ProxyFix

from config import settings
from database import begin_waiting
from errors import CODES, ClinicError
from extensions import cors, limits
from resources import metrics
from resources.answers import json_response
from resources.base import behind, read_claims
from services.sessions import revoked_key

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
    """Name the request and count it: by user where a genuine token says who, else by address."""
    kept, asked = behind(g), behind(request)
    kept.started = time.perf_counter()
    begin_waiting()
    given = asked.headers.get("X-Request-ID", "")
    kept.request_id = given if REQUEST_ID.fullmatch(given) else f"{getrandbits(128):032x}"
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(request_id=kept.request_id)
    if asked.path in OPEN_PATHS or asked.method == "OPTIONS":
        return
    try:
        claims = read_claims()
    except ClinicError:
        claims = None
    rate = settings().rate_limit_default
    if claims is None:
        wait = limits.hit(rate, "address", asked.remote_addr or "unknown")
    else:
        ended = revoked_key(claims.session_id)
        wait, kept.revoked = limits.hit_and_ask(rate, ("user", str(claims.user_id)), ended)
    if wait is not None:
        raise ClinicError("too_many_requests", "Slow down; try again later.", retry_after=wait)


def finish(response: Response) -> Response:
    """The headers of every answer, and its line in the log."""
    headers, kept, asked = response.headers, behind(g), behind(request)
    headers.extend((("X-Request-ID", kept.get("request_id", "")), *ALWAYS))
    headers.setdefault("Content-Security-Policy", CSP)
    if asked.path not in CACHEABLE or response.status_code >= 400:
        headers["Cache-Control"] = "no-store"
    if settings().production:
        headers["Strict-Transport-Security"] = "max-age=31536000; includeSubDomains"
    route = str(asked.url_rule or "unmatched")
    seconds = time.perf_counter() - kept.get("started", time.perf_counter())
    metrics.observe(asked.method, route, response.status_code, seconds)
    log.info(
        "request",
        method=asked.method,
        route=route,
        status=response.status_code,
        ms=round(seconds * 1000, 1),
    )
    return response


def problem(error: ClinicError) -> Response:
    """A refusal as RFC 9457 problem details: one shape for every status."""
    document = {
        "type": f"about:blank#{error.code}",
        "title": error.title,
        "status": error.status,
        "detail": error.message,
        "error": error.code,
        "message": error.message,
        "request_id": g.get("request_id", ""),
        **({"errors": error.errors} if error.errors else {}),
        **({"errors_omitted": error.errors_omitted} if error.errors_omitted else {}),
        **error.members,
    }
    response = json_response(json.dumps(document, default=str).encode(), error.status)
    response.mimetype = "application/problem+json"
    if error.retry_after is not None:
        response.headers["Retry-After"] = str(error.retry_after)
    if error.status == 401:
        response.headers["WWW-Authenticate"] = "Bearer"
    return response


def render_error(error: Exception) -> Response:
    """Whatever was raised, in the one shape; what we did not foresee is logged whole and shown as nothing."""
    if isinstance(error, ClinicError):
        return problem(error)
    if isinstance(error, HTTPException):
        return _render_http(error)
    log.error("unexpected", exc_info=error)
    return problem(ClinicError("internal_error", "Something went wrong on our side; quote the request id."))


def _render_http(error: HTTPException) -> Response:
    codes = {status: code for code, (status, _title) in reversed(CODES.items())}
    status = error.code or 500
    if isinstance(error, MethodNotAllowed):
        taken = ", ".join(sorted(error.valid_methods or []))
        response = problem(ClinicError("method_not_allowed", f"This route takes {taken} only."))
        response.headers["Allow"] = taken
        return response
    if status == 404:
        return problem(ClinicError("not_found", "There is no such route; GET / lists them all."))
    if 300 <= status < 400:
        return Response(error.get_response().get_data(), status, dict(error.get_headers()))
    return problem(ClinicError(codes.get(status, "bad_request"), "The request could not be read."))
