"""Passkeys of a user: registration, list and removal, and the WebAuthn options of a proof."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, select

from config import settings
from enums import FactorPurpose
from errors import ClinicError, invalid, not_found
from extensions import db
from models import Passkey, User
from security import passkeys
from security.permissions import Actor
from services import clock
from services.audit import audit_log
from services.clinic.record import clinic_record
from services.listing import paging
from services.listing.spec import ListQuery, ListSpec, Page
from services.rows import get_or_404
from services.users import factor_proofs, second_factors

MAX_PASSKEYS = 20  # of one user


class Registration(NamedTuple):
    """A new passkey, and recovery codes if it is the user's first factor."""

    passkey: Passkey
    recovery_codes: list[str] | None


def allowed_origin(sent: str | None) -> str:
    """Return the origin of the page that uses passkeys: an allowed one, by default that of `PUBLIC_URL`.

    Raises 403 `origin_not_allowed`.
    """
    url = settings().public_url
    public = passkeys.origin_of(url) if url else ""
    origin = (sent or public).lower()
    if not origin or origin not in (*settings().allowed_origins, public):
        message = "Use a passkey on a page of an allowed origin (ALLOWED_ORIGINS, PUBLIC_URL)."
        raise ClinicError("origin_not_allowed", message)
    return origin


def _of_caller(actor: Actor) -> ColumnElement[bool]:
    return Passkey.user_id == actor.user_id


LIST: ListSpec[Passkey] = ListSpec(
    name="passkeys",
    model=Passkey,
    area="passkey",
    main_date="created_at",
    scope=_of_caller,
    omit=frozenset({"user_id", "credential_id", "public_key", "sign_count"}),
)


def find(actor: Actor, query: ListQuery) -> Page[Passkey]:
    """Return one page of the caller's passkeys."""
    return paging.page(actor, LIST, query)


def get(actor: Actor, passkey_id: int, *, lock: bool = False) -> Passkey:
    """Return a passkey of the caller, or raise 404. With `lock` the user is locked first."""
    if lock:
        second_factors.lock_caller(actor)
    passkey = get_or_404(Passkey, passkey_id, lock=lock, what="passkey")
    if passkey.user_id != actor.user_id:
        raise not_found("passkey").about("user", passkey.user_id)
    return passkey


def registered_ids(user_id: int) -> Sequence[str]:
    """Return the credential ids of a user's passkeys."""
    of_user = select(Passkey.credential_id).where(Passkey.user_id == user_id).order_by(Passkey.id)
    return db.session.execute(of_user).scalars().all()


def registration_options(actor: Actor, origin: str | None) -> dict[str, Any]:
    """Return the options to create a passkey. Raises 409 `conflict` for more than `MAX_PASSKEYS`."""
    page = allowed_origin(origin)
    user = second_factors.lock_caller(actor)
    registered = registered_ids(user.id)
    if len(registered) >= MAX_PASSKEYS:
        raise ClinicError("conflict", f"You have {MAX_PASSKEYS} passkeys. Remove one first.")
    factor_proofs.take_challenge(actor, FactorPurpose.REGISTRATION)  # the one before becomes invalid
    row = factor_proofs.new_challenge(
        user.id, FactorPurpose.REGISTRATION, session_id=actor.session_id, origin=page
    )
    audit_log.set_action(user, "enrol_passkey")
    return passkeys.registration_options(
        page,
        rp_name=clinic_record().name,
        challenge=row.challenge or "",
        user_id=user.id,
        user_name=user.email,
        display_name=user.name,
        registered=registered,
    )


def register(actor: Actor, *, name: str, credential: dict[str, Any]) -> Registration:
    """Add a passkey. Its challenge is used up, also by a wrong response.

    Raises 422 `validation_failed` for a wrong response or an expired challenge, and 409 `already_exists`.
    """
    user = second_factors.lock_caller(actor)
    challenge = factor_proofs.take_challenge(actor, FactorPurpose.REGISTRATION)
    if challenge is None or challenge.challenge is None or challenge.origin is None:
        raise invalid("credential", "there is no challenge; begin with POST /auth/mfa/passkeys/options")
    try:
        new = passkeys.verify_registration(credential, challenge=challenge.challenge, origin=challenge.origin)
    except passkeys.PasskeyError:
        wrong = invalid("credential", "is not the response to the last options; request new options")
        raise factor_proofs.refused(user.id, "add_passkey", wrong) from None
    passkey = Passkey(user_id=user.id, name=name, created_at=clock.now(), **new._asdict())
    db.session.add(passkey)
    db.session.flush()
    codes = second_factors.enable(user)
    audit_log.set_action(user, "add_passkey")
    return Registration(passkey, codes)


def remove(actor: Actor, passkey: Passkey) -> Passkey:
    """Remove a passkey of the caller."""
    user = second_factors.lock_caller(actor)
    db.session.delete(passkey)
    db.session.flush()
    second_factors.disable_without_factor(user)
    audit_log.set_action(user, "remove_passkey")
    return passkey


def step_up_options(actor: Actor, origin: str | None) -> dict[str, Any]:
    """Return the options to prove a passkey in this session. Raises 409 `conflict` without a passkey."""
    page = allowed_origin(origin)
    user = second_factors.lock_caller(actor)
    registered = _existing(user)
    factor_proofs.take_challenge(actor, FactorPurpose.STEP_UP)
    row = factor_proofs.new_challenge(
        user.id, FactorPurpose.STEP_UP, session_id=actor.session_id, origin=page
    )
    return passkeys.authentication_options(page, challenge=row.challenge or "", registered=registered)


def sign_in_options(mfa_token: str, origin: str | None) -> dict[str, Any]:
    """Return the options to prove a passkey at a sign-in.

    Raises 401 `token_invalid`, and 409 `conflict` without a passkey.
    """
    page = allowed_origin(origin)
    user, row = factor_proofs.pending_sign_in(mfa_token)
    registered = _existing(user)
    challenge = factor_proofs.set_options(row, page)
    return passkeys.authentication_options(page, challenge=challenge, registered=registered)


def _existing(user: User) -> Sequence[str]:
    registered = registered_ids(user.id)
    if not registered:
        raise ClinicError("conflict", "You have no passkey. Send a code.")
    return registered
