"""Endpoints of second factors: sign-in, step-up, authenticator app, recovery codes and passkeys."""

from __future__ import annotations

from typing import Any

from flask import request

from api.authentication import device_tokens
from api.endpoint import StepUp, endpoint
from api.request_context import current_actor, visitor
from api.resource import ApiResource
from api.serialization import EndpointResult, Serializer
from models import Passkey
from resources.auth import signed_in_result
from schemas.account import SignedInOut
from schemas.base import Message
from schemas.second_factor import (
    FactorStatusOut,
    MfaLoginIn,
    MfaTokenIn,
    OptionalProofIn,
    PasskeyCreatedOut,
    PasskeyIn,
    PasskeyOut,
    ProofIn,
    PublicKeyOptionsOut,
    RecoveryCodesOut,
    StepUpOut,
    TotpConfirmIn,
    TotpEnrolmentOut,
)
from security.permissions import Permission
from services.listing.spec import ListQuery, Page
from services.users import second_factors, sign_in, step_up, user_passkeys
from services.users.factor_proofs import Proof
from services.users.second_factors import Enrolment, FactorStatus

PASSKEY = Serializer(PasskeyOut)


# --- Sign-in and step-up -------------------------------------------------------------------------------


class LoginMfaOptions(ApiResource):
    """Route `/auth/login/mfa/options`."""

    @endpoint(
        Permission.PUBLIC,
        body=MfaTokenIn,
        returns=PublicKeyOptionsOut,
        idempotent=False,
        errors=("token_invalid",),
    )
    def post(self, data: MfaTokenIn) -> dict[str, Any]:
        """Request the options to sign in with a passkey."""
        options = user_passkeys.sign_in_options(data.mfa_token, request.headers.get("Origin"))
        return {"public_key": options}


class LoginMfa(ApiResource):
    """Route `/auth/login/mfa`."""

    @endpoint(
        Permission.PUBLIC,
        body=MfaLoginIn,
        returns=SignedInOut,
        idempotent=False,
        errors=("token_invalid", "invalid_code", "account_inactive"),
    )
    def post(self, data: MfaLoginIn) -> EndpointResult:
        """Complete a sign-in with a second factor.

        The response is that of `POST /auth/login` without a second factor. A wrong factor counts as a failed
        sign-in.
        """
        signed_in = sign_in.complete(
            visitor(),
            mfa_token=data.mfa_token,
            proof=Proof(data.code, data.credential),
            user_agent=request.user_agent.string,
            device_tokens=device_tokens(),
        )
        return signed_in_result(signed_in)


class StepUpOptions(ApiResource):
    """Route `/auth/step-up/options`."""

    @endpoint(Permission.SIGNED_IN, returns=PublicKeyOptionsOut, idempotent=False)
    def post(self) -> dict[str, Any]:
        """Request the options to step up with a passkey."""
        return {"public_key": user_passkeys.step_up_options(current_actor(), request.headers.get("Origin"))}


class StepUpProof(ApiResource):
    """Route `/auth/step-up`."""

    @endpoint(Permission.SIGNED_IN, body=ProofIn, returns=StepUpOut, idempotent=False)
    def post(self, data: ProofIn) -> dict[str, Any]:
        """Prove the second factor again.

        For ten minutes, this session may then do what needs a step-up.
        """
        until = step_up.confirm(current_actor(), Proof(data.code, data.credential))
        return {"message": "Confirmed. Send the request again.", "stepped_up_until": until}


# --- Own second factors --------------------------------------------------------------------------------


class MfaStatus(ApiResource):
    """Route `/auth/mfa`."""

    @endpoint(Permission.SIGNED_IN, returns=FactorStatusOut, before_enrolment=True)
    def get(self) -> FactorStatus:
        """Show the second factors of the signed-in user."""
        return second_factors.status(current_actor())


