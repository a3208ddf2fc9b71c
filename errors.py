"""The errors of the API: one exception, the table of its codes, and the table of database constraints.

Services raise `ClinicError(code, message)`. `api.problem_details` renders it as RFC 9457 problem details.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

# Code -> (HTTP status, title). The codes are part of the API: do not rename one.
CODES: dict[str, tuple[int, str]] = {
    # the request cannot be parsed
    "bad_request": (400, "Bad request"),
    "malformed_json": (400, "The body is not valid JSON"),
    "duplicate_member": (400, "The body contains a member twice"),
    "too_deep": (400, "The body is nested too deeply"),
    "member_name_too_long": (400, "A member name is too long"),
    "payload_too_large": (413, "The body is too large"),
    "unsupported_media_type": (415, "The media type is not supported"),
    # authentication
    "unauthorized": (401, "Sign in first"),
    "token_invalid": (401, "The token is not valid"),
    "token_expired": (401, "The token has expired"),
    "token_revoked": (401, "The session has ended"),
    "invalid_credentials": (401, "Wrong e-mail or password"),
    "invalid_code": (401, "Wrong second factor"),
    # authorization
    "forbidden": (403, "Your role does not have this permission"),
    "account_inactive": (403, "The account is not active"),
    "registration_closed": (403, "Registration is closed"),
    "origin_not_allowed": (403, "The origin is not allowed"),
    "step_up_required": (403, "Confirm with your second factor"),
    "mfa_enrolment_required": (403, "Set up a second factor first"),
    # routes and rows
    "not_found": (404, "Not found"),
    "method_not_allowed": (405, "The method is not allowed"),
    # conflicts with the current state
    "conflict": (409, "Conflict with the current state"),
    "already_exists": (409, "The value already exists"),
    "possible_duplicate": (409, "A similar patient is already registered"),
    "appointment_conflict": (409, "The appointment is not possible"),
    "invalid_transition": (409, "The status cannot change in this way"),
    "booked_appointments": (409, "There are booked appointments"),
    "in_use": (409, "The record is in use"),
    "patient_inactive": (409, "The patient is archived or deceased"),
    "last_admin": (409, "The last active administrator cannot be removed"),
    "read_only": (409, "The record is read-only"),
    "insufficient_stock": (409, "The stock is not sufficient"),
    "overpayment": (409, "The amount is above the balance"),
    "insufficient_credit": (409, "The credit of the patient is not sufficient"),
    "excessive_refund": (409, "The refund is above the paid amount"),
    "nothing_to_bill": (409, "There is nothing to bill"),
    "safety_alert": (409, "The prescription has safety alerts"),
    "excessive_dispensing": (409, "The quantity is above the prescribed quantity"),
    "already_done": (409, "The request was already done"),
    "request_in_progress": (409, "The same request is still running"),
    # preconditions
    "stale_version": (412, "The record has changed since you read it"),
    "if_match_required": (428, "If-Match is required"),
    # validation
    "validation_failed": (422, "Some values are wrong"),
    "unprintable_characters": (422, "No font has some characters"),
    "too_many_rows": (422, "The list has too many rows"),
    "idempotency_mismatch": (422, "The idempotency key belongs to another request"),
    # files of an import
    "unsupported_file": (422, "The kind of file is not supported"),
    "unreadable_file": (422, "The file is damaged"),
    "unknown_encoding": (422, "The encoding of the file is not known"),
    "unknown_delimiter": (422, "The delimiter of the file is not known"),
    "unbalanced_quotes": (422, "The quotation marks of the file do not match"),
    "no_rows": (422, "The file has no rows"),
    "too_many_columns": (422, "There are too many columns"),
    "merged_header": (422, "The header has merged cells"),
    "duplicate_columns": (422, "A column name occurs twice"),
    "unnamed_columns": (422, "A column has values but no name"),
    # limits and availability
    "too_many_requests": (429, "Too many requests"),
    "unavailable": (503, "Temporarily unavailable"),
    "internal_error": (500, "Internal error"),
}


MAX_ERRORS = 50  # entries of `errors` in one response
MAX_PATH_PART = 100  # characters of one name in a field path
MAX_PATH = 1_000  # characters of a field path


class ClinicError(Exception):
    """An error that the caller may read.

    - `code`: a key of `CODES`.
    - `message`: a plain sentence that says what to do. It contains no value that the caller may not read.
    - `errors`: field path -> description, at most `MAX_ERRORS`.
    - `errors_omitted`: the number of further errors.
    - `retry_after`: seconds.
    - `members`: further members of the problem details, such as the conflicts of a refused booking.
    - `commits_changes`: the request has changed rows that must be committed, such as an ended session.
    - `blocked_action`: the sign-in or similar action that too many failures block, for the audit log.
    - `entity`, `entity_id`, `patient_id`, `shown_patient_ids`: the refused row, and the patients that
      the error shows to the caller. They are for the audit log only.
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        errors: dict[str, str] | None = None,
        errors_omitted: int = 0,
        retry_after: int | None = None,
        **members: Any,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.status, self.title = CODES[code]
        self.message = message
        first = itertools.islice((errors or {}).items(), MAX_ERRORS)
        self.errors = {shorten_path(field): problem for field, problem in first}
        self.errors_omitted = errors_omitted + max(0, len(errors or {}) - MAX_ERRORS)
        self.retry_after = retry_after
        self.members = members
        self.commits_changes = False
        self.blocked_action: str | None = None
        self.entity: str | None = None
        self.entity_id: int | None = None
        self.patient_id: int | None = None
        self.shown_patient_ids: tuple[int, ...] = ()

    def about(self, entity: str | None, entity_id: int | None, patient_id: int | None = None) -> ClinicError:
        """Set the refused row for the audit log and return the error. The caller does not see the row."""
        self.entity, self.entity_id, self.patient_id = entity, entity_id, patient_id
        return self


