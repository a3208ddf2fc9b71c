"""Endpoints of sign-in, sessions and the account of the signed-in user."""

from __future__ import annotations

from typing import Any

from flask import Response, current_app, request
from flask_jwt_extended import set_access_cookies, set_refresh_cookies, unset_jwt_cookies

from api import request_body
from api.authentication import DEVICE_COOKIE, bearer_token, check_origin, device_tokens
from api.endpoint import StepUp, endpoint
from api.request_context import current_actor, current_context, set_actor, visitor
from api.resource import ApiResource
from api.serialization import EndpointResult, Serializer
from errors import ClinicError
from models import User, UserSession
from resources.users import USER
from schemas.account import (
    ChangePasswordIn,
    LoginIn,
    RefreshIn,
    RegisterIn,
    RegisterOut,
    ResetPasswordIn,
    SessionOut,
    SignedInOut,
    TokensOut,
    UserOut,
    UserPatch,
)
from schemas.base import Message
from schemas.second_factor import MfaRequiredOut
from security import tokens
from security.permissions import Permission
from security.tokens import Claims, Pair
from services.listing.spec import ListQuery, Page
from services.users import accounts, sessions, sign_in
from services.users.sign_in import FactorRequired, SignedIn

SESSION = Serializer(SessionOut, computed_fields=sessions.add_computed_fields)
ACCESS_COOKIE, REFRESH_COOKIE = "access_token_cookie", "refresh_token_cookie"


def _token_result(message: str, user: User, pair: Pair, device_token: str | None = None) -> EndpointResult:
    """Return the tokens of a session, in the body and as cookies with the same lifetime."""

    def set_cookies(response: Response) -> None:
        set_access_cookies(response, pair.access_token, max_age=pair.access_seconds)
        set_refresh_cookies(response, pair.refresh_token, max_age=pair.refresh_seconds)
        if device_token is not None:
            _set_device_cookie(response, device_token)

    members = {
        "message": message,
        "access_token": pair.access_token,
        "refresh_token": pair.refresh_token,
        "token_type": "Bearer",
        "expires_in": pair.access_seconds,
        "user": user,
        "device_token": device_token,
    }
    return EndpointResult(members, change_cookies=set_cookies)


def _set_device_cookie(response: Response, token: str) -> None:
    """Set the cookie with the attributes of the session cookies. A sign-out keeps it."""
    config = current_app.config
    response.set_cookie(
        DEVICE_COOKIE,
        token,
        max_age=tokens.DEVICE_LIFETIME,
        secure=config["JWT_COOKIE_SECURE"],
        httponly=True,
        samesite=config["JWT_COOKIE_SAMESITE"],
    )


class Register(ApiResource):
    """Route `/auth/register`."""

    @endpoint(
        Permission.PUBLIC,
        body=RegisterIn,
        returns=RegisterOut,
        resource=UserOut,
        status=201,
        idempotent=False,
        errors=("registration_closed", "already_exists", "mfa_enrolment_required"),
        step_up=StepUp.ADMINS,
        optional_sign_in=True,
    )
    def post(self, data: RegisterIn) -> EndpointResult:
        """Register a user account.

        An administrator must activate it. With an administrator's token, the account may have any role and is
        active at once.
        """
        user = accounts.register(current_context().actor or visitor(), **data.model_dump())
        message = "The account is ready." if user.is_active else "An administrator will activate the account."
        return EndpointResult({"message": message, "user": user}, headers={"Location": f"/users/{user.id}"})


class Login(ApiResource):
    """Route `/auth/login`."""

    @endpoint(
        Permission.PUBLIC,
        body=LoginIn,
        returns=SignedInOut,
        or_returns=MfaRequiredOut,
        idempotent=False,
        errors=("invalid_credentials", "account_inactive"),
    )
    def post(self, data: LoginIn) -> EndpointResult:
        """Sign in.

        The tokens of the new session are in the body and in HttpOnly cookies. After too many failures the
        response is 429. Send the `device_token` of an earlier sign-in as `X-Device-Token`, or the cookie
        `clinic_device`: failures on other devices then do not count.

        A user with a second factor gets no tokens yet, but an `mfa_token` for `POST /auth/login/mfa`.
        """
        result = sign_in.sign_in(
            visitor(),
            email=data.email,
            password=data.password,
            user_agent=request.user_agent.string,
            device_tokens=device_tokens(),
        )
        if isinstance(result, FactorRequired):
            return EndpointResult(MfaRequiredOut(mfa_token=result.mfa_token, methods=result.methods))
        return signed_in_result(result)


def signed_in_result(signed_in: SignedIn) -> EndpointResult:
    """Return the tokens of a new session, and name its user to the audit log."""
    set_actor(signed_in.actor)
    return _token_result("Signed in.", signed_in.user, signed_in.pair, signed_in.device_token)