class TotpItem(ApiResource):
    """Route `/auth/mfa/totp`."""

    @endpoint(
        Permission.SIGNED_IN,
        returns=TotpEnrolmentOut,
        idempotent=False,
        errors=("already_exists",),
        step_up=StepUp.ALWAYS,
        before_enrolment=True,
    )
    def post(self) -> Enrolment:
        """Begin to set up an authenticator app.

        The app becomes a second factor with `POST /auth/mfa/totp/confirm`. Until then, a repeat replaces the
        secret.
        """
        return second_factors.enrol_totp(current_actor())

    @endpoint(
        Permission.SIGNED_IN,
        body=OptionalProofIn,
        returns=Message,
        errors=("step_up_required", "not_found"),
    )
    def delete(self, data: OptionalProofIn) -> dict[str, str]:
        """Remove the authenticator app. This needs a code, or a fresh step-up."""
        second_factors.remove_totp(current_actor(), Proof(data.code, data.credential))
        return {"message": "The authenticator app is removed."}


class TotpConfirm(ApiResource):
    """Route `/auth/mfa/totp/confirm`."""

    @endpoint(
        Permission.SIGNED_IN,
        body=TotpConfirmIn,
        returns=RecoveryCodesOut,
        idempotent=False,
        errors=("step_up_required",),
        before_enrolment=True,
    )
    def post(self, data: TotpConfirmIn) -> dict[str, Any]:
        """Confirm the authenticator app with its present code.

        From then on, a sign-in needs a second factor. The ten recovery codes are shown only once. A user with
        a passkey needs a step-up.
        """
        return {"recovery_codes": second_factors.confirm_totp(current_actor(), data.code)}


class RecoveryCodeList(ApiResource):
    """Route `/auth/mfa/recovery-codes`."""

    @endpoint(Permission.SIGNED_IN, returns=RecoveryCodesOut, idempotent=False, step_up=StepUp.ALWAYS)
    def post(self) -> dict[str, Any]:
        """Replace the recovery codes. The new ones are shown only once."""
        return {"recovery_codes": second_factors.renew_recovery_codes(current_actor())}


# --- Passkeys ------------------------------------------------------------------------------------------


class PasskeyOptions(ApiResource):
    """Route `/auth/mfa/passkeys/options`."""

    @endpoint(
        Permission.SIGNED_IN,
        returns=PublicKeyOptionsOut,
        idempotent=False,
        step_up=StepUp.ALWAYS,
        before_enrolment=True,
    )
    def post(self) -> dict[str, Any]:
        """Request the options to create a passkey."""
        options = user_passkeys.registration_options(current_actor(), request.headers.get("Origin"))
        return {"public_key": options}


class PasskeyList(ApiResource):
    """Route `/auth/mfa/passkeys`."""

    @endpoint(Permission.SIGNED_IN, list_spec=user_passkeys.LIST, returns=PASSKEY)
    def get(self, query: ListQuery) -> Page[Passkey]:
        """List the passkeys of the signed-in user."""
        return user_passkeys.find(current_actor(), query)

    @endpoint(
        Permission.SIGNED_IN,
        body=PasskeyIn,
        returns=PasskeyCreatedOut,
        status=201,
        idempotent=False,
        errors=("already_exists",),
        step_up=StepUp.ALWAYS,
        before_enrolment=True,
    )
    def post(self, data: PasskeyIn) -> EndpointResult:
        """Add a passkey.

        From the first second factor on, a sign-in needs one. Its recovery codes are shown only once.
        """
        passkey, codes = user_passkeys.register(current_actor(), name=data.name, credential=data.credential)
        members = {name: getattr(passkey, name) for name in PasskeyOut.model_fields}
        location = f"/auth/mfa/passkeys/{passkey.id}"
        return EndpointResult(members | {"recovery_codes": codes}, headers={"Location": location})


class PasskeyItem(ApiResource):
    """Route `/auth/mfa/passkeys/<passkey_id>`."""

    @endpoint(Permission.SIGNED_IN, load=user_passkeys.get, returns=PASSKEY, step_up=StepUp.ALWAYS)
    def delete(self, row: Passkey) -> Passkey:
        """Remove a passkey of the signed-in user."""
        return user_passkeys.remove(current_actor(), row)
