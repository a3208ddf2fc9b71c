"""Signing in and out over HTTP, and what users do about themselves."""

from __future__ import annotations

from typing import Any

from flask import Response, request
from flask_jwt_extended import set_access_cookies, set_refresh_cookies, unset_jwt_cookies

from api.authentication import bearer_token, check_origin, optional_actor
from api.endpoint import endpoint
from api.request_context import current_actor, current_context, set_actor, visitor
from api.resource import ApiResource
from api.serialization import Answer, Serializer
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
    TokensOut,
    UserPatch,
)
from schemas.base import Message
from security import tokens
from security.permissions import Permission
from security.tokens import Claims
from services.listing.spec import ListQuery, Page
from services.users import accounts, sessions, sign_in
from services.users.sessions import Pair

SESSION = Serializer(SessionOut, computed_fields=sessions.add_computed_fields)
ACCESS_COOKIE, REFRESH_COOKIE = "access_token_cookie", "refresh_token_cookie"


def _tokens(message: str, user: User, pair: Pair) -> Answer:
    """A session's tokens, in the body and as cookies that live as long as they do."""
    access, refresh = (
        int(lifetime.total_seconds()) for lifetime in (tokens.access_lifetime(), tokens.refresh_lifetime())
    )

    def set_cookies(response: Response) -> None:
        set_access_cookies(response, pair.access_token, max_age=access)
        set_refresh_cookies(response, pair.refresh_token, max_age=refresh)

    told = {
        "message": message,
        "access_token": pair.access_token,
        "refresh_token": pair.refresh_token,
        "token_type": "Bearer",
        "expires_in": access,
        "user": user,
    }
    return Answer(told, decorate=set_cookies)


class Register(ApiResource):
    """/auth/register"""

    @endpoint(
        Permission.PUBLIC,
        body=RegisterIn,
        returns=RegisterOut,
        status=201,
        idempotent=False,
        errors=("registration_closed", "already_exists"),
    )
    def post(self, data: RegisterIn) -> Answer:
        """Ask for an account, which an admin activates.

        With an admin's token it creates an active account of any role.
        """
        user = accounts.register(optional_actor() or visitor(), **data.model_dump())
        message = "The account is ready." if user.is_active else "An administrator will activate the account."
        return Answer({"message": message, "user": user}, headers={"Location": f"/users/{user.id}"})


class Login(ApiResource):
    """/auth/login"""

    @endpoint(
        Permission.PUBLIC,
        body=LoginIn,
        returns=TokensOut,
        idempotent=False,
        errors=("invalid_credentials", "account_inactive"),
    )
    def post(self, data: LoginIn) -> Answer:
        """Sign in: a session's tokens, in the body and as HttpOnly cookies."""
        device = request.user_agent.string
        actor, user, pair = sign_in.sign_in(
            visitor(), email=data.email, password=data.password, device=device
        )
        set_actor(actor)
        return _tokens("Signed in.", user, pair)


def _refresh_claims(given: str | None) -> Claims:
    """Body, bearer token, cookie: what was put into the request on purpose comes first.

    Clients send their access token with everything: a bearer token that is none for refreshing gives way to
    the cookie.
    """
    bearer, cookie = bearer_token(), request.cookies.get(REFRESH_COOKIE)
    if given:
        return tokens.read(given, tokens.REFRESH)
    if bearer is not None:
        try:
            return tokens.read(bearer, tokens.REFRESH)
        except ClinicError:
            if not cookie:
                raise
    if not cookie:
        message = "Send the refresh token as bearer token, as cookie, or as refresh_token in the body."
        raise ClinicError("unauthorized", message)
    claims = tokens.read(cookie, tokens.REFRESH)
    check_origin()
    return claims


class RefreshToken(ApiResource):
    """/auth/refresh-token"""

    @endpoint(
        Permission.PUBLIC,
        body=RefreshIn,
        returns=TokensOut,
        idempotent=False,
        errors=("unauthorized", "token_invalid", "token_expired", "token_revoked", "origin_not_allowed"),
    )
    def post(self, data: RefreshIn) -> Answer:
        """Exchange the refresh token for a new pair.

        The old one is retired: used again after a few seconds it ends the session.
        """
        actor, user, pair = sessions.rotate(visitor(), _refresh_claims(data.refresh_token))
        set_actor(actor)
        return _tokens("Refreshed.", user, pair)


def _presented_claims() -> list[Claims]:
    """The genuine tokens of the request, expired ones too; a foreign page's use of the cookies is refused."""
    found = []
    for token, by_cookie in (
        (bearer_token(), False),
        (request.cookies.get(ACCESS_COOKIE), True),
        (request.cookies.get(REFRESH_COOKIE), True),
    ):
        try:
            claims = tokens.read(token or "", tokens.ACCESS, tokens.REFRESH, allow_expired=True)
        except ClinicError:
            continue
        if by_cookie and "Origin" in request.headers:  # without one it was no browser's page
            check_origin()
        found.append(claims)
    return found


class Logout(ApiResource):
    """/auth/logout"""

    @endpoint(Permission.PUBLIC, returns=Message, idempotent=False, errors=("origin_not_allowed",))
    def post(self) -> Answer:
        """End the session of either token, if there is one, and clear the cookies."""
        for claims in sorted(_presented_claims(), key=lambda claims: claims.session_id):
            actor = sessions.sign_out(visitor(), claims)
            if current_context().actor is None and actor.user_id is not None:
                set_actor(actor)
        return Answer({"message": "Signed out."}, decorate=unset_jwt_cookies)


class Me(ApiResource):
    """/auth/me"""

    @endpoint(Permission.SIGNED_IN, loads=accounts.me, returns=USER)
    def get(self, row: User) -> User:
        """Show the signed-in user."""
        return row

    @endpoint(Permission.SIGNED_IN, loads=accounts.me, body=UserPatch, returns=USER)
    def patch(self, row: User, data: Any) -> User:
        """Change one's own name and phone."""
        return accounts.update_own(row, **data.model_dump(exclude_unset=True))


class ChangePassword(ApiResource):
    """/auth/change-password"""

    @endpoint(Permission.SIGNED_IN, body=ChangePasswordIn, returns=Message, idempotent=False)
    def post(self, data: ChangePasswordIn) -> dict[str, str]:
        """Change one's password; ends one's other sessions."""
        sign_in.change_password(current_actor(), **data.model_dump())
        return {"message": "The password is changed; other sessions have ended."}


class ResetPassword(ApiResource):
    """/auth/reset-password"""

    @endpoint(
        Permission.PUBLIC, body=ResetPasswordIn, returns=Message, idempotent=False, errors=("token_invalid",)
    )
    def post(self, data: ResetPasswordIn) -> dict[str, str]:
        """Set a new password by a one-time token; ends all sessions of its user."""
        sign_in.reset_password(**data.model_dump())
        return {"message": "The password is changed; sign in with it."}


class SessionList(ApiResource):
    """/auth/sessions"""

    @endpoint(Permission.SIGNED_IN, lists=sessions.LIST, returns=SESSION)
    def get(self, listed: ListQuery) -> Page[UserSession]:
        """List one's own sessions: device, address, last use."""
        return sessions.find(current_actor(), listed)


class SessionItem(ApiResource):
    """/auth/sessions/<session_id>"""

    @endpoint(Permission.SIGNED_IN, loads=sessions.get, returns=SESSION)
    def delete(self, row: UserSession) -> UserSession:
        """End one of one's own sessions."""
        return sessions.end_own(current_actor(), row)