def shorten_path(path: str) -> str:
    """Return a field path in which each name has at most `MAX_PATH_PART` characters."""
    return ".".join(part[:MAX_PATH_PART] for part in path.split("."))[:MAX_PATH]


def invalid(field: str, problem: str) -> ClinicError:
    """Return a 422 `validation_failed` for one field."""
    return ClinicError("validation_failed", f"{field}: {problem}", errors={field: problem})


@contextmanager
def within(path: str) -> Iterator[None]:
    """Put the fields of an error that the block raises below a member of the body, such as `treatments.0`."""
    try:
        yield
    except ClinicError as error:
        error.errors = {shorten_path(f"{path}.{field}"): problem for field, problem in error.errors.items()}
        raise


def not_found(entity: str) -> ClinicError:
    """Return a 404. It is the same for a row that does not exist and one that the caller may not read."""
    return ClinicError("not_found", f"There is no such {entity.replace('_', ' ')}.")


# Constraint name -> (code, field, message). A violation that only the database detects gets the same kind of
# message as one that a service detects.
CONSTRAINTS: dict[str, tuple[str, str | None, str]] = {
    **dict.fromkeys(
        ("uq_users_email", "uq_users_email_key"),
        ("already_exists", "email", "This e-mail address is already registered."),
    ),
    **dict.fromkeys(
        ("uq_patients_file_number", "uq_patients_file_number_key"),
        ("already_exists", "file_number", "This file number is already in use."),
    ),
    **dict.fromkeys(
        ("uq_doctors_license_number", "uq_doctors_license_number_key"),
        ("already_exists", "license_number", "This licence number is already in use."),
    ),
    "uq_doctors_user_id": ("already_exists", "user_id", "This user already belongs to a doctor."),
    **dict.fromkeys(
        ("uq_inventory_items_sku", "uq_inventory_items_sku_key"),
        ("already_exists", "sku", "This SKU is already in use."),
    ),
    "uq_price_list_items_code_key": ("already_exists", "code", "This code is already in use."),
    "uq_allergies_medical_history_id_substance_fold": (
        "already_exists",
        "allergies",
        "This allergen is already recorded.",
    ),
    "uq_inventory_usages_treatment_id_item_id": (
        "already_exists",
        "inventory_items",
        "An item occurs twice. Send it once with the total quantity.",
    ),
    "uq_message_templates_kind_channel_locale": (
        "conflict",
        None,
        "Another user has changed this template at the same time. Read it again.",
    ),
    "uq_schedule_windows_doctor_id_weekday_start": (
        "already_exists",
        "windows",
        "Two windows of one day start at the same time.",
    ),
    "ex_schedule_windows_overlap": ("conflict", "windows", "Two windows of one day overlap."),
    "uq_passkeys_credential_id": (
        "already_exists",
        "credential",
        "This passkey is already registered.",
    ),
    "uq_visits_appointment_id": ("conflict", "appointment_id", "This appointment already has a visit."),
    "ex_appointments_doctor": (
        "appointment_conflict",
        None,
        "The doctor already has an appointment at this time.",
    ),
    "ex_appointments_patient": (
        "appointment_conflict",
        None,
        "The patient already has an appointment at this time.",
    ),
    "ck_inventory_items_quantity_not_negative": (
        "insufficient_stock",
        "quantity",
        "The stock is not sufficient.",
    ),
    "ck_inventory_lots_quantity_not_negative": (
        "insufficient_stock",
        "quantity",
        "The stock of this lot is not sufficient.",
    ),
    "ck_prescribed_medications_dispensed_range": (
        "excessive_dispensing",
        "items",
        "The quantity is above the prescribed quantity.",
    ),
    "ck_claims_approved_within_claimed": (
        "conflict",
        "approved_amount",
        "The approved amount must not be above the claimed amount.",
    ),
    "ck_claims_paid_within_approved": (
        "conflict",
        "paid_amount",
        "The paid amount must not be above the approved amount.",
    ),
}
