"""Requests and responses of second factors: authenticator app, passkeys, recovery codes and step-up."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from enums import FactorMethod
from schemas.account import Token
from schemas.base import In, Out, require_any
from schemas.fields import Code, InstantOut, Name, clean

FactorCode = Annotated[
    Code,
    Field(
        examples=["123456"],
        description="The six digits of the authenticator app, or a recovery code. Each is accepted once.",
    ),
]
Credential = Annotated[
    dict[str, Any],
    Field(
        examples=[{"id": "AQID", "rawId": "AQID", "type": "public-key", "response": {}}],
        description="The JSON form of the `PublicKeyCredential` that the browser returns.",
    ),
]


# --- Requests ------------------------------------------------------------------------------------------


class ProofIn(In):
    """A second factor: a code, or the response of a passkey."""

    model_config = In.model_config | {"json_schema_extra": require_any("code", "credential")}

    code: FactorCode | None = None
    credential: Credential | None = None


class OptionalProofIn(In):
    """A second factor. It is not needed after a fresh step-up."""

    code: FactorCode | None = None
    credential: Credential | None = None


class MfaTokenIn(In):
    """The token of a sign-in that waits for a second factor."""

    mfa_token: Token


class MfaLoginIn(ProofIn):
    """The second step of a sign-in."""

    mfa_token: Token


class TotpConfirmIn(In):
    """The present code of the new authenticator app."""

    code: FactorCode


class PasskeyIn(In):
    """A new passkey."""

    name: Annotated[Name, Field(examples=["Phone of Grace"], description="A name for the list.")]
    credential: Credential


class MfaResetIn(In):
    """The reason to remove the second factors of a user, for the audit log."""

    reason: Annotated[Code, clean(100), Field(examples=["Lost the phone; identity checked in person"])]


# --- Responses -----------------------------------------------------------------------------------------


class MfaRequiredOut(Out):
    """The right password of a user with a second factor. There are no tokens yet."""

    mfa_required: Literal[True] = True
    mfa_token: str = Field(description="For `POST /auth/login/mfa`. It is valid for five minutes.")
    methods: list[FactorMethod]


class FactorStatusOut(Out):
    """The second factors of the signed-in user."""

    enabled: bool
    enabled_at: InstantOut | None
    methods: list[FactorMethod] = Field(description="The ways to prove a second factor at present.")
    passkeys: int
    recovery_codes_left: int
    required: bool = Field(description="The role needs a second factor (`MFA_REQUIRED_ROLES`).")
    required_from: InstantOut | None = Field(
        description="From then on, a user without a second factor can only set one up."
    )
    stepped_up_until: InstantOut | None = Field(
        description="End of the time in which this session needs no other step-up."
    )


class TotpEnrolmentOut(Out):
    """The secret of an authenticator app, shown only once."""

    otpauth_uri: str = Field(description="For a link on the same device, or to type its `secret`.")
    qr_svg: str = Field(description="The same as a QR code, as an SVG image.")


class RecoveryCodesOut(Out):
    """New recovery codes, shown only once. Each replaces the second factor once."""

    recovery_codes: list[str] | None = Field(
        description="Null: the user has recovery codes already, which stay valid."
    )


class PasskeyOut(Out):
    """A passkey."""

    id: int
    name: str
    created_at: InstantOut
    last_used_at: InstantOut | None


class PasskeyCreatedOut(PasskeyOut, RecoveryCodesOut):
    """A new passkey, and recovery codes if it is the first second factor."""


class PublicKeyOptionsOut(Out):
    """The argument of `navigator.credentials.create()` or `.get()`, in its JSON form."""

    public_key: dict[str, Any] = Field(
        description="Read it with `PublicKeyCredential.parseCreationOptionsFromJSON()` or "
        "`.parseRequestOptionsFromJSON()`."
    )


class StepUpOut(Out):
    """The result of a step-up."""

    message: str
    stepped_up_until: InstantOut
