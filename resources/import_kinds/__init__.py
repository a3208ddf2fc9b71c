"""The kinds of imports. Each one joins the schema of a creation with the functions of a service."""

from __future__ import annotations

from enums import ImportSubject
from resources.import_kinds.doctors import DOCTORS
from resources.import_kinds.patients import PATIENTS
from services.spreadsheets.kinds import ImportKind

IMPORT_KINDS: dict[ImportSubject, ImportKind] = {kind.name: kind for kind in (PATIENTS, DOCTORS)}
