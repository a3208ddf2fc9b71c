"""The types of events: the entity and the past tense of the audit action, such as `appointment.booked`."""

from __future__ import annotations

from collections.abc import Collection

PAST_TENSE = {
    "activate": "activated",
    "addendum": "addendum_added",
    "archive": "archived",
    "begin": "begun",
    "cancel": "cancelled",
    "change_password": "password_changed",
    "check_in": "checked_in",
    "complete": "completed",
    "confirm": "confirmed",
    "create": "created",
    "deactivate": "deactivated",
    "delete": "deleted",
    "deliver": "delivered",
    "dispense": "dispensed",
    "grant": "granted",
    "fail": "failed",
    "issue_reset": "password_reset_issued",
    "login": "signed_in",
    "lose": "lost",
    "no_show": "missed",
    "pay": "paid",
    "reassign": "moved",
    "refund": "refunded",
    "register": "registered",
    "reject_refund": "refund_rejected",
    "reopen": "reopened",
    "request_refund": "refund_requested",
    "reschedule": "moved",
    "reset_password": "password_reset",
    "restore": "restored",
    "retry": "retried",
    "review": "reviewed",
    "send": "sent",
    "sign": "signed",
    "start": "started",
    "stop": "stopped",
    "suppress": "suppressed",
    "unlock": "unlocked",
    "unsubscribe": "unsubscribed",
    "update": "updated",
    "void": "voided",
    "write_off": "written_off",
}
OWN_WORDS = {("appointment", "create"): "booked", ("billing", "create"): "issued"}
# Actions that name how something was done. The changed fields tell what was done, the first one that matches.
QUALIFIERS = ("overbook", "override")
DONE_BY_FIELD = (
    ("appointment", "start", "reschedule"),
    ("appointment", "doctor_id", "reassign"),
    ("appointment", "status", "complete"),
    ("prescription", "dispensings", "dispense"),
)


def event_type(entity: str, change: str, action: str, fields: Collection[str]) -> str:
    """Return the type of the event of a change. `action` is that of the audit entry."""
    if action in QUALIFIERS:
        action = change
        if change == "update":
            done = (done for of, name, done in DONE_BY_FIELD if of == entity and name in fields)
            action = next(done, change)
    return f"{entity}.{OWN_WORDS.get((entity, action)) or PAST_TENSE.get(action, action)}"
