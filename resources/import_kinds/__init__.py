"""The kinds of imports. Each one joins the schema of a creation with the functions of a service."""

from __future__ import annotations

from enums import ImportSubject
from resources.import_kinds.appointments import APPOINTMENTS
from resources.import_kinds.doctors import DOCTORS
from resources.import_kinds.inventory import INVENTORY
from resources.import_kinds.opening_balances import OPENING_BALANCES
from resources.import_kinds.patients import PATIENTS
from resources.import_kinds.price_list import PRICE_LIST
from services.imports.kinds import ImportKind

IMPORT_KINDS: dict[ImportSubject, ImportKind] = {
    kind.name: kind for kind in (PATIENTS, DOCTORS, APPOINTMENTS, INVENTORY, PRICE_LIST, OPENING_BALANCES)
}
