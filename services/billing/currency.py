"""The currency of the ledger. It is stored with the data and cannot change once the ledger has rows."""

from __future__ import annotations

from weakref import WeakKeyDictionary

from sqlalchemy import Engine, exists, select

from config import settings
from database.functions import insert_or_update
from errors import ClinicError
from extensions import db
from models import LedgerCurrency, LedgerEntry

RETRY_AFTER = 60  # seconds; an operator must correct the setting
_recorded: WeakKeyDictionary[Engine, str] = WeakKeyDictionary()  # committed in the database


def record() -> None:
    """Store the currency of the settings with the data. Raise 503 as `check` does.

    A process reads it with its first requests only.
    """
    configured = settings().currency
    if _recorded.get(db.engine) == configured:
        return
    if _stored() == configured:
        _recorded[db.engine] = configured
        return
    check()
    db.session.execute(
        insert_or_update(
            db.session.connection(),
            LedgerCurrency,
            key={"id": 1},
            new={"code": configured},
            changes={"code": configured},
        )
    )


def check() -> None:
    """Raise 503 if the ledger has rows in another currency than that of the settings."""
    stored, configured = _stored(), settings().currency
    if stored in (None, configured) or not db.session.execute(select(exists(LedgerEntry.id))).scalar_one():
        return
    raise ClinicError(
        "unavailable",
        f"CURRENCY is {configured}, but the stored amounts are in {stored}. Set CURRENCY to {stored}.",
        retry_after=RETRY_AFTER,
    )


def _stored() -> str | None:
    return db.session.execute(select(LedgerCurrency.code)).scalar_one_or_none()
