"""What can go wrong, as values: one exception, one table of stable codes, one table of constraints.

Services raise `ClinicError(code, message)`; `api.endpoint` renders it as RFC 9457 problem details.
"""

from __future__ import annotations

import itertools
from typing import Any

# code -> (HTTP status, title). The codes are part of the API: never rename one.
CODES: dict[str, tuple[int, str]] = {
    # the request could not be read
    "bad_request": (400, "Bad request"),
    "malformed_json": (400, "The body is not valid JSON"),
    "duplicate_member": (400, "The body names a member twice"),
    "too_deep": (400, "The body is nested too deeply"),
    "member_name_too_long": (400, "A member name is too long"),
    "payload_too_large": (413, "The body is too large"),
    "unsupported_media_type": (415, "The body has the wrong media type"),
    # who are you
    "unauthorized": (401, "Sign in first"),
    "token_invalid": (401, "The token is not valid"),
    "token_expired": (401, "The token has expired"),
    "token_revoked": (401, "The session has ended"),
    "invalid_credentials": (401, "Wrong e-mail or password"),
    # you may not
    "forbidden": (403, "Your role may not do this"),
    "account_inactive": (403, "The account is not active"),
    "registration_closed": (403, "Registration is closed"),
    "origin_not_allowed": (403, "The origin is not allowed"),
    # not there
    "not_found": (404, "Not found"),
    "method_not_allowed": (405, "The method is not allowed here"),
    # conflicts with the state of things
    "conflict": (409, "This conflicts with the state of things"),
    "already_exists": (409, "There is one already"),
    "possible_duplicate": (409, "This looks like a patient already on file"),
    "appointment_conflict": (409, "The appointment is not possible"),
    "invalid_transition": (409, "This step is not possible from here"),
    "booked_appointments": (409, "There are booked appointments"),
    "in_use": (409, "Something depends on this"),
    "last_admin": (409, "The last active admin must stay"),
    "read_only": (409, "This can no longer be changed"),
    "insufficient_stock": (409, "There is not enough in stock"),
    "overpayment": (409, "This is more than is owed"),
    "insufficient_credit": (409, "The patient's credit does not suffice"),
    "excessive_refund": (409, "This is more than was paid"),
    "nothing_to_bill": (409, "There is nothing to bill"),
    "safety_alert": (409, "The prescription is not safe as it is"),
    "excessive_dispensing": (409, "This is more than was prescribed"),
    "request_in_progress": (409, "The same request is still running"),
    # preconditions
    "stale_version": (412, "The record has changed since you read it"),
    "if_match_required": (428, "If-Match is needed"),
    # readable but wrong
    "validation_failed": (422, "Some values are wrong"),
    "idempotency_mismatch": (422, "The key was used for another request"),
    # slow down, come back
    "too_many_requests": (429, "Too many requests"),
    "unavailable": (503, "Temporarily unavailable"),
    "internal_error": (500, "Something went wrong on our side"),
}


MAX_ERRORS = 50  # entries of `errors` in one answer
MAX_PATH_PART = 100  # characters of one member name that an error repeats
MAX_PATH = 1_000  # characters of a whole path


class ClinicError(Exception):
    """A refusal the caller can read.

    `code`: a key of `CODES`; `message`: a plain sentence that says what to do, without any value the
    caller may not read; `errors`: field path -> description, the first `MAX_ERRORS` of them;
    `errors_omitted`: the number of the others; `retry_after`: seconds; `members`: further members of the
    problem document, such as the clashes of a refused booking.
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
        self.keeps_work = (
            False  # the refusal itself changed something that must stay, such as ending a session
        )
        self.entity: str | None = None
        self.entity_id: int | None = None
        self.patient_id: int | None = None
        self.shown_patient_ids: tuple[int, ...] = ()  # whom the refusal itself names, for the audit

    def about(self, entity: str | None, entity_id: int | None, patient_id: int | None = None) -> ClinicError:
        """Name the row that was refused, for the audit alone; never shown to the caller."""
        self.entity, self.entity_id, self.patient_id = entity, entity_id, patient_id
        return self


def shorten_path(path: str) -> str:
    """Return a field path in which each name has at most `MAX_PATH_PART` characters."""
    return ".".join(part[:MAX_PATH_PART] for part in path.split("."))[:MAX_PATH]


def invalid(field: str, problem: str) -> ClinicError:
    """A 422 about one field."""
    return ClinicError("validation_failed", f"{field}: {problem}", errors={field: problem})


def not_found(what: str) -> ClinicError:
    """A 404: not there, or not the caller's to see; both read the same."""
    return ClinicError("not_found", f"There is no such {what.replace('_', ' ')}.")


# Constraint name -> (code, field, message). What the database refuses in the end reads as clearly as what
# a service refuses beforehand.
CONSTRAINTS: dict[str, tuple[str, str | None, str]] = {
    "uq_users_email": ("already_exists", "email", "This e-mail address is already registered."),
    "uq_patients_file_number": ("already_exists", "file_number", "This file number is already taken."),
    "uq_doctors_license_number": ("already_exists", "license_number", "This licence number is taken."),
    "uq_doctors_user_id": ("already_exists", "user_id", "This user is already a doctor's."),
    "uq_inventory_items_sku": ("already_exists", "sku", "This SKU is already taken."),
    "uq_allergies_medical_history_id_substance_fold": (
        "already_exists",
        "allergies",
        "This allergen is already recorded.",
    ),
    "uq_inventory_usages_treatment_id_item_id": (
        "already_exists",
        "inventory_items",
        "An item is named twice; name it once with the whole quantity.",
    ),
    "uq_schedule_windows_doctor_id_weekday_start": (
        "already_exists",
        "windows",
        "Two windows of one day begin at the same time.",
    ),
    "ex_schedule_windows_overlap": ("conflict", "windows", "Two windows of one day overlap."),
    "uq_visits_appointment_id": ("conflict", "appointment_id", "This appointment already has a visit."),
    "ex_appointments_doctor": ("appointment_conflict", None, "The doctor already has an appointment then."),
    "ex_appointments_patient": ("appointment_conflict", None, "The patient already has an appointment then."),
    "ck_inventory_items_quantity_not_negative": (
        "insufficient_stock",
        "quantity",
        "There is not enough in stock.",
    ),
    "ck_inventory_lots_quantity_not_negative": (
        "insufficient_stock",
        "quantity",
        "There is not enough of this lot in stock.",
    ),
    "ck_prescribed_medications_dispensed_range": (
        "excessive_dispensing",
        "items",
        "This is more than was prescribed.",
    ),
    "ck_claims_approved_within_claimed": (
        "conflict",
        "approved_amount",
        "Not more than was claimed can be approved.",
    ),
    "ck_claims_paid_within_approved": ("conflict", "paid_amount", "Not more than was approved can be paid."),
}
