"""Permissions: the table of roles and rights. Everything that it does not list is refused with 403.

This module checks the role. The services check if the row belongs to the caller and allows the change.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from enums import Role
from errors import ClinicError

A, D, R, T = Role.ADMIN, Role.DOCTOR, Role.RECEPTIONIST, Role.TECHNICIAN


class Permission(StrEnum):
    """A right. Every method of every route requires exactly one."""

    PUBLIC = "public"  # all callers, signed in or not
    SIGNED_IN = "signed_in"  # all active users, for their own data
    USERS_MANAGE = "users.manage"
    AUDIT_READ = "audit.read"
    METRICS_READ = "metrics.read"
    CLINIC_READ = "clinic.read"
    CLINIC_WRITE = "clinic.write"
    MESSAGES_CONFIGURE = "messages.configure"
    DOCTORS_READ = "doctors.read"
    DOCTORS_WRITE = "doctors.write"
    DOCTORS_MANAGE = "doctors.manage"
    CALENDAR_FEEDS = "calendar_feeds.manage"
    PATIENTS_READ = "patients.read"
    PATIENTS_WRITE = "patients.write"
    PATIENTS_ARCHIVE = "patients.archive"
    HISTORY_READ = "history.read"
    HISTORY_WRITE = "history.write"
    APPOINTMENTS_READ = "appointments.read"
    APPOINTMENTS_WRITE = "appointments.write"
    APPOINTMENTS_OVERBOOK = "appointments.overbook"
    VISITS_READ = "visits.read"
    VISITS_WRITE = "visits.write"
    VISITS_DOCUMENT = "visits.document"
    VISITS_VOID = "visits.void"
    TREATMENTS_READ = "treatments.read"
    TREATMENTS_WRITE = "treatments.write"
    TREATMENTS_ORDER = "treatments.order"
    PRESCRIPTIONS_READ = "prescriptions.read"
    PRESCRIPTIONS_WRITE = "prescriptions.write"
    PRESCRIPTIONS_DISPENSE = "prescriptions.dispense"
    LETTERS_READ = "letters.read"
    LETTERS_WRITE = "letters.write"
    LETTERS_VOID = "letters.void"
    BILLINGS_READ = "billings.read"
    BILLINGS_WRITE = "billings.write"
    REFUNDS_ASK = "refunds.ask"
    BILLINGS_SETTLE = "billings.settle"
    INVENTORY_READ = "inventory.read"
    INVENTORY_WRITE = "inventory.write"
    INVENTORY_RETIRE = "inventory.retire"
    PRICE_LIST_READ = "price_list.read"
    PRICE_LIST_WRITE = "price_list.write"
    ANALYTICS_FINANCE = "analytics.finance"
    ANALYTICS_PERFORMANCE = "analytics.performance"
    ANALYTICS_PATIENTS = "analytics.patients"
    DASHBOARD_READ = "dashboard.read"
    JOBS_MANAGE = "jobs.manage"
    IMPORTS_MANAGE = "imports.manage"
    EMERGENCY_REQUEST = "emergency_access.request"
    EMERGENCY_REVIEW = "emergency_access.review"
    MESSAGES_READ = "messages.read"
    MESSAGES_WRITE = "messages.write"


P = Permission

# The roles of each right. The comments name further checks, which are in the services: "own" means that the
# doctor of the row is the caller, and some roles may change single fields only.
TABLE: dict[Permission, tuple[Role, ...]] = {
    P.PUBLIC: (A, D, R, T),
    P.SIGNED_IN: (A, D, R, T),
    P.USERS_MANAGE: (A,),
    P.AUDIT_READ: (A,),
    P.METRICS_READ: (A,),
    P.CLINIC_READ: (A, D, R, T),
    P.CLINIC_WRITE: (A,),
    P.MESSAGES_CONFIGURE: (A,),  # settings and templates
    P.DOCTORS_READ: (A, D, R, T),
    P.DOCTORS_WRITE: (A, D),  # D: own, but not licence, fee, user_id, is_active
    P.DOCTORS_MANAGE: (A,),
    P.CALENDAR_FEEDS: (A, D),  # D: own
    P.PATIENTS_READ: (A, D, R, T),
    P.PATIENTS_WRITE: (A, D, R),
    P.PATIENTS_ARCHIVE: (A,),
    P.HISTORY_READ: (A, D, T),
    P.HISTORY_WRITE: (A, D),
    P.APPOINTMENTS_READ: (A, D, R, T),
    P.APPOINTMENTS_WRITE: (A, D, R),  # D: own
    P.APPOINTMENTS_OVERBOOK: (A, R),
    P.VISITS_READ: (A, D, R, T),
    P.VISITS_WRITE: (A, D, T),  # D: own; T: vitals of an existing visit
    P.VISITS_DOCUMENT: (A, D),  # D: own; create, sign, add to
    P.VISITS_VOID: (A,),
    P.TREATMENTS_READ: (A, D, R, T),
    P.TREATMENTS_WRITE: (A, D, T),  # D: own; T: status, notes, inventory_items
    P.TREATMENTS_ORDER: (A, D),  # D: own; create, void
    P.PRESCRIPTIONS_READ: (A, D, T),
    P.PRESCRIPTIONS_WRITE: (A, D),  # D: own
    P.PRESCRIPTIONS_DISPENSE: (A, D, T),  # D: own
    P.LETTERS_READ: (A, D, T),  # as the clinical fields of visits
    P.LETTERS_WRITE: (D,),  # own
    P.LETTERS_VOID: (A, D),  # D: own
    P.BILLINGS_READ: (A, D, R),  # D: bills of own visits
    P.BILLINGS_WRITE: (A, R),
    P.REFUNDS_ASK: (A, R),  # R: request only; an admin decides
    P.BILLINGS_SETTLE: (A,),  # decide refunds, write off, void
    P.INVENTORY_READ: (A, D, R, T),
    P.INVENTORY_WRITE: (A, T),
    P.INVENTORY_RETIRE: (A,),
    P.PRICE_LIST_READ: (A, D, R, T),
    P.PRICE_LIST_WRITE: (A,),
    P.ANALYTICS_FINANCE: (A,),
    P.ANALYTICS_PERFORMANCE: (A, D),  # D: own
    P.ANALYTICS_PATIENTS: (A, D),
    P.DASHBOARD_READ: (A, D, R, T),
    P.JOBS_MANAGE: (A,),
    P.IMPORTS_MANAGE: (A,),
    P.EMERGENCY_REQUEST: (A, D, R, T),
    P.EMERGENCY_REVIEW: (A,),  # of the access of another user
    P.MESSAGES_READ: (A, D, R),  # with contact preferences
    P.MESSAGES_WRITE: (A, R),
}
# The rights that emergency access adds, for its patient only.
EMERGENCY_RIGHTS = frozenset({P.HISTORY_READ, P.PRESCRIPTIONS_READ, P.LETTERS_READ})

# Fields of an area that a role may not see: absent in responses, 403 as a filter or sort.
CLINICAL = frozenset(
    {
        "summary",
        "procedure_details",
        "chief_complaint",
        "notes",
        "diagnoses",
        "vitals",
        "prescriptions",
        "addenda",
        "warnings",
    }
)
_OF_INVOICES = frozenset({"bank_details", "tax_number"})
HIDDEN: dict[tuple[str, Role], frozenset[str]] = {
    ("clinic", D): _OF_INVOICES,
    ("clinic", T): _OF_INVOICES,
    ("patient", T): frozenset({"account_balance", "refund_status"}),
    ("patient", D): frozenset({"refund_status"}),  # a filter on refunds that they may not read
    ("patient", R): frozenset({"condition", "allergy"}),  # filters on the medical history
    ("message", D): frozenset({"billing_id"}),  # they read the bills of their own visits only
    ("visit", R): CLINICAL,
    ("visit", T): frozenset({"amount_paid", "balance"}),
    ("treatment", R): frozenset({"notes"}),
    ("treatment", T): frozenset({"billing_id"}),
}
# The same for doctors, in the rows of other doctors: they read the bills of their own visits only.
HIDDEN_OF_OTHERS: dict[str, frozenset[str]] = {
    "visit": frozenset({"amount_paid", "balance", "billing_id"}),
    "treatment": frozenset({"amount_paid", "balance", "billing_id"}),
}
# The hidden fields that emergency access shows, in the rows of its patient only.
EMERGENCY_FIELDS = CLINICAL | {"condition", "allergy"}


@dataclass(frozen=True, slots=True)
class Actor:
    """The caller of a service.

    A signed-in user has a `user_id` and a role. A command has the role admin and no `user_id`. An anonymous
    caller has neither and may do nothing. Limits count the `network`, which is known even if the `address` is
    not. `emergency_patients` are the patients to whose clinical fields the user has emergency access.
    `must_enrol`: the user must set up a second factor before anything else.
    """

    user_id: int | None
    name: str
    role: Role | None
    doctor_id: int | None = None
    session_id: int | None = None
    address: str | None = None
    network: str = "unknown"
    request_id: str | None = None
    must_enrol: bool = False
    emergency_patients: frozenset[int] = frozenset()

    def covered_patients(self, permission: Permission) -> frozenset[int] | None:
        """Return the patients to which a permission is limited. None: no limit, because the role has it."""
        if self.role in TABLE[permission]:
            return None
        return self.emergency_patients if permission in EMERGENCY_RIGHTS else frozenset()

    def may(self, permission: Permission, patient_id: int | None = None) -> bool:
        """Return True if the actor has the permission, for one patient or for any."""
        covered = self.covered_patients(permission)
        if covered is None:
            return True
        return bool(covered) if patient_id is None else patient_id in covered

    def require(
        self,
        permission: Permission,
        message: str = "Your role may not do this.",
        *,
        patient_id: int | None = None,
    ) -> None:
        """Raise 403 `forbidden`, with the roles that have the permission, unless the actor has it."""
        if not self.may(permission, patient_id):
            roles = ", ".join(TABLE[permission])
            raise ClinicError("forbidden", f"{message} Roles with this permission: {roles}.")

    @property
    def reader(self) -> list[Any]:
        """Return the facts that decide which fields the user may read, for storage as JSON."""
        return [self.role, self.doctor_id, *sorted(self.emergency_patients)]

    def may_read_as(self, reader: list[Any] | None) -> bool:
        """Return True if the user may read all that they could with an earlier `reader`, or more."""
        if reader is None:
            return True
        role, doctor_id, *emergency_patients = reader
        same_reader = (role, doctor_id) == (self.role, self.doctor_id)
        return same_reader and self.emergency_patients.issuperset(emergency_patients)

    def owns(self, doctor_id: int | None) -> bool:
        """Return True unless the caller is a doctor and the row belongs to another doctor."""
        return self.role is not Role.DOCTOR or (self.doctor_id is not None and doctor_id == self.doctor_id)

    def require_own(self, doctor_id: int | None) -> None:
        """Raise 403 `forbidden` for a doctor on a row of another doctor. Other roles pass."""
        if not self.owns(doctor_id):
            raise ClinicError("forbidden", "You may change your own records only.")


def hidden(area: str, role: Role | None, *, own: bool = True, emergency: bool = False) -> frozenset[str]:
    """Return the fields of an area that the role may not see: in its own rows, or in those of others.

    `emergency`: the caller has emergency access to the patient of the rows.
    """
    if role is None:
        return frozenset()
    of_others = HIDDEN_OF_OTHERS.get(area, frozenset()) if role is D and not own else frozenset()
    fields = HIDDEN.get((area, role), frozenset()) | of_others
    return fields - EMERGENCY_FIELDS if emergency else fields
