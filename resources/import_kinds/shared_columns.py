"""Columns that several kinds of imports have."""

from __future__ import annotations

from dataclasses import replace

from services.spreadsheets.columns import CellType, ImportColumn

IS_ACTIVE = ImportColumn(
    "is_active", CellType.BOOLEAN, synonyms=("active", "hai", "actif", "activo", "ativo", "نشط")
)
CATEGORY = ImportColumn(
    "category",
    CellType.TEXT,
    synonyms=("group", "department", "class", "kundi", "catégorie", "categoría", "categoria", "الفئة"),
)
DESCRIPTION = ImportColumn(
    "description",
    CellType.TEXT,
    synonyms=("details", "notes", "maelezo", "descripción", "descrição", "الوصف"),
)
PHONE = ImportColumn(
    "phone",
    CellType.PHONE,
    synonyms=(
        *("phone number", "telephone", "tel", "mobile", "mobile number", "cell", "cell phone", "contact"),
        *("simu", "namba ya simu", "téléphone", "portable", "teléfono", "móvil", "celular", "telefone"),
        *("telemóvel", "الهاتف", "رقم الهاتف", "الجوال"),
    ),
)
EMAIL = ImportColumn(
    "email",
    CellType.EMAIL,
    synonyms=(
        *("e-mail", "email address", "mail", "barua pepe", "courriel", "adresse e-mail"),
        *("correo", "correo electrónico", "correio eletrónico", "البريد الإلكتروني"),
    ),
)
FILE_NUMBER = ImportColumn(
    "file_number",
    CellType.CODE,
    synonyms=(
        *("file no", "file", "patient number", "patient no", "patient id", "mrn", "chart number"),
        *("card number", "card no", "hospital number", "namba ya faili", "namba ya mgonjwa"),
        *("numéro de dossier", "dossier", "número de expediente", "expediente", "historia clínica"),
        *("número do processo", "prontuário", "رقم الملف"),
    ),
)
LICENSE_NUMBER = ImportColumn(
    "license_number",
    CellType.CODE,
    required=True,
    synonyms=(
        *("licence number", "licence", "license", "license no", "licence no", "registration number"),
        *("namba ya leseni", "leseni", "numéro de licence", "numéro d'ordre", "número de licencia"),
        *("matrícula", "colegiado", "número de licença", "crm", "رقم الترخيص"),
    ),
)


def as_reference(column: ImportColumn, name: str, *synonyms: str) -> ImportColumn:
    """Return a column that names another row by this member. Its first name becomes a synonym."""
    return replace(column, name=name, required=False, synonyms=(column.name, *column.synonyms, *synonyms))