def _refresh_claims(body_token: str | None) -> Claims:
    """Return the claims of the refresh token: from the body, else the bearer token, else the cookie.

    Clients send their access token as bearer token with every request. If it is not a refresh token and there
    is a cookie, the cookie is read. Raises 401, and 403 for a cookie from a foreign origin.
    """
    bearer, cookie = bearer_token(), request.cookies.get(REFRESH_COOKIE)
    if body_token:
        return tokens.read(body_token, tokens.REFRESH)
    if bearer is not None:
        try:
            return tokens.read(bearer, tokens.REFRESH)
        except ClinicError:
            if not cookie:
                raise
    if not cookie:
        message = "Send the refresh token as bearer token, as cookie, or as `refresh_token` in the body."
        raise ClinicError("unauthorized", message)
    claims = tokens.read(cookie, tokens.REFRESH)
    check_origin()
    return claims


class RefreshToken(ApiResource):
    """Route `/auth/refresh-token`."""

    @endpoint(
        Permission.PUBLIC,
        body=RefreshIn,
        returns=TokensOut,
        idempotent=False,
        errors=("unauthorized", "token_invalid", "token_expired", "token_revoked", "origin_not_allowed"),
    )
    def post(self, data: RefreshIn) -> EndpointResult:
        """Exchange a refresh token for new tokens.

        The old refresh token becomes invalid. Its use after a few seconds ends the session, because it may be
        stolen.
        """
        actor, user, pair = sessions.rotate(visitor(), _refresh_claims(data.refresh_token))
        set_actor(actor)
        return _token_result("Refreshed.", user, pair)


def _body_token() -> str | None:
    """Return the refresh token in the body, if there is one. No body makes a sign-out fail."""
    try:
        token = request_body.body_members().get("refresh_token")
    except ClinicError:
        return None
    return token if isinstance(token, str) else None


def _presented_claims() -> list[Claims]:
    """Return the claims of all genuine tokens of the request, also of expired ones.

    Raises 403 for a cookie that a page of a foreign origin sends.
    """
    claims_of_tokens = []
    for token, by_cookie in (
        (_body_token(), False),
        (bearer_token(), False),
        (request.cookies.get(ACCESS_COOKIE), True),
        (request.cookies.get(REFRESH_COOKIE), True),
    ):
        try:
            claims = tokens.read(token or "", tokens.ACCESS, tokens.REFRESH, allow_expired=True)
        except ClinicError:
            continue
        if by_cookie and "Origin" in request.headers:  # pages in browsers always send it with POST
            check_origin()
        claims_of_tokens.append(claims)
    return claims_of_tokens


class Logout(ApiResource):
    """Route `/auth/logout`."""

    @endpoint(
        Permission.PUBLIC,
        returns=Message,
        idempotent=False,
        ignores_input=True,
        errors=("origin_not_allowed",),
    )
    def post(self) -> EndpointResult:
        """Sign out: end the session of the tokens and clear the cookies.

        Send either token as bearer token or as cookie, or the refresh token as `refresh_token` in the body.
        """
        for claims in sorted(_presented_claims(), key=lambda claims: claims.session_id):
            actor = sessions.sign_out(visitor(), claims)
            if current_context().actor is None and actor.user_id is not None:
                set_actor(actor)
        return EndpointResult({"message": "Signed out."}, change_cookies=unset_jwt_cookies)


class CurrentUser(ApiResource):
    """Route `/auth/me`."""

    @endpoint(Permission.SIGNED_IN, load=accounts.me, returns=USER, before_enrolment=True)
    def get(self, row: User) -> User:
        """Show the signed-in user."""
        return row

    @endpoint(Permission.SIGNED_IN, load=accounts.me, body=UserPatch, returns=USER)
    def patch(self, row: User, data: Any) -> User:
        """Change the name or phone of the signed-in user."""
        return accounts.update_own(row, **data.model_dump(exclude_unset=True))


class ChangePassword(ApiResource):
    """Route `/auth/change-password`."""

    @endpoint(
        Permission.SIGNED_IN, body=ChangePasswordIn, returns=Message, idempotent=False, before_enrolment=True
    )
    def post(self, data: ChangePasswordIn) -> dict[str, str]:
        """Change the password of the signed-in user and end their other sessions."""
        sign_in.change_password(current_actor(), **data.model_dump())
        return {"message": "The password is changed. The other sessions have ended."}


class ResetPassword(ApiResource):
    """Route `/auth/reset-password`."""

    @endpoint(
        Permission.PUBLIC, body=ResetPasswordIn, returns=Message, idempotent=False, errors=("token_invalid",)
    )
    def post(self, data: ResetPasswordIn) -> dict[str, str]:
        """Set a new password with a one-time token and end all sessions of the user."""
        sign_in.reset_password(visitor(), **data.model_dump())
        return {"message": "The password is changed. Sign in with the new password."}


class SessionList(ApiResource):
    """Route `/auth/sessions`."""

    @endpoint(Permission.SIGNED_IN, list_spec=sessions.LIST, returns=SESSION)
    def get(self, query: ListQuery) -> Page[UserSession]:
        """List the sessions of the signed-in user, with device, address and last use."""
        return sessions.find(current_actor(), query)


class SessionItem(ApiResource):
    """Route `/auth/sessions/<session_id>`."""

    @endpoint(Permission.SIGNED_IN, load=sessions.get, returns=SESSION)
    def delete(self, row: UserSession) -> UserSession:
        """End a session of the signed-in user."""
        return sessions.end_own(current_actor(), row)
