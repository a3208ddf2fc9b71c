"""The identity of the caller: access token, session and origin."""

from __future__ import annotations

import hmac

from flask import g, request

from api.request_context import SAFE, RequestContext, behind, visitor
from config import settings
from errors import ClinicError
from security import tokens
from security.permissions import Actor, Permission
from security.tokens import Claims
from services.users import sessions


def bearer_token() -> str | None:
    """The token of the Authorization header; None without the header, empty where it holds something else."""
    header = request.headers.get("Authorization", "")
    scheme, _, token = header.partition(" ")
    return token.strip() if scheme.lower() == "bearer" else "" if header else None


def presented_token() -> tuple[str | None, bool]:
    """The access token of the request and whether it came as a cookie; the header wins."""
    bearer = bearer_token()
    if bearer is not None:
        return bearer, False  # even where it is no token: not silently the cookie
    cookie = request.cookies.get("access_token_cookie")
    return cookie, cookie is not None


def read_claims() -> Claims | None:
    """The claims of the presented token, read once per request; None without one. Raises 401."""
    kept = behind(g)
    if "claims" not in kept:
        token, by_cookie = presented_token()
        try:
            kept.claims = None if token is None else tokens.read(token, tokens.ACCESS)
            kept.by_cookie = by_cookie
        except ClinicError as refusal:
            kept.claims = refusal
    if isinstance(kept.claims, ClinicError):
        raise kept.claims
    found: Claims | None = kept.claims
    return found


def check_origin() -> None:
    """403 for an unsafe request that a cookie signs but no allowed origin sends (CSRF)."""
    if request.method in SAFE:
        return
    origin = (request.headers.get("Origin") or "").rstrip("/")
    if origin not in settings().allowed_origins and origin != request.host_url.rstrip("/"):
        raise ClinicError("origin_not_allowed", "A request with cookies must come from an allowed origin.")


def _is_scraper(call: RequestContext) -> bool:
    """Prometheus cannot sign in: `METRICS_TOKEN` is its bearer token, for the figures alone."""
    if call.operation.permission is not Permission.METRICS_READ:
        return False
    wanted, (token, _cookie) = settings().metrics_token, presented_token()
    return bool(wanted and token and hmac.compare_digest(token.encode(), wanted.encode()))


def identify(call: RequestContext) -> None:
    """Set the actor of the request, or raise 401 or 403. A public route may have no actor."""
    kept = behind(g)
    call.actor = kept.actor = None
    if _is_scraper(call):
        return
    public = call.operation.permission is Permission.PUBLIC
    try:
        claims = read_claims()
        if claims is None and not public:
            raise ClinicError("unauthorized", "Sign in first: send Authorization: Bearer <access_token>.")
        if claims is not None:
            revoked = kept.revoked if "revoked" in kept else sessions.is_revoked(claims.session_id)
            call.actor, call.idle = sessions.identify(
                claims, visitor(), revoked=revoked, reading=call.request.method in SAFE
            )
            if kept.by_cookie and not public:
                check_origin()
    except ClinicError as refusal:
        if not public:
            raise
        kept.token_problem = refusal  # a public route decides for itself
    kept.actor = call.actor
    if call.actor is not None:
        call.actor.require(call.operation.permission)


def optional_actor() -> Actor | None:
    """On a public route: the signed-in user, or None without token. A bad token is refused, not ignored."""
    problem: ClinicError | None = g.get("token_problem")
    if problem is not None:
        raise problem
    actor: Actor | None = g.actor
    if actor is not None and g.by_cookie:
        check_origin()
    return actor
