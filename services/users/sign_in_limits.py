"""Limits of sign-ins and password checks: counters of failures, the queue of hashes, the audit of blocks.

The checks of a second factor have limits too: a code has six digits only.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from datetime import datetime

from cache.attempts import Attempt, BlockedError, Counter, attempts
from cache.rate_limits import limits
from column_types import unique_key
from config import settings
from errors import ClinicError
from security.key_rings import ring
from security.password_queue import Group, password_queue
from services.users.blocked_attempts import BlockedAction

# NIST SP 800-63B section 3.2.2 allows at most 100 consecutive failures for an account.
FACTOR_RATE = "100 per day"


@dataclass(frozen=True)
class Check:
    """The limits of one check of a password or a second factor.

    `group` is its group in the queue of hashes. Failures before `unlocked_at` are ignored.
    """

    blocked: BlockedAction
    group: Group
    counters: Sequence[Counter]
    unlocked_at: datetime | None = None


def of_sign_in(
    email: str,
    network: str,
    *,
    user_id: int | None,
    device_id: str | None,
    unlocked_at: datetime | None,
) -> Check:
    """Return the limits of a sign-in.

    A device on which the user has signed in before has a counter of its own. So failures elsewhere never
    block it.
    """
    by_account = settings().rate_limit_login_account
    blocked = BlockedAction("login", user_id)
    if device_id is not None:
        counter = Counter(by_account, ("device", device_id), "login-account")
        return Check(blocked, Group(f"device {device_id}", is_known=True), [counter], unlocked_at)
    account = _account_key(user_id, email)
    counters = (
        Counter(by_account, ("account-network", account, network), "login-account"),
        Counter(by_account, ("account", account), "login-delay", slows_down=True),
        Counter(settings().rate_limit_login_address, ("network", network), "login-network"),
    )
    return Check(blocked, Group(network), counters, unlocked_at)


def of_second_factor(
    user_id: int, network: str, *, device_id: str | None, unlocked_at: datetime | None
) -> Check:
    """Return the limits of the second step of a sign-in: those of the first step, and a limit for each day.

    Without the last one, many networks could guess a code slowly.
    """
    check = of_sign_in("", network, user_id=user_id, device_id=device_id, unlocked_at=unlocked_at)
    key = ("factor", str(user_id)) if device_id is None else ("factor-device", device_id)
    return replace(check, counters=[*check.counters, Counter(FACTOR_RATE, key, "second-factor")])


def of_step_up(user_id: int) -> Check:
    """Return the limits of proofs in a session. A stolen session cannot block the sign-in of its user."""
    counters = (
        Counter(settings().rate_limit_login_account, ("step-up", str(user_id)), "step-up"),
        Counter(FACTOR_RATE, ("step-up-day", str(user_id)), "second-factor"),
    )
    return Check(BlockedAction("step_up", user_id), queue_group(user_id), counters)


def of_password_change(user_id: int) -> Check:
    """Return the limits of a password change: the failures of the signed-in user."""
    counter = Counter(
        settings().rate_limit_login_account, ("change-password", str(user_id)), "change-password"
    )
    return Check(BlockedAction("change_password", user_id), queue_group(user_id), [counter])


def queue_group(user_id: int | None) -> Group:
    """Return the group of a signed-in user in the queue of hashes."""
    return Group(f"user {user_id}", is_known=True)


def _account_key(user_id: int | None, email: str) -> str:
    """Return the id of the user: all spellings of the e-mail address count together.

    Without an account it is a keyed hash of the address, because Redis stores the key.
    """
    if user_id is not None:
        return str(user_id)
    key, account = ring("JWT_SECRET_KEY").current, f"account\n{unique_key(email)}"
    return hmac.digest(key.secret, account.encode(), "sha256").hex()


@contextmanager
def counted(check: Check, *, hashes: bool = True) -> Iterator[Attempt]:
    """Wait for a turn to hash, and count a failure until the block sets `succeeded` or `withdrawn`.

    Raises 429 `too_many_requests` if there were too many failures, and 503 `unavailable` while too many
    hashes wait, which counts nothing. Without `hashes` the block needs no turn.
    """
    since = check.unlocked_at.timestamp() if check.unlocked_at else 0
    turn = password_queue.turn(check.group) if hashes else nullcontext()
    try:
        attempts.check(check.counters, since=since)
        with turn, attempts.count(check.counters, since=since) as attempt:
            yield attempt
    except BlockedError as blocked:
        raise _refusal(check.blocked, blocked.seconds) from None


def _refusal(blocked: BlockedAction, seconds: int | None) -> ClinicError:
    if seconds is None:
        return ClinicError("unavailable", "Other sign-ins are still running. Try again.", retry_after=1)
    return refuse(blocked, "Too many failed attempts; try again later.", seconds)


def refuse(blocked: BlockedAction, message: str, seconds: int) -> ClinicError:
    """Return a 429 `too_many_requests`, which is audited once a minute."""
    refusal = ClinicError("too_many_requests", message, retry_after=seconds)
    refusal.blocked_action = blocked.action
    return refusal.about("user", blocked.user_id)


def count_registration(network: str) -> None:
    """Count a registration of the network. Raises 429 `too_many_requests`."""
    wait = limits.hit(settings().rate_limit_register, "register", network, policy="register")
    if wait is not None:
        raise refuse(BlockedAction("register", None), "Too many registrations; try again later.", wait)


def count_reset(token_digest: str, user_id: int) -> None:
    """Count a use of a genuine one-time token. Raises 429 `too_many_requests` if it is used in parallel."""
    rate = settings().rate_limit_login_account
    wait = limits.hit(rate, "reset-password", token_digest, policy="reset-password")
    if wait is not None:
        message = "This one-time token is used too often; try again later."
        raise refuse(BlockedAction("reset_password", user_id), message, wait)
