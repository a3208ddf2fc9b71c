"""The identity of the caller: access token, origin of cookie requests, and session.

`read_token` runs when a request begins and needs no database. `identify` verifies session, user and role in
the transaction of the request, after the body is read: a slow body must not keep rights that were withdrawn.
"""

from __future__ import annotations

import hmac
from typing import Any

from flask import request

from api import response_format
from api.endpoint import EndpointSpec, StepUp
from api.request_context import SAFE_METHODS, RequestContext, visitor
from cache.rate_limits import limits
from config import settings
from errors import ClinicError
from security import tokens
from security.permissions import Actor, Permission
from services.users import factor_policy, sessions

DEVICE_COOKIE, DEVICE_HEADER = "clinic_device", "X-Device-Token"


def bearer_token() -> str | None:
    """Return the token of the Authorization header: None without the header, empty for another scheme."""
    header = request.headers.get("Authorization")
    if not header:
        return None
    scheme, _, token = header.partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def presented_token() -> tuple[str | None, bool]:
    """Return the access token, and True if it came as a cookie. The header has precedence, valid or not."""
    bearer = bearer_token()
    if bearer is not None:
        return bearer, False
    cookie = request.cookies.get("access_token_cookie")
    return cookie, cookie is not None


def device_tokens() -> list[str]:
    """Return the device tokens of the request, which prove that a user has signed in on the device before."""
    tokens_sent = (request.headers.get(DEVICE_HEADER), request.cookies.get(DEVICE_COOKIE))
    return [token for token in tokens_sent if token]


def limit_key(context: RequestContext) -> tuple[str, str]:
    """Return the user, device or network whose requests count together for `RATE_LIMIT_DEFAULT`.

    Without a genuine access token, a genuine device token proves the user well enough to count apart: callers
    in the same network must not keep its users from signing in.
    """
    if context.token is not None:
        return "user", str(context.token.user_id)
    device = next(filter(None, map(tokens.read_device, device_tokens())), None)
    return ("address", context.network) if device is None else ("device", device.user_id)


def limit_files(context: RequestContext) -> None:
    """Count a request for a file of a list, which costs more than a page. Raise 429 above the limit."""
    wait = limits.hit(settings().rate_limit_files, "files", *limit_key(context), policy="files")
    if wait is not None:
        raise ClinicError("too_many_requests", "Wait before you ask for another file.", retry_after=wait)


def read_token(context: RequestContext) -> None:
    """Check signature and expiry of the access token, if there is one, and store its claims or its error."""
    token, context.token_from_cookie = presented_token()
    if token is None:
        return
    if not token and not context.token_from_cookie:
        context.token_error = ClinicError(
            "token_invalid", "Write the header as Authorization: Bearer <access_token>, with the word Bearer."
        )
        return
    try:
        context.token = tokens.read(token, tokens.ACCESS)
    except ClinicError as error:
        context.token_error = error


def check_origin() -> None:
    """Raise 403 for an unsafe cookie request without an allowed `Origin` (CSRF)."""
    if request.method in SAFE_METHODS:
        return
    origin = request.headers.get("Origin", "").lower()
    if origin not in settings().allowed_origins and origin != request.host_url.rstrip("/").lower():
        raise ClinicError("origin_not_allowed", "A request with cookies must come from an allowed origin.")


def require_token(context: RequestContext, spec: EndpointSpec) -> None:
    """Raise 401 without a genuine token if the endpoint needs one, and 403 for a foreign origin.

    A public endpoint with `optional_sign_in` needs none, but refuses a bad one.
    """
    if not _reads_token(spec) or (spec.permission is Permission.METRICS_READ and is_metrics_token()):
        return
    if context.token_error is not None:
        raise context.token_error
    if context.token is None:
        if spec.permission is Permission.PUBLIC:
            return
        raise ClinicError("unauthorized", "Sign in first: send Authorization: Bearer <access_token>.")
    if context.token_from_cookie:
        check_origin()


def _reads_token(spec: EndpointSpec) -> bool:
    return spec.permission is not Permission.PUBLIC or spec.optional_sign_in


def is_metrics_token() -> bool:
    """Return True for the bearer token `METRICS_TOKEN`: Prometheus cannot sign in."""
    expected, token = settings().metrics_token, bearer_token()
    if not expected or not token:
        return False
    return hmac.compare_digest(token.encode(), expected.encode())


def identify(context: RequestContext, spec: EndpointSpec) -> None:
    """Set the actor of the request and check the permission, in the current transaction. Raise 401 or 403.

    The second factor is checked too: whether the caller must set one up first, or prove it again.
    """
    context.actor = None
    if context.token is None or not _reads_token(spec):
        return
    actor = _verified(context)
    needs_step_up = _needs_step_up(spec, actor, context.body or {})
    if actor.must_enrol and not spec.before_enrolment:
        raise _enrolment_required(needs_step_up)
    actor.require(spec.permission)
    if needs_step_up:
        factor_policy.require_step_up(actor)


def _needs_step_up(spec: EndpointSpec, actor: Actor, members: dict[str, Any]) -> bool:
    if spec.step_up is StepUp.ADMINS:
        return actor.may(Permission.USERS_MANAGE)
    if spec.step_up is StepUp.ACCOUNTS:
        return actor.may(Permission.USERS_MANAGE) and members.get("user") is not None
    if spec.step_up is StepUp.EXPORTS:
        return response_format.is_file(spec.media_types)
    return spec.step_up is StepUp.ALWAYS


def _enrolment_required(needs_step_up: bool) -> ClinicError:
    """Return the 403 for a user without the second factor that the role needs.

    The code is `step_up_required` where users with a second factor get it too.
    """
    message = "Your role needs a second factor. Set one up with POST /auth/mfa/totp or as a passkey."
    return ClinicError("step_up_required" if needs_step_up else "mfa_enrolment_required", message)


def _verified(context: RequestContext) -> Actor:
    assert context.token is not None  # noqa: S101 - the callers have checked it
    if context.revoked:
        raise sessions.ended().about("user", context.token.user_id)
    context.actor, context.session_idle = sessions.identify(context.token, visitor())
    return context.actor
