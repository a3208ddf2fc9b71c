"""Passkeys (WebAuthn level 3): options for a browser, and checks of its response."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

from lazy_imports import LazyModule

if TYPE_CHECKING:
    import webauthn
    from webauthn import helpers
    from webauthn.helpers import structs
else:
    webauthn = LazyModule("webauthn")
    helpers = LazyModule("webauthn.helpers")
    structs = LazyModule("webauthn.helpers.structs")

DEFAULT_PORTS = {"http": ":80", "https": ":443"}
TIMEOUT = 300_000  # milliseconds, as long as the challenge is valid
MAX_ID_BYTES = 1023  # of a credential id (section 7.1)


class PasskeyError(Exception):
    """A response of a browser that proves nothing."""


class NewPasskey(NamedTuple):
    """A verified new passkey."""

    credential_id: str
    public_key: bytes
    sign_count: int


def origin_of(url: str) -> str:
    """Return the origin of a URL as browsers send it: scheme, host, and a port that is not the default."""
    parts = urlsplit(url.lower())
    return f"{parts.scheme}://{parts.netloc.removesuffix(DEFAULT_PORTS.get(parts.scheme, ''))}"


def rp_id(origin: str) -> str:
    """Return the relying party of an origin: its host. A browser uses a passkey on this host only."""
    return urlsplit(origin).hostname or ""


def registration_options(
    origin: str,
    *,
    rp_name: str,
    challenge: str,
    user_id: int,
    user_name: str,
    display_name: str,
    registered: Sequence[str],
) -> dict[str, Any]:
    """Return the argument of `navigator.credentials.create()`, as JSON. `registered` are credential ids."""
    options = webauthn.generate_registration_options(
        rp_id=rp_id(origin),
        rp_name=rp_name,
        user_id=hashlib.sha256(f"user {user_id}".encode()).digest(),  # no personal data (section 14.6.1)
        user_name=user_name,
        user_display_name=display_name,
        challenge=helpers.base64url_to_bytes(challenge),
        timeout=TIMEOUT,
        authenticator_selection=structs.AuthenticatorSelectionCriteria(
            resident_key=structs.ResidentKeyRequirement.PREFERRED,
            user_verification=structs.UserVerificationRequirement.PREFERRED,
        ),
        exclude_credentials=_descriptors(registered),
    )
    return helpers.options_to_json_dict(options)


def authentication_options(origin: str, *, challenge: str, registered: Sequence[str]) -> dict[str, Any]:
    """Return the argument of `navigator.credentials.get()`, as JSON."""
    options = webauthn.generate_authentication_options(
        rp_id=rp_id(origin),
        challenge=helpers.base64url_to_bytes(challenge),
        timeout=TIMEOUT,
        allow_credentials=_descriptors(registered),
        user_verification=structs.UserVerificationRequirement.PREFERRED,
    )
    return helpers.options_to_json_dict(options)


def _descriptors(credential_ids: Sequence[str]) -> list[structs.PublicKeyCredentialDescriptor]:
    return [
        structs.PublicKeyCredentialDescriptor(id=helpers.base64url_to_bytes(text)) for text in credential_ids
    ]


def verify_registration(credential: dict[str, Any], *, challenge: str, origin: str) -> NewPasskey:
    """Return the new passkey. Raise `PasskeyError` for a response that is wrong, or for another challenge."""
    try:
        verified = webauthn.verify_registration_response(
            credential=credential,
            expected_challenge=helpers.base64url_to_bytes(challenge),
            expected_rp_id=rp_id(origin),
            expected_origin=origin,
        )
    except Exception as error:  # the parsers raise many kinds of errors for a response that is no response
        raise PasskeyError from error
    if len(verified.credential_id) > MAX_ID_BYTES:
        raise PasskeyError
    credential_id = helpers.bytes_to_base64url(verified.credential_id)
    return NewPasskey(credential_id, verified.credential_public_key, verified.sign_count)


def verify_authentication(
    credential: dict[str, Any], *, challenge: str, origin: str, public_key: bytes, sign_count: int
) -> int:
    """Return the new sign count. Raise `PasskeyError` for a response that does not prove the passkey.

    A count that does not increase shows a copied authenticator (section 6.1.1).
    """
    try:
        verified = webauthn.verify_authentication_response(
            credential=credential,
            expected_challenge=helpers.base64url_to_bytes(challenge),
            expected_rp_id=rp_id(origin),
            expected_origin=origin,
            credential_public_key=public_key,
            credential_current_sign_count=sign_count,
        )
    except Exception as error:  # as in `verify_registration`
        raise PasskeyError from error
    return verified.new_sign_count
