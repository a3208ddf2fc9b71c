"""The import of opening balances. The patient is named by identifiers."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import select

from enums import ImportSubject
from extensions import db
from models import Billing, LedgerEntry, Patient
from resources.import_kinds.members import validated
from resources.import_kinds.references import PATIENT
from resources.import_kinds.shared_columns import DESCRIPTION
from schemas.billing import OpeningBalanceIn
from security.permissions import Actor
from services.billing import opening_balances
from services.imports.kinds import ImportKind, ImportRow
from services.rows import lock_rows
from services.spreadsheets.columns import CellType, ImportColumn

COLUMNS = (
    *PATIENT.columns,
    ImportColumn(
        "amount",
        CellType.MONEY,
        required=True,
        synonyms=(
            *("balance", "amount due", "balance due", "opening balance", "outstanding", "debt", "owed"),
            *("salio", "deni", "solde", "montant", "saldo", "importe", "monto", "valor", "الرصيد", "المبلغ"),
        ),
    ),
    ImportColumn(
        "date",
        CellType.DATE,
        required=True,
        synonyms=(
            *("as of", "balance date", "invoice date", "due date", "tarehe", "fecha", "data", "التاريخ"),
            *("date du solde",),
        ),
    ),
    ImportColumn(
        "reference",
        CellType.CODE,
        synonyms=(
            *("invoice", "invoice number", "invoice no", "receipt", "bill", "kumbukumbu", "référence"),
            *("facture", "factura", "referencia", "referência", "fatura", "المرجع"),
        ),
    ),
    replace(DESCRIPTION, synonyms=(*DESCRIPTION.synonyms, "libellé")),
    ImportColumn("currency", CellType.CODE, synonyms=("sarafu", "devise", "moneda", "moeda", "العملة")),
)


def _validate(members: Mapping[str, Any]) -> dict[str, Any]:
    """Return the members of the balance, and the identifiers of `patient`."""
    values = dict(members)
    identifiers = PATIENT.take(values)
    return validated(OpeningBalanceIn, values).model_dump() | {"patient": identifiers}


def _create(actor: Actor, row: ImportRow) -> LedgerEntry:
    values = {name: value for name, value in row.values.items() if name != "patient"}
    return opening_balances.create(actor, patient_id=PATIENT.find(row), **values)


def _undo_create(actor: Actor, entry: LedgerEntry) -> None:
    opening_balances.reverse(actor, entry, "the import was undone")


def _lock(rows: Sequence[ImportRow]) -> None:
    lock_rows(Patient, PATIENT.find_all(rows))


def _lock_created(ids: Collection[int]) -> Mapping[int, LedgerEntry]:
    """Lock patients, then bills. Ledger entries never change, and the server may not lock them."""
    entries = db.session.scalars(select(LedgerEntry).where(LedgerEntry.id.in_(ids))).all()
    lock_rows(Patient, (entry.patient_id for entry in entries))
    lock_rows(Billing, (entry.billing_id for entry in entries if entry.billing_id is not None))
    return {entry.id: entry for entry in entries}


def _versions(ids: Collection[int]) -> dict[int, int]:
    return opening_balances.versions(ids)


def _find_used(ids: Collection[int]) -> Iterable[int]:
    return opening_balances.spent(ids)


OPENING_BALANCES = ImportKind(
    name=ImportSubject.OPENING_BALANCES,
    model=LedgerEntry,
    columns=COLUMNS,
    validate=_validate,
    create=_create,
    undo_create=_undo_create,
    lock=_lock,
    lock_created=_lock_created,
    versions=_versions,
    find_used=_find_used,
)
